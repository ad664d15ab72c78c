"""Write the generated parts of README and docs anew, from examples and records: python tools/readme.py."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dendrite_zoo.hub.registry import entries
from dendrite_zoo.metrics import forgetting, learning_accuracy
from dendrite_zoo.records import ResultRecord, read_records
from dendrite_zoo.report import PUBLISHED, accuracy_by_tasks, published_accuracy

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PART = re.compile(r"<!-- (?P<name>[^>]+) -->\n(?P<content>.*?)<!-- end -->", re.DOTALL)
NUMBERS_OF_TASKS = (10, 25, 50, 100, 250, 1000)
ROBOTS = ("experts", "mt10", "finetune", "mt10-scratch", "mt50", "continual-5", "continual-50", "mt3-sac")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seeds(record: ResultRecord) -> str:
    count = len(record.seeds)
    return f"{count} seed{'s' * (count > 1)}" if count else "no seed"


def mean(record: ResultRecord) -> str:
    spread = record.average_accuracy_std
    return f"{record.average_accuracy:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


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


def continual_records() -> list[ResultRecord]:
    files = sorted((ROOT / "results" / "continual").glob("*.json"))
    return [record for file in files for record in read_records(file)]


def continual_table(records: Sequence[ResultRecord]) -> str:
    """Mean accuracy on permuted MNIST of every method, by the number of tasks, what was published in brackets."""
    measured = defaultdict(list)
    for record in records:
        measured[record.method, record.context_at_test].append(record)
    methods, papers = {method for method, _ in measured}, {paper.method for paper in PUBLISHED}
    known = {(paper.method, paper.context_at_test) for paper in PUBLISHED if paper.method not in methods}
    rows = []
    for method, context in sorted({*measured, *known}, key=lambda key: (key[0] in papers, key)):
        runs = measured[method, context]
        cells = accuracies(method, runs)
        size = [f"{max(run.parameters for run in runs) / 1e6:.1f} M", str(len(runs[0].seeds))] if runs else ["", ""]
        name = method if method in papers else f"**{method}**"
        rows.append([name, context, *size, *(cells.get(n, "") for n in NUMBERS_OF_TASKS)])
    head = ["method", "context at test", "parameters", "seeds", *(f"{n} tasks" for n in NUMBERS_OF_TASKS)]
    return table(head, rows) + contexts_of_the_longest(records)


def accuracies(method: str, runs: Sequence[ResultRecord]) -> dict[int, str]:
    """By the number of tasks, what was published in brackets behind what was measured."""
    cells = {n: f"{value:.3f}" for record in runs for n, value in accuracy_by_tasks(record).items()}
    cells |= {record.num_tasks: mean(record) for record in runs}
    return cells | {n: f"{cells.get(n, '')} ({x:.3f})".lstrip() for n, x in published_accuracy(method).items()}


def contexts_of_the_longest(records: Sequence[ResultRecord]) -> str:
    """How well contexts are inferred in the longest stream that says so."""
    known = [record for record in records if record.accuracy_by_context]
    if not known:
        return ""
    longest = max(known, key=lambda record: record.num_tasks)
    ways = longest.accuracy_by_context
    return (
        f"\n{longest.num_tasks} tasks of *{longest.method}*: the context inferred from an image is right for "
        f"{100 * ways['context']:.4f} % of them. Mean accuracy is {ways['inferred']:.4f} with contexts inferred, "
        f"{ways['given']:.4f} with contexts given, {ways['constant']:.4f} with the first task's for all.\n"
    )


def robots_table() -> str:
    """Success on unseen goals of every policy that was trained, and what was forgotten of tasks in a sequence."""
    rows = []
    for file in ROBOTS:
        for record in read_records(ROOT / "results" / "metaworld" / f"{file}.json"):
            low, high = record.more["interval"]
            lost = "" if record.matrix is None else f"{float(forgetting(record.matrix)):.3f}"
            tasks = f"{record.num_tasks}{', one after another' * bool(lost)}"
            reached = f"{mean(record)} ({seeds(record)}; {low:.3f} to {high:.3f})"
            at_end = record.more.get("success_at_last_step")
            size = f"{record.parameters:,}" if record.parameters else ""
            rows.append([tasks, record.method, reached, "" if at_end is None else f"{at_end:.3f}", lost, size])
    return table(["tasks", "method", "goals reached", "at the last step", "forgetting", "parameters"], rows)


def multi_task_table() -> str:
    """Mean accuracy over tasks that were learned all at once, of each network on each question."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for record in read_records(ROOT / "results" / "multi-task.json"):
        cells[record.method][record.benchmark] = f"{mean(record)} ({seeds(record)})"
        cells[record.method]["parameters"] = f"{record.parameters:,}"
    columns = ["parameters", *dict.fromkeys(name for row in cells.values() for name in row if name != "parameters")]
    head = ["network", *(name.removeprefix("mixed-").removesuffix("-digits") for name in columns)]
    return table(head, [[method, *(row.get(name, "") for name in columns)] for method, row in cells.items()])


