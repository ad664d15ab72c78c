"""What the user gives a callback to say which task a run is about."""

from dataclasses import dataclass

from lightning.pytorch import Trainer

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo.tasks import Task, imported, task_index


@dataclass(frozen=True)
class EpochsPerTask:
    """The task of an epoch, where each task has the same number of epochs.

    Args:
        epochs: of each task.

    Example:
        >>> EpochsPerTask(3)(Trainer(logger=False, accelerator="cpu"))
        0
    """

    epochs: int

    def __call__(self, trainer: Trainer) -> int:
        """The task of the epoch at hand."""
        return trainer.current_epoch // self.epochs


class GivenTask:
    """What the user gives a callback to say the task: once for all runs, or an index for the next one.

    An index is for one fit, or the validation of one loader, and used up when that has ended, so that none is taken for
    the next task's by mistake. Beside something that says the task of all runs, it is for the next run of any kind.

    Args:
        task: what says the task; an index is that of the first run.
        epochs_per_task: instead of it, for one fit over all tasks, each of so many epochs.

    Raises:
        ValueError: both, no positive number of epochs, an import path at which there is nothing, or another type.

    Example:
        >>> given = GivenTask(epochs_per_task=3)
        >>> given.give(1)
        >>> given.source
        1
        >>> given.use_up()
        >>> given.source
        EpochsPerTask(epochs=3)
    """

    def __init__(self, task: Task | None = None, epochs_per_task: int | None = None) -> None:
        self._always: Task | None = None
        self._next: int | None = None
        self._used_up = self._given_anew = False
        self.give(task)
        if epochs_per_task is not None:
            if task is not None:
                raise ValueError(
                    f"Expected `task` or `epochs_per_task`, but got both, {task!r} and {epochs_per_task}. Leave one "
                    "out."
                )
            check_integers(1, epochs_per_task=epochs_per_task)
            self._always = EpochsPerTask(epochs_per_task)

    def give(self, task: Task | None) -> None:
        """Take an index for the next run, or what says the task of all to come."""
        self._given_anew = True
        if task is None or callable(task) or isinstance(task, str):
            if isinstance(task, str):
                imported(task)
            self._always, self._next = task, None
        else:
            self._next, self._used_up = task_index(task), False

    @property
    def source(self) -> Task | None:
        """What says the task now; None where nothing was given, or it is used up."""
        return self.index if self.index is not None else self._always

    @property
    def index(self) -> int | None:
        """The index that was given for this run."""
        return None if self._used_up else self._next

    @property
    def used_up(self) -> int | None:
        """The index of an earlier run, where nothing else says the task."""
        return self._next if self._used_up and self._always is None else None

    @property
    def anew(self) -> bool:
        """Whether something was given since the last run."""
        return self._given_anew

    def use_up(self, *, needed: bool = True) -> None:
        """A run has ended.

        Args:
            needed: whether it was one that an index is for.
        """
        if needed or self._always is not None:
            self._used_up, self._given_anew = self._next is not None, False
