"""The sub-networks of tasks as a picture and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dendrite_zoo._core.files import nan_to_null
from dendrite_zoo.functional import task_overlap, unit_order
from dendrite_zoo.functional.accuracy_matrix import as_values
from dendrite_zoo.report.figure import heat_map, new_figure, save_figure
from dendrite_zoo.report.tables import spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_subnetworks", "subnetwork_record"]

MOST_NAMES = 20  # of tasks, that can be read beside a layer


def subnetwork_record(
    win_rates: Mapping[str, Tensor], segments: Mapping[str, Tensor] | None = None, *, num_units: int = 64
) -> dict[str, Any]:
    """What a picture of sub-networks needs, ready for JSON.

    Args:
        win_rates: for each layer, the share of a task's inputs for which a unit was active.
        segments: for each layer with dendrites, the segment of each unit that answers the context of a task, -1 where
            not measured.
        num_units: so many units of each layer, evenly spaced, have their numbers in the record.

    Shape:
        ``(T, U)`` each.

    Returns:
        ``{"layers": {name: {"units", "active_share", "overlap", "shown_units", "win_rates", "segments"}}}``; overlap
        ``(T, T)``, win rates and segments ``(T, num_units)``; None for what was not measured.

    Example:
        >>> record = subnetwork_record({"hidden": torch.eye(2, 4)})
        >>> record["layers"]["hidden"]["overlap"]
        [[1.0, 0.0], [0.0, 1.0]]
    """
    layers = {}
    for name, rates in win_rates.items():
        shown = torch.linspace(0, rates.shape[1] - 1, min(num_units, rates.shape[1])).round().long()
        layers[name] = {
            "units": rates.shape[1],
            "active_share": nan_to_null(float(rates.nanmean()), 4),
            "overlap": nan_to_null(task_overlap(rates).tolist(), 4),
            "shown_units": shown.tolist(),
            "win_rates": nan_to_null(rates[:, shown].tolist(), 4),
        }
        if segments and name in segments:
            answers = segments[name][:, shown].tolist()
            layers[name]["segments"] = [[None if segment < 0 else segment for segment in row] for row in answers]
    return {"layers": layers}


def plot_subnetworks(
    record: Mapping[str, Any],
    path: str | Path | None = None,
    *,
    title: str | None = None,
    tasks: Sequence[str] | None = None,
    max_layers: int = 8,
) -> Figure:
    """Which units are active for which task, and how much the tasks share (Iyer et al. 2022, figure on sub-networks).

    A layer a row. On the left some of its units, ordered by the task that they are most active for: sub-networks show
    as steps. On the right the overlap of each pair of tasks (`dendrite_zoo.metrics.task_overlap`).

    Args:
        record: what `subnetwork_record` gives.
        path: where to save a PNG (or what the suffix says); None saves nothing.
        title: the first line.
        tasks: their names, in order; numbers by default.
        max_layers: at most so many layers, evenly spaced, the first and the last among them.

    Returns:
        The ``matplotlib.figure.Figure``, made without pyplot: nothing to close, no display needed.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the record holds no layer, or one whose numbers have other shapes.
    """
    if not record["layers"]:
        raise ValueError("The record holds no layer; expected one at least. Was a validation run?")
    layers = spread(list(enumerate(record["layers"].items(), start=1)), max_layers)
    figure = new_figure(10.5 if tasks else 9.0, 0.6 + 2.9 * len(layers))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.subplots(len(layers), 2, squeeze=False, width_ratios=[2.2, 1.0])
    for (left, right), (number, (name, layer)) in zip(grid, layers, strict=True):
        rates, overlap = as_values(layer["win_rates"]), as_values(layer["overlap"])
        if rates.ndim != 2 or 0 in rates.shape or overlap.shape != (len(rates), len(rates)):
            shapes = f"{list(rates.shape)} and {list(overlap.shape)}"
            raise ValueError(f"Expected win rates (T, U) and overlaps (T, T) of layer {name!r}, but got {shapes}.")
        scale: dict[str, Any] = {"vmin": 0, "vmax": 1}
        bar = {"label": "share of inputs it is active for", "pad": 0.015, "aspect": 25}
        heat_map(left, rates[:, unit_order(rates)], bar, cmap="viridis", aspect="auto", **scale)
        units = f"{rates.shape[1]} of its {layer['units']} units"
        of_all = f" of {len(record['layers'])}" if len(layers) < len(record["layers"]) else ""
        left.set_title(f"layer {number}{of_all} ({name}): {units}", loc="left", fontsize=10)
        left.set(xlabel="unit, ordered by the task that it is most active for", xticks=[], ylabel="task")
        bar = {"label": "share of active units in common", "pad": 0.03, "aspect": 25}
        heat_map(right, overlap, bar, cmap="magma", **scale)
        by_chance = torch.nan if layer["active_share"] is None else layer["active_share"]
        right.set_title(f"overlap {_mean_apart(overlap):.2f}, by chance {by_chance:.2f}", fontsize=10)
        right.set(xlabel="task", ylabel="task")
        for axis in (left.yaxis, right.yaxis, right.xaxis):
            axis.get_major_locator().set_params(integer=True)
        if tasks is not None and len(tasks) <= MOST_NAMES:
            left.set_yticks(range(len(tasks)), tasks, fontsize=7)
            left.set_ylabel("")
    return save_figure(figure, path)


def _mean_apart(overlap: Tensor) -> float:
    """The mean overlap of two different tasks."""
    return float(overlap[~torch.eye(len(overlap), dtype=torch.bool)].nanmean())
