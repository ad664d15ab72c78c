"""Count lines of code without docstrings, comments and blanks: python tools/lines.py [--by-folder | --by-file]."""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("dendrite_zoo", "callbacks", "lightning_modules", "model_cards", "tools")
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source: str) -> int:
    """Lines on which a token of code stands; of a docstring none."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in NOT_CODE for n in range(t.start[0], t.end[0] + 1)}
    return len(lines - docstrings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by-folder", action="store_true", help="a line for each folder")
    parser.add_argument("--by-file", action="store_true", help="a line for each file")
    options = parser.parse_args()
    count: Counter[str] = Counter()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):  # rglob does not follow links to folders
            name = path.relative_to(ROOT)
            key = str(name) if options.by_file else str(name.parent) if options.by_folder else "all"
            count[key] += lines_of_code(path.read_text(encoding="utf-8"))
    for key, lines in count.most_common():
        print(f"{lines:6} {key}")
    if options.by_folder or options.by_file:
        print(f"{count.total():6} all")


if __name__ == "__main__":
    main()
