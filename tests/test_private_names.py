"""What other libraries keep to themselves is used in four modules alone, each with a fallback and a test."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("dendrite_zoo", "callbacks", "lightning_modules", "tools")
FILES = {str(path.relative_to(ROOT)): path.read_text() for f in FOLDERS for path in sorted((ROOT / f).rglob("*.py"))}
CORNERS = {f"dendrite_zoo/_core/{name}.py" for name in ("jsonargparse", "lightning", "torch", "torchmetrics")}
ALLOWED = {
    "_asdict": "of namedtuples, documented",
    "_fields": "of namedtuples, documented",
    "_replace": "of namedtuples, documented",
    "_exit": "of os, documented",
    "_generate_state_key": "of Lightning's callbacks, documented for subclasses",
    "_actions": "of argparse, which has no public list of options",
    "_max_episode_steps": "of gymnasium's TimeLimit, which says its limit nowhere else",
    "_buffers": "of nn.Module, in an override of its _apply",
}
EXACT = "dendrite_zoo/rl/metaworld/"  # of the one version of Meta-World that is installed


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names(tree: ast.AST) -> set[str]:
    """What a file defines: functions, classes, attributes of ``self``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def foreign(source: str, own: set[str]) -> list[str]:
    """Private names of others in a file: attributes, also by ``getattr``, and imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            found.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("dendrite_zoo"):
            words = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [word for word in words if is_private(word)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            found += [name] if is_private(str(name)) and name not in own else []
    return found


OWN = {name for source in FILES.values() for name in names(ast.parse(source))}


@pytest.mark.parametrize("file", [file for file in FILES if file not in CORNERS and not file.startswith(EXACT)])
def test_no_private_name_of_another_library(file: str) -> None:
    wrong = set(foreign(FILES[file], OWN)) - set(ALLOWED)
    assert not wrong, f"{file} uses {sorted(wrong)}: give it a function in {', '.join(sorted(CORNERS))}"


def test_no_trainer_is_asked_for_anything_private() -> None:
    """Not even for a name that happens to be one of ours."""
    wrong = []
    for file, source in FILES.items():
        for node in ast.walk(ast.parse(source)):
            if file not in CORNERS and isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = ast.unparse(node.value).lower()
                wrong += [f"{file}: {owner}.{node.attr}"] * any(
                    word in owner for word in ("trainer", "loop", "strategy")
                )
    assert not wrong, wrong


def test_the_reader_sees_every_way() -> None:
    source = """
from lightning.pytorch.loops.progress import _Progress
trainer._data_connector.attach()
getattr(trainer.fit_loop, "_data_fetcher", None)
self._mine = self._theirs()
trainer.__class__
"""
    assert sorted(foreign(source, {"_mine"})) == ["_Progress", "_data_connector", "_data_fetcher", "_theirs"]


def test_what_is_allowed_is_used() -> None:
    used = {name for file in FILES if not file.startswith(EXACT) for name in foreign(FILES[file], OWN)}
    assert set(ALLOWED) <= used
