"""Where one task ends and the next begins, also across a crash."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import RestartStage as _ValidationRestart
from lightning.pytorch.loops.progress import _ProcessedTracker, _Progress
from lightning.pytorch.loops.training_epoch_loop import RestartStage as _TrainingRestart

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


def resume_missed_validation(trainer: Trainer) -> bool:
    """Make a run that is resumed from an epoch's last batch finish that epoch: validate, then end it.

    Such a checkpoint (of ``ModelCheckpoint(every_n_train_steps=...)``, say) was taken before the
    validation that follows the batch. Lightning takes the epoch for done and goes on with the next: the
    validation is lost, for the last epoch of a fit too, and so is the count of epochs, by which a second
    crash would be resumed wrongly. This function takes the run back to where it was: Lightning itself then
    runs the validation, in its usual place, with ``trainer.current_epoch`` and the logged step of the run
    that was not interrupted, and the hooks that follow.

    Call it in ``on_train_start``, as often as you like: once the run stands right, or where nothing was
    missed, it does nothing. The streams of this package call it by themselves, which is enough where every
    epoch is validated.

    Args:
        trainer: the Trainer, about to train.

    Returns:
        Whether a validation was missed, and will be run first.
    """
    fit_loop = trainer.fit_loop
    epoch_loop, val_loop = fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop
    batches, epochs = epoch_loop.batch_progress, fit_loop.epoch_progress
    resumed_after_last_batch = (
        fit_loop.restarted_mid_epoch and epoch_loop.restarted_on_train_batch_end and batches.is_last_batch
    )
    if not (resumed_after_last_batch and epochs.current.completed == epochs.current.ready):
        return False  # there is nothing to make good, or Lightning has not counted the epoch as done yet

    _count_epoch(epochs, -1)
    assert fit_loop._data_fetcher is not None
    if not epoch_loop._should_check_val_fx(fit_loop._data_fetcher):
        _count_epoch(epochs, +1)
        fit_loop.reset_restart_stage()  # so that the next epoch begins as epochs do, and is counted
        return False

    # The state "the last batch is done, its validation was begun": `_TrainingEpochLoop.advance` goes back to
    # it.
    batches.increment_completed()
    epoch_loop._restart_stage = _TrainingRestart.RESTARTED_ON_LAST
    val_loop._restart_stage = _ValidationRestart.RESTARTED_MID_EVALUATION
    val_loop.restarting = False
    val_loop.batch_progress.reset()
    val_loop._last_val_dl_reload_epoch = float("-inf")  # the loaders at hand may be the next epoch's
    return True


def _count_epoch(epochs: _Progress, by: int) -> None:
    for progress in (epochs.total, epochs.current):
        assert isinstance(progress, _ProcessedTracker)
        progress.processed += by
        progress.completed += by
