"""How a callback's figures reach loggers and monitors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from dendrite_zoo._core.lightning import logging_step

__all__ = ["send_figures"]


def send_figures(trainer: Trainer, figures: Mapping[str, float]) -> None:
    """Hand figures straight to the loggers, and to ``trainer.callback_metrics`` for monitors.

    For figures of every task and layer, which are many: ``pl_module.log`` takes up to a millisecond a name
    (Lightning 2.6), which is more than a small network's validation. And for ``on_validation_end``, where it
    does not work at all. The loggers write them in a row of their own, at the epoch and step of Lightning's.

    Args:
        trainer: the Trainer at work.
        figures: name -> value, the same in all processes.
    """
    if not figures:
        return
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in figures.items()})
    for logger in trainer.loggers:
        logger.log_metrics({**figures, "epoch": trainer.current_epoch}, step=logging_step(trainer))
        logger.save()
