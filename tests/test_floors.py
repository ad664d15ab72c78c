"""Imports go down only: who may import whom, read from the source itself."""

import ast
import graphlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which mypy needs there, too

ROOT = Path(__file__).parents[1]

# From the ground up. The longest matching line decides: `hub.publish` is not `hub`. A module may import what stands on
# the lines below its own (here: above it in the list), never a room of its own line: callbacks and lightning_modules
# know nothing of each other.
FLOORS = [
    "model_cards",  # data
    "_core",
    "_core.lightning",
    "functional",
    "row_sparse",
    "optim",  # the path that users import DendriteAdam from
    "layers",
    "contexts",
    "metrics | regularizers",
    "tasks | records",
    "report",
    "hub",
    "models",
    "rl.form",  # of an environment; a task by one, and how its episodes are played; Meta-World's are such tasks
    "rl.spec",
    "rl.episodes",
    "rl.metaworld",
    "rl",
    "streams",
    "hub.publish",
    "lightning_modules | callbacks",
    "cli",
]
LEVEL = {name: level for level, line in enumerate(FLOORS) for name in line.split(" | ")}

UPSTAIRS = [name for name in LEVEL if LEVEL[name] >= LEVEL["streams"]]

# Where a heavy library may be imported at all, and whether early or only where a function needs it.
# Everything of an extra comes late, so that a missing extra is one clear error and not a failed import.
HEAVY = {
    "lightning": (["_core.lightning", "tasks", *UPSTAIRS], "early"),
    "huggingface_hub": (["_core", "hub", *UPSTAIRS], "late"),
    "matplotlib": (["report"], "late"),
    "vl_convert": (["report"], "late"),
    "pyarrow": (["streams"], "late"),
    "PIL": (["report", "streams"], "late"),
    "metaworld": (["rl", "rl.metaworld"], "late"),
    "mujoco": (["rl", "rl.metaworld"], "late"),
    "gymnasium": (["rl", "rl.form", "rl.metaworld"], "late"),
    "onnx": (["hub", "hub.publish"], "late"),
}


class Import(NamedTuple):
    """One imported name: where it stands, its dotted path, and whether it comes with the module (early)."""

    file: str
    line: int
    home: str
    name: str
    early: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree: ast.AST, early: bool = True) -> Iterator[tuple[int, str, bool]]:
    """Line, dotted name and earliness of each import.

    `from a import b` is `a.b`, a relative import keeps its dots, and `dendrite_zoo.x` is one in effect.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, early) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}", early) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value), early
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dendrite_zoo":
            yield node.lineno, f"dendrite_zoo.{node.attr}", early
        late = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_type_checking(node)
        yield from imports(node, early and not late)


def room(module: str) -> str:
    """The line of FLOORS that a module of the package belongs to, by its longest match; else its first word."""
    words = module.split(".")
    names = [".".join(words[:end]) for end in range(len(words), 0, -1)]
    return next((name for name in names if name in LEVEL), words[0])


def package_imports() -> Iterator[Import]:
    """Every import of the package; `home` is the floor that the file stands on."""
    for folder in ("dendrite_zoo", "callbacks", "lightning_modules", "model_cards"):
        for path in sorted((ROOT / folder).rglob("*.py")):  # does not follow the links inside dendrite_zoo
            inside = path.relative_to(ROOT / "dendrite_zoo" if folder == "dendrite_zoo" else ROOT)
            home = room(".".join(inside.with_suffix("").parts))
            for line, name, early in imports(ast.parse(path.read_text(encoding="utf-8"), path)):
                yield Import(str(path.relative_to(ROOT)), line, home, name, early)


IMPORTS = list(package_imports())
PUBLISHES_ITSELF = ("dendrite_zoo/hub/model.py", "dendrite_zoo.hub.publish")  # `push_to_hub`, when it is called
FACADE = "__init__"  # dendrite_zoo/__init__.py: the front door, which fetches from every floor when asked


def is_exception(found: Import) -> bool:
    file, package = PUBLISHES_ITSELF
    return found.file == file and found.name.startswith(package) and not found.early


def file_of(name: str) -> str | None:
    """The file that an imported name leads to, if it is one of the package's: its module, or that which defines it."""
    words = name.split(".")[1:] if name.startswith("dendrite_zoo.") else []
    for end in range(len(words), 0, -1):
        for path in (Path(*words[:end]).with_suffix(".py"), Path(*words[:end], "__init__.py")):
            if (ROOT / "dendrite_zoo" / path).is_file():
                return str((ROOT / "dendrite_zoo" / path).resolve().relative_to(ROOT))
    return None


