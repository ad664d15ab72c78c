"""How well a trained classifier finds its contexts, and what they are worth."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from torch import nn

from dendrite_zoo.contexts import TaskContext
from dendrite_zoo.lightning_modules.continual import ContextAtTest, ContinualClassifier

__all__ = ["evaluate_contexts"]


def evaluate_contexts(
    model: nn.Module, stream: LightningDataModule, *, context: TaskContext | None = None, **trainer_kwargs: Any
) -> dict[str, list[float]]:
    """Accuracy on each task of a stream with the context inferred, given and constant.

    Args:
        model: a classifier, with or without a context of its own.
        stream: its validation loaders are the tasks, one each (`dendrite_zoo.streams`).
        context: the context of a model that has none of its own and needs one.
        **trainer_kwargs: for the Trainer, such as ``accelerator``.

    Returns:
        Accuracies in [0, 1], one a task, under ``inferred``, ``given`` and ``constant`` (task 0's context for
        every input: what is left without dendrites), and under ``context`` the share of inputs whose task was found;
        only ``none`` for a model without context.
    """
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(**{**quiet, **trainer_kwargs})

    def validate(way: ContextAtTest) -> None:
        module = ContinualClassifier(model, context=context, context_at_test=way)
        trainer.validate(module, datamodule=stream, verbose=False)

    known = getattr(model, "context", context)
    if not isinstance(known, TaskContext):
        validate("given")
        return {"none": _scores(trainer, "acc")}
    ways: tuple[ContextAtTest, ...] = ("inferred", "given", "constant")
    scores: dict[str, list[float]] = {}
    for way in ways if known.inferable else ways[1:]:
        validate(way)
        scores[way] = _scores(trainer, "acc")
        if way == "inferred":
            scores["context"] = _scores(trainer, "context_acc")
    return scores


def _scores(trainer: Trainer, name: str) -> list[float]:
    metrics = trainer.callback_metrics
    tasks = sorted(int(key.split("/")[1].removeprefix("task_")) for key in metrics if key.endswith(f"/{name}"))
    return [float(metrics[f"val/task_{task}/{name}"]) for task in tasks]
