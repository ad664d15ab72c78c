"""The result record of a run, collected while it is trained."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any, get_args

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from torch import Tensor

from dendrite_zoo._core.checks import check_choice
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.redact import typed_command
from dendrite_zoo.callbacks.forgetting import ForgettingLogger
from dendrite_zoo.callbacks.mailbox import OwnState
from dendrite_zoo.callbacks.recipe_config import recipe_config
from dendrite_zoo.callbacks.sparsity import SparsityLogger
from dendrite_zoo.callbacks.subnetworks import SubnetworkLogger
from dendrite_zoo.callbacks.trainer import find_callback, find_callbacks, output_folder
from dendrite_zoo.records import ContextAtTest, ResultRecord, may_replace, write_records
from dendrite_zoo.report import matrix_record


@say_new_names
class RunRecorder(OwnState):
    """Collects the result record of a run (`dendrite_zoo.records.ResultRecord`), and writes it as ``results.json``.

    The accuracies are those of a `ForgettingLogger` of the same Trainer; without one, where a datamodule of
    ``num_tasks`` tasks gives all of them at once, those that its last validation logged as ``val/task_{j}/acc``. A
    `SparsityLogger` and a `SubnetworkLogger` add what they measured. When a fit ends, the first process writes the
    record, if all tasks were measured after the last one was learned, each on all of its validation data, and if it is
    known where the context was taken from.

    ``config_hash`` follows from the arguments of model, module, datamodule, optimizers and those callbacks that change
    what is learned, and from the Trainer's. They are read from ``hparams`` (``self.save_hyperparameters()``), else from
    attributes named like the arguments; where one cannot be found it is None, and the run is not merged with others.

    Args:
        method: the line of a results table that the run belongs to; by default the name of the model's class.
        context_at_test: where the context came from in validation: ``"inferred"``, ``"given"``, ``"none"`` or
            ``"constant"``. By default ``"none"`` for a model without a context, else what the module has under this
            name in its ``hparams``.
        command: what was typed; by default the command line of this process, without secrets.
        folder: where to write; by default where the Trainer's logger writes, else its ``default_root_dir``.

    Attributes:
        record: of the last fit, or None.

    Raises:
        ValueError: an unknown ``context_at_test``.

    Example:
        >>> RunRecorder("my method", context_at_test="given").record
    """

    def __init__(
        self,
        method: str | None = None,
        *,
        context_at_test: ContextAtTest | None = None,
        command: str | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if context_at_test is not None:
            check_choice(get_args(ContextAtTest), context_at_test=context_at_test)
        self.method, self.context_at_test, self.command, self.folder = method, context_at_test, command, folder
        self.record: ResultRecord | None = None
        self._timer = Timer()
        self._validated_at = -1  # step of the fit
        self._accuracies: list[float] = []  # then, on tasks that are learned at once

    def state_dict(self) -> dict[str, Any]:
        """The time that training took so far, and what was measured last."""
        return {**self._timer.state_dict(), "validated_at": self._validated_at, "accuracies": self._accuracies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from the time of a checkpoint."""
        self._timer.load_state_dict(state_dict)
        self._validated_at = state_dict.get("validated_at", -1)  # of which earlier versions know nothing
        self._accuracies = state_dict.get("accuracies", [])

    def _is_blank(self) -> bool:
        return self.record is None and not self._timer.time_elapsed()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._timer.on_train_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how long training took so far, where tasks are learned by what is played meanwhile."""
        if trainer.state.fn == "fit" and hasattr(getattr(trainer, "datamodule", None), "env_steps"):
            pl_module.log("minutes", self._timer.time_elapsed() / 60)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the fit had learned by then."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated_at, self._accuracies = trainer.global_step, _of_all_tasks(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._timer.on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record of a run that is complete."""
        folder, log = output_folder(trainer, self.folder), _accuracy_log(trainer)
        self.record = None
        if folder is None:
            return
        replaces = may_replace(file := folder / "results.json")
        if replaces:
            file.unlink(missing_ok=True)  # of a run that was resumed, and is not complete any more
        record = self.collect(trainer, pl_module)
        if record is not None and (log is None or record.num_tasks == len(log.matrix)):
            self.record = record
            if replaces:
                write_records([record], file)

    def collect(
        self, trainer: Trainer, pl_module: LightningModule, *, task: int | None = None, **known: Any
    ) -> ResultRecord | None:
        """The record of what was learned so far.

        Args:
            trainer: that trains, or has trained.
            pl_module: what it trains.
            task: the task learned last; by default the one that was trained on at the last validation.
            **known: fields of the record that are measured elsewhere, and keys of your own.

        Returns:
            The record, or None where it would be false: a task was not measured after the last one was learned, or on
            a part of its data, or with a metric that is no accuracy (with a warning); or it is not known where the
            context was taken from.
        """
        context = where_context_is_from(pl_module, self.context_at_test)
        measured = _measured(trainer, task)
        latest = (
            self._accuracies if _accuracy_log(trainer) is None and self._validated_at == trainer.global_step else []
        )
        if latest and _is_whole(trainer):
            measured["task_accuracies"] = latest
        known = {"context_at_test": context, **measured, **known}
        if "task_accuracies" not in known or known["context_at_test"] is None:
            return None
        model, data = getattr(pl_module, "model", pl_module), getattr(trainer, "datamodule", None)
        seed, stream_seed = os.environ.get("PL_GLOBAL_SEED"), getattr(data, "seed", None)
        metric = None if (log := _accuracy_log(trainer)) is None else _other_metric(log)
        collected = {
            "benchmark": getattr(data, "benchmark", type(data or pl_module).__name__),
            "method": self.method or type(model).__name__,
            "seed": None if seed is None else int(seed),
            "command": self.command or typed_command(Path(sys.argv[0]).name),
            "description": getattr(data, "description", None),
            "wall_time_s": round(self._timer.time_elapsed(), 1),
            "parameters": sum(p.numel() for p in model.parameters()),
            "model": getattr(model, "config", None),
            "config": recipe_config(trainer, pl_module, metric),
            "stream_seeds": [stream_seed] if isinstance(stream_seed, int) else None,
            "val_fraction": getattr(data, "val_fraction", None),
            "updates": trainer.global_step,
        }
        return ResultRecord.from_run(**{**collected, **known})


