"""Which task is trained on, up to which step, and when it was last measured: whether a row of the matrix is right."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from dendrite_zoo.callbacks.accuracy_matrix import AccuracyRecord, after_tasks
from dendrite_zoo.callbacks.given_task import GivenTask
from dendrite_zoo.tasks import TaskBoundary, current_task, trained_before, unknown_task


class TaskProgress:
    """Follows the task that is trained on, over one fit or many, and warns where its row is not what it should be.

    Args:
        given: what the user said of the task.
        record: the matrix.
        folder: of a matrix to go on with, where a fit starts at a later task.

    Attributes:
        task: that is trained on, or was last; None before training.
        latest: task, row and step of the last validation in a fit.
        of_test: whether rows are measured by ``trainer.test``, after a fit.
    """

    def __init__(self, given: GivenTask, record: AccuracyRecord, folder: Path | None) -> None:
        self.given, self.record, self.folder = given, record, folder
        self.latest: tuple[int, int, int] | None = None
        self.of_test = False
        self._output: Path | None = None
        self._boundary = TaskBoundary()
        self._step = 0  # up to which the task was trained on
        self._from_scratch = self._resumed = self._looked = False
        self._fit: set[int] = set()  # the tasks of this fit
        self._warned: set[str] = set()
        self._said_missing: set[int] = set()

    @property
    def task(self) -> int | None:
        """The task that is trained on, or was last."""
        return self._boundary.task

    @property
    def tasks_trained(self) -> list[int]:
        """The tasks trained on, by this object and since its state was last loaded."""
        return sorted(self._boundary.trained)

    def start_run(self, output: Path | None) -> None:
        """A fit, a validation or a test begins, before its checkpoint is read; this process writes to ``output``."""
        self._output = output
        self._warned, self._fit, self._resumed = set(), set(), False
        self._boundary.undo()

    def start_fit(self, trainer: Trainer) -> None:
        """Training begins."""
        self._from_scratch = trainer.global_step == 0
        self._boundary.start_fit()
        if self.latest is not None and trainer.global_step < self.latest[2]:  # another Trainer's steps
            self.latest = *self.latest[:2], 0

    def see(self, trainer: Trainer) -> None:
        """A batch is about to be trained on: see whether a task has ended.

        Raises:
            ValueError: the task is no index, or an earlier fit trained it.
        """
        task = current_task(trainer, self.given.source)
        self._looked = False
        starting = self._boundary.starts(task)
        ended, started = self._boundary.update(task)
        if starting and task in self._boundary.earlier and not self.given.anew:
            self._refuse(task)
        if started is not None and ended is None:
            self._begin(trainer, started)
        elif started is not None:
            self._check_end(trainer, ended, in_earlier_fit=starting)
            self._check_order(started)
        if self.task is not None:
            self._fit.add(self.task)
        self._step = trainer.global_step

    def see_in_batch(self, trainer: Trainer) -> None:
        """Before a step, look once more in each batch, for a module that finds its task in it.

        Not later: what counts steps says the next task then, though this one is still to be measured.
        """
        if not self._looked:
            self.see(trainer)
            self._looked = True

    def trained(self, trainer: Trainer) -> None:
        """A batch was trained on.

        Raises:
            ValueError: the task is still unknown.
        """
        if self.task is None:
            self.see(trainer)
        if self.task is None:
            raise unknown_task(trainer, "ForgettingLogger")
        self._boundary.confirm()
        self._step = trainer.global_step

    def end_fit(self, trainer: Trainer) -> None:
        """Training has ended."""
        if not self._fit and self.task is not None and not self._resumed:
            rank_zero_warn(
                "ForgettingLogger: this fit trained on nothing, as when a Trainer has reached its `max_epochs` in an "
                "earlier fit. Raise `trainer.fit_loop.max_epochs`, or make a new Trainer for each fit."
            )
        elif self._fit:
            self._check_end(trainer, self.task)
        if not (trainer.enable_validation or self.of_test or all(map(self.record.measured, self._fit))):
            rows_are_lost = len(self._fit) > 1  # else a validation behind the fit may measure it
            (rank_zero_warn if rows_are_lost else rank_zero_info)(
                f"ForgettingLogger({self.record.metric!r}) expected a validation loader for each task, but this fit "
                "had no validation. Pass `val_dataloaders`, and no `limit_val_batches=0`; or, with one fit for each "
                "task, call `trainer.validate` behind it."
            )
        self.given.use_up()

    def measured(self, trainer: Trainer, row: int) -> None:
        """A validation within a fit has measured a row."""
        assert self.task is not None
        self.latest = self.task, row, trainer.global_step

    def row(self, loaders: int, last: int) -> int:
        """The row of the task at hand; with several loaders that of the last measured, where the task lies beyond it.

        Args:
            loaders: of the validation.
            last: the highest task that it measured.

        Raises:
            ValueError: the task lies beyond the last, and training started at task 1.
        """
        task, tasks = self.task, max(loaders, last + 1, self.record.num_tasks)
        assert task is not None
        if loaders == 1 or task < tasks:
            return task
        if self.record.first_task != 1 and (len(self._fit) < 2 or self.given.index is not None):
            return task  # a fit of this task alone, validated on others
        problem = f"Expected a task below the number of tasks that are measured, {tasks}, but got {task}"
        if self.record.first_task == 1:
            raise ValueError(
                f"{problem}, after training that started at task 1, as where tasks count from 1. Count them from 0, as "
                "validation loaders do: subtract 1 in `task=`, or in `current_task`."
            )
        self.warn_once(
            "beyond",
            f"{problem}, as in an epoch that another callback adds. It counts as task {tasks - 1}. Pass "
            f"`task=lambda trainer: min(..., {tasks - 1})`.",
        )
        return tasks - 1

    def warn_once(self, about: str, message: str) -> None:
        """Warn of something once in a run."""
        if about not in self._warned:
            self._warned.add(about)
            rank_zero_warn(f"ForgettingLogger: {message}")

    def state_dict(self) -> dict[str, Any]:
        """The task trained on, and when it was measured."""
        return {"boundary": self._boundary.state_dict(), "latest": self.latest}

    def load_state_dict(self, state: dict[str, Any], trained: Iterable[int] = ()) -> None:
        """Go on from a checkpoint, or from a copy of this object, with the tasks that it has trained on."""
        self._boundary.load_state_dict(state["boundary"])
        self._boundary.trained = set(trained)
        self.latest, self._resumed = state["latest"], True

    def _check_end(self, trainer: Trainer, task: int | None, *, in_earlier_fit: bool = False) -> None:
        """Warn where the row of a task that has ended is not what the model was then."""
        if task is None or not (in_earlier_fit or (trainer.enable_validation and not self.of_test)):
            return  # it may still be measured behind the fit
        advice = "Validate after the last step of each task"
        if trainer.enable_validation:
            advice += (
                f"; the Trainer has check_val_every_n_epoch={trainer.check_val_every_n_epoch}, "
                f"val_check_interval={trainer.val_check_interval} and max_steps={trainer.max_steps}"
            )
        measured, _, step = self.latest or (None, None, 0)
        if measured == task and step < self._step and not in_earlier_fit:
            self.warn_once(
                "late",
                f"Task {task} was last measured at step {step}, but trained on until step {self._step}, so its row of "
                f"the matrix is not that of its end. {advice}.",
            )
        elif measured != task and not self.record.measured(task) and task not in self._said_missing:
            self._said_missing.add(task)
            rank_zero_warn(
                f"ForgettingLogger: Task {task} ended without a {'test' if self.of_test else 'validation'}, so its row "
                f"of the matrix stays NaN. {advice}."
            )

    def _check_order(self, task: int) -> None:
        """Warn of a task that was trained before, or that others behind it were."""
        if self.record.measured(task):
            self.warn_once(
                "again",
                f"Task {task} is trained on again, and its row of the matrix will be overwritten. To keep both rows, "
                "count the second time as a task of its own.",
            )
        elif task < max(self._boundary.trained):
            self.warn_once(
                "order",
                f"task {task} is trained after tasks of a higher index, but rows, and all that is computed from them, "
                "are in the order of indices. Count tasks in the order in which they are trained: loader j, the j-th.",
            )

    def _refuse(self, task: int) -> None:
        """A fit starts at a task that an earlier one has trained, and nobody has said so."""
        say = f"log.task = {max(self._boundary.earlier) + 1}"
        message = trained_before(task, "ForgettingLogger", say=say)
        if self._from_scratch:
            raise ValueError(message)
        rank_zero_warn(message)

    def _begin(self, trainer: Trainer, task: int) -> None:
        """Training begins for the first time."""
        output = self._output
        if output is not None and (earlier := [i for i in self.record.rows_in(output) if i >= task]):
            (rank_zero_info if self.folder is None else rank_zero_warn)(
                f"ForgettingLogger: {self.record.path(output)} contains values {after_tasks(earlier)} of an earlier "
                "run, which this run overwrites. To keep both, choose a `folder=` for each."
            )
        if task == 0 or self.record.update_called:
            self.record.begin(task)
            return
        self.record.first_task = task
        state = None if self.folder is None else self.record.read_rows(self.folder, before=task)
        if (state := trainer.strategy.broadcast(state)) is not None:
            self.record.from_state(state)
            rank_zero_info(f"ForgettingLogger goes on with the rows before task {task} in {self.folder}.")
            return
        rank_zero_warn(
            f"ForgettingLogger: training starts at task {task}, but nothing was measured before it, so what is "
            "forgotten of the earlier tasks cannot be known. Call `trainer.validate` before `trainer.fit`; or, with "
            "one fit for each task, use one ForgettingLogger for all, or give each fit's the same `folder=`. Where "
            "your tasks count from 1, subtract 1."
        )
