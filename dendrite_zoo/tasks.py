"""Where one task ends and the next begins, also across a crash."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer

from dendrite_zoo._core.lightning import resume_missed_validation

__all__ = ["TaskBoundary", "current_task", "resume_missed_validation"]


def current_task(trainer: Trainer, task: Callable[[Trainer], int] | None = None) -> int | None:
    """The absolute index of the task being trained, as datamodule or module says in ``current_task``.

    Args:
        trainer: the Trainer at work.
        task: tells it in their stead, such as ``lambda trainer: trainer.current_epoch // 3``.

    Returns:
        The index, or None where nobody knows it.

    Raises:
        ValueError: what is told is no index from 0.
    """
    told: Any = None
    if task is not None:
        told = task(trainer)
    else:
        for owner in (getattr(trainer, "datamodule", None), trainer.lightning_module):
            told = getattr(owner, "current_task", None)
            if told is not None:
                break
    if told is None:
        return None
    if told != int(told) or told < 0:
        raise ValueError(f"The current task came as {told}; expected an index from 0: check task=, or current_task.")
    return int(told)


class TaskBoundary:
    """Turns the current task, asked for at every batch, into "this one ended" and "this one started".

    It rests on no epoch hook, for a run resumed within an epoch never sees ``on_train_epoch_start``. Its
    owner, a module or a callback, keeps its state in the checkpoint.

    Attributes:
        task: the last task trained on, None before the first batch.

    Example:
        >>> boundary = TaskBoundary()
        >>> [boundary.update(task) for task in (0, 0, 1)]
        [(None, 0), (None, None), (0, 1)]
    """

    def __init__(self) -> None:
        self.task: int | None = None

    def update(self, task: int | None) -> tuple[int | None, int | None]:
        """Compare with the last call.

        Args:
            task: the task of the batch about to be trained on; None changes nothing.

        Returns:
            ``(ended, started)``: ``ended`` is None for the very first task, both are where nothing changed.

        Raises:
            TypeError: the task is no integer.
        """
        if task is None or task == self.task:
            return None, None
        try:
            ended, self.task = self.task, operator.index(task)
        except TypeError:
            raise TypeError(
                f"The current task came as {task!r}; expected an index from 0, such as trainer.current_epoch // 3."
            ) from None
        return ended, self.task

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: primitives only."""
        return {"task": self.task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.task = state["task"]
