"""Where one task ends and the next begins, also across a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer

from dendrite_zoo._core.lightning import resume_missed_validation

__all__ = ["TaskBoundary", "current_task", "has_task", "resume_missed_validation", "unknown_task"]


def current_task(trainer: Trainer, task: Callable[[Trainer], int] | None = None) -> int | None:
    """The absolute index of the task being trained, the ``current_task`` of the datamodule, else of the module.

    Args:
        trainer: the Trainer at work.
        task: asked instead of them, such as ``lambda trainer: trainer.current_epoch // 3``.

    Returns:
        The index, or None where it is not known.

    Raises:
        ValueError: the answer is no index from 0.
    """
    if task is not None:
        return _index(task(trainer))
    answers = (owner.current_task for owner in _owners(trainer) if hasattr(owner, "current_task"))
    return _index(next((answer for answer in answers if answer is not None), None))


def has_task(trainer: Trainer, task: Callable[[Trainer], int] | None = None) -> bool:
    """Whether there is a source of the current task: ``task``, or a ``current_task`` of datamodule or module.

    It may not know the task yet, as a module that finds its task in a batch.
    """
    return task is not None or any(hasattr(owner, "current_task") for owner in _owners(trainer))


def unknown_task(trainer: Trainer, callback: str) -> ValueError:
    """The error of a callback that needs the current task where nothing gives it, with the remedies.

    Args:
        trainer: the Trainer at work.
        callback: the name of the callback's class.
    """
    owners = " or ".join(type(owner).__name__ for owner in _owners(trainer) if owner is not None)
    owners = owners or "the datamodule or the module"
    return ValueError(
        f"{callback} needs the index of the task being trained, but neither `task=` nor a `current_task` of {owners} "
        f"gives it. Pass `task=`, such as {callback}(task=lambda trainer: trainer.current_epoch // 3). In YAML, use a "
        "datamodule that has a `current_task`, such as `dendrite_zoo.streams.PermutedTasks`."
    )


def _owners(trainer: Trainer) -> tuple[Any, Any]:
    return getattr(trainer, "datamodule", None), getattr(trainer, "lightning_module", None)


def _index(task: Any) -> int | None:
    if task is None:
        return None
    if task != int(task) or task < 0:
        raise ValueError(
            f"Expected the current task to be an index from 0, but got {task}. Check `task=`, or the `current_task` "
            "of the datamodule or the module."
        )
    return int(task)


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
            ValueError: the task is no index from 0.
        """
        if task is None or task == self.task:
            return None, None
        ended, self.task = self.task, _index(task)
        return ended, self.task

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: primitives only."""
        return {"task": self.task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.task = state["task"]
