"""Batches as a module's steps get them."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

__all__ = ["transferred"]


def transferred(trainer: Trainer, batch: Any) -> Any:
    """A batch of a loader as the Trainer would hand it to a step: converted, moved, and through all transfer hooks.

    For those who go through a loader by themselves; a datamodule may normalise its batches in these hooks.

    Args:
        trainer: the Trainer at work.
        batch: what the loader gave.
    """
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch)
    return trainer.strategy.batch_to_device(batch)
