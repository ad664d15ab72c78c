"""Data sets that are learned one after another, each a task of its own."""

import copy
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo.rl import Split
from dendrite_zoo.streams.datasets import ROWS, differ
from dendrite_zoo.streams.loader import TaskLoader
from dendrite_zoo.streams.sources import SourceLike
from dendrite_zoo.streams.stream import TaskStream

__all__ = ["TaskSequence"]


class TaskSequence(TaskStream):
    """Data sets learned one after another, each a task; a stream among them stands for its tasks.

    This is the way to teach a pretrained model data of your own: the stream that it was trained on stands for the tasks
    that it knows, which are validated, and training begins with yours::

        TaskSequence([PermutedTasks("digits", num_tasks=10), (x_train, y_train, x_test, y_test)], first_task=10)

    All tasks share one head: rows with label 3 are of class 3, whichever data set they are of. Where they are classes
    of their own, number them on: 10, 11, ... for a model of ten classes. Otherwise as `TaskStream`, batches too. A
    stream keeps its own ``seed``; all else is the sequence's.

    Args:
        sources: for each task what `load_source` takes: ``(x_train, y_train, x_test, y_test)`` or ``(x, y)``, a
            `torch.utils.data.Dataset` or a pair of them, a name; or a stream, such as `PermutedTasks`, for several
            tasks. x has as many features in all; with ``flatten=False`` it has one shape.
        first_task: the task that training begins with; those before it are only validated.
        epochs_per_task: epochs of training for each task; see `TaskStream`.
        batch_size: rows of a batch, over all processes.
        seed: of the order of rows.
        val_fraction: share of the training rows that is held out for validation; None validates on the test split.
        eval_at: the tasks after which all tasks seen so far are validated; see `TaskStream`.
        flatten: ``x`` is ``(B, features)``; with False it is ``(B, C, H, W)``.

    Raises:
        TypeError: ``sources`` is no list of data sets.
        ValueError: an argument out of range; at setup, data sets whose rows or targets differ in kind.

    Example:
        >>> from dendrite_zoo.streams import PermutedTasks
        >>> x, y = torch.rand(50, 64), torch.arange(50) % 10
        >>> stream = TaskSequence([PermutedTasks("digits", num_tasks=3), (x, y, x, y)], first_task=3)
        >>> stream
        TaskSequence([PermutedTasks('digits', num_tasks=3, first_task=0), <tuple>], first_task=3)
        >>> next(iter(stream.train_dataloader()))[0].shape, stream.num_tasks
        (torch.Size([50, 64]), 4)
    """

    def __init__(
        self,
        sources: Sequence[TaskStream | SourceLike],
        *,
        first_task: int = 0,
        epochs_per_task: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        val_fraction: float | None = None,
        eval_at: Iterable[int] | None = None,
        flatten: bool = True,
    ) -> None:
        _check_list(sources)
        streams = [x if isinstance(x, TaskStream) else TaskStream(x, 1, seed=seed) for x in sources]
        self.sources, self.parts = list(sources), list[TaskStream]()
        super().__init__(
            cast(Any, sources),
            sum(stream.num_tasks for stream in streams),
            first_task=first_task,
            epochs_per_task=epochs_per_task,
            batch_size=batch_size,
            seed=seed,
            val_fraction=val_fraction,
            eval_at=eval_at,
            flatten=flatten,
        )
        own_seeds = [x.seed if isinstance(x, TaskStream) else None for x in sources]
        if own_seeds != [None] * len(own_seeds):  # they decide which tasks these are, whatever the sequence's seed
            self.save_hyperparameters({"part_seeds": own_seeds}, logger=False)
        self.parts = [self._adopt(stream) for stream in streams]
        self._ends = list(accumulate(part.num_tasks for part in self.parts))

    def _adopt(self, stream: TaskStream) -> TaskStream:
        """A copy of a stream with the arguments of the sequence; refuse those of its own that would have no effect."""
        defaults = {"given_epochs": None, "batch_size": 256, "first_task": 0, "milestones": None, "val_fraction": None}
        names = {"given_epochs": "epochs_per_task", "milestones": "eval_at"}
        for name, default in defaults.items():
            if (own := getattr(stream, name)) not in (default, getattr(self, name)):
                name = names.get(name, name)
                raise ValueError(
                    f"Expected {type(stream).__name__} within a TaskSequence to leave `{name}` to it, but got {own}. "
                    f"Give it as TaskSequence(..., {name}=...)."
                )
        part = copy.copy(stream)
        part.batch_size, part.given_epochs, part.flatten = self.batch_size, self.given_epochs, self.flatten
        part.val_fraction = self.val_fraction
        if isinstance(part, TaskSequence):
            part.parts = [part._adopt(inner) for inner in part.parts]
        part.move(torch.device("cpu"))
        return part

    def task_loader(self, task: int, split: Split = "train", *, epoch: int = 0) -> TaskLoader:
        """Return the batches of one task; needs no Trainer. See `TaskStream.task_loader`."""
        check_integers(0, self.num_tasks - 1, task=task)
        part, number = self._part_of(task)
        loader = part.task_loader(number, split, epoch=epoch)
        epoch += task * self.epochs_per_task
        return replace(loader, epoch=epoch, rank=self.rank, world_size=self.world_size)

    def _num_rows(self, task: int) -> int:
        part, number = self._part_of(task)
        return part._num_rows(number)

    def _part_of(self, task: int) -> tuple[TaskStream, int]:
        """The stream that a task is of, and its number there."""
        number = bisect_right(self._ends, task)
        part = self.parts[number]
        return part, task - self._ends[number] + part.num_tasks

    @property
    def benchmark(self) -> str:
        """The names of its parts, such as ``permuted-digits+custom``."""
        return "+".join(part.benchmark.removeprefix("TaskStream-") for part in self.parts)

    @cached_property
    def num_classes(self) -> int | None:
        """Number of classes, over all tasks; None where the targets are no classes."""
        counts = [part.num_classes for part in self.parts]
        return None if None in counts else max(count or 0 for count in counts)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a row of ``x``: ``(features,)``, or ``(C, H, W)`` with ``flatten=False``."""
        return self.parts[0].input_shape

    def move(self, device: torch.device) -> None:
        """Have the data put on a device when they are needed next, and free the one that they are on."""
        for part in self.parts:
            part.move(device)

    def prepare_data(self) -> None:
        """Read the data sets, and compare them.

        Raises:
            ValueError: their rows are of different shapes, or some targets are classes and others are not.
        """
        first = self.parts[0]
        for number, part in enumerate(self.parts):
            part.prepare_data()
            if (shape := part.input_shape) != first.input_shape:
                gray = len(shape) == 3 and shape[1:] == first.input_shape[1:] and 1 in (shape[0], first.input_shape[0])
                remedy = (
                    "Give gray images three channels, x.expand(-1, 3, -1, -1)." if gray else "Crop, pad or resize them."
                )
                raise ValueError(
                    f"Expected every row of a TaskSequence to be of the shape {first.input_shape}, as those of "
                    f"sources[0], but got {shape} in sources[{number}]. {remedy}"
                )
            if (part.num_classes is None) != (first.num_classes is None):
                kinds = [f"{'float targets' if x.num_classes is None else 'class labels'}" for x in (first, part)]
                raise ValueError(
                    f"Expected {kinds[0]} in every data set of a TaskSequence, as in sources[0], but got {kinds[1]} in "
                    f"sources[{number}]. Convert them with .float() or .long()."
                )
        self._warn_of_scales()

    def _warn_of_scales(self) -> None:
        """Warn where the inputs of a data set are of another scale than the first one's."""
        (mean, deviation), *others = [_scale(part) for part in self.parts]
        for number, (other_mean, other) in enumerate(others, 1):
            if differ((mean, deviation), (other_mean, other), by=2):
                rank_zero_warn(
                    f"The inputs of sources[{number}] have mean {other_mean:.3g} and standard deviation {other:.3g}, "
                    f"those of sources[0] {mean:.3g} and {deviation:.3g} (uint8 is scaled from 0 .. 255 to 0 .. 1, "
                    "floats are taken as they are): a network that learned one scale reads another badly. Scale them "
                    "alike, such as x = (x.float() - mean) / std with the mean and std of your pixels."
                )

    def __repr__(self) -> str:
        names = [repr(x) if isinstance(x, (str, TaskStream)) else f"<{type(x).__name__}>" for x in self.sources]
        return f"{type(self).__name__}([{', '.join(names)}], first_task={self.first_task})"

    __str__ = __repr__


def _check_list(sources: Any) -> None:
    remedy = "Write TaskSequence([(x_train, y_train, x_test, y_test), ...]), also for one."
    if not isinstance(sources, Sequence) or isinstance(sources, str):
        raise TypeError(f"Expected `sources` to be a list of data sets, but got {type(sources).__name__}. {remedy}")
    if not sources or any(isinstance(x, (Tensor, np.ndarray)) for x in sources):
        got = "tensors" if sources else "an empty list"
        raise TypeError(f"Expected `sources` to be a list of data sets, but got {got}. {remedy}")


def _scale(stream: TaskStream) -> tuple[float, float]:
    """Mean and standard deviation of the inputs of a stream's first task, of some thousand rows; tokens have none."""
    loader = replace(stream.task_loader(0), batch_size=ROWS, rank=0, world_size=1)
    x = next(iter(loader))[0]
    if not x.is_floating_point():
        return 0.0, 1.0
    x = x.double()
    return float(x.mean()), max(float(x.std()), 1e-12)
