"""The shape of the code: how many branches a function has, and how long files are."""

import ast
from pathlib import Path

from radon.complexity import cc_visit

ROOT = Path(__file__).parents[1]
FOLDERS = ("dendrite_zoo", "callbacks", "lightning_modules", "model_cards", "tools")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]  # links are not followed
BRANCHES = 15
LONG = 300
MAY_BE_LONG = 2
SHORT = 30


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_function_has_more_than_fifteen_branches() -> None:
    """By radon, which also counts conditions, comprehensions and boolean operators."""
    wrong = []
    for path in FILES:
        for block in cc_visit(path.read_text(encoding="utf-8")):
            functions = getattr(block, "methods", [block])
            wrong += [f"{name(path)}: {one.name} {one.complexity}" for one in functions if one.complexity > BRANCHES]
    assert not wrong, "\n".join(wrong)


def test_few_files_are_long() -> None:
    long = [name(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > LONG]
    assert len(long) <= MAY_BE_LONG, long


def test_a_short_file_has_a_subject_of_its_own() -> None:
    """Else it is a part of another's: a public path (re-exports alone), or a definition of some lines."""
    wrong = []
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        if path.name != "__init__.py" and len(source.splitlines()) < SHORT:
            body = ast.parse(source).body
            documented = ast.get_docstring(ast.parse(source)) is not None
            if not documented or len(body) < 2:
                wrong.append(name(path))
    assert not wrong, wrong
