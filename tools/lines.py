"""Count lines of code without docstrings, comments and blanks: python tools/lines.py [--by-folder | --by-file]."""

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
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in NOT_CODE for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for what in ("folder", "file"):
        parser.add_argument(f"--by-{what}", action="store_true", help=f"a line for each {what}")
    options = parser.parse_args()
    count: Counter[Path | str] = Counter()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):  # rglob does not follow links to folders
            name = path.relative_to(ROOT)
            key = name if options.by_file else name.parent if options.by_folder else "all"
            lines = lines_of_code(path.read_text(encoding="utf-8"))
            count.update({key: lines, "all": lines})
    for key, lines in count.most_common():
        print(f"{lines:6} {key}")


if __name__ == "__main__":
    main()
