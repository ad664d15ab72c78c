"""Some of the tasks of a backbone with dendrites, in a model of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.functional.ridge import UNSEEN, triangle_size
from dendrite_zoo.models.adapters.classes import BY_TASK_AND_CLASS
from dendrite_zoo.models.adapters.state import LEARNS

BY_TASK = (
    *("status", "heads.centre", "heads.scale", "heads.is_solved", "context.counts"),
    *(f"context.inner.{name}" for name in ("counts", "centers", "whitening", "distances", "prototypes")),
)
"""Tables with a row a task."""


def state_of_tasks(
    state: Mapping[str, Tensor],
    tasks: Sequence[int],
    *,
    sizes: Sequence[int],
    classes: Sequence[int],
    clusters: Sequence[int],
) -> dict[str, Tensor]:
    """The state of a model of some tasks, from that of a model of more; sums of a ridge context are given up.

    Args:
        state: of a model.
        tasks: which.
        sizes: parts of its columns: gates, shifts, weight and bias of the linear head.
        classes: of each task in the new model.
        clusters: means of a task that a ridge context has, in the model and in the new one.

    Raises:
        ValueError: a task has more classes.
    """
    chosen, kept, size = list(tasks), dict(state), max(classes)
    for name in BY_TASK:
        if name in kept:
            kept[name] = state[name][chosen].clone()
    kept["status"] &= ~LEARNS
    for name in BY_TASK_AND_CLASS:
        if name in kept:
            kept[name] = state[name][chosen, :size].clone()
    for task, most in zip(chosen, classes, strict=True) if "heads.ridge_bias" in kept else ():
        seen = (state["heads.ridge_bias"][task] > UNSEEN / 2) & state["heads.is_solved"][task]
        if seen[most:].any():
            more = f"at least {1 + int(seen.nonzero().max())}, for task {task} has so many"
            raise wrong_argument("num_classes", more, most)
    gates, shifts, weight, bias = state["columns"][chosen].split(list(sizes), 1)
    if bias.shape[1]:
        weight = weight.view(len(chosen), bias.shape[1], -1)[:, :size].flatten(1)
    kept["columns"] = torch.cat([gates, shifts, weight, bias[:, :size]], 1)
    head = "context.inner.head."
    for name in ("weight", "bias", "counts"):
        if (table := state.get(head + name)) is not None:
            own = table.view(-1, clusters[0], *table.shape[1:])[chosen, : clusters[1]]
            kept[head + name] = own.flatten(0, 1).clone()
    if (solved := kept.get(head + "weight")) is not None:
        kept[head + "sums"] = torch.zeros(solved.shape, dtype=torch.float64)
        size = triangle_size(solved.shape[1])
        kept[head + "triangle"] = torch.full((size,), torch.nan, dtype=torch.float64)
    return kept


def config_of_tasks(
    config: Mapping[str, Any], tasks: Sequence[int], classes: int | Sequence[int] | None
) -> dict[str, Any]:
    """The arguments of that model."""
    known = config["num_classes"]
    if classes is None:
        classes = [known[task] for task in tasks] if isinstance(known, list) else known
    classes = list(classes) if isinstance(classes, Sequence) else classes
    return {**config, "max_tasks": len(tasks), "num_classes": classes}
