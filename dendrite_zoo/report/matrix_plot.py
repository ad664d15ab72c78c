"""The accuracy matrix as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dendrite_zoo.functional import learned_part, summarize
from dendrite_zoo.functional.accuracy_matrix import as_values
from dendrite_zoo.report.figure import heat_map, new_figure, save_figure
from dendrite_zoo.report.tables import decimal, plain_name, shown_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_matrix"]

RED = "#d62728"
ANNOTATED = 16  # cells of a longer stream are too small for a number


def plot_matrix(
    R: Any,
    path: str | Path | None = None,
    *,
    baseline: Any = None,
    metric: str = "accuracy",
    mode: Literal["max", "min"] = "max",
    first_task: int = 0,
    title: str | None = None,
) -> Figure:
    """Heat map of the accuracy on each task after each task was learned.

    Cells of a stream of up to 16 tasks hold their number. Right of the red line, as its caption says, stand tasks that
    were not yet learned. A long stream shows the rows in which more than the task just learned was measured, and below
    them how each task fared: when it was learned, and now.

    Args:
        R: accuracy matrix.
        path: where to save a PNG (or what the suffix says); None saves nothing.
        baseline: accuracy of the untrained model on each task, shown as a row of its own.
        metric: name of what was measured, for the colour bar.
        mode: ``"min"`` where less is better: bright is good in both.
        first_task: the task that training started at; the row above it is what was measured before.
        title: the first line; by default the metric and the number of tasks.

    Returns:
        The ``matplotlib.figure.Figure``, made without pyplot: nothing to close, no display needed.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: ``R`` is not a square matrix.
    """
    learned = learned_part(R)
    R = as_values(R).detach().float().cpu()
    T = len(R)
    small = T <= ANNOTATED
    rows = shown_rows(R, ANNOTATED) or [0]
    labels = ["before" if i == first_task - 1 else str(i) for i in rows]
    cells = R[rows]
    if baseline is not None and not as_values(baseline).isnan().all():
        cells = torch.cat([as_values(baseline).detach().float().cpu()[None], cells])
        rows, labels = [-1, *rows], ["untrained", *labels]

    if small:
        figure = new_figure(max(2.6 + 0.52 * T, 5.2), 1.9 + 0.42 * max(len(rows), 2))
        axes = figure.add_subplot()
    else:
        rise = min(2.0 + 0.1 * len(rows), 6.5)
        figure = new_figure(9.0, rise + 3.0)
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[rise, 2.0])
        _fates(below, R, learned, metric)
    _heat_map(axes, cells, rows, labels, metric, mode, small)

    figures = summarize(R, baseline, mode)
    values = {plain_name(name, metric, mode): figures[name].value for name in ("average_accuracy", "forgetting")}
    line = "   ·   ".join(f"{name} {'undefined' if v != v else decimal(v, 3)}" for name, v in values.items())
    note = figure.text(1, 0, "right of the red line: tasks not learned yet", ha="right", va="bottom")
    note.set(color=RED, fontsize=8)
    axes.set_title(f"{title or f'{metric} on {T} task' + 's' * (T > 1)}\n{line}", loc="left", fontsize=11)
    return save_figure(figure, path)


def _heat_map(
    axes: Axes, cells: Tensor, rows: list[int], labels: list[str], metric: str, mode: str, small: bool
) -> None:
    from matplotlib import colormaps

    values = cells[cells.isfinite()]
    fraction = not len(values) or (mode == "max" and values.min() >= 0 and values.max() <= 1)
    low, high = (0.0, 1.0) if fraction else (float(values.min()), float(values.max()))
    colours = colormaps["viridis" if mode == "max" else "viridis_r"].with_extremes(bad="#ececec")
    bar = {"label": metric if mode == "max" else f"{metric} (less is better)", "pad": 0.015, "aspect": 30}
    heat_map(axes, cells, bar, cmap=colours, vmin=low, vmax=high, aspect="auto")
    T = cells.shape[1]
    every = 1 if small else -(-len(rows) // 12)
    axes.set_yticks(range(len(rows))[::every], labels[::every])
    axes.set_ylabel("after task")
    if small:
        axes.set(xticks=range(T), xlabel="task")
        _write_numbers(axes, cells, *((low, high) if mode == "max" else (high, low)))
    _draw_line(axes, rows, T)


def _write_numbers(axes: Axes, cells: Tensor, low: float, high: float) -> None:
    axes.set_xticks([j + 0.5 for j in range(cells.shape[1] - 1)], minor=True)
    axes.set_yticks([i + 0.5 for i in range(len(cells) - 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for y, row in enumerate(cells.tolist()):
        for x, value in enumerate(row):
            light = (value - low) / (high - low or 1) > 0.6
            colour = "#999999" if value != value else "black" if light else "white"
            axes.text(x, y, decimal(value), ha="center", va="center", color=colour, fontsize=9)


def _draw_line(axes: Axes, rows: list[int], num_tasks: int) -> None:
    """The line between the tasks learned so far and those to come."""
    xs = [min(i + 0.5, num_tasks - 0.5) for i in rows for _ in range(2)]
    ys = [y + half for y in range(len(rows)) for half in (-0.5, 0.5)]
    axes.plot(xs, ys, color=RED, linewidth=1.8, clip_on=False)


def _fates(axes: Axes, R: Tensor, learned: Tensor, metric: str) -> None:
    tasks = range(len(learned))
    axes.plot(tasks, learned.diagonal().numpy(), color="#999999", linewidth=1.2, label="when learned")
    axes.plot(tasks, learned[-1].numpy(), color="#440154", linewidth=1.6, label="now")
    axes.set(xlim=(-0.5, len(R) - 0.5), xlabel="task", ylabel=metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
