"""Accuracy by number of tasks, of segments, or by density, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dendrite_zoo._core.files import write_atomically
from dendrite_zoo.records import recipe_key
from dendrite_zoo.report.published import PUBLISHED, PUBLISHED_FOR, Published, published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_by", "accuracy_by_tasks", "plot_accuracy"]

Swept = Literal["num_segments", "activation_density"]
By = Literal["num_tasks", Swept]
AXES: dict[By, str] = {
    "num_tasks": "tasks learned",
    "num_segments": "segments of a unit",
    "activation_density": "share of units that win",
}
MARKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)


def accuracy_by_tasks(record: Mapping[str, Any]) -> dict[int, float]:
    """Mean accuracy over all tasks so far, wherever a run measured all of them.

    Args:
        record: a result record; its matrix may hold null.

    Example:
        >>> record = {"num_tasks": 3, "average_accuracy": 0.8,
        ...     "matrix": [[0.9, None, None], [None, 0.8, None], [0.9, 0.8, 0.7]]}
        >>> accuracy_by_tasks(record)
        {1: 0.9, 3: 0.8}
    """
    points = {}
    for tasks, row in enumerate(record.get("matrix") or (), start=1):
        known = [value for value in row[:tasks] if value is not None]
        if len(known) == tasks:
            points[tasks] = statistics.fmean(known)
    return points | {record["num_tasks"]: record["average_accuracy"]}


def accuracy_by(records: Sequence[Mapping[str, Any]], by: Swept) -> dict[tuple[str, int], dict[float, float]]:
    """Mean accuracy by an argument of the model, for each row and number of tasks; all other arguments are equal.

    Args:
        records: result records; those that do not hold the model's config are left out. Where the recipes of a row
            differ in more than the argument, the curve of most points is taken. No number of segments is one a task.
        by: the argument.
    """
    curves: dict[tuple[str, int], dict[str, dict[float, float]]] = {}
    for record in records:
        model = record.get("model") or {}
        value = model.get("max_tasks") if by == "num_segments" and model.get(by) is None else model.get(by)
        if value is not None:
            of_row = curves.setdefault((record["row"], record["num_tasks"]), {})
            of_row.setdefault(recipe_key(record, but_for=by), {})[value] = record["average_accuracy"]
    longest = {key: max(of_row.values(), key=len) for key, of_row in curves.items()}
    return {key: dict(sorted(points.items())) for key, points in longest.items() if len(points) > 1}


def plot_accuracy(records: Sequence[Mapping[str, Any]], by: By = "num_tasks", path: str | Path | None = None) -> Figure:
    """Curves of mean accuracy over all tasks, on an axis that spreads what is close to 1.

    For permuted MNIST, what was published for the same rows is dashed, in the same colour; what was published for
    other rows is dotted and grey.

    Args:
        records: result records of one benchmark. A run that measured all tasks at milestones gives a point for each.
        by: what the accuracy is drawn over.
        path: where to save a PNG (or what the suffix says); None saves nothing.

    Returns:
        The ``matplotlib.figure.Figure``, made without pyplot.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no records, some of several benchmarks, or none that differ in ``by``.
    """
    try:
        from matplotlib import color_sequences
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The figures need the [report] extra: pip install 'dendrite-zoo[report]'") from error

    benchmarks = sorted({record["benchmark"] for record in records})
    if len(benchmarks) > 1:
        raise ValueError(f"Records of {', '.join(benchmarks)} came; expected one benchmark. Draw a figure for each.")
    curves = _curves(records, by)
    if not curves:
        raise ValueError(f"No records came that differ in {by}; expected at least two of one row. Leave this figure.")
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    axes = figure.add_subplot()
    drawn: list[Mapping[Any, float]] = []

    def draw(points: Mapping[Any, float], **style: Any) -> None:
        axes.plot(list(points), list(points.values()), **{"markersize": 4, "linewidth": 1, **style})
        drawn.append(points)

    # grey is for what others published
    colours = [colour for name in ("tab10", "Dark2") for colour in color_sequences[name] if len(set(colour)) > 1]
    for number, (label, (points, beside)) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        draw(points, color=colour, marker="os"[number >= 9], linewidth=1.6, label=label)
        if beside:
            draw(beside, color=colour, linestyle="--", marker="x", markersize=5, label=f"{label}, published")
    if benchmarks == [PUBLISHED_FOR]:
        others = {label: points for label, points in _others(records, by).items() if label not in curves}
        for (label, known), marker in zip(others.items(), "ov^<>sDPX*", strict=False):
            draw(known, color="#a0a0a0", linestyle=":", marker=marker, label=f"{label}, published")
    _scale_accuracy(axes, [value for points in drawn for value in points.values()])
    if by != "activation_density":
        axes.set_xscale("log")
        ticks = sorted({x for points in drawn for x in points})
        wide = ticks[:1]
        for x in ticks:
            if x >= 1.4 * wide[-1]:
                wide.append(x)
        axes.set_xticks(wide, [f"{x:g}" for x in wide])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    swept = None if by == "num_tasks" else accuracy_by(records, by)
    counts = [len(r["seeds"]) for r in records if swept is None or (r["row"], r["num_tasks"]) in swept]
    few, many = min(counts), max(counts)
    seeds = f"{few} seed{'s' * (few > 1)}" if few == many else f"{few} to {many} seeds"
    note = "; XdG is given the task" * (by == "num_tasks" and benchmarks == [PUBLISHED_FOR])
    axes.set_title(
        f"{benchmarks[0]}: mean accuracy over all tasks learned so far\n{seeds} a row{note}",
        loc="left",
        fontsize=10,
    )
    axes.set_xlabel(AXES[by])
    axes.set_ylabel("mean accuracy over all tasks")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    if path is not None:
        write_atomically(path, lambda part: figure.savefig(part, dpi=150))
    return figure


def _scale_accuracy(axes: Axes, values: list[float]) -> None:
    """An axis on which .97 and .98 lie as far apart as .94 and .96, with marks where there are values."""
    if min(values) <= 0 or max(values) >= 1:
        return  # a logarithm of zero errors
    axes.set_yscale("logit")
    low, high = min(values), max(values)
    marks = (
        [m for m in MARKS if m < low][-1:] + [m for m in MARKS if low <= m <= high] + [m for m in MARKS if m > high][:1]
    )
    axes.set_ylim(min(marks[0], low), max(marks[-1], high))
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.tick_params(axis="y", which="minor", left=False, labelleft=False)


def _curves(records: Sequence[Mapping[str, Any]], by: By) -> dict[str, tuple[dict[float, float], Mapping[Any, float]]]:
    benchmark = records[0]["benchmark"] if records else ""
    if by == "num_tasks":
        rows: dict[str, dict[float, float]] = {}
        for record in sorted(records, key=lambda record: -record["num_tasks"]):  # a run of its own for a point wins
            points = rows.setdefault(record["row"], {})
            points.update({float(tasks): accuracy for tasks, accuracy in accuracy_by_tasks(record).items()})
        return {row: (dict(sorted(points.items())), published(row, benchmark).accuracy) for row, points in rows.items()}
    curves: dict[str, tuple[dict[float, float], Mapping[Any, float]]] = {}
    for (row, tasks), points in accuracy_by(records, by).items():
        curves[f"{row}, {tasks} tasks"] = points, _swept(published(row, benchmark), by).get(tasks, {})
    return curves


def _others(records: Sequence[Mapping[str, Any]], by: By) -> dict[str, Mapping[Any, float]]:
    """All that was published, for the numbers of tasks that the records have."""
    if by == "num_tasks":
        return {row: paper.accuracy for row, paper in PUBLISHED.items()}
    learned = {record["num_tasks"] for record in records}
    return {
        f"{row}, {tasks} tasks": points
        for row, paper in PUBLISHED.items()
        for tasks, points in _swept(paper, by).items()
        if tasks in learned
    }


def _swept(paper: Published, by: Swept) -> Mapping[int, Mapping[Any, float]]:
    return paper.by_segments if by == "num_segments" else paper.by_density
