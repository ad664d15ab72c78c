"""All figures of an accuracy matrix at once, each with the reason where it is undefined."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from dendrite_zoo.functional.accuracy_matrix import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forgetting_per_task,
    forward_transfer,
    learned_part,
    learning_accuracy,
)

__all__ = ["Figure", "summarize"]


class Figure(NamedTuple):
    """One figure of an accuracy matrix.

    Attributes:
        value: the figure; NaN where it is undefined.
        tasks: the number of tasks that it is a mean of, those left out not counted.
        reason: why ``value`` is NaN; None where it is defined.
    """

    value: float
    tasks: int
    reason: str | None = None


def summarize(R: Any, baseline: Any = None) -> dict[str, Figure]:
    """The five figures of an accuracy matrix, after the last task that was measured.

    Args:
        R: accuracy matrix of the whole stream; rows of tasks that are still to come may be NaN.
        baseline: accuracy of the untrained model on each task, where it was measured.

    Returns:
        ``average_accuracy``, ``forgetting``, ``backward_transfer``, ``forward_transfer``,
        ``learning_accuracy``.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> figures = summarize([[0.9, 0.1], [0.8, 0.9]])
        >>> round(figures["forgetting"].value, 3), figures["forgetting"].tasks
        (0.1, 1)
        >>> figures["forward_transfer"].reason
        'the untrained model was not measured'
    """
    R = learned_part(R)
    T = len(R)
    untrained = torch.full((T,), math.nan) if baseline is None else torch.as_tensor(baseline)[:T]
    untrained = untrained.to(R)
    measured = ~R.isnan()
    changed = (measured[-1] & measured.diagonal())[:-1]
    ahead = measured.diagonal(1) & ~untrained[1:].isnan()

    alone = "needs a second task" if T == 1 else None
    nothing = "nothing was measured yet" if not measured.any() else None
    no_row = f"no earlier task was measured after task {T - 1} and before, since it was learned"
    if untrained.isnan().all():
        no_baseline = "the untrained model was not measured"
    else:
        no_baseline = "no task was measured both untrained and right before it was learned"

    def figure(value: torch.Tensor, tasks: torch.Tensor, reason: str) -> Figure:
        number = float(value)
        why = (nothing or reason) if math.isnan(number) else None
        return Figure(number, int(tasks.sum()), why)

    return {
        "average_accuracy": figure(average_accuracy(R), measured[-1], "no task was measured"),
        "forgetting": figure(forgetting(R), ~forgetting_per_task(R).isnan(), alone or no_row),
        "backward_transfer": figure(
            backward_transfer(R),
            changed,
            alone or f"no earlier task was measured right after itself and after {T - 1}",
        ),
        "forward_transfer": figure(forward_transfer(R, untrained), ahead, alone or no_baseline),
        "learning_accuracy": figure(
            learning_accuracy(R), measured.diagonal(), "no task was measured right after it was learned"
        ),
    }
