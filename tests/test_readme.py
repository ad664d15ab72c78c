"""The README shows code that runs, and numbers that were measured.

The marked parts are generated: ``python tests/test_readme.py`` writes them anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dendrite_zoo.hub.registry import entries
from dendrite_zoo.metrics import forgetting
from dendrite_zoo.records import ResultRecord, read_records
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
        own, *controls = read_records(entry.folder)
        shown = "; ".join(f"{record.method}: {accuracy(record)}" for record in controls)
        card = f"[`{entry.name}`](model_cards/{entry.name}/README.md)"
        size = "not built" if entry.not_built else f"{entry.size / 1e6:.1f} MB"
        lines.append(f"| {card} | {entry.trained_on} | {accuracy(own)} | {shown} | {size} |")
    return "\n".join(lines) + "\n"


COLUMNS = (10, 25, 50, 100, 250, 1000)


def results_table() -> str:
    """Mean accuracy on permuted MNIST, of every method and number of tasks, what was published beside it."""
    lines = [
        "| method | context at test | parameters | seeds |" + "".join(f" {tasks} tasks |" for tasks in COLUMNS),
        "| --- " * (4 + len(COLUMNS)) + "|",
    ]
    rows: dict[tuple, dict] = {}
    records = [r for file in sorted((ROOT / "results" / "continual").glob("*.json")) for r in read_records(file)]
    for record in records:
        row = rows.setdefault(
            (record.method, record.context_at_test), {"seeds": record.seeds, "parameters": 0, "points": {}}
        )
        row["parameters"] = max(row["parameters"], record.parameters)
        spread = record.average_accuracy_std
        row["points"] |= {tasks: f"{value:.3f}" for tasks, value in accuracy_by_tasks(record).items()}
        row["points"][record.num_tasks] += "" if spread is None else f" ± {spread:.3f}"
    measured = {method for method, _ in rows}
    for paper in PUBLISHED.values():
        if paper.method not in measured:
            rows[paper.method, paper.context_at_test] = {"seeds": [], "parameters": 0, "points": {}}
    for (method, context), found in sorted(rows.items(), key=lambda item: (item[0][0] in PUBLISHED, item[0][0])):
        known = published(method).accuracy
        cells = [
            " ".join(
                [found["points"][tasks] for _ in range(tasks in found["points"])]
                + [f"({known[tasks]:.3f})" for _ in range(tasks in known)]
            )
            for tasks in COLUMNS
        ]
        shown = method if method in PUBLISHED else f"**{method}**"
        size = f"{found['parameters'] / 1e6:.1f} M" if found["parameters"] else ""
        lines.append(f"| {shown} | {context} | {size} | {len(found['seeds']) or ''} | " + " | ".join(cells) + " |")
    longest = max((record for record in records if record.accuracy_by_context), key=lambda record: record.num_tasks)
    ways = longest.accuracy_by_context
    lines += [
        "",
        f"{longest.num_tasks} tasks of *{longest.method}*: the context inferred from an image is right for "
        f"{100 * ways['context']:.4f} % of them. Mean accuracy is {ways['inferred']:.4f} with contexts inferred, "
        f"{ways['given']:.4f} with contexts given, {ways['constant']:.4f} with the first task's for all.",
    ]
    return "\n".join(lines) + "\n"


def robots_table() -> str:
    """Success on unseen goals of every policy that was trained, and what was forgotten of tasks in a sequence."""
    lines = ["| tasks | method | goals reached | forgetting | parameters |", "| --- | --- | --- | --- | --- |"]
    for file in ("mt10", "finetune", "mt50", "continual-5", "mt3-sac"):
        path = ROOT / "results" / "metaworld" / f"{file}.json"
        for number, record in enumerate(read_records(path) if path.exists() else []):
            low, high = record.more["interval"]
            spread = "" if record.average_accuracy_std is None else f" ± {record.average_accuracy_std:.3f}"
            reached = f"{record.average_accuracy:.3f}{spread} ({seeds(record)}; {low:.3f} to {high:.3f})"
            lost = "" if record.matrix is None else f"{float(forgetting(record.matrix)):.3f}"
            tasks = f"{record.num_tasks}{', one after another' if lost else ''}"
            method = f"**{record.method}**" if number == 0 else record.method  # the others are its controls
            lines.append(f"| {tasks} | {method} | {reached} | {lost} | {record.parameters:,} |")
    return "\n".join(lines) + "\n"


def seeds(record: ResultRecord) -> str:
    return f"{len(record.seeds)} seed{'s' if len(record.seeds) > 1 else ''}"


def accuracy(record: ResultRecord) -> str:
    spread = "" if record.average_accuracy_std is None else f" ± {record.average_accuracy_std:.3f}"
    return f"{record.average_accuracy:.3f}{spread} ({seeds(record)}, context {record.context_at_test})"


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