def test_every_folder_has_its_floor() -> None:
    homes = {found.home for found in IMPORTS} - {FACADE, "__main__"}
    assert homes <= set(LEVEL), f"no line in FLOORS for {sorted(homes - set(LEVEL))}"


def test_imports_go_down_only() -> None:
    wrong = []
    for found in IMPORTS:
        match = re.fullmatch(r"dendrite_zoo\.(\w+(\..+)?)", found.name)
        if match is None or found.home in (FACADE, "__main__"):
            continue
        named = room(match[1])
        if named in (found.home, "__version__") or is_exception(found):
            continue
        if named not in LEVEL:
            wrong.append(f"{found}: import it from the module that defines it")
        elif LEVEL[named] >= LEVEL.get(found.home, 0):
            wrong.append(f"{found}: {found.home} stands below it or beside it")
    assert not wrong, "\n".join(wrong)


def test_no_two_files_import_each_other() -> None:
    """No file leads back to itself, whether imports are early or late, or for type checkers alone."""
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        target = file_of(found.name)
        if target not in (None, found.file) and found.home != FACADE and not is_exception(found):
            graph.setdefault(found.file, set()).add(str(target))
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_stay_where_they_are_used(library: str) -> None:
    homes, moment = HEAVY[library]
    wrong = []
    for found in IMPORTS:
        if found.name.split(".")[0] == library:
            if found.home not in homes:
                wrong.append(f"{found}: only {', '.join(homes)} may")
            elif found.early and moment == "late":
                wrong.append(f"{found}: move it into the function that needs it")
    assert not wrong, "\n".join(wrong)


def test_what_imports_lightning_downstairs_comes_with_no_package() -> None:
    """So that a room below the streams is imported without Lightning."""
    wrong = [
        str(found)
        for found in IMPORTS
        if found.file.endswith("__init__.py") and re.match(r"dendrite_zoo\.(_core\.lightning|tasks)\b", found.name)
    ]
    assert not wrong, "\n".join(wrong)


def test_lightning_has_one_name() -> None:
    """`pytorch_lightning` is a second copy of every class: a callback of one is none of the other's."""
    wrong = [str(found) for found in IMPORTS if found.name.startswith("pytorch_lightning")]
    assert not wrong, "\n".join(wrong)


def test_every_library_is_declared() -> None:
    """What is imported early is a dependency, what comes late at least one of an extra's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # not of a stale install
    extras = [need for name, needs in project["optional-dependencies"].items() if name != "dev" for need in needs]
    names = {need: re.match(r"[\w-]+", need)[0].lower() for need in [*project["dependencies"], *extras]}
    always = {names[need] for need in project["dependencies"]}
    homes = importlib.metadata.packages_distributions()
    wrong = []
    for found in IMPORTS:
        library = found.name.split(".")[0]
        if library and library != "dendrite_zoo" and library not in sys.stdlib_module_names:
            named = homes.get(library, [library, f"{library}-python"])  # of one that is not installed
            distributions = {name.lower().replace("_", "-") for name in named}
            if not distributions & (always if found.early else set(names.values())):
                wrong.append(f"{found}: {library} is not declared in pyproject.toml")
    assert not wrong, "\n".join(wrong)


def test_the_package_is_named_in_full() -> None:
    """No relative imports, and never the bare folder names, which only the repository's root would know."""
    bare = {"callbacks", "lightning_modules", "model_cards"}
    wrong = [str(found) for found in IMPORTS if found.name[0] == "." or found.name.split(".")[0] in bare]
    for folder in ("tests", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, name, _ in imports(ast.parse(path.read_text(encoding="utf-8"), path)):
                if name.split(".")[0] in bare:
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_reader_of_imports_sees_them_all() -> None:
    source = """
import a.b, c
from d import e
from . import f
if TYPE_CHECKING:
    from g import h
importlib.import_module("l.m")
print(dendrite_zoo.n)
class K:
    import i
    def method(self):
        try:
            from j import k
        except ImportError:
            pass
"""
    found = {(name, early) for _, name, early in imports(ast.parse(source))}
    early = {
        ("a.b", True),
        ("c", True),
        ("d.e", True),
        ("l.m", True),
        ("dendrite_zoo.n", True),
        ("..f", True),
        ("i", True),
    }
    assert found == early | {("g.h", False), ("j.k", False)}
