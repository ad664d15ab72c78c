"""Puts what a validation or a test has measured into the right row and columns of the accuracy matrix."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from dendrite_zoo._core.lightning import loaders_given
from dendrite_zoo.callbacks.accuracy_matrix import AccuracyRecord
from dendrite_zoo.callbacks.metric_reader import ALONE, Found, MetricReader
from dendrite_zoo.callbacks.task_progress import TaskProgress
from dendrite_zoo.callbacks.trainer import num_loaders, overrides
from dendrite_zoo.tasks import current_task, loader_task, unknown_task


class MatrixFiller:
    """Reads each validation once, or again where it has logged more, and fills the matrix.

    Args:
        reader: of the metric.
        record: the matrix.
        progress: of the tasks.

    Attributes:
        after: the row that was filled last, None for the untrained model.
        stage: whose values the matrix holds, ``"validation"`` or ``"test"``; None where it is empty.
        problem: why a validation of this fit left it empty, where the metric may belong to the test.
    """

    def __init__(self, reader: MetricReader, record: AccuracyRecord, progress: TaskProgress) -> None:
        self.reader, self.record, self.progress = reader, record, progress
        self.after: int | None = None
        self.stage: str | None = None
        self.problem: str | None = None
        progress.of_test = reader.name.of_test
        self._found = self._filled = self._index_used = False

    def fill(self, trainer: Trainer) -> bool:
        """Put what was logged into the matrix.

        Returns:
            Whether there was anything new.

        Raises:
            ValueError: the task that is trained on, or that the one loader measures, is unknown; or names or tasks
                count from 1.
        """
        if trainer.sanity_checking or (read := self.reader.read(trainer)) is None:
            return False
        self._found, self.problem, stage = True, None, "test" if trainer.testing else "validation"
        if self.stage not in (None, stage):
            self._say_what_is_left_out(stage, read.values)
            return False
        if read.named:
            self._refuse_counting_from_1(trainer, read.values)
        values = self._of_tasks(trainer, read.values)
        fitting, trained = trainer.state.fn == "fit", self.progress.task is not None
        row = self.progress.row(num_loaders(trainer), max(values)) if trained else self._before(trainer, read.values)
        self.after, self.stage, self.progress.of_test = None if row < 0 else row, stage, trainer.testing
        accuracies, samples = {j: x for j, (x, _) in values.items()}, {j: n for j, (_, n) in values.items()}
        self.record.put(accuracies, self.after, samples=samples)
        self.record.grow(num_loaders(trainer))
        self._filled = True
        if fitting:
            self.progress.measured(trainer, row)
        return True

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """A validation has ended.

        Returns:
            Whether it has put anything into the matrix.

        Raises:
            ValueError: the metric was never logged for each task, though this is where it belongs.
        """
        logged, name = self.reader.logged(trainer), self.reader.name
        if not self._found and (logged or self.reader.seen) and not trainer.sanity_checking:
            message = name.not_logged(logged, num_loaders(trainer))
            if self._belongs(trainer, pl_module):
                raise ValueError(message)
            if not (name.of_test or trainer.testing):
                self.problem, self.progress.of_test = message, True  # so it seems, until the fit ends without it
        self.reader.finish()
        if trainer.state.fn != "fit":
            self.progress.given.use_up(needed=self._index_used)
            self._index_used = False
        filled, self._filled = self._filled, False
        return filled

    def _say_what_is_left_out(self, stage: str, values: Found) -> None:
        """A warning where it would have filled gaps of the matrix."""
        row = self.record.matrix[self.after or 0]
        gaps = [j for j in values if j != ALONE and (j >= len(row) or row[j].isnan())]
        (rank_zero_warn if gaps else rank_zero_info)(
            f"ForgettingLogger: {self.reader.name.metric!r} of this {stage} is not put into the matrix, which holds "
            f"the values of {self.stage}. For a matrix of the {stage}, log it there under a name of its own, such as "
            f"'{stage}/acc', and give that to a ForgettingLogger."
        )

    def _belongs(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether the metric must be logged in this run, and not in that of the other stage."""
        if self.reader.name.of_validation:
            return not trainer.testing
        return trainer.testing or not (self.reader.name.of_test or overrides(pl_module, "test_step"))

    def _of_tasks(self, trainer: Trainer, values: Found) -> Found:
        """Values by task, that of a lone loader too."""
        if ALONE not in values:
            return values
        task = self._task_alone(trainer)
        if task is None:
            run = "trainer.test" if trainer.testing else "trainer.validate"
            raise ValueError(
                f"ForgettingLogger expected to know which task the one loader of this `{run}` measures, but nothing "
                f"says so. Set `log.task = j` before each `{run}(model, loader_j)`, or pass the loaders of all tasks "
                f"at once, in their order: `{run}(model, [loader_0, loader_1])`."
            )
        return {task: values[ALONE]}

    def _task_alone(self, trainer: Trainer) -> int | None:
        if trainer.state.fn == "fit":
            if self.progress.task is None:
                raise unknown_task(trainer, "ForgettingLogger")
            return self.progress.task
        if (index := self.progress.given.index) is not None:
            self._index_used = True
            return index
        if self.progress.task == 0 and isinstance(loaders_given(trainer), list | tuple | dict):
            return 0  # the tasks so far are one, and loader j of a list is task j
        return loader_task(trainer)

    def _before(self, trainer: Trainer, values: Found) -> int:
        """The row of what is measured before training: that of the task before the first, -1 for the baseline."""
        first = None if ALONE in values else current_task(trainer, self.progress.given.source)
        self.record.begin(first or 0)
        return self.record.first_task - 1

    def _refuse_counting_from_1(self, trainer: Trainer, values: Found) -> None:
        loaders, task = num_loaders(trainer), self.progress.task
        beyond = loaders > 1 and max(values) >= max(loaders, self.record.num_tasks)
        shifted = trainer.state.fn == "fit" and task is not None and task not in values and task + 1 in values
        if min(values) > 0 and (beyond or shifted):
            about = f"{loaders} validation loaders" if beyond else f"task {task}, which is trained on,"
            raise ValueError(
                f"Expected the names of {self.reader.name.metric!r} to count tasks from 0, but {about} gave the "
                f"numbers {sorted(values)}. Pass `metric={self.reader.name.from_1!r}`."
            )
