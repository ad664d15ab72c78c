"""What a model forgets while it learns one task after another."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo.callbacks.accuracy_matrix import AccuracyRecord
from dendrite_zoo.callbacks.metric_reader import MetricReader
from dendrite_zoo.callbacks.trainer import find_callback, log_metrics, output_folder
from dendrite_zoo.tasks import TaskBoundary, current_task, has_task, resume_missed_validation, unknown_task


class ForgettingLogger(Callback):
    """Keeps the accuracy matrix of a stream of tasks, and logs what was learned and forgotten.

    After each validation, row ``i`` of ``matrix`` holds the metric on every task that was measured, ``i`` being the
    task that is trained on. The last validation of a task counts; where training went on after it, or a task had none,
    there is a warning. A task that is trained on a second time, as in 0, 1, 0, overwrites its row, with a warning, and
    values are then taken up to that task only: count the second time as a task of its own to keep both. A metric is
    found as ``val/task_{j}/acc``, else ``val/acc/dataloader_idx_{j}`` (``self.log("val/acc", ...)`` with several
    loaders: loader ``j`` is task ``j``), else ``val/acc`` (one loader: the current task's).

    ``trainer.validate`` before ``trainer.fit`` fills ``baseline``, or, where training starts at a task ``f > 0``, row
    ``f - 1``. After training it fills only what was not measured. The sanity check counts for nothing.

    Logged are ``forgetting``, ``forgetting/task_{j}``, ``average_accuracy``, ``backward_transfer``,
    ``forward_transfer`` and ``learning_accuracy`` (`dendrite_zoo.metrics`), taken of ``matrix[: i + 1, : i + 1]``; NaN
    where undefined (`trainer.validate` leaves those out), so an ``EarlyStopping`` on one of them needs
    ``check_finite=False``. ``average_accuracy`` is NaN, too, while a task up to ``i`` that was measured earlier is
    missing in row ``i``. It is a mean over more and more tasks: a ``ModelCheckpoint`` that monitors it keeps a model of
    the first tasks, for few are easy to remember.

    Where the metric is known by then, these are logged by ``pl_module.log`` in ``on_validation_epoch_end``; those of
    single tasks, which are many, go straight to the loggers and to ``trainer.callback_metrics``. So do all of a module
    that logs its metric in its own ``on_validation_epoch_end``, which runs after the callbacks': put an
    ``EarlyStopping`` that monitors them behind this callback (Lightning puts a ``ModelCheckpoint`` there by itself).

    When a fit or a validation ends, the first process prints the matrix and writes ``matrix.json`` and
    ``matrix.png``, the latter with the ``[report]`` extra. Where only the untrained model was measured, files with
    rows of an earlier run are not overwritten, with a warning.

    Args:
        metric: name of an accuracy that the module logs in validation; more is better.
        task: from the Trainer to the task being trained, an absolute index from 0, such as
            ``lambda trainer: trainer.current_epoch // 3``. By default the ``current_task`` of the datamodule or the
            module. In a validation with several loaders, a task beyond the last that is measured counts as the last,
            with a warning: some callbacks add an epoch after the last task.
        folder: where to write; by default where the Trainer's logger writes, else its ``default_root_dir``.
        verbose: print the matrix.

    Attributes:
        matrix: ``(T, T)`` float32 on the CPU; ``matrix[i, j]`` is the metric on task ``j`` after learning task ``i``,
            NaN where not measured. ``T`` grows with the tasks seen.
        baseline: ``(T,)``, the metric of the untrained model.

    Raises:
        ValueError: the task being trained is unknown, or no index from 0, or the metric is not logged.

    Example:
        >>> log = ForgettingLogger("val/acc", task=lambda trainer: trainer.current_epoch // 3)
        >>> log.matrix.shape
        torch.Size([0, 0])
    """

    def __init__(
        self,
        metric: str = "val/acc",
        task: Callable[[Trainer], int] | None = None,
        *,
        folder: str | Path | None = None,
        verbose: bool = True,
    ) -> None:
        self.metric, self.task, self.folder, self.verbose = metric, task, folder, verbose
        self.record = AccuracyRecord(metric)
        self._boundary = TaskBoundary()
        self._reader = MetricReader(metric)
        self._after: int | None = None  # the task learned last, in this validation
        self._latest: tuple[int, int, int] | None = None  # task, row and step of the last validation
        self._warned: set[str] = set()
        self._output: Path | None = None

    @property
    def matrix(self) -> Tensor:
        """The accuracy matrix ``(T, T)``."""
        return self.record.matrix

    @property
    def baseline(self) -> Tensor:
        """The metric of the untrained model, ``(T,)``."""
        return self.record.baseline

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the matrix."""
        return f"{type(self).__qualname__}[{self.metric}]"

    def learned_part(self, task: int | None = None) -> Tensor | None:
        """The matrix ``(i + 1, i + 1)`` up to the task learned last, ``i``, if its row holds every task so far.

        Args:
            task: the task learned last; by default the one that was trained on at the last validation.

        Returns:
            The part; None where a task is missing in its last row, or nothing was measured since that task began.
        """
        if self._latest is None or task not in (None, self._latest[0]):
            return None
        part = self.matrix[: self._latest[1] + 1, : self._latest[1] + 1]
        return None if part[-1].isnan().any() else part

    def state_dict(self) -> dict[str, Any]:
        """The matrix, and the task trained on."""
        return {**self.record.to_state(), "boundary": self._boundary.state_dict(), "latest": self._latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the matrix of a checkpoint."""
        self.record.from_state(state_dict)
        self._boundary.load_state_dict(state_dict["boundary"])
        self._latest = state_dict["latest"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that the task can be known, and that metrics are collected, before any work is done."""
        if trainer.barebones:
            raise ValueError(
                "ForgettingLogger reads metrics, but Trainer(barebones=True) keeps no metrics. Leave one of them out."
            )
        if find_callback(trainer, ForgettingLogger) is not self:
            raise ValueError(
                "Expected one ForgettingLogger, but the Trainer has several, which log the same names. Keep one."
            )
        if stage in ("fit", "validate") and not has_task(trainer, self.task):
            raise unknown_task(trainer, type(self).__name__)
        self._output, self._warned = output_folder(trainer, self.folder), set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure a row that is missing, as a crash fell between an epoch's last batch and its validation."""
        resume_missed_validation(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether a task starts."""
        ended, started = self._boundary.update(self._current_task(trainer))
        if started is None:
            return
        if ended is None:
            self.record.first_task = started
            return
        self._check_row(trainer, ended)
        if self.record.measured(started):
            self._warn_once(
                "again",
                f"Task {started} is trained on again, and its row of the matrix will be overwritten. To keep both "
                "rows, count the second time as a task of its own.",
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was logged before."""
        self._reader.start(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count samples."""
        self._reader.count(batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what the validation steps logged, and log what follows from it."""
        if self._read(trainer):
            values = self._values(trainer)
            of_tasks = {name: values.pop(name) for name in list(values) if "/" in name}
            pl_module.log_dict(values, sync_dist=trainer.world_size > 1)
            log_metrics(trainer, of_tasks)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what the module logged at the very end, where only the loggers can still be reached."""
        if self._read(trainer):
            log_metrics(trainer, self._values(trainer))
        if trainer.sanity_checking:
            return
        if not self.record.update_called and (logged := self._reader.logged(trainer)):
            raise ValueError(self._reader.not_logged(logged, loaders=len(trainer.num_val_batches)))
        if trainer.state.fn == "validate":
            self._report(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the matrix and write it."""
        if self.record.update_called:
            self._check_row(trainer, self._boundary.task)
        elif not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"ForgettingLogger({self.metric!r}) expected a validation loader for each task, but this fit had no "
                "validation. Pass `val_dataloaders`, and no `limit_val_batches=0`."
            )
        self._report(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the matrix of an interrupted run, too."""
        if self._output is not None and self.record.update_called:
            with contextlib.suppress(OSError):  # the exception at hand matters more
                self.record.write_json(self._output)

    def _current_task(self, trainer: Trainer) -> int:
        task = current_task(trainer, self.task)
        if task is None:
            raise unknown_task(trainer, type(self).__name__)
        return task

    def _check_row(self, trainer: Trainer, task: int | None) -> None:
        """Warn where the row of a task that has ended is not what the model was then."""
        if task is None or not trainer.enable_validation:
            return
        advice = (
            "Validate after the last step of each task; the Trainer has "
            f"check_val_every_n_epoch={trainer.check_val_every_n_epoch}, "
            f"val_check_interval={trainer.val_check_interval} and max_steps={trainer.max_steps}."
        )
        measured, _, step = self._latest or (None, None, 0)
        if measured == task and step < trainer.global_step:
            self._warn_once(
                "late",
                f"Task {task} was last measured at step {step}, but trained on until step {trainer.global_step}, so "
                f"its row of the matrix is not that of its end. {advice}",
            )
        elif measured != task and not self.record.measured(task):
            rank_zero_warn(
                f"ForgettingLogger: Task {task} ended without a validation, so its row of the matrix stays NaN. "
                f"{advice}"
            )

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            rank_zero_warn(f"ForgettingLogger: {message}")

    def _read(self, trainer: Trainer) -> bool:
        """Put what this validation logged into the matrix; False where there is nothing new."""
        if trainer.sanity_checking:
            return False
        begun = self._boundary.task is not None
        task = self._current_task(trainer) if self._boundary.task is None else self._boundary.task
        if (found := self._reader.read(trainer, task)) is None:
            return False
        if begun:
            after = self._row(trainer, task, max(found))
        else:  # before training: the task before it, if there is one
            after, self.record.first_task = task - 1, task
        self._after = after if after >= 0 else None
        validating = trainer.state.fn == "validate"
        values, samples = {j: value for j, (value, _) in found.items()}, {j: count for j, (_, count) in found.items()}
        # what was measured in training stays: weights given to trainer.validate later may be any
        self.record.put(values, self._after, samples=samples, overwrite=not (begun and validating))
        self.record.grow(len(trainer.num_val_batches))
        if begun and not validating:
            self._latest = task, after, trainer.global_step
        return True

    def _row(self, trainer: Trainer, task: int, last: int) -> int:
        """The row of a task; with several loaders that of the last measured, where the task lies beyond it."""
        loaders = len(trainer.num_val_batches)
        tasks = max(loaders, last + 1, self.record.num_tasks)
        if loaders > 1 and task >= tasks:
            self._warn_once(
                "beyond",
                f"Expected a task below the number of tasks that are measured, {tasks}, but got {task}, as in an epoch "
                f"that another callback adds. It counts as task {tasks - 1}. Pass "
                f"`task=lambda trainer: min(..., {tasks - 1})`.",
            )
            return tasks - 1
        return task

    def _values(self, trainer: Trainer) -> dict[str, float]:
        validating = trainer.state.fn == "validate"  # nothing is monitored, and Lightning prints each value
        values = self.record.values(self._after).items()
        return {name: value for name, value in values if not (validating and math.isnan(value))}

    def _report(self, trainer: Trainer) -> None:
        if self._output is not None and self.record.update_called:
            self.record.write(self._output)
        if self.verbose and trainer.is_global_zero and self.record.update_called:
            self.record.show()
