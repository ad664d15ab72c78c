"""What callbacks ask of a Trainer: another callback, the loaders at hand, a folder to write to, its loggers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from dendrite_zoo._core.lightning import logging_step
from dendrite_zoo.report.figure import read_picture

C = TypeVar("C", bound=Callback)


def find_callbacks(trainer: Trainer, kind: type[C]) -> list[C]:
    """The callbacks of a kind that a Trainer has, in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def find_callback(trainer: Trainer, kind: type[C]) -> C | None:
    """The first callback of a kind that a Trainer has, else None.

    Example:
        >>> from lightning.pytorch.callbacks import Timer
        >>> find_callback(Trainer(callbacks=[Timer()], logger=False, accelerator="cpu"), Timer).__class__.__name__
        'Timer'
    """
    return next(iter(find_callbacks(trainer, kind)), None)


def overrides(pl_module: LightningModule, hook: str) -> bool:
    """Whether a module has a hook of its own, be it one of ``lightning.pytorch`` or of ``pytorch_lightning``."""
    method = getattr(type(pl_module), hook, None)
    return method is not None and not method.__module__.startswith(("lightning.pytorch.core", "pytorch_lightning.core"))


def num_loaders(trainer: Trainer) -> int:
    """The number of loaders of the validation or test at hand."""
    return len(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)


def output_folder(trainer: Trainer, folder: str | Path | None = None) -> Path | None:
    """Where the callbacks of this process write their files.

    Call it in all processes, for they agree on the logger's folder.

    Args:
        trainer: the Trainer at work.
        folder: what the user chose; by default where the Trainer's logger writes, else its ``default_root_dir``.

    Returns:
        The folder; None in every process but the first, and in a ``fast_dev_run``, which leaves no files.
    """
    log_dir = trainer.log_dir  # asks all processes
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return Path(folder or log_dir or trainer.default_root_dir)


def log_metrics(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Hand values straight to the loggers, and to ``trainer.callback_metrics`` for monitors.

    For values of every task and layer, which are many: ``pl_module.log`` takes up to a millisecond a name
    (Lightning 2.6), which is more than a small network's validation. And for ``on_validation_end``, where it
    does not work at all. The loggers write them in a row of their own, at the epoch and step of Lightning's.

    Args:
        trainer: the Trainer at work.
        values: name -> value, the same in all processes.
    """
    if not values:
        return
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=logging_step(trainer))
        logger.save()


def log_picture(trainer: Trainer, name: str, path: Path) -> None:
    """Hand a PNG to the loggers that take pictures: those of Weights & Biases and TensorBoard, and others alike.

    Args:
        trainer: the Trainer at work.
        name: under which it is shown.
        path: of the file.
    """
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(name, [str(path)], step=logging_step(trainer))
        elif add_image := getattr(getattr(logger, "experiment", None), "add_image", None):
            add_image(name, read_picture(path), logging_step(trainer), dataformats="HWC")
