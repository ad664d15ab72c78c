"""What the validation at hand has measured of each task, out of all that Lightning has ever logged."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from torch import Tensor

from dendrite_zoo._core.names import nearest
from dendrite_zoo._core.ranks import all_gather

Found = dict[int, tuple[float, int | None]]  # task -> value of the metric, and number of samples where it is known


class MetricReader:
    """Reads a metric of each task, this validation's values and not those of earlier ones.

    ``trainer.callback_metrics`` keeps every metric for ever: a loader that is not due leaves its old value
    there. A value that is logged anew is another tensor, so it differs from the one that stood there before the
    validation.

    Args:
        metric: such as ``"val/acc"``.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self._before: dict[str, Tensor] = {}
        self._samples: dict[int, int | None] = {}
        self._last: Found = {}

    def start(self, trainer: Trainer) -> None:
        """Remember what was logged before this validation; call it in ``on_validation_start``."""
        self._before = dict(trainer.callback_metrics)  # references the tensors, so that no identity is used twice
        self._samples, self._last = {}, {}

    def count(self, batch: Any, dataloader_idx: int) -> None:
        """Count the samples of a batch; call it in ``on_validation_batch_end``."""
        size, seen = batch_size(batch), self._samples.get(dataloader_idx, 0)
        self._samples[dataloader_idx] = None if size is None or seen is None else seen + size

    def logged(self, trainer: Trainer) -> dict[str, Tensor]:
        """Every metric that this validation has logged so far."""
        return {k: v for k, v in trainer.callback_metrics.items() if v is not self._before.get(k)}

    def read(self, trainer: Trainer, task: int) -> Found | None:
        """Value and number of samples of each task, over all processes.

        Args:
            trainer: the Trainer at work.
            task: the task of a single validation loader; of several, loader ``j`` is task ``j``.

        Returns:
            None where the metric was not logged, or nothing has changed since it was last read.
        """
        alone = len(trainer.num_val_batches) == 1
        values, samples = by_task(self.logged(trainer), self.metric, current=task if alone else None), self._samples
        if alone:
            samples = {j: samples.get(0) for j in values} if len(values) == 1 else {}
        found = {j: (value, samples.get(j, 0)) for j, value in values.items()}
        if len(ranks := all_gather(found)) > 1:
            found = average_over_ranks(ranks)
        if not found or str(found) == str(self._last):  # as text, in which NaN equals NaN
            return None
        self._last = found
        return found

    def not_logged(self, logged: Mapping[str, Any], loaders: int) -> str:
        """The message for a metric that a validation did not log.

        Args:
            logged: what was logged.
            loaders: the number of validation loaders.
        """
        if self.metric in logged:
            problem, hint = f"it was logged once for {loaders} validation loaders, so its task is unknown", ""
        else:
            # without task and loader "val/task_3/acc" is a candidate as "val/acc"
            plain = sorted({re.sub(r"/dataloader_idx_\d+$|(?<![^/])task_\d+/", "", key) for key in logged})
            problem, hint = f"only {plain} were logged", nearest(self.metric, plain)
        return (
            f"ForgettingLogger expected a value of {self.metric!r} for each task, but {problem}.{hint} Call "
            f"self.log({self.metric!r}, ...) in `validation_step`, with one loader for each task, or pass the name of "
            "the metric that is logged."
        )


def average_over_ranks(ranks: Sequence[Found]) -> Found:
    """What all processes measured together, weighted by samples: not every module logs with ``sync_dist=True``.

    Example:
        >>> average_over_ranks([{0: (0.9, 30)}, {0: (0.5, 10)}])
        {0: (0.8, 40)}
    """
    tasks = sorted({j for rank in ranks for j in rank})
    return {j: _average([rank[j] for rank in ranks if j in rank]) for j in tasks}


def _average(parts: Sequence[tuple[float, int | None]]) -> tuple[float, int | None]:
    total = None if any(count is None for _, count in parts) else sum(count or 0 for _, count in parts)
    weights = [count or 1 for _, count in parts] if total else None
    return float(np.average([value for value, _ in parts], weights=weights)), total or None


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
    keys = rf"{re.escape(stage + slash)}task_(\d+)/{re.escape(name)}", rf"{re.escape(metric)}/dataloader_idx_(\d+)"
    for key in keys:
        matches = {match: value for k, value in metrics.items() if (match := re.fullmatch(key, k))}
        if matches:
            return {int(match[1]): float(value) for match, value in matches.items()}
    return {current: float(metrics[metric])} if current is not None and metric in metrics else {}


def batch_size(batch: Any) -> int | None:
    """Length of the first tensor in a batch of tuples, lists and dictionaries; None where it is not known.

    A list of tensors within a batch is passed over: they may be samples, each of a length of its own.

    Example:
        >>> import torch
        >>> batch_size({"x": torch.zeros(8, 3), "y": torch.zeros(8)}), batch_size("text")
        (8, None)
    """
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    items = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    tensors_first = sorted(items, key=lambda item: not isinstance(item, Tensor))
    sizes = (batch_size(item) for item in tensors_first if not _holds_tensors(item))
    return next((size for size in sizes if size is not None), None)


def _holds_tensors(item: Any) -> bool:
    return isinstance(item, list) and any(isinstance(part, Tensor) for part in item)
