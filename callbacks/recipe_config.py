"""What decides the result of a run, for the hash by which runs of one recipe are known."""

import inspect
import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dendrite_zoo._core.describe import describe

TRAINER = (
    *("accumulate_grad_batches", "gradient_clip_algorithm", "gradient_clip_val"),
    *("limit_train_batches", "overfit_batches", "precision"),
)
"""What of the Trainer's arguments makes another result."""
OBSERVERS = {
    *("Checkpoint", "DeviceStatsMonitor", "LearningRateMonitor", "ModelSummary", "ProgressBar"),
    *("SaveConfigCallback", "Thaw", "Timer"),
    *("ForgettingLogger", "HubPublisher", "RunRecorder", "SparsityLogger", "SubnetworkLogger", "SuccessLogger"),
}
"""Callbacks that change nothing in what is learned."""
LEFT_OUT = {
    *("seed", "segment_seed", "num_processes", "num_workers", "device", "dtype", "foreach", "fused", "capturable"),
    *("demonstrations", "folder", "eval_at", "save_replay"),
    *("flatten", "metrics"),  # the model decides what it takes; metrics observe
    *("library_version", "format_version"),
    *("context_at_test", "val_fraction", "optimizer"),  # other fields of the record contain them
}
"""Arguments that do not make another recipe: seeds, machines, folders."""


def recipe_config(trainer: Trainer, pl_module: LightningModule, metric: str | None = None) -> dict[str, Any] | None:
    """What decides the result, beside the model's arguments; None where it is not known.

    Args:
        trainer: that trains.
        pl_module: what it trains.
        metric: what is measured, where it is no accuracy.
    """
    data, model = getattr(trainer, "datamodule", None), getattr(pl_module, "model", pl_module)
    if data is None:
        return None
    own_context = getattr(model, "context", None) is not None  # which the model's arguments describe
    named_source = isinstance(getattr(data, "named_source", None), str | os.PathLike) and data.source.name != "custom"
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    try:
        return {
            "metric": metric,
            "model": _start(pl_module, model),
            "module": describe(pl_module, LEFT_OUT | ({"model", "context"} if own_context else {"model"})),
            "data": describe(data, LEFT_OUT | ({"source"} if named_source else set())),  # the benchmark's name has it
            "optimizers": describe([{"class": type(x).__name__, **x.defaults} for x in trainer.optimizers], LEFT_OUT),
            "schedules": describe([x.scheduler for x in trainer.lr_scheduler_configs], LEFT_OUT | {"last_epoch"}),
            "trainer": describe({name: getattr(trainer, name) for name in (*TRAINER, "max_epochs", "max_steps")}),
            "callbacks": describe([callback for callback in callbacks if not _observes(callback)], LEFT_OUT),
        }
    except TypeError:
        return None


def _start(pl_module: LightningModule, model: Any) -> Any:
    """The class of the model, and which weights it started from."""
    origin = getattr(model, "origin", None)
    if origin is not None and not origin.fingerprint:
        raise TypeError("It is not known which weights the model started from.")
    given = "model" in {*pl_module.hparams, *inspect.signature(type(pl_module)).parameters}
    if given and not hasattr(model, "config"):
        return describe(model, LEFT_OUT)
    return {"class": type(model).__name__, "start": getattr(origin, "fingerprint", None)}


def _observes(callback: Callback) -> bool:
    return not OBSERVERS.isdisjoint(cls.__name__ for cls in type(callback).__mro__)
