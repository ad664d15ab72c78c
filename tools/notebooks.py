"""Run the notebooks of the site, and store what they print and draw: python tools/notebooks.py [--check] [NAME ...].

With ``--check`` nothing is stored: what they print is compared with what they hold, numbers to a tenth.
"""

import re
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NUMBER = re.compile(r"-?\d+\.?\d*")


def execute(path: Path) -> Any:
    """The notebook as it is after a run in an empty folder."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # the times of day
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if shown(output)]
    return notebook


def shown(output: Any) -> bool:
    """Whether an output is kept: neither a warning of a library nor a progress bar."""
    return output.get("name") != "stderr" and "text/html" not in output.get("data", {})


def printed(notebook: Any) -> list[str]:
    """The lines that the cells of a notebook print."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "".join(["".join(output["text"]) for output in outputs if "text" in output]).splitlines()


def differences(before: list[str], now: list[str]) -> list[str]:
    """The lines that differ in more than a number by a tenth: another processor rounds in another way."""

    def differs(one: str, other: str) -> bool:
        pairs = zip_longest(map(float, NUMBER.findall(one)), map(float, NUMBER.findall(other)), fillvalue=float("inf"))
        return NUMBER.sub("", one) != NUMBER.sub("", other) or any(abs(a - b) > 0.1 for a, b in pairs)

    return [f"{one!r}, now {other!r}" for one, other in zip_longest(before, now, fillvalue="") if differs(one, other)]


def main(arguments: list[str]) -> None:
    """Run them."""
    import nbformat

    names = [name for name in arguments if name != "--check"]
    wrong = []
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            stored, notebook = nbformat.read(path, as_version=4), execute(path)
            if "--check" in arguments:
                wrong += [f"{path.name}: {line}" for line in differences(printed(stored), printed(notebook))]
            else:
                nbformat.write(notebook, path)
            print(path.name, flush=True)
    if wrong:
        sys.exit("\n".join([*wrong, "Store what they print now: python tools/notebooks.py"]))


if __name__ == "__main__":
    main(sys.argv[1:])
