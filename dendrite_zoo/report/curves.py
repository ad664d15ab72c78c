"""Accuracy by number of tasks, of segments, or by density, beside what was published."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from dendrite_zoo.records import ResultRecord
from dendrite_zoo.report.figure import new_figure, save_figure
from dendrite_zoo.report.published import PUBLISHED, PUBLISHED_FOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["accuracy_by", "accuracy_by_tasks", "plot_accuracy"]

Swept = Literal["num_segments", "activation_density"]
By = Literal["num_tasks", Swept]
AXES: dict[By, str] = {
    "num_tasks": "tasks learned",
    "num_segments": "segments of a unit",
    "activation_density": "share of units that win",
}
MOST = 8  # curves that a picture shows
MARKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)


class Curve(NamedTuple):
    """A line of a picture.

    Args:
        label: what stands at its end.
        points: accuracy by what is drawn over.
        spread: standard deviation over seeds, for some of the points.
        seeds: how many runs a point is the mean of, at most; 0 where it was published, not measured with this library.
    """

    label: str
    points: dict[float, float]
    spread: dict[float, float] = {}
    seeds: int = 0

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
    points = {
        tasks: statistics.fmean(known)
        for tasks, row in enumerate(record.matrix or (), start=1)
        if len(known := [value for value in row[:tasks] if value is not None]) == tasks
    }
    return points | {record.num_tasks: record.average_accuracy}


def accuracy_by(records: Sequence[ResultRecord], by: Swept) -> dict[tuple[str, int], dict[float, float]]:
    """Mean accuracy by an argument of the model, for each method and number of tasks; all other arguments are equal.

    Args:
        records: result records; those of which the recipe is not known are left out. Where the recipes of a method
            differ in more than the argument, the curve of most points is taken. No number of segments is one a task.
        by: the argument.
    """
    swept = _swept(records, by).items()
    return {key: {value: record.average_accuracy for value, record in runs.items()} for key, runs in swept}


def _swept(records: Sequence[ResultRecord], by: Swept) -> dict[tuple[str, int], dict[float, ResultRecord]]:
    curves: dict[tuple[str, int], dict[str, dict[float, ResultRecord]]] = {}
    for record in records:
        model = record.model or {}
        value = model.get("max_tasks") if by == "num_segments" and model.get(by) is None else model.get(by)
        recipe = record.source or record.recipe(but_for=by)  # of a paper it is one
        if value is not None and recipe is not None:
            of_method = curves.setdefault((record.method, record.num_tasks), {})
            of_method.setdefault(recipe, {})[value] = record
    longest = {key: max(of_method.values(), key=len) for key, of_method in curves.items()}
    return {key: dict(sorted(runs.items())) for key, runs in longest.items() if len(runs) > 1}


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
    benchmarks = sorted({record.benchmark for record in records})
    if len(benchmarks) > 1:
        raise ValueError(f"Expected records of one benchmark, but got {', '.join(benchmarks)}. Draw a figure for each.")
    measured, published = _curves(records, by), _published(records, by) if benchmarks == [PUBLISHED_FOR] else []
    if not measured:
        raise ValueError(f"Expected two records of a method that differ in {by} at least, but got none. Leave it out.")
    curves = _chosen(measured, published)
    figure = new_figure(9.0, 5.4)
    axes = figure.add_subplot()
    lines = [_draw(axes, curve) for curve in curves]
    _scale_accuracy(axes, [value for curve in curves for value in curve.points.values()])
    counts = by != "activation_density"
    if counts:
        _scale_counts(axes, sorted({x for curve in curves for x in curve.points}))
    _label_ends(axes, curves, lines)
    subject = f"accuracy over all tasks, by the {'number of ' * counts}{AXES[by]}"
    axes.set_title(f"{benchmarks[0]}: {subject}\n{_notes(curves)}", loc="left", fontsize=10)
    axes.set_xlabel(AXES[by])
    axes.set_ylabel("mean accuracy over the tasks learned so far\n(logit axis: what is close to 1 is spread)")
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    return save_figure(figure, path)


def _chosen(measured: list[Curve], published: list[Curve]) -> list[Curve]:
    """At most `MOST` curves: the measured ones that reach furthest, and the best of the published ones."""
    reach = sorted(measured, key=lambda curve: (-max(curve.points), -curve.end[1]))
    known = sorted(published, key=lambda curve: -curve.end[1])
    few = max(MOST // 2, MOST - len(known))
    return [*reach[:few], *known[: MOST - min(few, len(reach))]]


def _draw(axes: Axes, curve: Curve) -> Line2D:
    [line] = axes.plot(*zip(*curve.points.items(), strict=True), "o-", markersize=4, linewidth=1.6, label=curve.label)
    if not curve.seeds:
        line.set(marker="x", linestyle="--", linewidth=1, color="#707070")
    for x, spread in curve.spread.items():
        axes.errorbar(x, curve.points[x], yerr=spread, color=line.get_color(), capsize=3, linewidth=1)
    return line


def _label_ends(axes: Axes, curves: list[Curve], lines: list[Line2D]) -> None:
    """A curve's label right of the axes at the height where it ends, moved down where it would cover another."""
    axes.autoscale_view()  # else the limits are not known yet
    heights = (axes.transData - axes.transAxes).transform([curve.end for curve in curves])[:, 1].tolist()
    last = math.inf
    for height, curve, line in sorted(zip(heights, curves, lines, strict=True), key=lambda one: -one[0]):
        last, colour = min(height, last - 1 / 24), line.get_color()
        thin = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5, "relpos": (0, 0.5)}
        text = axes.annotate(curve.label, curve.end, (1.02, last), textcoords="axes fraction", arrowprops=thin)
        text.set(color=colour, fontsize=8, va="center")


