"""What a user installs: every module and data file, under one name, beside folders of their own."""

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import dendrite_zoo

ROOT = Path(__file__).parents[1]
FOLDERS = {  # folder of the repository -> where it is installed
    "dendrite_zoo": "dendrite_zoo",
    "callbacks": "dendrite_zoo/callbacks",
    "lightning_modules": "dendrite_zoo/lightning_modules",
    "model_cards": "dendrite_zoo/model_cards",
}
LINKS = sorted(set(FOLDERS) - {"dendrite_zoo"})
"""Links inside the package to these folders, for tools alone: what is installed never goes through them."""
SUBPACKAGES = sorted(
    ".".join(file.parent.relative_to(ROOT / "dendrite_zoo").parts)
    for file in ROOT.glob("dendrite_zoo/**/__init__.py")
    if file.parent != ROOT / "dendrite_zoo"
)
SUBPACKAGES = sorted({*SUBPACKAGES, *LINKS})  # Python 3.13 does not follow links in a glob
HEAVY = ["lightning", "pytorch_lightning", "huggingface_hub", "matplotlib", "metaworld"]


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Run this interpreter in `cwd`, `path` being searched first, and give what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of(folder: Path) -> set[str]:
    """The files below `folder` that anyone would ship: no links, and large weights are published instead."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        file.as_posix()
        for file in files
        if file.parts[0] not in LINKS
        and file.parent.name != "__pycache__"
        and file.name[0] != "."
        and not file.match("permuted-mnist-100/*.safetensors")
    }


def copy_of_the_tree(folder: Path) -> Path:
    """The repository as a clone has it, links as links."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "runs")
    return shutil.copytree(ROOT, folder / "tree", ignore=left_out, symlinks=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A copy of the repository, and a folder with the sdist and the wheel that is built from the sdist.

    The copy is without what earlier builds left behind. A checkout on a system without symlinks has text files in
    their place.
    """

    @functools.cache
    def build(links: str) -> tuple[Path, Path]:
        tree, dist = copy_of_the_tree(tmp_path_factory.mktemp("tree")), tmp_path_factory.mktemp("dist")
        for name in LINKS:
            link = tree / "dendrite_zoo" / name
            assert link.readlink() == Path("..", name)
            if links != "links":
                link.unlink()
                link.write_text(f"../{name}")
        python("-m", "build", "--no-isolation", "--outdir", str(dist), str(tree), cwd=dist)
        return tree, dist

    return build


@pytest.fixture(scope="session")
def site(built: Callable[[str], tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder by itself."""
    site, (_, dist) = tmp_path_factory.mktemp("site"), built("links")
    [wheel] = dist.glob("*.whl")
    install = "-m pip install --quiet --no-deps --no-index --target".split()
    python(*install, str(site), str(wheel), cwd=dist)
    return site


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A user's working directory, with packages of our folders' names."""
    for name in ("callbacks", "lightning_modules", "model_cards", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('OWNER = "user"\n')
    return tmp_path


@pytest.mark.parametrize("links", ["links", "links as text files"])
def test_wheel_and_sdist_hold_the_whole_tree(links: str, built: Callable[[str], tuple[Path, Path]]) -> None:
    """A package forgotten in pyproject.toml, or a data file without a pattern, is missing here."""
    tree, dist = built(links)
    expected = {f"{home}/{file}" for folder, home in FOLDERS.items() for file in files_of(tree / folder)}
    [wheel] = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert "dendrite_zoo/py.typed" in names
    [sdist] = dist.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    for folder in (*FOLDERS, "tests"):
        assert {f"{folder}/{file}" for file in files_of(tree / folder)} <= names
    assert not {name for name in names if name.startswith(tuple(f"dendrite_zoo/{name}" for name in LINKS))}
    assert {"pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "NOTICE", "README.md", ".ci/run"} <= names
    weights = {name for name in names if name.endswith(".safetensors")}
    assert all(name.startswith((*FOLDERS, "tests/")) for name in weights), "a build and the tests need no others"
    records = {
        file.relative_to(tree).as_posix() for file in tree.glob("results/**/*.json") if file.name != "config.json"
    }
    assert records <= names, "which pages and cards are made of"


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dendrite_zoo.__version__ == importlib.metadata.version("dendrite-zoo")
    assert f"## [{dendrite_zoo.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_nothing_is_injected_into_every_trainer() -> None:
    distribution = importlib.metadata.distribution("dendrite-zoo")
    assert [(entry.group, entry.name) for entry in distribution.entry_points] == [("console_scripts", "dendrite-zoo")]


OWNERS = """
import callbacks, lightning_modules, model_cards
from importlib.util import find_spec
assert {callbacks.OWNER, lightning_modules.OWNER, model_cards.OWNER} == {"user"}
print(find_spec("dendrite_zoo").origin)
"""
PLACES = f"""
print(*(find_spec("dendrite_zoo." + name).origin for name in {SUBPACKAGES}))
"""
MODULES = """
import importlib.resources, pkgutil, dendrite_zoo
print(importlib.resources.files("dendrite_zoo.model_cards") / "registry.json")
modules = pkgutil.walk_packages(dendrite_zoo.__path__, "dendrite_zoo.")
print(*(importlib.import_module(module.name).__name__ for module in modules))
"""
COMMAND = """
import sys
from importlib.metadata import entry_points
sys.argv = ["dendrite-zoo", "--help"]
entry_points(group="console_scripts", name="dendrite-zoo")["dendrite-zoo"].load()()
"""


@pytest.mark.parametrize("how", ["-c", "script", "-m"])
def test_a_users_own_folders(how: str, workplace: Path, site: Path) -> None:
    """`import callbacks` is the user's and `dendrite_zoo` is ours, however Python was started."""
    (workplace / "train.py").write_text(OWNERS)
    arguments = {"-c": ["-c", OWNERS], "script": ["train.py"], "-m": ["-m", "train"]}[how]
    assert Path(python(*arguments, cwd=workplace, path=site).strip()) == site / "dendrite_zoo/__init__.py"


def test_the_wheel_beside_a_users_own_folders(workplace: Path, site: Path) -> None:
    """Where its packages come from, that every module imports, and the command."""
    script = OWNERS + PLACES + MODULES + COMMAND
    _, places, registry, modules, shown = python("-c", script, cwd=workplace, path=site).split("\n", 4)
    assert len(places.split()) == len(SUBPACKAGES)
    assert all(Path(place).is_relative_to(site) for place in places.split())
    assert Path(registry) == site / "dendrite_zoo/model_cards/registry.json"
    expected = {"dendrite_zoo.callbacks", "dendrite_zoo.lightning_modules.continual", "dendrite_zoo.cli.main"}
    assert expected <= set(modules.split())
    assert "demo" in shown


def test_a_checkout_beside_a_users_own_folders(workplace: Path) -> None:
    (workplace / "train.py").write_text(OWNERS + PLACES + COMMAND)
    _, places, shown = python("-m", "train", cwd=workplace).split("\n", 2)
    assert len(places.split()) == len(SUBPACKAGES) and "demo" in shown
    assert not any(Path(place).is_relative_to(workplace) for place in places.split())


def test_import_is_light_and_finds_its_own_at_the_repositorys_root() -> None:
    """There `callbacks` is importable by its bare name too; the package does not care."""
    code = """
import sys, dendrite_zoo
from importlib.util import find_spec
print(find_spec("dendrite_zoo.callbacks").origin, *sys.modules)
import dendrite_zoo.hub.publish, dendrite_zoo.report, dendrite_zoo.rl
print(*sys.modules)
"""
    (place, *loaded), with_rl = map(str.split, python("-c", code, cwd=ROOT).splitlines())
    assert Path(place).resolve() == ROOT / "callbacks/__init__.py"
    assert "torch" in loaded
    assert not set(HEAVY) & set(loaded)
    # torchmetrics brings scipy and matplotlib along where they are installed; each process of environments would wait
    assert not {"metaworld", "mujoco", "gymnasium", "lightning", "torchmetrics"} & set(with_rl)


def test_the_front_door() -> None:
    inner = {"model_cards", "_core", "cli", "row_sparse", "configs"}  # what users do not import
    assert {name for name in SUBPACKAGES if "." not in name} - inner <= set(dendrite_zoo.__all__)
    for name in dendrite_zoo.__all__:
        assert getattr(dendrite_zoo, name) is not None
        assert name in dir(dendrite_zoo)
    assert dendrite_zoo.load is dendrite_zoo.models.load
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = dendrite_zoo.lod
