"""What all streams of tasks have in common."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cached_property
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dendrite_zoo.streams.loader import TaskLoader
from dendrite_zoo.streams.sampling import epoch_order, hold_out
from dendrite_zoo.streams.sources import Source, SourceLike, load_source
from dendrite_zoo.tasks import resume_missed_validation

__all__ = ["TaskStream", "check_trainer", "fitting_trainer", "resume_fit"]

Split: TypeAlias = Literal["train", "val", "test"]


class TaskStream(LightningDataModule):
    """A sequence of tasks, trained one after another within a single ``Trainer.fit``.

    Task ``first_task + epoch // epochs_per_task`` is trained in epoch ``epoch`` of the Trainer; task indices
    are absolute. Give the Trainer what the stream needs: ``Trainer(**stream.trainer_kwargs(), ...)``. Without
    a Trainer, `task_loader` gives the batches of any task.

    Batches are ``(x, y)``, ``x`` flat and normalised. The data are kept in memory, on the Trainer's device,
    as they came; a task's change is made a batch at a time. Each epoch has its own order of rows, which
    depends on seed, task and epoch alone. Under DDP ``batch_size`` is the global batch (see `TaskLoader`).

    Validation has one loader for each of all tasks. After the last epoch of a task all of them are due, in
    its other epochs just the current task; a loader that is not due has length 0.

    Args:
        source: ``"digits"``, ``"mnist"``, a folder, or ``(x_train, y_train, x_test, y_test)``; see
            `load_source`.
        num_tasks: T, how many tasks there are in all; a task is the same whatever T is.
        first_task: the task that training begins with; those before it are validated only.
        epochs_per_task: epochs of training for each task.
        batch_size: rows of a batch, over all processes.
        seed: of the tasks and of the order of rows; 0 is the zoo's.
        val_fraction: share of the training rows, drawn from each class alike, that becomes the validation data and
            is not trained on; None validates on the test split.
        eval_at: the tasks after which all tasks seen so far are validated; after the others only the
            one just trained is. All T are after the last task, and whenever the Trainer validates without
            training. None: all T after each task.

    Attributes:
        named_source: the source, as it was given.
        milestones: ``eval_at`` in order, or None.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        source: SourceLike,
        num_tasks: int,
        *,
        first_task: int = 0,
        epochs_per_task: int = 1,
        batch_size: int = 256,
        seed: int = 0,
        val_fraction: float | None = None,
        eval_at: Iterable[int] | None = None,
    ) -> None:
        super().__init__()
        checks: list[tuple[str, Any, int]] = [
            ("num_tasks", num_tasks, 1),
            ("first_task", first_task, 0),
            ("epochs_per_task", epochs_per_task, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
        ]
        for name, value, least in checks:
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name}={value!r} came; expected an integer from {least}. Change it.")
        if first_task >= num_tasks:
            raise ValueError(
                f"first_task={first_task} came with num_tasks={num_tasks}; expected a task from 0 to "
                f"{num_tasks - 1}. num_tasks counts all tasks, those learned before too: raise it."
            )
        if val_fraction is not None and not 0 < val_fraction < 1:
            raise ValueError(
                f"val_fraction={val_fraction} came; expected a share of the training rows between 0 and 1, or None to "
                "validate on the test split. Change it."
            )
        if isinstance(eval_at, (int, str)):
            raise ValueError(f"eval_at={eval_at!r} came; expected several tasks, such as [4, 9].")
        self.milestones = None if eval_at is None else tuple(sorted(set(eval_at)))
        for task in self.milestones or ():
            if task not in range(first_task, num_tasks):
                raise ValueError(
                    f"eval_at holds {task!r}; expected tasks that are trained, {first_task} to "
                    f"{num_tasks - 1}. Leave it out."
                )
        self.named_source = source
        self.num_tasks, self.first_task, self.epochs_per_task = int(num_tasks), int(first_task), int(epochs_per_task)
        self.batch_size, self.seed, self.val_fraction = int(batch_size), int(seed), val_fraction
        self._device = torch.device("cpu")
        self._on_device: Source | None = None
        self._split_rows: dict[str, Tensor] = {}

    # What makes a kind of stream.

    def task_rows(self, task: int, labels: Tensor) -> Tensor | None:
        """Choose the rows of a task by their labels ``(N,)``: a mask ``(N,)``, or None for all of them."""
        return None

    def transform(self, x: Tensor, task: int) -> Tensor:
        """Change a batch of float rows, not normalised yet, as the task does.

        Shape:
            ``(B, F)`` to ``(B, F)``.
        """
        return x

    def check_source(self, source: Source) -> None:
        """Raise a ValueError where such tasks cannot be made of the source."""

    # The data.

    @cached_property
    def source(self) -> Source:
        """The data, as they were read."""
        source = load_source(self.named_source)
        self.check_source(source)
        return source

    @property
    def num_features(self) -> int:
        """Length of a row ``x``."""
        return self.source.num_features

    @property
    def num_classes(self) -> int:
        """Number of classes, over all tasks."""
        return self.source.num_classes

    def task_loader(self, task: int, split: Split = "train", *, epoch: int = 0) -> TaskLoader:
        """Give the batches of one task; needs no Trainer.

        Args:
            task: which one, absolute.
            split: ``"train"``, shuffled; ``"val"``, the rows held out or else the test split; ``"test"``.
            epoch: counted from the start of the task; each has its own order of the training rows.

        Raises:
            ValueError: no such task or split, or the task has no rows in it.
        """
        if task not in range(self.num_tasks):
            raise ValueError(f"Task {task!r} came; expected one of 0 to {self.num_tasks - 1}. Raise num_tasks.")
        if split not in get_args(Split):
            raise ValueError(f"split={split!r} came; expected one of {', '.join(get_args(Split))}. Name one of them.")
        source, rows = self._data(split)
        x, y = (source.x_train, source.y_train) if self._in_train(split) else (source.x_test, source.y_test)
        chosen = self.task_rows(task, y)
        if chosen is not None:
            rows = rows[chosen[rows]]
        if len(rows) == 0:
            raise ValueError(
                f"Task {task} has no rows in {split!r}; expected some of its classes there. Check the labels."
            )
        if split == "train":
            rows = rows[epoch_order(self.seed, task, epoch, len(rows)).to(rows.device)]
        rank, world_size = self._share()
        return TaskLoader(
            x,
            y,
            rows,
            lambda x: source.normalise(self.transform(x.float(), task)),
            batch_size=self.batch_size,
            epoch=task * self.epochs_per_task + epoch,
            rank=rank,
            world_size=world_size,
        )

    def _in_train(self, split: Split) -> bool:
        return split == "train" or (split == "val" and self.val_fraction is not None)

    def _data(self, split: Split) -> tuple[Source, Tensor]:
        """Give the source and the rows that belong to a split, both on the device."""
        if self._on_device is None:
            self._on_device = self.source.to(self._device)
            self._split_rows.clear()
        if split not in self._split_rows:
            source = self.source
            rows = torch.arange(len(source.y_train if self._in_train(split) else source.y_test))
            if self.val_fraction is not None and self._in_train(split):
                held_out = hold_out(source.y_train, self.val_fraction, self.seed)
                rows = rows[held_out if split == "val" else ~held_out]
            self._split_rows[split] = rows.to(self._device)
        return self._on_device, self._split_rows[split]

    def _share(self) -> tuple[int, int]:
        """The rank of this process and their number."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    # For the Trainer.

    def trainer_kwargs(self) -> dict[str, Any]:
        """Give the arguments that the Trainer must have."""
        return {
            "max_epochs": (self.num_tasks - self.first_task) * self.epochs_per_task,
            "reload_dataloaders_every_n_epochs": 1,
            "num_sanity_val_steps": 0,
        }

    @property
    def current_task(self) -> int:
        """The task being trained, absolute; ``first_task`` without a Trainer."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        return min(self.first_task + epoch // self.epochs_per_task, self.num_tasks - 1)

    def prepare_data(self) -> None:
        """Read the source, which downloads it where needed."""
        self.source  # noqa: B018

    def setup(self, stage: str | None = None) -> None:
        """Read the source and check the Trainer, whose device the data go to.

        Raises:
            ValueError: such tasks cannot be made of the source; at fit, a Trainer without the arguments of
                `trainer_kwargs`.
        """
        self.source  # noqa: B018
        if self.trainer is None:
            return
        self._device, self._on_device = self.trainer.strategy.root_device, None
        if stage == TrainerFn.FITTING:
            check_trainer(self.trainer, self)
            # A validation loader that is not due has no rows: Lightning warns of it, here it is meant.
            warnings.filterwarnings("ignore", f"Total length of `{TaskLoader.__name__}` across ranks is zero")

    def teardown(self, stage: str | None = None) -> None:
        """Free the device."""
        self._device, self._on_device = torch.device("cpu"), None

    def train_dataloader(self) -> TaskLoader:
        """Give the current epoch of the current task."""
        resume_fit(self)
        epoch = 0 if self.trainer is None else self.trainer.current_epoch % self.epochs_per_task
        return self.task_loader(self.current_task, epoch=epoch)

    def val_dataloader(self) -> list[TaskLoader]:
        """Give a loader for each task; those not due have length 0."""
        resume_fit(self)
        due, loaders = self._due(), [self.task_loader(task, "val") for task in range(self.num_tasks)]
        for task, loader in enumerate(loaders):
            if task not in due:
                loader.rows = loader.rows[:0]
        return loaders

    def test_dataloader(self) -> list[TaskLoader]:
        """Give a loader of the test split for each task."""
        return [self.task_loader(task, "test") for task in range(self.num_tasks)]

    def _due(self) -> Iterable[int]:
        """The tasks to validate now."""
        task, every, trainer = self.current_task, range(self.num_tasks), fitting_trainer(self)
        if trainer is None:
            return every
        if (trainer.current_epoch + 1) % self.epochs_per_task:
            return (task,)
        if self.milestones is None or task == self.num_tasks - 1:
            return every
        return range(task + 1) if task in self.milestones else (task,)

    def __repr__(self) -> str:
        source = self.named_source
        name = repr(source) if isinstance(source, str) else f"<{type(source).__name__}>"
        return f"{type(self).__name__}({name}, num_tasks={self.num_tasks}, first_task={self.first_task})"

    __str__ = __repr__  # Lightning's own would read the loaders through


