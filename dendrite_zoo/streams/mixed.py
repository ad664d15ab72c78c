"""All tasks of a stream at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.rl import Split
from dendrite_zoo.streams.datamodule import TaskDataModule
from dendrite_zoo.streams.loader import MixedLoader, TaskLoader
from dendrite_zoo.streams.sampling import epoch_order
from dendrite_zoo.streams.sequence import TaskSequence
from dendrite_zoo.streams.sources import SourceLike
from dendrite_zoo.streams.stream import TaskStream

__all__ = ["MixedTasks"]


@say_new_names
class MixedTasks(TaskDataModule):
    """The tasks of a stream learned all at once: batches ``(x, y, task)``, for `MultiTaskClassifier`.

    An epoch holds each row of each task once, in an order that depends on the stream's seed and the epoch alone, in
    batches of the stream's ``batch_size``. Each epoch ends with a validation that has one loader a task; its batches
    are ``(x, y, task)``, too. Tasks before the stream's ``first_task`` are only validated.

    Args:
        tasks: a stream, such as `PermutedTasks`, or the sources of a `TaskSequence`.
        epochs: of training; by default the ``epochs_per_task`` of the stream, with which each row is seen as often as
            when the tasks are learned one after another.

    Attributes:
        stream: whose tasks these are.

    Raises:
        TypeError: ``tasks`` is neither a stream nor a list.
        ValueError: ``epochs`` out of range; at setup, what the stream raises; at fit, a Trainer without the arguments
            of `trainer_kwargs`.

    Example:
        >>> from dendrite_zoo.streams import PermutedTasks
        >>> data = MixedTasks(PermutedTasks("digits", num_tasks=3, batch_size=300), epochs=5)
        >>> x, y, task = next(iter(data.train_dataloader()))
        >>> x.shape, y.shape, task.unique(), len(data.train_dataloader())
        (torch.Size([300, 64]), torch.Size([300]), tensor([0, 1, 2]), 15)
    """

    def __init__(self, tasks: TaskStream | Sequence[TaskStream | SourceLike], *, epochs: int | None = None) -> None:
        super().__init__()
        if not isinstance(tasks, (TaskStream, list, tuple)):
            expected = "a stream, such as PermutedTasks('digits', num_tasks=5), or a list of data sets"
            raise TypeError(f"Expected `tasks` to be {expected}, but got {type(tasks).__name__}. Pass one of these.")
        self.stream = tasks if isinstance(tasks, TaskStream) else TaskSequence(tasks)
        if epochs is not None:
            check_integers(1, epochs=epochs)
        self.tasks, self.num_tasks, self._epochs = tasks, self.stream.num_tasks, epochs
        self.seed, self.val_fraction = self.stream.seed, self.stream.val_fraction

    @property
    def max_epochs(self) -> int:  # type: ignore[override]  # the data are read for it
        """Number of epochs of a fit."""
        stream = self.stream
        return self._epochs or stream.max_epochs // (stream.num_tasks - stream.first_task)

    @property
    def epochs(self) -> int:
        """Number of epochs of the fit that a Trainer is at, else ``max_epochs``."""
        trainer = self.trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING and self.takes(trainer):
            return trainer.max_epochs or self.max_epochs
        return self.max_epochs

    def takes(self, trainer: Trainer) -> bool:
        """Whether nobody said for how many epochs tasks are trained, and a Trainer does."""
        return self._epochs is None and self.stream.given_epochs is None and (trainer.max_epochs or 0) > 0

    @property
    def benchmark(self) -> str:
        """Its name, such as ``mixed-permuted-digits``."""
        return f"mixed-{self.stream.benchmark}"

    @property
    def num_classes(self) -> int | None:
        """Number of classes, over all tasks; None where the targets are no classes."""
        return self.stream.num_classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a row of ``x``."""
        return self.stream.input_shape

    def prepare_data(self) -> None:
        """Read the data."""
        self.stream.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Read the data, check the Trainer, and have the data put on its device."""
        self.stream.prepare_data()
        super().setup(stage)
        if self.trainer is not None:
            self.stream.move(self.trainer.strategy.root_device)

    def teardown(self, stage: str | None = None) -> None:
        """Free the device."""
        self.stream.move(torch.device("cpu"))
        super().teardown(stage)

    def task_loader(self, task: int, split: Split = "train") -> TaskLoader:
        """The batches ``(x, y)`` of one task alone; see `TaskStream.task_loader`."""
        loader = self.stream.task_loader(task, split)
        return replace(loader, rank=self.rank, world_size=self.world_size)

    def train_dataloader(self) -> MixedLoader:
        """Return the batches of the current epoch."""
        self.resume_fit()
        trained = range(self.stream.first_task, self.num_tasks)
        loaders = {task: self.stream.task_loader(task, "train") for task in trained}
        order = epoch_order(self.seed, 0, self.epoch, sum(len(loader.rows) for loader in loaders.values()))
        return MixedLoader(loaders, order=order, epoch=self.epoch, **self._shares)

    def val_dataloader(self) -> list[MixedLoader]:
        """Return a loader for each task."""
        self.resume_fit()
        return self._one_by_one("val")

    def test_dataloader(self) -> list[MixedLoader]:
        """Return a loader of the test split for each task."""
        return self._one_by_one("test")

    def predict_dataloader(self) -> list[MixedLoader]:
        """Return what `test_dataloader` does."""
        return self.test_dataloader()

    def _one_by_one(self, split: Split) -> list[MixedLoader]:
        every = range(self.num_tasks)
        return [MixedLoader({task: self.stream.task_loader(task, split)}, **self._shares) for task in every]

    @property
    def _shares(self) -> dict[str, Any]:
        return {"batch_size": self.stream.batch_size, "rank": self.rank, "world_size": self.world_size}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.stream!r}, epochs={self._epochs})"

    __str__ = __repr__
