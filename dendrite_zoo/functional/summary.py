"""All metrics of an accuracy matrix at once, each with the reason where it is undefined."""

import math
from typing import Any, Literal, NamedTuple

from dendrite_zoo.functional import accuracy_matrix as F

__all__ = ["MetricValue", "summarize"]


class MetricValue(NamedTuple):
    """One metric of an accuracy matrix.

    Attributes:
        value: the metric; NaN where it is undefined.
        tasks: the number of tasks that it is a mean of, those left out not counted.
        reason: why ``value`` is NaN; None where it is defined.
    """

    value: float
    tasks: int
    reason: str | None = None


def summarize(R: Any, baseline: Any = None, mode: Literal["max", "min"] = "max") -> dict[str, MetricValue]:
    """The five metrics of an accuracy matrix, after the last task that was measured.

    Args:
        R: accuracy matrix of the whole stream; rows of tasks that are still to come may be NaN.
        baseline: accuracy of the untrained model on each task, where it was measured.
        mode: ``"min"`` where less is better: forgetting is a rise, a transfer a fall.

    Returns:
        ``average_accuracy``, ``forgetting``, ``backward_transfer``, ``forward_transfer``,
        ``learning_accuracy``.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> values = summarize([[0.9, 0.1], [0.8, 0.9]])
        >>> round(values["forgetting"].value, 3), values["forgetting"].tasks
        (0.1, 1)
        >>> values["forward_transfer"].reason
        'the untrained model was not measured'
    """
    R = F.learned_part(R)
    measured, lost = ~R.isnan(), F.forgetting_per_task(R, mode)
    untrained = R.new_full((len(R),), math.nan) if baseline is None else F.as_values(baseline)[: len(R)].to(R)
    nothing = None if measured.any() else "nothing was measured yet"
    alone = nothing or ("needs a second task" if len(R) == 1 else None)
    no_baseline = "the untrained model was not measured" if untrained.isnan().all() else None
    earlier, last = "no earlier task was measured", f"after task {len(R) - 1}"
    metrics = {
        "average_accuracy": (F.average_accuracy(R), measured[-1], nothing),
        "forgetting": (lost.nanmean(), ~lost.isnan(), alone or f"{earlier} {last} and before, once learned"),
        "backward_transfer": (
            F.backward_transfer(R, mode),
            (measured[-1] & measured.diagonal())[:-1],
            alone or f"{earlier} right after it was learned and {last}",
        ),
        "forward_transfer": (
            F.forward_transfer(R, untrained, mode),
            measured.diagonal(1) & ~untrained[1:].isnan(),
            alone or no_baseline or "no task was measured both untrained and right before it was learned",
        ),
        "learning_accuracy": (
            F.learning_accuracy(R),
            measured.diagonal(),
            nothing or "no task was measured right after it was learned",
        ),
    }
    return {
        name: MetricValue(float(metric), int(tasks.sum()), reason if metric.isnan() else None)
        for name, (metric, tasks, reason) in metrics.items()
    }
