"""The notebooks of the site hold what they print and draw; `make notebooks` runs them, here their code is read."""

import ast
import importlib
import json

import pytest

from tools.notebooks import FOLDER, differences, printed

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_run_and_holds_its_outputs(path):
    notebook = read(path)
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    tree = ast.parse("\n".join(line for line in "\n".join(code).splitlines() if not line.startswith("%")))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("dendrite_zoo"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)
    prints = sum("print(" in source for source in code)
    printing = [cell for cell in notebook["cells"] if any("text" in output for output in cell.get("outputs", ()))]
    assert len(printing) == prints > 0
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert path.stat().st_size < 250_000 and "/tmp/" not in path.read_text(encoding="utf-8")


def test_every_notebook_is_a_page():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) > 2 and all(f"({path.name})" in index and f"\n{path.stem}\n" in index for path in NOTEBOOKS)


def test_what_a_notebook_promises_stands_in_its_outputs():
    lines = {path.stem: printed(read(path)) for path in NOTEBOOKS}
    assert f"equal to the bit, by task: {[True] * 10}" in lines["fine-tune"]
    assert "the backbone is as it was: True" in lines["backbone"]
    assert "largest change of an action in the ten tasks before: 0.0" in lines["robot-skills"]


def test_a_number_may_differ_by_a_tenth_and_a_word_not_at_all():
    assert differences(["forgetting: 0.050"], ["forgetting: 0.100"]) == []
    assert differences(["forgetting: 0.050"], ["forgetting: 0.200"]) == ["'forgetting: 0.050', now 'forgetting: 0.200'"]
    assert len(differences(["a 1", "b"], ["a 1"])) == len(differences(["a 1"], ["c 1"])) == 1