def where_context_is_from(pl_module: LightningModule, context_at_test: ContextAtTest | None = None) -> str | None:
    """Where the context came from in validation; None where it is not known.

    Args:
        pl_module: the module, which may have ``context_at_test`` in its ``hparams`` or as an attribute.
        context_at_test: the answer, where somebody else has it.
    """
    if context_at_test is not None:
        return context_at_test
    model = getattr(pl_module, "model", pl_module)
    takes = inspect.signature(model.forward).parameters
    if hasattr(pl_module, "context") and "task" not in takes:
        has_context = pl_module.context is not None
    else:
        has_context = getattr(model, "context", None) is not None or not {"context", "task"}.isdisjoint(takes)
    said = pl_module.hparams.get("context_at_test", getattr(pl_module, "context_at_test", None))
    return "none" if not has_context else said if said in get_args(ContextAtTest) else None


def _measured(trainer: Trainer, task: int | None) -> dict[str, Any]:
    """What the other callbacks have measured after a task."""
    log = _accuracy_log(trainer)
    learned = None if log is None or not _is_whole(trainer) else log.learned_part(task)
    sparsity, subnetworks = find_callback(trainer, SparsityLogger), find_callback(trainer, SubnetworkLogger)
    measured: dict[str, Any] = {}
    if log is not None and learned is not None and _are_accuracies(learned, log):
        matrix = matrix_record(learned)["matrix"]
        measured |= {"task_accuracies": matrix[-1], "matrix": matrix}
        if metric := _other_metric(log):
            measured["metric"] = metric
    if sparsity is not None:
        measured["sparsity"] = {
            layer.removeprefix("model."): {name: x for name, x in values.items() if "/task_" not in name}
            for layer, values in sparsity.values.items()
        }
    if subnetworks is not None and subnetworks.win_rates:
        measured["subnetworks"] = subnetworks.record()
    return measured


def _of_all_tasks(trainer: Trainer) -> list[float]:
    """The accuracies of the last validation on tasks that are learned at once; none where one is missing."""
    data = getattr(trainer, "datamodule", None)
    if hasattr(data, "current_task") or not isinstance(num_tasks := getattr(data, "num_tasks", None), int):
        return []
    metrics = trainer.callback_metrics
    found = [float(metrics[key]) for task in range(num_tasks) if (key := f"val/task_{task}/acc") in metrics]
    return found if len(found) == num_tasks else []


def _accuracy_log(trainer: Trainer) -> ForgettingLogger | None:
    """The first one of a metric of which more is better, if there is any."""
    return min(find_callbacks(trainer, ForgettingLogger), key=lambda log: log.mode == "min", default=None)


def _other_metric(log: ForgettingLogger) -> str | None:
    """The name of a metric that is another share than an accuracy."""
    name = log.metric.rpartition("/")[2]
    return None if name in ("acc", "accuracy", "success") else name


def _are_accuracies(matrix: Tensor, log: ForgettingLogger) -> bool:
    """Whether they are shares, of which more is better."""
    wrong = matrix[(matrix < 0) | (matrix > 1) | matrix.isinf()]
    if log.mode == "max" and not len(wrong):
        return True
    got = f"{wrong[0]:.4g}" if len(wrong) else f"mode={log.mode!r}"
    returns = "Let the tasks say what success is, TaskSpec(success=...), which is a share"
    remedy = returns if log.metric == "val/return" else "Log an accuracy, too, or divide percent by 100"
    expected = f"Expected `{log.metric}` to be an accuracy from 0 to 1"
    rank_zero_warn(f"{expected}, but got {got}. There is no result record. {remedy}.")
    return False


def _is_whole(trainer: Trainer) -> bool:
    """Whether the last validation went through all of its data."""
    loaders = CombinedLoader(trainer.val_dataloaders or []).flattened
    sizes = [sized_len(loader) or 0 for loader in loaders]
    if all(size <= seen for size, seen in zip(sizes, trainer.num_val_batches, strict=False)):
        return True
    rank_zero_warn(
        f"Expected validation on all data, but got limit_val_batches={trainer.limit_val_batches}. There is no result "
        "record, for its accuracies would be those of a part. Leave `limit_val_batches` out."
    )
    return False