def real_data_table() -> str:
    """Streams of real data with classes of their own: mean accuracy over tasks after the last one."""
    records = read_records(ROOT / "results" / "real-data.json")
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        cells[record.method][record.benchmark] = f"{mean(record)} ({seeds(record)})"
    columns = list(dict.fromkeys(record.benchmark for record in records))
    rows = [[method, *(row.get(name, "") for name in columns)] for method, row in cells.items()]
    return table(["method", *(name.removeprefix("split-") for name in columns)], rows)


def own_environments(name: str) -> dict[str, Any]:
    """What was measured in environments of one's own."""
    file = ROOT / "results" / "own-environments" / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def pendulum_table() -> str:
    """The mean return of each task of the example, and how often the pendulum stands."""
    run = own_environments("pendulum")
    rows = [
        [task, f"{value:.0f}", f"{run['upright_at_some_step'][task]:.0%}"] for task, value in run["returns"].items()
    ]
    return table(
        [f"{run['env_steps']:,} steps of both", "mean return", f"upright, of {run['num_starts']} starts"], rows
    )


def walkers_table() -> str:
    """The mean return of each body after each was learned."""
    run = own_environments("walkers")
    rows = []
    for one in run.get("runs", ()):
        for body, returns in zip(run["bodies"], one["returns_after_each"], strict=True):
            rows.append([f"`{one['learn']}`", body, *(f"{value:.0f}" for value in returns)])
    return table(["", "after learning", *(f"return: {body}" for body in run.get("bodies", ()))], rows)


def watching_table() -> str:
    """How much longer a batch takes in eval mode where a network is watched, as `SparsityLogger` does."""
    lines = (ROOT / "benchmarks" / "results" / "watching.json").read_text(encoding="utf-8").splitlines()
    rows = []
    for one in map(json.loads, lines):
        low, high = (f"{100 * (quartile - 1):.0f}" for quartile in one["quartiles"])
        batch = " x ".join(map(str, one["batch"]))
        rows.append([one["network"], batch, f"{100 * (one['value'] - 1):.0f} % ({low} to {high})"])
    return table(["network", "batch", "takes longer by (quartiles)"], rows)


def benchmarks_table() -> str:
    """What was aimed at in each benchmark, and what was found."""
    rows = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        for one in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "limit_percent" in one:
                name, value, target = (
                    f"{one['callbacks']}, percent of a fit",
                    one["overhead_percent"],
                    one["limit_percent"],
                )
                asked, met = f"<= {target:g}", value <= target
            elif "target" in one:
                name, value, asked, met = one["name"], one["value"], one["target"], one["met"]
            else:
                continue
            spread = " to ".join(f"{quartile:.3g}" for quartile in one.get("quartiles", ()))
            found = f"{value:.3g}" + (f" ({spread})" if spread else "")
            words = asked.replace("<=", "at most").replace(">=", "at least")
            rows.append([one["benchmark"], name, found, words, "" if met else "**missed**"])
    return table(["benchmark", "ratio of", "found (quartiles)", "aimed at", ""], rows)


def by_hand_table() -> str:
    """What was missed, written by hand for one case: how near one can come."""
    rows = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        for one in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "of" in one:
                spread = " to ".join(f"{quartile:.3g}" for quartile in one.get("quartiles", ()))
                value = f"{one.get('value', one.get('overhead_percent')):.3g}"
                does = one.get("does", one.get("callbacks"))
                rows.append([one["of"], does, value + (f" ({spread})" if spread else "")])
    return table(["instead of", "by hand", "takes (quartiles)"], rows)


