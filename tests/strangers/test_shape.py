"""What a stranger's pipeline is: short, and without a line of this library."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST = 60


def marked(path):
    """The functions marked `pipeline`, and the scripts, of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            decorators = [one.id for one in node.decorator_list if isinstance(one, ast.Name)]
            if "pipeline" in decorators:
                yield node.name, ast.unparse(node), node.end_lineno - node.lineno + 1
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCRIPT":
            script = node.value.value.strip()
            yield path.stem, script, len(script.splitlines())


PIPELINES = {path: list(marked(path)) for path in sorted(HERE.rglob("test_*.py"))}
ALL = [one for found in PIPELINES.values() for one in found]


@pytest.mark.parametrize(("name", "source", "lines"), ALL, ids=[name for name, _, _ in ALL])
def test_a_pipeline_is_short_and_a_strangers(name, source, lines):
    assert lines < LONGEST
    assert "dendrite_zoo" not in source
    assert not any(ours in source for ours in ("ForgettingLogger", "SparsityLogger", "SubnetworkLogger"))


def test_there_are_enough_of_them():
    libraries = [one for path, found in PIPELINES.items() if path.parent.name == "libraries" for one in found]
    assert len(libraries) >= 10
    assert len(ALL) - len(libraries) >= 30
    assert len({name for name, _, _ in ALL}) == len(ALL), "two of one name"


def test_what_they_share_is_not_ours():
    for name in ("people.py", "libraries/data.py"):
        assert "dendrite_zoo" not in (HERE / name).read_text(encoding="utf-8")
