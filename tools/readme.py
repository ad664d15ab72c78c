"""Write the tables and figures of README and docs anew, from records and examples: python -m tools.readme."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from dendrite_zoo.hub.registry import entries
from dendrite_zoo.records import read_records
from tools.pages import benchmarks, figures, questions, robots, tasks
from tools.pages.markdown import ROOT, mean, seeds, table

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def example(name: str) -> str:
    """An example below its docstring."""
    code = (ROOT / "examples" / name).read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    return f"```python\n{code}```\n"


def output(name: str) -> str:
    """What an example prints last: from the last table of accuracies on."""
    command = [sys.executable, ROOT / "examples" / name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    with tempfile.TemporaryDirectory() as folder:
        printed = subprocess.check_output(command, cwd=folder, env=environment, text=True)
    last = printed[printed.rindex("val/acc on each task") :].strip().splitlines()
    return "\n".join(["```text", *map(str.rstrip, last), "```", ""])


def zoo_table() -> str:
    """Each entry with its own result, and the controls of its results.json."""
    rows = []
    for entry in entries().values():
        own, *controls = read_records(entry.folder / "results.json")
        context = f"context {own.context_at_test}"
        after = {one.num_tasks: f", {one.num_tasks} tasks" for one in controls} | {own.num_tasks: ""}
        shown = "; ".join(f"{one.method}{after[one.num_tasks]}: {mean(one)} ({seeds(one)})" for one in controls)
        card = f"[`{entry.name}`](model_cards/{entry.name}/README.md)"
        size = f"`{entry.build}`" if entry.not_built else f"{entry.size / 1e6:.1f} MB"
        rows.append([card, entry.trained_on, f"{mean(own)} ({seeds(own)}, {context})", shown, size])
    return table(["name", "trained on", "mean accuracy or success", "controls", "size, or how to train it"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "example: fine_tune.py": lambda: example("fine_tune.py"),
    "example: ten_skills.py": lambda: example("ten_skills.py"),
    "example: pendulum.py": lambda: example("pendulum.py"),
    "example: one_more_skill.py": lambda: example("one_more_skill.py"),
    "new-tasks": tasks.new_tasks_table,
    "new-skills": lambda: robots.new_skills_table(0),
    "other-new-skills": lambda: robots.new_skills_table(1),
    "transfer": robots.transfer_table,
    "parts": robots.parts_table,
    "output: fine_tune.py": lambda: output("fine_tune.py"),
    "zoo": zoo_table,
    "when": questions.when_table,
    "continual": lambda: tasks.continual_table(tasks.continual_records()),
    "multi-task": tasks.multi_task_table,
    "real-data": tasks.real_data_table,
    "backbone-sequence": tasks.backbone_sequence_table,
    "backbone-sequence-efficientnet": lambda: tasks.backbone_sequence_table("backbone-sequence-efficientnet.json"),
    "robots": robots.robots_table,
    "fifty-skills": robots.fifty_skills_table,
    "pendulum": robots.pendulum_table,
    "walkers": robots.walkers_table,
    "watching": benchmarks.watching_table,
    "benchmarks": benchmarks.benchmarks_table,
    "by hand": benchmarks.by_hand_table,
    "reliability": benchmarks.reliability_table,
    "reliability: checks": benchmarks.checks_table,
    "reliability: errors": benchmarks.errors_list,
}
"""What stands between ``<!-- name -->`` and ``<!-- end -->`` of a page."""
PART = re.compile(rf"<!-- (?P<name>{'|'.join(map(re.escape, PARTS))}) -->\n.*?<!-- end -->", re.DOTALL)


def rendered(page: Path, but_for: Sequence[str] = ()) -> str:
    """A page with its generated parts, and the figures in its prose, written anew.

    Raises:
        ValueError: there is a part of another name, which would stay as it is.
    """

    def anew(match: re.Match[str]) -> str:
        name = match["name"]
        return match[0] if name in but_for else f"<!-- {name} -->\n{PARTS[name]()}<!-- end -->"

    text = page.read_text(encoding="utf-8")
    if (ends := text.count("<!-- end -->")) != (known := len([*PART.finditer(text), *figures.FIGURE.finditer(text)])):
        raise ValueError(
            f"Expected {page.name} to have parts and figures of known names, but got {ends - known} others."
        )
    return figures.filled(PART.sub(anew, text))


def main() -> None:
    for page in PAGES:
        page.write_text(rendered(page), encoding="utf-8")


if __name__ == "__main__":
    main()
