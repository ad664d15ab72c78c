"""What a user installs: every module and data file, under one name, beside folders of their own."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
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


@pytest.fixture(scope="session", params=["links", "links as text files"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository to build in, without what earlier builds left behind.

    A checkout on a system without symlinks has text files in their place.
    """
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    for name in LINKS:
        link = tree / "dendrite_zoo" / name
        assert link.readlink() == Path("..", name)
        if request.param != "links":
            link.unlink()
            link.write_text(f"../{name}")
    return tree


@pytest.fixture(scope="session")
def dist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from the sdist."""
    dist = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", str(dist), str(tree), cwd=dist)
    return dist


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the tree and installed into a folder by itself."""
    site, dist = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("wheel")
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree-of-site"))
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(tree), cwd=dist)
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


def test_wheel_holds_the_whole_tree(tree: Path, dist: Path) -> None:
    """A package forgotten in pyproject.toml, or a data file without a pattern, is missing here."""
    expected = {f"{home}/{file}" for folder, home in FOLDERS.items() for file in files_of(tree / folder)}
    [wheel] = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert "dendrite_zoo/py.typed" in names


def test_sdist_can_be_worked_in(tree: Path, dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    for folder in (*FOLDERS, "tests"):
        assert {f"{folder}/{file}" for file in files_of(tree / folder)} <= names
    assert not {name for name in names if name.startswith(tuple(f"dendrite_zoo/{name}" for name in LINKS))}
    assert {"pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "NOTICE", "README.md", ".ci/run"} <= names


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dendrite_zoo.__version__ == importlib.metadata.version("dendrite-zoo")
    assert f"## [{dendrite_zoo.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_nothing_is_injected_into_every_trainer() -> None:
    distribution = importlib.metadata.distribution("dendrite-zoo")
    assert [(entry.group, entry.name) for entry in distribution.entry_points] == [("console_scripts", "dendrite-zoo")]


# Each import of Lightning costs seconds: only one test below pays; here it is enough where modules come from.
WHERE = f"""
import callbacks, lightning_modules, model_cards
from importlib.util import find_spec
assert {{callbacks.OWNER, lightning_modules.OWNER, model_cards.OWNER}} == {{"user"}}
print(*(find_spec("dendrite_zoo." + name).origin for name in {SUBPACKAGES}), sep="\\n")
"""


@pytest.mark.parametrize(
    ("installed", "how"), [("wheel", "-c"), ("wheel", "script"), ("wheel", "-m"), ("editable", "-m")]
)
def test_a_users_own_folders(installed: str, how: str, workplace: Path, site: Path) -> None:
    """`import callbacks` is the user's and `dendrite_zoo.callbacks` is ours, however Python was started."""
    (workplace / "train.py").write_text(WHERE)
    arguments = {"-c": ["-c", WHERE], "script": ["train.py"], "-m": ["-m", "train"]}[how]
    places = python(*arguments, cwd=workplace, path=site if installed == "wheel" else None).splitlines()
    assert len(places) == len(SUBPACKAGES)
    for place in map(Path, places):
        assert place.is_relative_to(site) if installed == "wheel" else not place.is_relative_to(workplace)


def test_every_module_of_the_wheel_imports(workplace: Path, site: Path) -> None:
    code = """
import importlib.resources, pkgutil, dendrite_zoo
for module in pkgutil.walk_packages(dendrite_zoo.__path__, "dendrite_zoo."):
    print(importlib.import_module(module.name).__name__)
print(importlib.resources.files("dendrite_zoo.model_cards") / "registry.json")
"""
    *modules, registry = python("-c", code, cwd=workplace, path=site).splitlines()
    assert {"dendrite_zoo.callbacks", "dendrite_zoo.lightning_modules.continual", "dendrite_zoo.cli.main"} <= set(
        modules
    )
    assert Path(registry) == site / "dendrite_zoo/model_cards/registry.json"


def test_at_the_repositorys_root() -> None:
    """There `callbacks` is importable by its bare name too; the package does not care."""
    code = "from importlib.util import find_spec; print(find_spec('dendrite_zoo.callbacks').origin)"
    assert Path(python("-c", code, cwd=ROOT).strip()).resolve() == ROOT / "callbacks/__init__.py"


@pytest.mark.parametrize("installed", ["wheel", "editable"])
def test_command_beside_a_users_own_folders(installed: str, workplace: Path, site: Path) -> None:
    path = site if installed == "wheel" else None
    run = "import sys; from importlib.metadata import entry_points as e; sys.argv = ['dendrite-zoo', '--help'];"
    run += "sys.exit(e(group='console_scripts', name='dendrite-zoo')['dendrite-zoo'].load()())"
    assert "demo" in python("-c", run, cwd=workplace, path=path)


def test_import_is_light(tmp_path: Path) -> None:
    loaded = python("-c", "import sys, dendrite_zoo; print(*sys.modules)", cwd=tmp_path).split()
    assert "torch" in loaded
    assert not set(HEAVY) & set(loaded)


def test_the_front_door() -> None:
    inner = {"model_cards", "_core", "cli", "row_sparse", "configs"}  # what users do not import
    assert {name for name in SUBPACKAGES if "." not in name} - inner <= set(dendrite_zoo.__all__)
    for name in dendrite_zoo.__all__:
        assert getattr(dendrite_zoo, name) is not None
        assert name in dir(dendrite_zoo)
    assert dendrite_zoo.load is dendrite_zoo.models.load
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = dendrite_zoo.lod
