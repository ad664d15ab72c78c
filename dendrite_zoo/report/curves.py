"""Accuracy by number of tasks, of segments, or by density, beside what was published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dendrite_zoo._core.files import write_atomically
from dendrite_zoo.records import ResultRecord
from dendrite_zoo.report.published import PUBLISHED, PUBLISHED_FOR

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
SUBJECTS: dict[By, str] = {
    "num_tasks": "accuracy over all tasks, by the number of tasks learned",
    "num_segments": "accuracy over all tasks, by the number of segments of a unit",
    "activation_density": "accuracy over all tasks, by the share of units that win",
}
MOST = 8
"""Curves that a picture shows at most."""
MARKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)


@dataclass(frozen=True)
class Curve:
    """A line of a picture.

    Attributes:
        label: what stands at its end.
        points: accuracy by what is drawn over.
        spread: standard deviation over seeds, for some of the points.
        seeds: how many runs a point is the mean of, at most.
        measured: whether it was measured with this library; else it was published.
    """

    label: str
    points: dict[float, float]
    spread: dict[float, float] = field(default_factory=dict)
    seeds: int = 1
    measured: bool = True

    @property
    def end(self) -> tuple[float, float]:
        """The last point."""
        return max(self.points.items())


def accuracy_by_tasks(record: ResultRecord) -> dict[int, float]:
    """Mean accuracy over all tasks so far, wherever a run measured all of them.

    Args:
        record: a result record; its matrix may hold null.

    Example:
        >>> matrix = [[0.9, None, None], [None, 0.8, None], [1.0, 0.5, 0.75]]
        >>> known = {"benchmark": "b", "method": "m", "context_at_test": "none", "matrix": matrix}
        >>> record = ResultRecord(num_tasks=3, average_accuracy=0.75, **known)
        >>> accuracy_by_tasks(record)
        {1: 0.9, 3: 0.75}
    """
    points = {}
    for tasks, row in enumerate(record.matrix or (), start=1):
        known = [value for value in row[:tasks] if value is not None]
        if len(known) == tasks:
            points[tasks] = statistics.fmean(known)
    return points | {record.num_tasks: record.average_accuracy}


def accuracy_by(records: Sequence[ResultRecord], by: Swept) -> dict[tuple[str, int], dict[float, float]]:
    """Mean accuracy by an argument of the model, for each method and number of tasks; all other arguments are equal.

    Args:
        records: result records; those of which the recipe is not known are left out. Where the recipes of a method
            differ in more than the argument, the curve of most points is taken. No number of segments is one a task.
        by: the argument.
    """
    curves: dict[tuple[str, int], dict[str, dict[float, float]]] = {}
    for record in records:
        model = record.model or {}
        value = model.get("max_tasks") if by == "num_segments" and model.get(by) is None else model.get(by)
        recipe = record.recipe(but_for=by)
        if value is not None and recipe is not None:
            of_method = curves.setdefault((record.method, record.num_tasks), {})
            of_method.setdefault(recipe, {})[value] = record.average_accuracy
    longest = {key: max(of_method.values(), key=len) for key, of_method in curves.items()}
    return {key: dict(sorted(points.items())) for key, points in longest.items() if len(points) > 1}


def plot_accuracy(records: Sequence[ResultRecord], by: By = "num_tasks", path: str | Path | None = None) -> Figure:
    """Curves of mean accuracy over all tasks, on an axis that spreads what is close to 1.

    At most eight curves, each labelled where it ends: those measured that reach furthest, and of what was published for
    permuted MNIST (dashed) the best. The results table has them all.

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
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The figures need the [report] extra: pip install 'dendrite-zoo[report]'") from error

    benchmarks = sorted({record.benchmark for record in records})
    if len(benchmarks) > 1:
        raise ValueError(f"Expected records of one benchmark, but got {', '.join(benchmarks)}. Draw a figure for each.")
    curves = _chosen(_curves(records, by), _published_curves(records, by) if benchmarks == [PUBLISHED_FOR] else [])
    if not any(curve.measured for curve in curves):
        raise ValueError(
            f"Expected two records of a method that differ in {by} at least, but got none. Leave this figure."
        )
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        _draw(axes, curve, f"C{number}" if curve.measured else "#707070")
    _scale_accuracy(axes, [value for curve in curves for value in curve.points.values()])
    if by != "activation_density":
        _scale_counts(axes, sorted({x for curve in curves for x in curve.points}))
    _label_ends(axes, curves)
    axes.set_title(f"{benchmarks[0]}: {SUBJECTS[by]}\n{_notes(curves)}", loc="left", fontsize=10)
    axes.set_xlabel(AXES[by])
    axes.set_ylabel("mean accuracy over the tasks learned so far\n(logit axis: what is close to 1 is spread)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    if path is not None:
        write_atomically(path, lambda part: figure.savefig(part, dpi=150))
    return figure


def _chosen(measured: list[Curve], published: list[Curve]) -> list[Curve]:
    """At most `MOST` curves: the measured ones that reach furthest, and the best of the published ones."""
    reach = sorted(measured, key=lambda curve: (-max(curve.points), -curve.end[1]))
    known = sorted(published, key=lambda curve: -curve.end[1])
    few = max(MOST // 2, MOST - len(known))
    return [*reach[:few], *known[: MOST - min(few, len(reach))]]


def _draw(axes: Axes, curve: Curve, colour: str) -> None:
    xs, ys = list(curve.points), list(curve.points.values())
    style = {"marker": "o", "linewidth": 1.6} if curve.measured else {"marker": "x", "linestyle": "--", "linewidth": 1}
    axes.plot(xs, ys, color=colour, markersize=4, label=curve.label, **style)  # type: ignore[arg-type]
    for x, spread in curve.spread.items():
        axes.errorbar(x, curve.points[x], yerr=spread, color=colour, capsize=3, linewidth=1)


def _label_ends(axes: Axes, curves: list[Curve]) -> None:
    """A curve's label right of the axes at the height where it ends, moved up or down where it would cover another."""
    low, high = axes.transAxes.inverted().transform(axes.transData.transform([(1, y) for y in axes.get_ylim()]))[:, 1]
    places = axes.transData.transform([curve.end for curve in curves])
    heights = [float(y) for y in axes.transAxes.inverted().transform(places)[:, 1]]
    step, last = (high - low) / 24, math.inf
    for curve, line, height in sorted(zip(curves, axes.get_lines(), heights, strict=False), key=lambda one: -one[2]):
        last = min(height, last - step)
        axes.annotate(
            curve.label,
            curve.end,
            (1.02, last),
            textcoords="axes fraction",
            color=line.get_color(),
            fontsize=8,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 0.5,
                "alpha": 0.5,
                "relpos": (0, 0.5),
            },
        )


def _notes(curves: list[Curve]) -> str:
    counts = [curve.seeds for curve in curves if curve.measured]
    few, many = min(counts), max(counts)
    seeds = f"{few} seed{'s' * (few > 1)}" if few == many else f"{few} to {many} seeds"
    given = "; XdG is given the task" * any("XdG" in curve.label for curve in curves)
    bars = "; bars: standard deviation over seeds" * any(curve.spread for curve in curves)
    dashed = "; dashed: published" * any(not curve.measured for curve in curves)
    return f"{seeds} a curve{bars}{dashed}{given}"


def _scale_counts(axes: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic axis of counts, with marks that do not touch."""
    axes.set_xscale("log")
    wide = list(ticks[:1])
    for x in ticks:
        if x >= 1.4 * wide[-1]:
            wide.append(x)
    axes.set_xticks(wide, [f"{x:g}" for x in wide])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


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


def _curves(records: Sequence[ResultRecord], by: By) -> list[Curve]:
    if by != "num_tasks":
        return [
            _swept_curve(method, tasks, points, records, by)
            for (method, tasks), points in accuracy_by(records, by).items()
        ]
    curves: dict[str, Curve] = {}
    for record in sorted(records, key=lambda record: -record.num_tasks):  # a run of its own for a point wins
        curve = curves.setdefault(record.method, Curve(record.method, {}, seeds=0))
        curve.points.update({float(tasks): accuracy for tasks, accuracy in accuracy_by_tasks(record).items()})
        if record.average_accuracy_std:
            curve.spread[float(record.num_tasks)] = record.average_accuracy_std
        curves[record.method] = replace(curve, seeds=max(curve.seeds, len(record.seeds)))
    return [replace(curve, points=dict(sorted(curve.points.items()))) for curve in curves.values()]


def _swept_curve(
    method: str, tasks: int, points: dict[float, float], records: Sequence[ResultRecord], by: Swept
) -> Curve:
    own = [r for r in records if (r.method, r.num_tasks) == (method, tasks)]
    stds = {r.average_accuracy: r.average_accuracy_std for r in own if r.average_accuracy_std}
    spread = {x: std for x, y in points.items() if (std := stds.get(y))}
    return Curve(f"{method}, {tasks} tasks", points, spread, seeds=max(len(r.seeds) for r in own))


def _published_curves(records: Sequence[ResultRecord], by: By) -> list[Curve]:
    """What was published of permuted MNIST; by an argument, for the numbers of tasks that the records have."""
    if by == "num_tasks":
        return [Curve(f"{method}, published", paper.accuracy, measured=False) for method, paper in PUBLISHED.items()]
    learned = {record.num_tasks for record in records}
    return [
        Curve(f"{method}, {tasks} tasks, published", points, measured=False)
        for method, paper in PUBLISHED.items()
        for tasks, points in (paper.by_segments if by == "num_segments" else paper.by_density).items()
        if tasks in learned
    ]
