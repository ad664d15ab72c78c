"""The accuracy matrix, forgetting, sparsity and result records as tables for the terminal."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from dendrite_zoo.functional import average_accuracy, forgetting_per_task, learned_part, summarize
from dendrite_zoo.functional.accuracy_matrix import as_values
from dendrite_zoo.records import ResultRecord
from dendrite_zoo.report.published import PUBLISHED_FOR, published_accuracy

__all__ = ["forgetting_table", "matrix_table", "results_table", "sparsity_table", "summary_table"]

MISSING = "·"
NARROW = 80  # characters of a terminal
SPARSITY = {
    "activation_sparsity": "zero activations",
    "dead_units": "dead units",
    "duty_cycle_entropy": "duty-cycle entropy",
    "weight_sparsity": "zero weights",
}
T = TypeVar("T")
number_column = partial(Column, justify="right")


def matrix_table(
    R: Any,
    baseline: Any = None,
    *,
    metric: str = "accuracy",
    mode: Literal["max", "min"] = "max",
    first_task: int = 0,
    max_tasks: int = 12,
) -> Table:
    """Accuracy on each task (columns) after each task was learned (rows), and what was forgotten (last row).

    Accuracies of tasks that were not yet learned are dim, "·" was not measured. A long stream is abridged:
    evenly spaced tasks, and the rows in which more than the task just learned was measured.

    Args:
        R: accuracy matrix.
        baseline: accuracy of the untrained model on each task.
        metric: name of what was measured, for the title.
        mode: ``"min"`` where less is better.
        first_task: the task that training started at; the row above it is what was measured before.
        max_tasks: at most so many rows and columns.

    Returns:
        A ``rich.table.Table``, for ``rich.print``.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``.

    Raises:
        ValueError: ``R`` is not a square matrix.
    """
    R = as_values(R)
    learned = learned_part(R)
    lost = forgetting_per_task(learned, mode)
    columns, rows = spread(range(len(R)), max_tasks), spread(shown_rows(R, max_tasks), max_tasks)
    shown = f", {len(columns)} of {len(R)} tasks" if len(columns) < len(R) else ""
    numbers = [number_column(name, no_wrap=True) for name in ("", *map(str, columns))]
    table = _table(f"{metric} on each task{shown}", *numbers, number_column("mean", no_wrap=True, style="bold"))
    untrained = torch.full((len(R),), math.nan) if baseline is None else as_values(baseline)
    if not untrained.isnan().all():
        table.add_row("untrained", *_cells(untrained, columns, learned=0), decimal(untrained.nanmean()))
    for i in rows:
        label = "before" if i == first_task - 1 else f"after {i}"
        table.add_row(label, *_cells(R[i], columns, learned=i + 1), _mean_so_far(R[: i + 1, : i + 1]))
    if not lost.isnan().all():
        table.add_section()
        forgotten = [*map(decimal, lost)] + [""] * (len(R) - len(lost))
        table.add_row("forgotten", *(forgotten[j] for j in columns), decimal(lost.nanmean()))
    if Console(width=1000).measure(table).maximum > NARROW:  # values would be cut off, such as twelve with a sign
        table.padding = 0
    return table


def _cells(values: Tensor, columns: Sequence[int], learned: int) -> list[str]:
    """Values of some tasks, dim of those that are not among the first ``learned``."""
    return [decimal(values[j]) if j < learned else f"[dim]{decimal(values[j])}[/dim]" for j in columns]


def _mean_so_far(R: Tensor) -> str:
    """The mean of the last row, unless a task is missing in it: that would be another mean than in other rows."""
    complete = not R[-1, ~R.isnan().all(0)].isnan().any()
    return decimal(average_accuracy(R)) if complete else MISSING


def summary_table(
    R: Any, baseline: Any = None, *, metric: str = "accuracy", mode: Literal["max", "min"] = "max"
) -> Table:
    """Average accuracy, forgetting and the transfers, each with the reason where it is undefined.

    Args:
        R: accuracy matrix.
        baseline: accuracy of the untrained model on each task.
        metric: name of what was measured.
        mode: ``"min"`` where less is better.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``.

    Raises:
        ValueError: ``R`` is not a square matrix.
    """
    table = Table(show_header=False, box=None)
    for name, figure in summarize(R, baseline, mode).items():
        note = figure.reason or f"over {figure.tasks} task{'s' if figure.tasks > 1 else ''}"
        table.add_row(plain_name(name, metric, mode), decimal(figure.value, 3), f"[dim]{note}[/dim]")
    return table


def forgetting_table(R: Any, *, mode: Literal["max", "min"] = "max", max_tasks: int = 20) -> Table:
    """For each task its accuracy when learned, at its best since then, now, and the difference of the last two.

    Args:
        R: accuracy matrix.
        mode: ``"min"`` where less is better.
        max_tasks: of a longer stream, the tasks that forgot most.

    Shape:
        ``R``: ``(T, T)``.

    Raises:
        ValueError: ``R`` is not a square matrix.
    """
    R = learned_part(R)
    lost = forgetting_per_task(R, mode)
    best = R[-1] + lost if mode == "max" else R[-1] - lost
    tasks = list(range(len(R)))
    title = "forgetting per task"
    if len(tasks) > max_tasks:
        tasks = lost.nan_to_num(nan=-math.inf).argsort(descending=True, stable=True)[:max_tasks].tolist()
        title += f", the {max_tasks} of {len(R)} that lost most"
    table = _table(title, *map(number_column, ("task", "when learned", "best", "now", "forgotten")))
    for j in tasks:
        table.add_row(str(j), decimal(R[j, j]), decimal(best[j]), decimal(R[-1, j]), decimal(lost[j]))
    table.add_section()
    table.add_row("mean", *[decimal(x.nanmean()) for x in (R.diagonal(), best, R[-1], lost)])
    return table


def sparsity_table(
    layers: Mapping[str, Mapping[str, float]], before: Mapping[str, Mapping[str, float]] | None = None
) -> Table:
    """Activation sparsity, dead units, duty-cycle entropy and weight sparsity of each layer.

    Args:
        layers: layer -> metric -> value, as ``SparsityLogger.values`` holds them.
        before: the same at an earlier time; cells then read "before → now".

    Example:
        >>> sparsity_table({"layers.0": {"activation_sparsity": 0.95, "dead_units": 0.0}}).row_count
        1
    """
    names = [name for name in SPARSITY if any(name in values for values in layers.values())]
    table = _table("sparsity", Column("layer", no_wrap=True), *(number_column(SPARSITY[name]) for name in names))
    for layer, values in layers.items():
        earlier = {name: f"[dim]{decimal(x)} →[/dim] " for name, x in (before or {}).get(layer, {}).items()}
        cells = [earlier.get(name, "") + decimal(values[name]) if name in values else "" for name in names]
        table.add_row(layer, *cells)
    return table


def results_table(records: Sequence[ResultRecord]) -> Table:
    """Mean accuracy (of policies success) of each method over all its tasks, the best first, published ones beside.

    Args:
        records: result records of one benchmark.
    """
    benchmark, metric = records[0].benchmark, records[0].more.get("metric", "accuracy")
    rest = [Column(name, no_wrap=True) for name in ("tasks", "context", metric, "seeds", "published")]
    table = _table(f"{benchmark}: mean {metric} over all tasks after the last", Column("method"), *rest)
    for row in result_rows(records):
        table.add_row(*row)
    return table


def result_rows(records: Sequence[ResultRecord]) -> list[list[str]]:
    """The cells of `results_table`: method, tasks, context, mean and spread, seeds, what was published."""
    rows = []
    for record in sorted(records, key=lambda record: (record.num_tasks, -record.average_accuracy)):
        spread = record.average_accuracy_std
        of_task = published_accuracy(record.method) if record.benchmark == PUBLISHED_FOR else {}
        known = of_task.get(record.num_tasks)
        row = [
            ", ".join([record.method, *_differences(record, records)])
            + ", on held-out training data" * (record.val_fraction is not None),
            str(record.num_tasks),
            record.context_at_test,
            f"{record.average_accuracy:.4f}" + ("" if spread is None else f" ± {spread:.4f}"),
            ", ".join(map(str, record.seeds)),
            "" if known is None else f"{known:.4f}",
        ]
        rows.append(row)
    return rows


def plain_name(name: str, metric: str, mode: str = "max") -> str:
    """The name of a metric of the matrix in words; what is a mean of losses or returns is no accuracy.

    Args:
        name: of a figure of the matrix.
        metric: name of what was measured.
        mode: ``"min"`` where less is better.

    Example:
        >>> plain_name("average_accuracy", "val/acc"), plain_name("average_accuracy", "val/return")
        ('average accuracy', 'average')
    """
    of_others = {"average_accuracy": "average", "learning_accuracy": "when learned"}
    words = name.replace("_", " ")
    return words if "acc" in metric.lower() and mode == "max" else of_others.get(name, words)


def decimal(x: float | Tensor, places: int = 2) -> str:
    """``0.874`` as ``.87``; NaN as ``·``.

    Example:
        >>> decimal(0.874), decimal(-0.02), decimal(1.0), decimal(float("nan"))
        ('.87', '-.02', '1.00', '·')
    """
    x = float(x)
    if math.isnan(x):
        return MISSING
    text = f"{x:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def shown_rows(R: Tensor, few: int) -> list[int]:
    """All rows that were measured; where they are not few, those with more than the task just learned."""
    measured = (~R.isnan()).sum(dim=1)
    rows = [i for i in range(len(R)) if measured[i]]
    return rows if len(rows) <= few else [i for i in rows if measured[i] > 1] or rows


def _differences(record: ResultRecord, records: Sequence[ResultRecord]) -> list[str]:
    """The model's arguments and the settings that tell a record from the others of its method."""
    same = [_settings(r) for r in records if (r.method, r.num_tasks) == (record.method, record.num_tasks)]
    own = _settings(record)
    return [f"{name} {value}" for name, value in own.items() if any(other.get(name) != value for other in same)]


def _settings(record: ResultRecord) -> dict[str, Any]:
    return {**(record.model or {}), **_flat(record.config or {})}


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, such as ``{"module.lr": 0.1}``."""
    if not isinstance(value, Mapping):
        return {at: value}
    return {name: x for key, item in value.items() for name, x in _flat(item, f"{at}.{key}".lstrip(".")).items()}


def _table(title: str, *columns: Column) -> Table:
    # without vertical lines twelve tasks fit into 80 columns
    return Table(*columns, title=title, title_style="bold", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of the items, evenly spaced, the first and the last among them."""
    n = len(items)
    if n <= most or most == 1:
        return list(items[-most:])
    return [items[round(k * (n - 1) / (most - 1))] for k in range(most)]