def reliability() -> dict[str, Any]:
    """What `make campaign` counted."""
    file = ROOT / "results" / "reliability.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {"subjects": [], "checks": []}


def reliability_table() -> str:
    """How the cases of each subject ended."""
    kinds = ("right", "refused", "wrong", "raw", "hang")
    rows = [
        [one["title"], str(one["cases"]), *(str(one["counts"][kind]) for kind in kinds)]
        for one in reliability()["subjects"]
    ]
    return table(["", "cases", *kinds], rows)


def checks_table() -> str:
    """How many cases go wrong without a check."""
    found = reliability()
    whole = {one["subject"]: sum(one["counts"][kind] for kind in ("wrong", "raw", "hang")) for one in found["subjects"]}
    rows = [
        [one["what"], one["subject"], str(one["cases"]), f"{whole[one['subject']]} → {one['bad']}"]
        for one in found["checks"]
    ]
    return table(["check", "subject", "cases", "wrong, raw or hang: with it → without it"], rows)


def errors_list() -> str:
    """An error of each subject."""
    refused = [one["examples"].get("refused", [])[:2] for one in reliability()["subjects"]]
    return "".join(f"- `{one['said']}`\n" for examples in refused for one in examples)


def new_tasks_table() -> str:
    """Tasks that leave earlier ones as they are: by what a further task has for itself."""
    said = {"columns": "its columns of segments", "subnetworks": "the free part of its subnetwork", "all": "everything"}
    rows = []
    for record in read_records(ROOT / "results" / "new-tasks.json"):
        first, last = record.task_accuracies[0], record.task_accuracies[-1]
        shown = [said[record.method], f"{mean(record)} ({seeds(record)})", f"{forgetting(record.matrix):.3f}"]
        rows.append([*shown, f"{first:.3f}", f"{last:.3f}"])
    return table(["a further task trains", "mean accuracy", "forgetting", "the first task", "the last"], rows)


def backbone_sequence_table() -> str:
    """Data sets one after another on a frozen backbone: what was trained, and what it reaches."""
    names = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "omniglot": "Omniglot", "digits": "digits"}
    rows = []
    for record in read_records(ROOT / "results" / "backbone-sequence.json"):
        tasks = record.more.get("tasks", names)  # where not all were run
        found = dict(zip(tasks, record.task_accuracies or [], strict=True))
        accuracies = [f"{found[name]:.3f}" if name in found else "" for name in names]
        average = f"{record.average_accuracy:.4f}" if len(found) == len(names) else ""
        trained = f"{record.more['trained_per_task']:,}"
        rows.append([record.method, record.context_at_test, *accuracies, average, trained])
    return table(["method", "task", *names.values(), "mean", "trained a task"], rows)


def new_skills_table() -> str:
    """The success of skills that were added to a policy one by one."""
    (record,) = read_records(ROOT / "results" / "metaworld" / "new-skills.json")
    rows = [
        [
            one["skill"].removesuffix("-v3"),
            (one["started_from"] or "zeros").removesuffix("-v3"),
            f"{one['success']:.2f}",
        ]
        for one in record.more["skills"]
    ]
    return table(
        ["skill", "its column started from", "success"], [*rows, ["mean", "", f"{record.average_accuracy:.2f}"]]
    )


def fifty_skills_table() -> str:
    """Skills learned one after another: the mean over those learned so far, and what was forgotten."""
    rows = []
    for record in read_records(ROOT / "results" / "metaworld" / "continual-50.json"):
        cells = accuracy_by_tasks(record)
        so_far = [f"{cells[n]:.3f}" if n in cells else "" for n in (5, 10, 20, 50)]
        trained = record.more.get("parameters_per_skill")
        size = f"{record.parameters:,}", "all" if trained is None else f"at most {trained:,}"
        kept = [f"{float(of(record.matrix)):.3f}" for of in (learning_accuracy, forgetting)]
        rows.append([record.method, seeds(record), *so_far, *kept, *size])
    counts = [f"{n} skills" for n in (5, 10, 20, 50)]
    head = ["method", "seeds", *counts, "each when learned", "forgetting", "parameters", "of which a skill trains"]
    return table(head, rows)


