"""Accuracy of each task, as a torchmetric; and the counting of right answers by task."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["TaskAccuracy"]


LEFT_OUT = -100  # the label that torch's cross-entropy ignores


class TaskAccuracy(Metric):
    """Accuracy of each task, over all samples seen.

    Counts right answers and samples and divides at the end, so a short last batch weighs what it holds, and
    several processes give what one process gives. A task without samples is NaN. A sample whose label is -100, which
    cross-entropy of torch leaves out, is left out here, too. Of a binary head, which has one score an input, give
    labels: ``(scores > 0.5).long()``.

    Args:
        num_tasks: number of tasks ``T``.
        **kwargs: passed to ``torchmetrics.Metric``.

    Shape:
        ``update(preds, target, task)``: ``preds`` ``(B, classes)`` scores or ``(B,)`` labels; ``target``
        ``(B,)``; ``task`` an int, ``()`` or ``(B,)``. ``compute()``: ``(T,)``.

    Raises:
        ValueError: shapes that do not fit together, scores for labels, or a task outside ``0..T-1``.

    Example:
        >>> metric = TaskAccuracy(num_tasks=2)
        >>> metric.update(torch.tensor([1, 0, 2, 2]), torch.tensor([1, 0, 2, 0]), task=0)
        >>> metric.compute()
        tensor([0.7500,    nan])
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_tasks = num_tasks
        self.add_state("correct", torch.zeros(num_tasks, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_tasks, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, task: int | Tensor) -> None:
        """Count one batch.

        Args:
            preds: class scores or labels.
            target: labels.
            task: the task of the whole batch, or of each sample.
        """
        right, index = right_answers(preds, target), task_index(task, self.num_tasks)
        count_answers(self.correct, self.total, right, target != LEFT_OUT, index)

    def compute(self) -> Tensor:
        """Accuracy of each task."""
        return self.correct / self.total


def right_answers(preds: Tensor, target: Tensor) -> Tensor:
    """Which samples of a batch are right, ``(B,)``."""
    if preds.ndim == 2 and preds.shape[1] > 1:
        preds = preds.argmax(dim=1)
    elif preds.is_floating_point():
        expected, got = "scores of shape (B, classes), or integer labels of shape (B,)", f"{preds.dtype} of shape"
        remedy = "Of a binary head give labels, such as (scores > 0.5).long()."
        raise ValueError(f"Expected `preds` to be {expected}, but got {got} {tuple(preds.shape)}. {remedy}")
    if target.ndim != 1 or preds.shape != target.shape:
        got = f"{tuple(preds.shape)} labels for a target of shape {tuple(target.shape)}. Flatten other shapes first."
        raise ValueError(f"Expected `preds` of shape (B, classes) or (B,) and `target` of shape (B,), but got {got}")
    return preds == target


def task_index(task: int | Sequence[int] | Tensor, num_tasks: float) -> Tensor:
    """The task of a batch ``()``, or of each sample ``(B,)``; on a GPU the kernel checks the range."""
    index = torch.as_tensor(task)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"Expected a task to be an integer, or a tensor of integers, but got {index.dtype}.")
    if index.device.type == "cpu" and index.numel() and not 0 <= index.min() <= index.max() < num_tasks:
        tasks = index.unique().tolist()
        raise ValueError(f"Expected tasks from 0 to {num_tasks - 1}, but got {tasks}. Raise `num_tasks` for more.")
    return index


def count_answers(correct: Tensor, total: Tensor, right: Tensor, counts: Tensor, index: Tensor) -> None:
    """Add right answers and samples to the sums ``(T,)`` of their tasks, in place; some samples may not count."""
    index, counts = index.to(right.device).expand(right.shape), counts.to(right.device)
    correct.index_add_(0, index, (right & counts).long())
    total.index_add_(0, index, counts.long())