def fitting_trainer(data: LightningDataModule) -> Trainer | None:
    """The Trainer of a datamodule while it fits; None in a validation of its own, before and after."""
    trainer = data.trainer
    within = trainer is not None and trainer.state.fn == TrainerFn.FITTING and trainer.state.stage is not None
    return trainer if within else None


def resume_fit(data: LightningDataModule) -> None:
    """Before a datamodule gives loaders: have a fit that was resumed make good a validation that it missed."""
    trainer = fitting_trainer(data)
    if trainer is not None:
        resume_missed_validation(trainer)


def check_trainer(trainer: Trainer, stream: Any) -> None:
    """Refuse a Trainer that does not do what a stream of tasks needs.

    Args:
        trainer: the one that is about to fit.
        stream: whose ``trainer_kwargs()`` it is to have been built with.

    Raises:
        ValueError: the Trainer was built with other arguments.
    """
    if getattr(trainer, "fast_dev_run", False):  # one batch, to see that it runs: Lightning sets limits of its own
        return
    wrong = [
        f"{name}={came!r}, expected {value!r}"
        for name, value in stream.trainer_kwargs().items()
        if (came := getattr(trainer, name)) != value
    ]
    if wrong:
        raise ValueError(
            f"The Trainer does not fit {type(stream).__name__}: it has {'; '.join(wrong)}. "
            "Build it as Trainer(**stream.trainer_kwargs(), ...)."
        )
