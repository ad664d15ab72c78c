"""Tables of classifiers: tasks one after another, and all at once."""

from collections import defaultdict
from collections.abc import Sequence

from dendrite_zoo.functional import forgetting
from dendrite_zoo.records import ResultRecord, read_records
from dendrite_zoo.report import PUBLISHED, accuracy_by_tasks, published_accuracy
from tools.pages.markdown import RESULTS, mean, seeds, table

NUMBERS_OF_TASKS = (10, 25, 50, 100, 250, 1000)


def continual_records() -> list[ResultRecord]:
    files = sorted((RESULTS / "continual").glob("*.json"))
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


def multi_task_table() -> str:
    """Mean accuracy over tasks that were learned all at once, of each network on each question."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for record in read_records(RESULTS / "multi-task.json"):
        cells[record.method][record.benchmark] = f"{mean(record)} ({seeds(record)})"
        cells[record.method]["parameters"] = f"{record.parameters:,}"
    columns = ["parameters", *dict.fromkeys(name for row in cells.values() for name in row if name != "parameters")]
    head = ["network", *(name.removeprefix("mixed-").removesuffix("-digits") for name in columns)]
    return table(head, [[method, *(row.get(name, "") for name in columns)] for method, row in cells.items()])


def real_data_table() -> str:
    """Streams of real data with classes of their own: mean accuracy over tasks after the last one."""
    records = read_records(RESULTS / "real-data.json")
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        cells[record.method][record.benchmark] = f"{mean(record)} ({seeds(record)})"
    columns = list(dict.fromkeys(record.benchmark for record in records))
    rows = [[method, *(row.get(name, "") for name in columns)] for method, row in cells.items()]
    return table(["method", *(name.removeprefix("split-") for name in columns)], rows)


def new_tasks_table() -> str:
    """Tasks that leave earlier ones as they are: by what a further task has for itself."""
    said = {
        "columns": "its columns of segments",
        "columns and additive segments": "its columns, and of additive segments",
        "subnetworks": "the free part of its subnetwork",
        "all": "everything",
    }
    rows = []
    for record in read_records(RESULTS / "new-tasks.json"):
        first, last = record.task_accuracies[0], record.task_accuracies[-1]
        shown = [said[record.method], f"{mean(record)} ({seeds(record)})", f"{forgetting(record.matrix):.3f}"]
        rows.append([*shown, f"{first:.3f}", f"{last:.3f}"])
    return table(["a further task trains", "mean accuracy", "forgetting", "the first task", "the last"], rows)


def backbone_sequence_table(file: str = "backbone-sequence.json") -> str:
    """Data sets one after another on a frozen backbone: what it reaches, and what was trained, beside copies of it."""
    names = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "omniglot": "Omniglot", "digits": "digits"}
    records, rows = read_records(RESULTS / file), []
    copies = next((r.more["trained_per_task"] for r in records if r.method == "a fine-tuned copy a task"), None)
    for record in records:
        found = dict(zip(record.more["tasks"], record.task_accuracies or [], strict=True))
        spread = "" if record.average_accuracy_std is None else f" ± {record.average_accuracy_std:.4f}"
        mean_of_tasks = f"{record.average_accuracy:.4f}{spread} ({seeds(record)})"
        trained = record.more["trained_per_task"]
        of_task = "; ".join(f"{numbers:,}" for numbers in sorted({*trained}))
        accuracies = [f"{found[name]:.3f}" for name in names]
        last = mean_of_tasks, of_task, _share(trained, copies)
        rows.append([record.method, record.context_at_test, *accuracies, *last])
    return table(["method", "task", *names.values(), "mean", "trained a task", "of the copies"], rows)


def _share(trained: Sequence[int], copies: Sequence[int] | None) -> str:
    """How much was trained of what copies train, in all tasks and in each; nothing where there are no copies."""
    if copies is None:
        return ""
    shares = sorted({100 * own / copy for own, copy in zip(trained, copies, strict=True)})
    each = f" ({'; '.join(f'{one:.1f}' for one in shares)})" if len(shares) > 1 else ""
    return f"{100 * sum(trained) / sum(copies):.1f} %{each}"
