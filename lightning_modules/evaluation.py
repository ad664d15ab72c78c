"""How well a trained classifier finds its contexts, and what they are worth."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.lightning_modules.classifier import ways_at_test
from dendrite_zoo.lightning_modules.continual import ContinualClassifier

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
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    defaults = {"devices": 1, "precision": PRECISIONS.get(weights, "32-true")}
    trainer = Trainer(**{**quiet, **defaults, **trainer_kwargs})
    known = getattr(model, "context", context)

    def validate(module: ContinualClassifier) -> list[float]:
        trainer.validate(module, datamodule=stream, verbose=False)
        names = [f"val/task_{task}/acc" for task in range(len(trainer.num_val_batches))]
        accuracies = [float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics]
        if not accuracies:
            raise ValueError("Expected class labels to evaluate contexts by accuracy, but got other targets.")
        return accuracies

    training = model.training
    try:
        if not isinstance(known, TaskContext):
            return {"none": validate(ContinualClassifier(model, context=context))}
        scores: dict[str, list[float]] = {}
        for way in ways_at_test(known):
            module = _ContextCounts(model, context=context, context_at_test=way)
            scores[way] = validate(module)
            if way == "inferred":
                scores["context"] = module.accuracy()
        return scores
    finally:
        model.train(training)  # the modules have put it into train mode


class _ContextCounts(ContinualClassifier):
    """Counts, while it validates, which contexts were inferred from the inputs of each task."""

    def on_validation_start(self) -> None:
        self.counts: dict[int, Tensor] = {}

    def _is_context_of(self, task: int, contexts: Tensor) -> Tensor:
        assert self.context is not None
        self.counts[task] = self.counts.get(task, 0) + contexts.bincount(minlength=self.context.max_tasks)
        return super()._is_context_of(task, contexts)

    def accuracy(self) -> list[float]:
        """The share of each task's inputs in a context of that task."""
        counts = torch.stack([self.counts[task] for task in sorted(self.counts)])
        found = isinstance(self.context, FoundContext)
        owner = counts.argmax(0) if found else torch.arange(counts.shape[1], device=counts.device)
        right = owner == torch.arange(len(counts), device=counts.device)[:, None]
        return ((counts * right).sum(1).double() / counts.sum(1)).tolist()
