"""The recipes of `dendrite-zoo fit`: YAML files that come with the package and are found by name."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from dendrite_zoo._core.names import nearest


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
    """
    known = recipes()
    if Path(config).is_file() or "://" in config:
        return config
    if config in known:
        return str(known[config])
    raise FileNotFoundError(
        f"Expected `--config` to be the name of a recipe or the path of a YAML file, but got {config!r}."
        f"{nearest(Path(config).stem, known)} See all recipes: dendrite-zoo fit --config list"
    )


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace a recipe's name by its path, and ``--resume FOLDER`` by the options that resume the run.

    Args:
        arguments: as typed after ``dendrite-zoo``.

    Raises:
        FileNotFoundError: there is no such recipe, or no such run.

    Example:
        >>> expand(["fit", "--config=permuted-digits", "--name", "mine"])[3:]
        ['--name', 'mine']
    """
    words, expanded = iter(arguments), list[str]()
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("-c", "--config"):
            expanded += ["--config", find(value if equals else next(words, ""))]
        elif option == "--resume":
            run = Path(value if equals else next(words, ""))
            if not (config := run / "config.yaml").is_file():
                raise FileNotFoundError(f"Expected `--resume` to be the folder of a run, but there is no {config}.")
            expanded += ["--config", str(config), "--name", os.path.relpath(run, "runs"), "--ckpt_path", "last"]
        else:
            expanded.append(word)
    return expanded
