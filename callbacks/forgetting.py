"""What a model forgets while it learns one task after another."""

import contextlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.accuracy_matrix import AccuracyRecord
from dendrite_zoo.callbacks.given_task import GivenTask
from dendrite_zoo.callbacks.mailbox import Mailbox, OwnState
from dendrite_zoo.callbacks.matrix_filler import MatrixFiller
from dendrite_zoo.callbacks.metric_name import check_mode
from dendrite_zoo.callbacks.metric_reader import MetricReader
from dendrite_zoo.callbacks.task_progress import TaskProgress
from dendrite_zoo.callbacks.trainer import find_callbacks, log_metrics, log_picture, num_loaders, output_folder
from dendrite_zoo.tasks import Task, has_task, resume_missed_validation, unknown_task


@say_new_names
class ForgettingLogger(OwnState):
    """Keeps the accuracy matrix of a stream of tasks, and logs what was learned and forgotten.

    After each validation, row ``i`` of ``matrix`` holds the metric on every task that was measured, ``i`` being the
    task that is trained on. The last validation of a task counts; where training went on after it, or a task had none,
    there is a warning. A task that is trained on a second time, as in 0, 1, 0, overwrites its row, with a warning, and
    values are then taken up to that task only: count the second time as a task of its own to keep both.

    A metric is found as ``val/task_{j}/acc``, else ``val/acc/dataloader_idx_{j}`` (``self.log("val/acc", ...)`` with
    several loaders: loader ``j`` is task ``j``), else ``val/acc`` (one loader: the current task's, in a fit). Of one
    torchmetrics object for several loaders the matrix holds each loader's own value. ``trainer.test`` is read as
    validations are; the matrix holds the values of either, of the first.

    ``trainer.validate`` before ``trainer.fit`` fills ``baseline``, or, where training starts at a task ``f > 0``, row
    ``f - 1``; after a fit it measures the row of the task trained last anew, whatever weights it is given. The sanity
    check counts for nothing. With one ``Trainer.fit`` for each task, use one logger for all, and set ``log.task = i``
    before each; with one loader after another in ``trainer.validate(model, loader_j)``, ``log.task = j``: for one run.

    Logged are ``forgetting``, ``forgetting/task_{j}``, ``average_accuracy``, ``backward_transfer``,
    ``forward_transfer`` and ``learning_accuracy`` (`dendrite_zoo.metrics`), taken of ``matrix[: i + 1, : i + 1]``; NaN
    where undefined, which `trainer.validate` leaves out: an ``EarlyStopping`` needs ``check_finite=False``, and more
    ``patience`` than task 0 has validations. ``average_accuracy`` is NaN, too, while a task up to ``i`` measured before
    is missing in row ``i``. It is a mean over ever more tasks: a ``ModelCheckpoint`` on it keeps a model of the first.

    They are logged by ``pl_module.log`` in ``on_validation_epoch_end``; those of single tasks, and all where the module
    logs its metric in its own such hook, which runs after the callbacks', go straight to the loggers and to
    ``trainer.callback_metrics``: put an ``EarlyStopping`` that monitors them behind this callback.

    When a fit or a validation ends, the first process prints the matrix and writes ``matrix.json``, and after a fit
    ``matrix.png`` (``[report]`` extra). A file with rows of an earlier run that this one lacks is left alone.

    Args:
        metric: name of what the module logs in validation or test. ``{task}`` is the place of the task in names of your
            own, ``"val_acc_{task}"``; ``{task:1}`` where they count from 1, ``"task_{task:1}/val/acc"``.
        task_names: what stands there in place of numbers, task by task: ``"val/{task}/acc"``, ``["mnist", "usps"]``.
        task: the task being trained, an absolute index from 0: a function of the Trainer, such as ``lambda trainer:
            trainer.current_epoch // 3``, its import path, or the index for the next run. By default the
            ``current_task`` of the datamodule or the module. In a validation with several loaders, a task beyond the
            last that is measured counts as the last, with a warning: some callbacks add an epoch after the last task.
        epochs_per_task: instead of ``task``, where one fit trains all tasks, each for so many epochs.
        mode: ``"min"`` where less is better, as of a loss: forgetting is then how much it rose.
        name: logs under ``name/``, to tell two loggers apart; a second one without a name has its metric's.
        folder: to write to, one for each seed; by default the logger's or ``default_root_dir``. A new logger goes on
            with the matrix there in the fit of a later task, and warns where it overwrites rows.
        pictures: draw ``matrix.png`` when a fit ends, also for TensorBoard and Weights & Biases; see `plot`.
        verbose: print the matrix.

    Attributes:
        matrix: ``(T, T)`` float32 on the CPU; ``matrix[i, j]`` is the metric on task ``j`` after learning task ``i``,
            NaN where not measured. ``T`` grows with the tasks seen.
        baseline: ``(T,)``, the metric of the untrained model.

    Raises:
        ValueError: the task being trained is unknown, or no index from 0; the metric is not logged for each task; names
            or tasks count from 1; a fit starts at a task that an earlier one has trained.

    Example:
        >>> log = ForgettingLogger("val/acc", epochs_per_task=3)
        >>> log.matrix.shape
        torch.Size([0, 0])
    """

    def __init__(
        self,
        metric: str = "val/acc",
        task: Task | None = None,
        *,
        task_names: Sequence[str] | None = None,
        epochs_per_task: int | None = None,
        mode: Literal["max", "min"] = "max",
        name: str | None = None,
        folder: str | Path | None = None,
        pictures: bool = True,
        verbose: bool = True,
    ) -> None:
        check_mode(metric, mode)
        self.metric, self.mode, self.name, self.folder = metric, mode, name, folder
        self.pictures, self.verbose = pictures, verbose
        self._record = AccuracyRecord(metric, mode)
        self._given = GivenTask(task, epochs_per_task)
        self._progress = TaskProgress(self._given, self._record, None if folder is None else Path(folder))
        self._reader = MetricReader(metric, task_names)
        self._filler = MatrixFiller(self._reader, self._record, self._progress)
        self._mailbox = Mailbox()
        self._output: Path | None = None
        self._fresh, self._was_dry, self.reads_gradients = self.state_dict(), False, False

    @property
    def record(self) -> AccuracyRecord:
        """The matrix with its name and sample counts."""
        if (state := self._mailbox.receive()) is not None:  # the last run was in processes of its own
            self.load_state_dict(state)
            self._progress.load_state_dict(state, state["trained"])
            self._given.use_up(needed=state["used_up"])
        return self._record

    @property
    def matrix(self) -> Tensor:
        """The accuracy matrix ``(T, T)``."""
        return self.record.matrix

    @property
    def baseline(self) -> Tensor:
        """The metric of the untrained model, ``(T,)``."""
        return self.record.baseline

    @property
    def task(self) -> Task | None:
        """What says the task, or the index that was given for the next run."""
        _ = self.record  # and what an earlier run has sent
        return self._given.source

    @task.setter
    def task(self, task: Task | None) -> None:
        _ = self.record
        self._given.give(task)

    task_source = task  # which other callbacks ask where nothing else says the task

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the matrix."""
        return f"{type(self).__qualname__}[{self.metric}{f', {self.name}' if self.name else ''}]"

    def learned_part(self, task: int | None = None) -> Tensor | None:
        """The matrix ``(i + 1, i + 1)`` up to the task learned last, ``i``, if its row holds every task so far.

        Args:
            task: the task learned last; by default the one that was trained on at the last validation.

        Returns:
            The part; None where a task is missing in its last row, or nothing was measured since that task began.
        """
        _ = self.record
        if (latest := self._progress.latest) is None or task not in (None, latest[0]):
            return None
        part = self.matrix[: latest[1] + 1, : latest[1] + 1]
        return None if part[-1].isnan().any() else part

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the matrix (`dendrite_zoo.report.plot_matrix`), give the figure, and save it where a path is given."""
        return self.record.plot(path)

    def state_dict(self) -> dict[str, Any]:
        """The matrix, and the task trained on."""
        return {**self.record.to_state(), **self._progress.state_dict(), "stage": self._filler.stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the matrix of a checkpoint, or of another logger."""
        self.record.from_state(state_dict)
        self._progress.load_state_dict(state_dict)
        self._filler.stage = state_dict.get("stage")

    def _is_blank(self) -> bool:
        return not self.record.update_called and self._progress.task is None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that the task can be known, and that metrics are collected, before any work is done."""
        if trainer.barebones:
            raise ValueError("ForgettingLogger reads metrics; Trainer(barebones=True) keeps no metrics. Leave one out.")
        if self._was_dry:  # a `fast_dev_run` leaves nothing behind
            self.load_state_dict(self._fresh)
        self._was_dry = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        self.record.label = self._label(trainer)
        if stage == "fit" and not has_task(trainer, self._given.source):
            if self._given.used_up is None:
                raise unknown_task(trainer, type(self).__name__)
            raise ValueError(
                f"Expected `log.task` to be set before each run, but {self._given.used_up} was for an earlier one. Set "
                "the index of the task that this one trains."
            )
        self._output = output_folder(trainer, self.folder)
        self._progress.start_run(self._output)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure a row that is missing, as a crash fell between an epoch's last batch and its validation."""
        self._progress.start_fit(trainer)
        resume_missed_validation(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether a task starts."""
        self._progress.see(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """See whether the module has found a task in the batch."""
        self._progress.see_in_batch(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Note up to which step the task was trained on."""
        self._progress.trained(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was logged before."""
        self._reader.start(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """See whether a loader begins."""
        self._reader.before_batch(dataloader_idx)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count samples."""
        self._reader.after_batch(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what the validation steps logged, and log what follows from it."""
        if self._filler.fill(trainer):
            values = self._values(trainer)
            of_tasks = {name: values.pop(name) for name in list(values) if "forgetting/task_" in name}
            pl_module.log_dict(values, sync_dist=trainer.world_size > 1)
            log_metrics(trainer, of_tasks)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what the module logged at the very end, where only the loggers can still be reached."""
        if self._filler.fill(trainer):
            log_metrics(trainer, self._values(trainer))
        if self._filler.finish(trainer, pl_module) and trainer.state.fn != "fit":
            self._report(trainer, show=num_loaders(trainer) > 1)

    on_test_start, on_test_epoch_end, on_test_end = on_validation_start, on_validation_epoch_end, on_validation_end
    on_test_batch_start, on_test_batch_end = on_validation_batch_start, on_validation_batch_end

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the matrix and write it."""
        self._progress.end_fit(trainer)
        if self._filler.problem is not None and not self._was_dry:
            rank_zero_warn(self._filler.problem)
        self._report(trainer, picture=self.pictures)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Send the matrix to the process that has started this one."""
        used_up, trained = self._given.index is None, self._progress.tasks_trained
        self._mailbox.send(trainer, {**self.state_dict(), "used_up": used_up, "trained": trained})

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has: all that was measured until now."""
        _ = self.record
        return self.__dict__

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the matrix of an interrupted run, too."""
        self._reader.finish()
        if self._output is not None and self.record.update_called:
            with contextlib.suppress(OSError):  # the exception at hand matters more
                self.record.write_json(self._output)

    def _label(self, trainer: Trainer) -> str:
        """What tells this logger's keys and files from others'."""
        loggers = find_callbacks(trainer, ForgettingLogger)
        labels = {id(one): one.name or re.sub(r"{.*}", "", one.metric) for one in loggers}
        labels |= {id(one): "" for one in [x for x in loggers if x.name is None][:1]}
        if (label := labels.pop(id(self))) in labels.values():
            raise ValueError(
                f"Expected each ForgettingLogger of a Trainer to have a name of its own, but two have {label!r}, and "
                "would log the same keys. Pass `name=`."
            )
        return label

    def _values(self, trainer: Trainer) -> dict[str, float]:
        fitting = trainer.state.fn == "fit"  # else nothing is monitored, and Lightning prints each value
        prefix = f"{self.record.label}/" if self.record.label else ""
        values = self.record.values(self._filler.after, self.mode).items()
        return {prefix + name: value for name, value in values if fitting or not math.isnan(value)}

    def _report(self, trainer: Trainer, *, picture: bool = False, show: bool = True) -> None:
        if self._output is not None and self.record.update_called:
            if (drawn := self.record.write(self._output, picture=picture)) is not None:
                log_picture(trainer, drawn.stem, drawn)
        if show and self.verbose and trainer.is_global_zero and self.record.update_called:
            self.record.show()