def record_of(file: str, method: str, benchmark: str = "") -> ResultRecord:
    """The record of a method; of several contexts at test, one that was not given."""
    records = read_records(ROOT / "results" / f"{file}.json")
    found = [one for one in records if one.method == method and one.benchmark.startswith(benchmark)]
    return min(found, key=lambda one: one.context_at_test == "given")


def when_table() -> str:
    """Dendrites beside what they were compared with, question by question."""
    dense, digits = "dense MLP of equal parameters", "active dendrites, winners by activation"
    distilled = "distilled from scripted experts"
    skills = "active dendrites, winners chosen by the context, synaptic intelligence"
    robots, mixed, backbone = "metaworld/continual-5", "multi-task", "backbone-sequence"
    compared = {
        "permutations of MNIST, one after another": (
            ("continual/permuted-mnist-10-ours-small", "ours, width 334, 30 % active"),
            ("continual/permuted-mnist-10-mlp", "MLP"),
        ),
        "robot skills, one after another": ((robots, skills), (robots, dense)),
        "digits that each task calls by other numbers, at once": (
            (mixed, digits, "mixed-relabelled"),
            (mixed, "MLP, the task as an input", "mixed-relabelled"),
            (mixed, "MLP, the task added to each layer", "mixed-relabelled"),
        ),
        "permuted digits, at once": (
            (mixed, digits, "mixed-permuted"),
            (mixed, "MLP without the task", "mixed-permuted"),
        ),
        "robot skills, at once": (
            ("metaworld/mt10", f"active dendrites, {distilled}"),
            ("metaworld/mt10", f"{dense}, {distilled}"),
        ),
        "blurred clothes, with a context a domain or a shared one": (
            ("real-data", "dendrites, ridge", "blurred"),
            ("real-data", "dendrites, prototypes", "blurred"),
        ),
        "data sets on a frozen backbone": ((backbone, "gates, then ridge"), (backbone, "ridge alone")),
    }
    rows = []
    for question, cases in compared.items():
        ours, *controls = (record_of(*case) for case in cases)
        beside = "; ".join(f"{one.method}: {mean(one)} ({seeds(one)})" for one in controls)
        rows.append([f"{question} ({ours.num_tasks} tasks)", f"{ours.method}: {mean(ours)} ({seeds(ours)})", beside])
    return table(["question", "dendrites", "beside them"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "example: fine_tune.py": lambda: example("fine_tune.py"),
    "example: ten_skills.py": lambda: example("ten_skills.py"),
    "example: pendulum.py": lambda: example("pendulum.py"),
    "example: one_more_skill.py": lambda: example("one_more_skill.py"),
    "new-tasks": new_tasks_table,
    "new-skills": new_skills_table,
    "output: fine_tune.py": lambda: output("fine_tune.py"),
    "zoo": zoo_table,
    "when": when_table,
    "continual": lambda: continual_table(continual_records()),
    "multi-task": multi_task_table,
    "real-data": real_data_table,
    "backbone-sequence": backbone_sequence_table,
    "robots": robots_table,
    "fifty-skills": fifty_skills_table,
    "pendulum": pendulum_table,
    "walkers": walkers_table,
    "watching": watching_table,
    "benchmarks": benchmarks_table,
    "by hand": by_hand_table,
    "reliability": reliability_table,
    "reliability: checks": checks_table,
    "reliability: errors": errors_list,
}
"""What stands between ``<!-- name -->`` and ``<!-- end -->`` of a page."""


def rendered(page: Path, but_for: Sequence[str] = ()) -> str:
    """A page with its generated parts written anew."""

    def anew(match: re.Match[str]) -> str:
        name = match["name"]
        return match[0] if name in but_for else f"<!-- {name} -->\n{PARTS[name]()}<!-- end -->"

    return PART.sub(anew, page.read_text(encoding="utf-8"))


def main() -> None:
    for page in PAGES:
        page.write_text(rendered(page), encoding="utf-8")


if __name__ == "__main__":
    main()
