"""What the validation at hand has measured, out of all that Lightning has ever logged."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

__all__ = ["FreshMetrics", "batch_size", "by_task", "not_logged"]


class FreshMetrics:
    """Tells this validation's metrics from those of earlier ones.

    ``trainer.callback_metrics`` keeps every metric for ever: a loader that is not due leaves its old value
    there. A value that is logged anew is another tensor, though, so a look at the dictionary before the
    validation tells.
    """

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}

    def start(self, trainer: Trainer) -> None:
        """Remember what was there before this validation; call it in ``on_validation_start``."""
        self._before = dict(trainer.callback_metrics)  # holds the tensors, so that no identity is used twice

    def logged(self, trainer: Trainer) -> dict[str, Tensor]:
        """What this validation has logged so far."""
        return {k: v for k, v in trainer.callback_metrics.items() if v is not self._before.get(k)}


def by_task(metrics: Mapping[str, Any], metric: str, current: int | None) -> dict[int, float]:
    """The values of ``metric``, by task.

    Looks for ``val/task_{j}/acc``, else ``val/acc/dataloader_idx_{j}``, else ``val/acc`` itself, which is the
    current task's.

    Args:
        metrics: key -> value.
        metric: such as ``"val/acc"``.
        current: the task of a value logged without one; None leaves such a value out.

    Example:
        >>> by_task({"val/task_0/acc": 0.9, "val/task_2/acc": 0.8, "val/acc": 0.5}, "val/acc", current=1)
        {0: 0.9, 2: 0.8}
        >>> by_task({"val/acc": 0.5}, "val/acc", current=1)
        {1: 0.5}
    """
    stage, slash, name = metric.rpartition("/")
    for key in (
        rf"{re.escape(stage + slash)}task_(\d+)/{re.escape(name)}",
        rf"{re.escape(metric)}/dataloader_idx_(\d+)",
    ):
        matches = {match: value for k, value in metrics.items() if (match := re.fullmatch(key, k))}
        if matches:
            return {int(match[1]): float(value) for match, value in matches.items()}
    return {current: float(metrics[metric])} if current is not None and metric in metrics else {}


def not_logged(metric: str, logged: Mapping[str, Any], loaders: int) -> str:
    """The message for a metric that a validation did not log.

    Args:
        metric: what was looked for.
        logged: what was logged.
        loaders: the number of validation loaders.
    """
    if metric in logged:
        came = f"was logged once for {loaders} validation loaders, so its task is unknown"
    else:
        # without task and loader "val/task_3/acc" is a candidate as "val/acc"
        plain = sorted({re.sub(r"/dataloader_idx_\d+$|(?<![^/])task_\d+/", "", key) for key in logged})
        near = difflib.get_close_matches(metric, plain, n=1, cutoff=0.4)
        came = f"was not logged; logged were {plain}" + (f" (did you mean {near[0]!r}?)" if near else "")
    return (
        f"ForgettingLogger: {metric!r} {came}. Expected one value a task: call self.log({metric!r}, ...) in "
        "validation_step, with one loader a task, or name the metric that is logged."
    )


def batch_size(batch: Any) -> int | None:
    """Length of the first tensor in a batch of tuples, lists and dictionaries; None where it is not known.

    A list of tensors within a batch does not tell: they may be samples, each of a length of its own.

    Example:
        >>> import torch
        >>> batch_size({"x": torch.zeros(8, 3), "y": torch.zeros(8)}), batch_size("text")
        (8, None)
    """
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if not isinstance(batch, (list, tuple)):
        return None
    first = next((item for item in batch if isinstance(item, Tensor)), None)
    if first is not None:
        return batch_size(first)
    inner = (item for item in batch if not (isinstance(item, list) and any(isinstance(x, Tensor) for x in item)))
    return next((size for item in inner if (size := batch_size(item)) is not None), None)
