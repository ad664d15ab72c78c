"""What the validation at hand has measured of each task, out of all that Lightning has ever logged."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo._core.ranks import all_gather
from dendrite_zoo.callbacks.metric_name import MetricName
from dendrite_zoo.callbacks.metric_states import MetricStates
from dendrite_zoo.callbacks.trainer import num_loaders

Found = dict[int, tuple[float, int | None]]  # task -> value of the metric, and number of samples where it is known
ALONE = -1  # in place of a task: what the one loader has logged without one


class Read(NamedTuple):
    """What a validation has logged of a metric, over all processes.

    Attributes:
        values: task -> value, and number of samples where it is known; `ALONE` is what one loader logged without one.
        named: whether the module itself counted the tasks, in the names of the metrics.
    """

    values: Found
    named: bool


class MetricReader:
    """Reads a metric of each task, this validation's values and not those of earlier ones.

    ``trainer.callback_metrics`` keeps every metric for ever: a loader that is not due leaves its old value
    there. A value that is logged anew is another tensor, so it differs from the one that stood there before the
    validation.

    Args:
        metric: such as ``"val/acc"``, see `MetricName`.
        task_names: see `MetricName`.
    """

    def __init__(self, metric: str, task_names: Sequence[str] | None = None) -> None:
        self.name = MetricName(metric, task_names)
        self._before: dict[str, Tensor] = {}
        self._samples: dict[int, int | None] = {}
        self._states: MetricStates | None = None
        self._last = ""
        self._warned = False

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was logged before this validation; call it in ``on_validation_start``."""
        self._before = dict(trainer.callback_metrics)  # references the tensors, so that no identity is used twice
        self._samples, self._states, self._last = {}, MetricStates(pl_module), ""

    def before_batch(self, dataloader_idx: int) -> None:
        """A loader may begin; call it in ``on_validation_batch_start``."""
        if self._states is not None:
            self._states.before_batch(dataloader_idx)

    def after_batch(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Count the samples of a batch; call it in ``on_validation_batch_end``."""
        size, seen = batch_size(batch), self._samples.get(dataloader_idx, 0)
        self._samples[dataloader_idx] = None if size is None or seen is None else seen + size
        if self._states is not None:
            self._states.after_batch(dataloader_idx, batch_idx)

    def logged(self, trainer: Trainer) -> dict[str, Tensor]:
        """Every metric that this validation has logged so far."""
        return {k: v for k, v in trainer.callback_metrics.items() if v is not self._before.get(k)}

    @property
    def seen(self) -> bool:
        """Whether this validation had batches."""
        return bool(self._samples)

    def finish(self) -> None:
        """Hold nothing of the module and the Trainer; call it in ``on_validation_end``."""
        self._before, self._states = {}, None

    def read(self, trainer: Trainer) -> Read | None:
        """Value and number of samples of each task, over all processes.

        Returns:
            None where the metric was not logged, or nothing has changed since it was last read.

        Raises:
            ValueError: one torchmetrics object for several loaders, of which the loader's own part cannot be had.
        """
        logged, alone = self.logged(trainer), num_loaders(trainer) == 1
        keys = self.name.keys(logged)
        if not keys and alone and self.name.metric in logged:
            keys = {ALONE: self.name.metric}
        found = {j: (float(logged[key]), self._samples_of(j, key, alone, len(keys))) for j, key in keys.items()}
        if not any(ranks := all_gather(found)) or str(ranks) == self._last:  # as text, in which NaN equals NaN
            return None
        self._last = str(ranks)
        if self._states is not None:
            own = self._states.alone(trainer, keys)
            ranks = [{j: (own.get(j, value), n) for j, (value, n) in rank.items()} for rank in ranks]
            if not self._warned and (mixed := self._states.mixtures(trainer)):
                self._warned = True
                rank_zero_warn(
                    f"ForgettingLogger: `{mixed[0]}.compute()` is called in each step, but Lightning resets a metric "
                    f"after the last loader only. If {self.name.metric!r} is computed by it, its values are not those "
                    f"of single tasks: log `self.{mixed[0]}` itself, or use one for each loader."
                )
        found = average_over_ranks(ranks) if len(ranks) > 1 else ranks[0]
        return Read(found, any(self.name.names_task(key) for key in keys.values()))

    def _samples_of(self, task: int, key: str, alone: bool, values: int) -> int | None:
        """Behind the value of a task, where it is known from which loader that came."""
        if alone:
            return self._samples.get(0) if values == 1 else None
        loader = self.name.loader_of(key, task)
        return None if loader is None else self._samples.get(loader)


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
