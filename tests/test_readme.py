"""The README shows code that runs, and numbers that were measured.

The marked parts are generated: ``python tests/test_readme.py`` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dendrite_zoo.hub.registry import entries
from dendrite_zoo.metrics import forgetting
from dendrite_zoo.report import PUBLISHED, accuracy_by_tasks
from dendrite_zoo.report.published import published

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def part(name: str) -> str:
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- end -->", README.read_text(encoding="utf-8"), re.DOTALL)
    return found[1]


def example(name: str) -> str:
    """An example below its docstring."""
    code = (ROOT / "examples" / name).read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    return f"```python\n{code}```\n"


def zoo_table() -> str:
    """Each entry with its own result, and the controls of its results.json."""
    lines = ["| name | trained on | mean accuracy or success | controls | size |", "| --- | --- | --- | --- | --- |"]
    for entry in entries().values():
        own, *controls = json.loads((entry.folder / "results.json").read_text(encoding="utf-8"))
        shown = "; ".join(f"{record['row']}: {accuracy(record)}" for record in controls)
        card = f"[`{entry.name}`](model_cards/{entry.name}/README.md)"
        size = "not built" if entry.not_built else f"{entry.size / 1e6:.1f} MB"
        lines.append(f"| {card} | {entry.trained_on} | {accuracy(own)} | {shown} | {size} |")
    return "\n".join(lines) + "\n"


COLUMNS = (10, 25, 50, 100, 250, 1000)


def results_table() -> str:
    """Mean accuracy on permuted MNIST, of every row and number of tasks, what was published beside it."""
    lines = [
        "| row | context at test | parameters | seeds |" + "".join(f" {tasks} tasks |" for tasks in COLUMNS),
        "| --- " * (4 + len(COLUMNS)) + "|",
    ]
    rows: dict[tuple, dict] = {}
    longest: dict = {}
    for file in sorted((ROOT / "results" / "continual").glob("*.json")):
        for record in json.loads(file.read_text(encoding="utf-8")):
            points = accuracy_by_tasks(record)
            key = record["row"], record["context_at_test"], record["ours"]
            row = rows.setdefault(key, {"seeds": record["seeds"], "parameters": 0, "points": {}})
            row["parameters"] = max(row["parameters"], record["parameters"])
            spread = record["average_accuracy_std"]
            row["points"] |= {tasks: f"{value:.3f}" for tasks, value in points.items()}
            row["points"][record["num_tasks"]] += "" if spread is None else f" ± {spread:.3f}"
            longest = max(
                longest, record, key=lambda record: record.get("num_tasks", 0) * ("accuracy_by_context" in record)
            )
    measured = {row for row, _, _ in rows}
    for paper in PUBLISHED.values():
        if paper.row not in measured:
            rows[paper.row, paper.context_at_test, False] = {"seeds": [], "parameters": 0, "points": {}}
    for (row, context, ours), found in sorted(rows.items(), key=lambda item: (not item[0][2], item[0][0])):
        known = published(row).accuracy
        cells = [
            " ".join(
                [found["points"][tasks] for _ in range(tasks in found["points"])]
                + [f"({known[tasks]:.3f})" for _ in range(tasks in known)]
            )
            for tasks in COLUMNS
        ]
        shown = f"**{row}**" if ours else row
        size = f"{found['parameters'] / 1e6:.1f} M" if found["parameters"] else ""
        lines.append(f"| {shown} | {context} | {size} | {len(found['seeds']) or ''} | " + " | ".join(cells) + " |")
    ways = longest["accuracy_by_context"]
    lines += [
        "",
        f"{longest['num_tasks']} tasks of *{longest['row']}*: the context inferred from an image is right for "
        f"{100 * ways['context']:.4f} % of them. Mean accuracy is {ways['inferred']:.4f} with contexts inferred, "
        f"{ways['given']:.4f} with contexts given, {ways['constant']:.4f} with the first task's for all.",
    ]
    return "\n".join(lines) + "\n"


def robots_table() -> str:
    """Success on unseen goals of every policy that was trained, and what was forgotten of tasks in a sequence."""
    lines = ["| tasks | row | goals reached | forgetting | parameters |", "| --- | --- | --- | --- | --- |"]
    for file in ("mt10", "finetune", "mt50", "continual-5", "mt3-sac"):
        path = ROOT / "results" / "metaworld" / f"{file}.json"
        for record in json.loads(path.read_text(encoding="utf-8")) if path.exists() else []:
            low, high = record["interval"]
            spread = "" if record["average_accuracy_std"] is None else f" ± {record['average_accuracy_std']:.3f}"
            seeds = f"{len(record['seeds'])} seed{'s' if len(record['seeds']) > 1 else ''}"
            reached = f"{record['average_accuracy']:.3f}{spread} ({seeds}; {low:.3f} to {high:.3f})"
            lost = "" if record["matrix"] is None else f"{float(forgetting(record['matrix'])):.3f}"
            tasks = f"{record['num_tasks']}{', one after another' if lost else ''}"
            row = f"**{record['row']}**" if record["ours"] else record["row"]
            lines.append(f"| {tasks} | {row} | {reached} | {lost} | {record['parameters']:,} |")
    return "\n".join(lines) + "\n"


def accuracy(record: dict) -> str:
    seeds = f"{len(record['seeds'])} seed{'s' if len(record['seeds']) > 1 else ''}"
    spread = "" if record["average_accuracy_std"] is None else f" ± {record['average_accuracy_std']:.3f}"
    return f"{record['average_accuracy']:.3f}{spread} ({seeds}, context {record['context_at_test']})"


def output() -> str:
    """What the example prints, from its first table on."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        command = [sys.executable, str(ROOT / "examples" / "fine_tune.py")]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    tables = done.stdout.split("val/acc on each task")
    last = re.sub(r"\n(Epoch|Validation)[^\n]*", "", "val/acc on each task" + tables[-1])
    return "```text\n" + "\n".join(line.rstrip() for line in last.strip().splitlines()) + "\n```\n"


@pytest.mark.parametrize("name", ["fine_tune.py", "ten_skills.py"])
def test_the_lines_are_the_example(name):
    assert part(f"example: {name}") == example(name)


def test_the_table_of_the_zoo_comes_from_results():
    assert part("zoo") == zoo_table()


def test_the_continual_table_comes_from_results():
    assert part("continual") == results_table()


def test_the_table_of_robot_skills_comes_from_results():
    assert part("robots") == robots_table()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    for name, content in (
        ("example: fine_tune.py", example("fine_tune.py")),
        ("output: fine_tune.py", output()),
        ("zoo", zoo_table()),
        ("continual", results_table()),
        ("example: ten_skills.py", example("ten_skills.py")),
        ("robots", robots_table()),
    ):
        text = text.replace(f"<!-- {name} -->\n{part(name)}<!-- end -->", f"<!-- {name} -->\n{content}<!-- end -->")
    README.write_text(text, encoding="utf-8")
