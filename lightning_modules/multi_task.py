"""Learning all tasks at once, each example with its task."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.lightning import whole_pass
from dendrite_zoo._core.ranks import all_gather
from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.lightning_modules.classifier import ContextAtTest, Loss, Metrics, OptimizerFactory, TaskClassifier
from dendrite_zoo.lightning_modules.losses import unpack
from dendrite_zoo.lightning_modules.schedules import Schedule, cosine, inverse
from dendrite_zoo.models import AdaptedBackbone

MixedBatch = tuple[Tensor, Tensor, Tensor]


class MultiTaskClassifier(TaskClassifier):
    """Trains a network on all tasks at once, from batches ``(x, y, task)``.

    `dendrite_zoo.streams.MixedTasks` gives such batches; any loader of three tensors does. Contexts that are computed
    from inputs (prototypes) are computed in one pass over each task's, before the first batch.

    Args:
        model: an `ActiveDendriteClassifier` (it has its own context); a module that maps ``(x, context)``, with
            ``context=``; one that maps ``x`` and ``task=``, integers ``(B,)``, or ``x`` alone; or what
            `dendrite_zoo.load` takes; or the config of a registered model, from which it is built.
        context: where the context comes from (`dendrite_zoo.contexts`); needed where ``model`` takes ``(x, context)``.
        lr: learning rate of `dendrite_zoo.optim.DendriteAdam`, 1/step; by default the model's ``default_lr``, or 5e-4.
        optimizer: makes another optimizer from the parameters, with a learning rate of its own.
        lr_schedule: ``"cosine"`` lets the learning rate fall to 0 over the fit, along half a cosine; ``"inverse"`` as
            ``1 / (1 + n / 200)`` after ``n`` steps, for fits whose end is not known.
        label_smoothing: share of the target that goes to all classes alike, in training.
        loss: of ``(output, target)``, in place of cross-entropy; see `ContinualClassifier`.
        metrics: of torchmetrics, updated with ``(output, target)``, for each task by itself.
        context_at_test: ``"given"`` with the task, ``"inferred"`` from each input, where that is possible, or
            ``"constant"``: task 0's for every input.

    Logs:
        ``train/loss``, and by task the same as `ContinualClassifier`: ``val/task_{j}/acc`` and so on.

    Raises:
        ValueError: the model needs a context and none was given, or one that finds tasks by itself; at fit, model and
            datamodule do not fit together.
        TypeError: a batch is not ``(x, y, task)``.

    Example:
        >>> import torch
        >>> class Embedding(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.tasks, self.output = nn.Embedding(3, 8), nn.Linear(8, 10)
        ...     def forward(self, x, task):
        ...         return self.output(x + self.tasks(task))
        >>> MultiTaskClassifier(Embedding())(torch.zeros(2, 8), torch.tensor([0, 2])).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any] | str,
        *,
        context: TaskContext | None = None,
        lr: float | None = None,
        optimizer: OptimizerFactory | None = None,
        lr_schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        loss: Loss | None = None,
        metrics: Metrics | None = None,
        context_at_test: ContextAtTest = "given",
    ) -> None:
        super().__init__(
            model,
            context=context,
            lr=lr,
            optimizer=optimizer,
            lr_schedule=lr_schedule,
            label_smoothing=label_smoothing,
            loss=loss,
            metrics=metrics,
            context_at_test=context_at_test,
        )
        if self.untrained is not None:
            raise wrong_argument("model", "one that is trained", "RidgeClassifier", "Call its learn(batches).")
        if isinstance(self.model, AdaptedBackbone):
            raise TypeError(
                "Expected a model that learns several tasks at once, but got a backbone with dendrites, which "
                "learns one task after another. Give it to ContinualClassifier."
            )
        if isinstance(self.context, FoundContext):
            remedy = "Tasks are given here; ContinualClassifier lets such a context find them."
            raise wrong_argument("context", "a context of given tasks", type(self.context).__name__, remedy)

    def training_step(self, batch: MixedBatch, batch_idx: int) -> Tensor:
        """The loss of a batch, each row in the context of its task."""
        x, y, task = unpack(batch, "x", "y", "task")
        loss = self.loss(self(x, task), y)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: MixedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on each task in the batch."""
        self._log_each_task("val", batch)

    def test_step(self, batch: MixedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on each task in the batch."""
        self._log_each_task("test", batch)

    def _task_to_predict(self, batch: Any, dataloader_idx: int) -> int | Tensor:
        """The task of each row of a batch ``(x, y, task)``; of other batches the loader."""
        return batch[2] if isinstance(batch, (tuple, list)) and len(batch) == 3 else dataloader_idx

    def _log_each_task(self, stage: str, batch: MixedBatch) -> None:
        x, y, tasks = unpack(batch, "x", "y", "task")
        for task in tasks.unique().tolist():
            rows = tasks == task
            self.log_scores(stage, x[rows], y[rows], task)

    def on_train_batch_start(self, batch: MixedBatch, batch_idx: int) -> None:
        """Before the first batch of all: compute the contexts. Set the learning rate."""
        super().on_train_batch_start(batch, batch_idx)
        if self.hparams["lr_schedule"] == "inverse":
            self.scale_learning_rate(inverse(self.trainer.global_step))
        elif self.hparams["lr_schedule"]:
            total = self.trainer.estimated_stepping_batches
            if not 0 < total < math.inf:
                raise ValueError("Expected a Trainer with max_epochs or max_steps for lr_schedule='cosine', got none.")
            self.scale_learning_rate(cosine(min(1.0, self.trainer.global_step / total)))
        if self.boundary.task is None and self.context is not None:
            found = {task for _, tasks in self._batches() for task in tasks.unique().tolist()}
            for task in sorted(set().union(*all_gather(found))):
                self.start_context(task, (x[tasks == task] for x, tasks in self._batches()))
        self.enter_task(0)  # last: where inputs are refused, the contexts are computed again

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and tasks of an epoch."""
        for batch in whole_pass(self.trainer):
            x, _, task = unpack(batch, "x", "y", "task")
            yield x, task
