"""The recipes of `dendrite-zoo fit`: YAML files that come with the package and are found by name."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jsonargparse import get_loader

from dendrite_zoo._core.names import nearest
from dendrite_zoo.cli.recipe_tasks import options_of_tasks


def recipes() -> dict[str, Path]:
    """The file of each recipe of the package, by its name.

    Example:
        >>> recipes()["permuted-digits"].name
        'permuted-digits.yaml'
    """
    return {path.stem: path for path in sorted(Path(str(files("dendrite_zoo") / "configs")).glob("*.yaml"))}


def describe(recipe: Path) -> str:
    """What a recipe trains: its first line, a comment.

    Example:
        >>> describe(recipes()["permuted-digits"])
        "The zoo's smallest model: ten permutations of scikit-learn's digits, one after another."
    """
    return recipe.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()


def find(config: str) -> str:
    """The path of a recipe.

    Args:
        config: the name of a recipe of the package, the path of a YAML file, or a URL.

    Raises:
        FileNotFoundError: it is none of them; the message offers the nearest name.
        ValueError: the file is no YAML, or holds no options.
    """
    known = recipes()
    if Path(config).is_file():
        _check_options(config)
        return config
    if "://" in config:
        return config
    if config in known:
        return str(known[config])
    raise FileNotFoundError(
        f"Expected `--config` to be the name of a recipe or the path of a YAML file, but got {config!r}."
        f"{nearest(Path(config).stem, known)} See all recipes: dendrite-zoo fit --config list"
    )


def _check_options(file: str) -> None:
    """Name the file that is no YAML of options, which jsonargparse does not."""
    try:
        value = get_loader("yaml")(Path(file).read_text(encoding="utf-8"))
    except Exception as error:  # of the parser or of the decoder
        raise ValueError(f"Expected {file} to be YAML, but got: {' '.join(str(error).split())}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"Expected {file} to hold options such as `model:` and `data:`, but got {value!r:.60}.")


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace a recipe's name by its path, ``--resume FOLDER`` by the options that resume the run, and ``--tasks``.

    Recipes come first, and that of a run before all others, so that what else is typed holds wherever it stands.

    Args:
        arguments: as typed after ``dendrite-zoo``.

    Raises:
        FileNotFoundError: there is no such recipe, or no such run.
        ValueError: the recipe has no tasks that could be others.

    Example:
        >>> expand(["fit", "--name", "mine", "--config=permuted-digits"])[3:]
        ['--name', 'mine']
    """
    words, tasks = iter(arguments), None
    command, configs, options = [next(words, "")], list[str](), list[str]()
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("-c", "--config"):
            configs += ["--config", find(value if equals else next(words, ""))]
        elif option == "--tasks":
            tasks = value if equals else next(words, "")
        elif option == "--resume":
            config = _config_of(value if equals else next(words, ""))
            configs[:0] = ["--config", str(config)]
            options += ["--name", os.path.relpath(config.parent, "runs"), "--ckpt_path", "last"]
        else:
            options.append(word)
    if tasks is not None and configs:
        configs += options_of_tasks(tasks, configs[1])
    return [*filter(None, command), *configs, *options]


def _config_of(run: str) -> Path:
    """The config of a run, which is its folder or its name."""
    configs = [Path(run, "config.yaml"), Path("runs", run, "config.yaml")]
    if found := next((config for config in configs if config.is_file()), None):
        return found
    near = nearest(str(configs[1].parent), [str(config.parent) for config in Path("runs").glob("*/config.yaml")])
    raise FileNotFoundError(f"Expected `--resume` to be the folder of a run, but there is no {configs[0]}.{near}")