def _notes(curves: list[Curve]) -> str:
    counts = [curve.seeds for curve in curves if curve.seeds]
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)}))) + " seed" + "s" * (max(counts) > 1)
    bars = "; bars: standard deviation over seeds" * any(curve.spread for curve in curves)
    dashed = "; dashed: published" * (len(counts) < len(curves))
    given = "; XdG is given the task" * any("XdG" in curve.label for curve in curves)
    return f"{seeds} a curve{bars}{dashed}{given}"


def _scale_counts(axes: Axes, counts: list[float]) -> None:
    """A logarithmic axis of counts, with marks that do not touch."""
    axes.set_xscale("log")
    marks = counts[:1]
    for x in counts:
        if x >= 1.4 * marks[-1]:
            marks.append(x)
    axes.set_xticks(marks, [f"{x:g}" for x in marks])


def _scale_accuracy(axes: Axes, values: list[float]) -> None:
    """An axis on which .97 and .98 lie as far apart as .94 and .96, with marks where there are values."""
    low, high = min(values), max(values)
    if low <= 0 or high >= 1:
        return  # a logarithm of zero errors
    axes.set_yscale("logit")
    marks = MARKS[max(0, bisect_left(MARKS, low) - 1) : bisect_right(MARKS, high) + 1]
    axes.set_ylim(min(marks[0], low), max(marks[-1], high))
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])


def _curves(records: Sequence[ResultRecord], by: By) -> list[Curve]:
    """A curve a method; by an argument of the model one for each of its numbers of tasks."""
    runs: dict[str, dict[float, ResultRecord]] = {}
    if by == "num_tasks":
        for record in sorted(records, key=lambda record: -record.num_tasks):  # a run of its own for a point wins
            runs.setdefault(record.method, {})[record.num_tasks] = record
    else:
        runs = {f"{method}, {tasks} tasks": of for (method, tasks), of in _swept(records, by).items()}
    curves = []
    for label, of in runs.items():
        points: dict[float, float] = {}
        for x, record in of.items():
            points.update(accuracy_by_tasks(record).items() if by == "num_tasks" else [(x, record.average_accuracy)])
        spread = {x: record.average_accuracy_std for x, record in of.items() if record.average_accuracy_std}
        seeds = max(1, *(len(record.seeds) for record in of.values()))  # a run whose seed is not known is one run
        curves.append(Curve(label, dict(sorted(points.items())), spread, seeds))
    return curves


def _published(records: Sequence[ResultRecord], by: By) -> list[Curve]:
    """What was published of permuted MNIST; by an argument, for the numbers of tasks that the records have."""
    learned = {record.num_tasks for record in records}
    known = [paper for paper in PUBLISHED if (paper.model is None if by == "num_tasks" else paper.num_tasks in learned)]
    return [curve._replace(label=f"{curve.label}, published", seeds=0) for curve in _curves(known, by)]
