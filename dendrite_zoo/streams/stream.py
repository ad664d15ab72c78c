"""Tasks made of one data set, learned one after another."""

import math
import warnings
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dendrite_zoo._core.checks import check_choice, check_integers, wrong_argument
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.rl import Split
from dendrite_zoo.streams.datamodule import TaskDataModule, milestones_of, refuse_further_epochs
from dendrite_zoo.streams.loader import TaskLoader
from dendrite_zoo.streams.sampling import epoch_order, hold_out
from dendrite_zoo.streams.sources import SOURCES, Source, SourceLike, load_source

__all__ = ["TaskStream"]

STEPS, MOST_STEPS = 200, 10_000  # batches a task is trained for at least, and at most, where nobody gives epochs


@say_new_names
class TaskStream(TaskDataModule):
    """A sequence of tasks made of one data set, trained one after another within a single ``Trainer.fit``.

    Task ``first_task + epoch // epochs_per_task`` is trained in epoch ``epoch`` of the Trainer; task indices
    are absolute. Give the Trainer what the stream needs: ``Trainer(**stream.trainer_kwargs(), ...)``. Without
    a Trainer, `task_loader` gives the batches of any task. This class leaves every task as the data are; subclasses
    change a batch by its task.

    Batches are ``(x, y)``, ``x`` normalised, and flat unless ``flatten=False``. The data stay in memory, on the
    Trainer's device, as they are; a task's transformation is applied to one batch at a time. Each epoch has its own
    order of rows, which depends on seed, task and epoch alone. Under DDP ``batch_size`` is the global batch (see
    `TaskLoader`).

    Validation has one loader for each of all tasks. After the last epoch of a task all of them are due, in
    its other epochs just the current task; a loader that is not due has length 0.

    Args:
        source: ``"digits"``, ``"mnist"``, ``"fashion-mnist"``, ``"omniglot"``, ``"banking77"``, a `HubSource`, a folder
            of images, ``(x_train, y_train, x_test, y_test)`` or a data set of torch; see `load_source`.
        num_tasks: T, the number of all tasks; a task is the same for every T.
        first_task: the task that training begins with; those before it are only validated. They are made of the same
            ``source``: of data of your own after the tasks of a pretrained model make a `TaskSequence`.
        epochs_per_task: epochs of training for each task; None for so many that each has 200 batches, which is one for
            some 50,000 rows a task, and no task more than 10,000 in all; or its share of a Trainer's ``max_epochs``.
        batch_size: rows of a batch, over all processes.
        seed: of the tasks and of the order of rows; 0 is the zoo's.
        val_fraction: share of the training rows, stratified by class, that is held out for validation; None
            validates on the test split.
        eval_at: the tasks after which all tasks seen so far are validated; after the others only the
            one just trained is. All T are after the last task, and whenever the Trainer validates without
            training. None: all T after each task.
        flatten: ``x`` is ``(B, features)``; with False it is ``(B, C, H, W)``, as convolutions take it.

    Attributes:
        kind: what the name of its benchmark begins with; None for the name of the class.
        named_source: the argument ``source``.
        given_epochs: the argument ``epochs_per_task``.
        milestones: ``eval_at`` in order, or None.

    Raises:
        ValueError: an argument out of range.
    """

    metric = "val/acc"
    kind: ClassVar[str | None] = None

    def __init__(
        self,
        source: SourceLike,
        num_tasks: int,
        *,
        first_task: int = 0,
        epochs_per_task: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        val_fraction: float | None = None,
        eval_at: Iterable[int] | None = None,
        flatten: bool = True,
    ) -> None:
        super().__init__()
        check_integers(1, num_tasks=num_tasks, batch_size=batch_size)
        if epochs_per_task is not None:
            check_integers(1, epochs_per_task=epochs_per_task)
        check_integers(0, first_task=first_task, seed=seed)
        if first_task >= num_tasks:
            remedy = "Those learned before count, too: raise `num_tasks`, or give a TaskSequence more sources."
            raise wrong_argument("first_task", f"at most {num_tasks - 1}", first_task, remedy)
        if val_fraction is not None and not (isinstance(val_fraction, float) and 0 < val_fraction < 1):
            remedy = "It is a share of the training rows; None validates on the test split."
            raise wrong_argument("val_fraction", "between 0 and 1", val_fraction, remedy)
        self.milestones = None if eval_at is None else milestones_of(eval_at, range(first_task, num_tasks))
        self.num_tasks, self.first_task = int(num_tasks), int(first_task)
        self.given_epochs = None if epochs_per_task is None else int(epochs_per_task)
        self.batch_size, self.seed, self.val_fraction = int(batch_size), int(seed), val_fraction
        self.named_source: Any = source
        self.flatten = flatten
        if isinstance(source, str) and source in SOURCES:  # what a folder holds is not known by its name
            self.save_hyperparameters({"source": source}, logger=False)  # the attribute of this name holds the data
        self.move(torch.device("cpu"))

    # What a subclass overrides.

    def task_rows(self, task: int, labels: Tensor) -> Tensor | None:
        """Choose the rows of a task by their labels ``(N,)``: a mask ``(N,)``, or None for all of them."""
        return None

    def transform(self, x: Tensor, task: int) -> Tensor:
        """Apply the task's transformation to a batch of float rows, before they are normalised.

        Shape:
            ``(B, F)`` to ``(B, F)``.
        """
        return x

    def check_source(self, source: Source) -> None:
        """Raise a ValueError if such tasks cannot be made of the source."""

    # The data.

    @cached_property
    def source(self) -> Source:
        """The data of all tasks, before any transformation."""
        source = load_source(self.named_source)
        self.check_source(source)
        return source

    @property
    def benchmark(self) -> str:
        """Its name, such as ``permuted-digits``; a folder that holds MNIST counts as it, all else is ``custom``."""
        data = self.named_source if self.named_source in SOURCES else self.source.name
        return f"{self.kind or type(self).__name__}-{data}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a row of ``x``: ``(features,)``, or ``(C, H, W)`` with ``flatten=False``."""
        return (self.source.num_features,) if self.flatten else self.source.image_shape

    @property
    def num_features(self) -> int:
        """Numbers in a row of ``x``."""
        return math.prod(self.input_shape)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, over all tasks; None where the targets are no classes."""
        return self.source.num_classes

    @property
    def epochs_per_task(self) -> int:
        """Epochs of training for each task; where none were given, the data are read to count their rows."""
        if self.given_epochs is not None:
            return self.given_epochs
        if (trainer := self.trainer) is not None and self.takes(trainer):
            return (trainer.max_epochs or 0) // (self.num_tasks - self.first_task)
        return self._enough_epochs

    @cached_property
    def _enough_epochs(self) -> int:
        batches = [-(-self._num_rows(task) // self.batch_size) for task in range(self.first_task, self.num_tasks)]
        return max(1, min(-(-STEPS // max(1, min(batches))), MOST_STEPS // max(1, max(batches))))

    @property
    def max_epochs(self) -> int:  # type: ignore[override]  # the data are read for it
        """Number of epochs of a fit."""
        return (self.num_tasks - self.first_task) * (self.given_epochs or self._enough_epochs)

    def takes(self, trainer: Trainer) -> bool:
        """Whether tasks can share a Trainer's epochs, and nobody said for how many each is trained."""
        epochs = trainer.max_epochs or 0
        return self.given_epochs is None and epochs > 0 and epochs % (self.num_tasks - self.first_task) == 0

    def _num_rows(self, task: int) -> int:
        """Number of a task's rows to train on."""
        _, y, rows = self._data("train")
        chosen = self.task_rows(task, y)
        return len(rows) if chosen is None else int(chosen[rows].sum())

    def task_loader(self, task: int, split: Split = "train", *, epoch: int = 0) -> TaskLoader:
        """Return the batches of one task; needs no Trainer.

        Args:
            task: its absolute index.
            split: ``"train"``, shuffled; ``"val"``, the rows held out or else the test split; ``"test"``.
            epoch: counted from the start of the task; each has its own order of the training rows.

        Raises:
            ValueError: no such task or split, or the task has no rows in it.
        """
        check_integers(0, self.num_tasks - 1, task=task)
        check_choice(get_args(Split), split=split)
        x, y, rows = self._data(split)
        if (chosen := self.task_rows(task, y)) is not None:
            rows = rows[chosen[rows]]
        if len(rows) == 0:
            raise ValueError(f"Expected rows of the classes of task {task} in {split!r}, but got none. Check labels.")
        if split == "train":
            rows = rows[epoch_order(self.seed, task, epoch, len(rows)).to(rows.device)]
        epoch += task * self.epochs_per_task

        def inputs(x: Tensor) -> Tensor:
            x = self.source.normalise(self.transform(x if self.source.has_tokens else x.float(), task))
            return x if self.flatten else x.unflatten(1, self.input_shape)

        return TaskLoader(
            x, y, rows, inputs, batch_size=self.batch_size, epoch=epoch, rank=self.rank, world_size=self.world_size
        )

    def move(self, device: torch.device) -> None:
        """Have the data put on a device when they are needed next, and free the one that they are on."""
        self._device = device
        self._splits: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def _data(self, split: Split) -> tuple[Tensor, Tensor, Tensor]:
        """``x``, ``y`` and the rows of a split, all on the device."""
        if not self._splits:
            source, device = self.source.to(self._device), self._device
            train, test = (source.x_train, source.y_train), (source.x_test, source.y_test)
            self._splits["train"] = (*train, torch.arange(len(source.y_train), device=device))
            self._splits["val"] = self._splits["test"] = (*test, torch.arange(len(source.y_test), device=device))
            if self.val_fraction is not None:
                held_out = hold_out(self.source.y_train, self.val_fraction, self.seed)
                for name, mask in (("train", ~held_out), ("val", held_out)):
                    self._splits[name] = (*train, mask.nonzero().flatten().to(device))
        return self._splits[split]

    # For the Trainer.

    def prepare_data(self) -> None:
        """Read the source, which downloads it where needed.

        Raises:
            ValueError: such tasks cannot be made of it.
        """
        self.input_shape  # noqa: B018

    @property
    def current_task(self) -> int:
        """The task being trained, absolute; ``first_task`` without a Trainer."""
        if self.epoch == 0:
            return self.first_task
        return min(self.first_task + self.epoch // self.epochs_per_task, self.num_tasks - 1)

    def setup(self, stage: str | None = None) -> None:
        """Read the data and check the Trainer, whose device they go to.

        Raises:
            ValueError: such tasks cannot be made of the data; at fit, a Trainer without the arguments of
                `trainer_kwargs`.
        """
        self.prepare_data()
        if self.trainer is not None and stage == TrainerFn.FITTING and self.given_epochs is None:
            refuse_further_epochs(self.trainer, self.max_epochs)
            if self.trainer.max_epochs == self.max_epochs:  # which nobody chose
                enough = getattr(self.trainer.lightning_module, "enough_epochs", None) or self._enough_epochs
                self.trainer.fit_loop.max_epochs = (self.num_tasks - self.first_task) * min(enough, self._enough_epochs)
        super().setup(stage)
        if self.trainer is not None:
            self.move(self.trainer.strategy.root_device)
            # Lightning warns of validation loaders without rows, which are those that are not due.
            warnings.filterwarnings("ignore", f"Total length of `{TaskLoader.__name__}` across ranks is zero")

    def teardown(self, stage: str | None = None) -> None:
        """Free the device."""
        self.move(torch.device("cpu"))
        super().teardown(stage)

    def train_dataloader(self) -> TaskLoader:
        """Return the batches of the current epoch of the current task."""
        self.resume_fit()
        return self.task_loader(self.current_task, epoch=self.epoch % self.epochs_per_task)

    def val_dataloader(self) -> list[TaskLoader]:
        """Return a loader for each task; those not due have length 0."""
        self.resume_fit()
        loaders = [self.task_loader(task, "val") for task in range(self.num_tasks)]
        for task in set(range(self.num_tasks)).difference(self.due_in_turn(self.current_task, self.epochs_per_task)):
            loaders[task].rows = loaders[task].rows[:0]
        return loaders

    def test_dataloader(self) -> list[TaskLoader]:
        """Return a loader of the test split for each task."""
        return [self.task_loader(task, "test") for task in range(self.num_tasks)]

    def predict_dataloader(self) -> list[TaskLoader]:
        """Return what `test_dataloader` does."""
        return self.test_dataloader()

    def __repr__(self) -> str:
        source = self.named_source
        name = repr(source) if isinstance(source, str) else f"<{type(source).__name__}>"
        return f"{type(self).__name__}({name}, num_tasks={self.num_tasks}, first_task={self.first_task})"

    __str__ = __repr__  # Lightning's own iterates over all loaders
