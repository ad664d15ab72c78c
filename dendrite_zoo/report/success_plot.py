"""Success of each task over the steps of the simulation, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dendrite_zoo.report.figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_success"]

PREFIX = "success/"
APART = 0.06  # of the width, from one number of minutes to the next


def plot_success(
    curve: Sequence[Mapping[str, float]],
    path: str | Path | None = None,
    *,
    tasks: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Heat map of the success on each task, measured again and again, by the steps of the simulation played so far.

    Args:
        curve: one measurement after another: ``env_steps`` and ``success/{task}``, as ``curve`` of a result record and
            the logs of `dendrite_zoo.callbacks.SuccessLogger` hold them. Each stands from the one before it; of those
            between which nothing was played, as where all tasks rest, the last is shown. Where each has ``minutes``,
            the time that training took stands above.
        path: where to save a PNG (or what the suffix says); None saves nothing.
        tasks: names in the order of the rows; by default that in which they are in ``curve``.
        title: by default the number of tasks.

    Returns:
        The ``matplotlib.figure.Figure``, made without pyplot.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there is no measurement, one without ``env_steps`` or success, or their steps do not grow.
    """
    together = groupby(curve, key=lambda point: point.get("env_steps"))
    curve = [dict(chain.from_iterable(point.items() for point in same)) for _, same in together]
    names, edges = _tasks(curve, tasks), [0.0, *(point.get("env_steps", math.nan) for point in curve)]
    if not names or not all(before < after for before, after in pairwise(edges)):
        raise ValueError(
            "Expected measurements with growing `env_steps` and `success/{task}` of each, but got "
            f"{len(curve)} with the steps {edges[1:4]} and the tasks {names[:3]}. Log them with SuccessLogger."
        )
    cells = [[point.get(PREFIX + name, math.nan) for point in curve] for name in names]
    figure = new_figure(9.0, 1.6 + 0.26 * len(names))
    axes = figure.add_subplot()
    image = axes.pcolormesh(edges, [row - 0.5 for row in range(len(names) + 1)], cells, vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="success", pad=0.015, aspect=30)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_facecolor("#ececec")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.set_xlabel("steps of the simulation, of all tasks together")
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    if all("minutes" in point for point in curve):
        minutes = [0.0, *(point["minutes"] for point in curve)]
        steps_at, minutes_at = partial(np.interp, xp=minutes, fp=edges), partial(np.interp, xp=edges, fp=minutes)
        above = axes.secondary_xaxis("top", functions=(minutes_at, steps_at))
        above.set_xlabel("minutes")
        above.set_xticks(_round_minutes(minutes, edges))
    axes.set_title(title or f"success on {len(names)} tasks while they were learned", loc="left", fontsize=11)
    return save_figure(figure, path)


def _round_minutes(minutes: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Round numbers of minutes that were reached, as far as they are apart where steps are shown."""
    from matplotlib.ticker import MaxNLocator

    chosen: list[float] = []
    places = [-math.inf]
    for tick in map(float, MaxNLocator(8).tick_values(0.0, minutes[-1])):
        place = float(np.interp(tick, minutes, edges)) / edges[-1]
        if tick <= minutes[-1] and place - places[-1] >= APART:
            chosen.append(tick)
            places.append(place)
    return chosen


def _tasks(curve: Sequence[Mapping[str, float]], tasks: Sequence[str] | None) -> list[str]:
    """The tasks that were measured, in their order."""
    found = (name.removeprefix(PREFIX) for point in curve for name in point if name.startswith(PREFIX))
    known = [name for name in dict.fromkeys(found) if name != "mean"]
    return known if tasks is None else [name for name in tasks if name in known]
