"""How well a trained classifier finds its contexts, and what they are worth."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.lightning_modules.continual import Batch, ContextAtTest, ContinualClassifier

__all__ = ["evaluate_contexts"]

PRECISIONS = {torch.bfloat16: "bf16-true", torch.float16: "16-true", torch.float64: "64-true"}


def evaluate_contexts(
    model: nn.Module, stream: LightningDataModule, *, context: TaskContext | None = None, **trainer_kwargs: Any
) -> dict[str, list[float]]:
    """Accuracy on each task of a stream with the context inferred, given and constant.

    Args:
        model: a classifier, with or without a context of its own.
        stream: its validation loaders are the tasks, one each (`dendrite_zoo.streams`).
        context: the context of a model that has none of its own and needs one.
        **trainer_kwargs: for the Trainer, such as ``accelerator``; it takes one device, and the weights' precision.

    Returns:
        Accuracies in [0, 1], one a task, under ``inferred``, ``given`` and ``constant`` (task 0's context for
        every input: what is left without dendrites), and under ``context`` the share of inputs whose task was found.
        Clusters that were found in training belong to the task most of whose inputs they hold here; no task id names
        one, so nothing is ``given``. Only ``none`` for a model without context.
    """
    weights = next((p.dtype for p in model.parameters()), torch.float32)
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "devices": 1,
        "precision": PRECISIONS.get(weights, "32-true"),
    }
    trainer = Trainer(**{**defaults, **trainer_kwargs})
    known = getattr(model, "context", context)
    found = isinstance(known, FoundContext)
    cluster_to_task: list[int] = []

    def validate(way: ContextAtTest, kind: type[ContinualClassifier] = ContinualClassifier) -> ContinualClassifier:
        training = model.training
        module = kind(model, context=context, context_at_test=way)
        module.cluster_to_task = cluster_to_task
        trainer.validate(module, datamodule=stream, verbose=False)
        model.train(training)  # the module has put it into train mode
        return module

    if not isinstance(known, TaskContext):
        validate("given")
        return {"none": _scores(trainer, "acc")}
    if found:
        cluster_to_task = cast(_Tally, validate("inferred", _Tally)).owners()
    ways: dict[ContextAtTest, bool] = {"inferred": known.inferable, "given": not found, "constant": True}
    scores: dict[str, list[float]] = {}
    for way in (way for way, possible in ways.items() if possible):
        validate(way)
        scores[way] = _scores(trainer, "acc")
        if way == "inferred":
            scores["context"] = _scores(trainer, "context_acc")
    return scores


class _Tally(ContinualClassifier):
    """Counts which clusters the inputs of each task fall into."""

    def on_validation_start(self) -> None:
        self.counts: dict[int, Tensor] = {}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        assert self.context is not None
        counts = self.context.infer(batch[0]).bincount(minlength=self.context.max_tasks)
        self.counts[dataloader_idx] = self.counts.get(dataloader_idx, 0) + counts

    def owners(self) -> list[int]:
        """The task of each cluster."""
        return torch.stack([self.counts[task] for task in sorted(self.counts)]).argmax(0).tolist()


def _scores(trainer: Trainer, name: str) -> list[float]:
    metrics = trainer.callback_metrics
    tasks = sorted(int(key.split("/")[1].removeprefix("task_")) for key in metrics if key.endswith(f"/{name}"))
    return [float(metrics[f"val/task_{task}/{name}"]) for task in tasks]
