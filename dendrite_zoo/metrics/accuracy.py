"""Accuracy of each task, and the matrix of it, as torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dendrite_zoo.functional import accuracy_matrix as F

__all__ = [
    "AccuracyMatrix",
    "AverageAccuracy",
    "BackwardTransfer",
    "Forgetting",
    "ForwardTransfer",
    "LearningAccuracy",
    "TaskAccuracy",
]


class TaskAccuracy(Metric):
    """Accuracy of each task, over all samples seen.

    Counts right answers and samples and divides at the end, so a short last batch weighs what it holds, and
    several processes give what one process gives. A task without samples is NaN. Of a binary head, which
    has one score an input, give labels: ``(scores > 0.5).long()``.

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
        right = _right(preds, target)
        index = _index(task, right, self.num_tasks)
        self.correct.index_add_(0, index, right.long())
        self.total.index_add_(0, index, torch.ones_like(index))

    def compute(self) -> Tensor:
        """Accuracy of each task."""
        return self.correct / self.total


class AccuracyMatrix(Metric):
    """The accuracy matrix ``R``: accuracy on each task after each task was learned.

    It grows over a whole stream of tasks, so never reset it: log ``metric.compute()``, for Lightning resets a metric
    that is itself given to ``self.log`` at the end of each epoch. Its counts are in the ``state_dict``, and so in
    checkpoints.

    Args:
        num_tasks: number of tasks ``T``.
        **kwargs: passed to ``torchmetrics.Metric``.

    Shape:
        ``update(preds, target, task, after)``: ``preds`` ``(B, classes)`` or ``(B,)``; ``target`` ``(B,)``;
        ``task`` an int, ``()`` or ``(B,)``; ``after`` the task learned last, None for the untrained model.
        ``compute()`` and ``matrix``: ``(T, T)``; ``baseline``: ``(T,)``; NaN where nothing was counted.

    Raises:
        ValueError: shapes that do not fit together, scores for labels, or a task outside ``0..T-1``.

    Example:
        >>> metric = AccuracyMatrix(num_tasks=2)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.compute()
        tensor([[0.5000,    nan],
                [   nan,    nan]])
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_tasks = num_tasks
        # row 0 is the untrained model, row i + 1 the one after task i
        self.add_state("correct", torch.zeros(num_tasks + 1, num_tasks, dtype=torch.long), "sum", persistent=True)
        self.add_state("total", torch.zeros(num_tasks + 1, num_tasks, dtype=torch.long), "sum", persistent=True)

    def update(self, preds: Tensor, target: Tensor, task: int | Tensor, after: int | None) -> None:
        """Count one batch.

        Args:
            preds: class scores or labels.
            target: labels.
            task: the task of the whole batch, or of each sample.
            after: the task learned last; None before any was.
        """
        if after is not None and not 0 <= after < self.num_tasks:
            raise ValueError(f"after={after}; expected a task in 0..{self.num_tasks - 1}, or None for untrained.")
        row = 0 if after is None else after + 1
        right = _right(preds, target)
        index = _index(task, right, self.num_tasks)
        self.correct[row].index_add_(0, index, right.long())
        self.total[row].index_add_(0, index, torch.ones_like(index))

    @property
    def matrix(self) -> Tensor:
        """``R`` from what this process counted."""
        return self.correct[1:] / self.total[1:]

    @property
    def baseline(self) -> Tensor:
        """Accuracy of the untrained model, from what this process counted."""
        return self.correct[0] / self.total[0]

    def compute(self) -> Tensor:
        """The accuracy matrix."""
        return self.matrix


class AverageAccuracy(AccuracyMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.average_accuracy` after the last task measured.

    Example:
        >>> metric = AverageAccuracy(num_tasks=2)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.compute()
        tensor(0.5000)
    """

    def compute(self) -> Tensor:
        """The mean of the last row measured."""
        return F.average_accuracy(F.learned_part(self.matrix))


class Forgetting(AccuracyMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.forgetting` after the last task measured.

    Example:
        >>> metric = Forgetting(num_tasks=2)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=1)
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """How much the earlier tasks lost since their best."""
        return F.forgetting(F.learned_part(self.matrix))


class BackwardTransfer(AccuracyMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.backward_transfer` after the last task measured.

    Example:
        >>> metric = BackwardTransfer(num_tasks=2)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=1)
        >>> metric.compute()
        tensor(-0.5000)
    """

    def compute(self) -> Tensor:
        """How later tasks changed earlier ones."""
        return F.backward_transfer(F.learned_part(self.matrix))


class ForwardTransfer(AccuracyMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.forward_transfer`; ``after=None`` counts the untrained.

    Example:
        >>> metric = ForwardTransfer(num_tasks=2)
        >>> metric.update(torch.tensor([0, 0]), torch.tensor([1, 1]), task=1, after=None)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([1, 1]), task=1, after=0)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=1, after=1)
        >>> metric.compute()
        tensor(0.5000)
    """

    def compute(self) -> Tensor:
        """What earlier tasks gave to those not yet learned."""
        R = F.learned_part(self.matrix)
        return F.forward_transfer(R, self.baseline[: len(R)])


class LearningAccuracy(AccuracyMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.learning_accuracy`: how well each task was learned.

    Example:
        >>> metric = LearningAccuracy(num_tasks=2)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([1, 1]), task=1, after=1)
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """The mean of the diagonal."""
        return F.learning_accuracy(F.learned_part(self.matrix))


def _right(preds: Tensor, target: Tensor) -> Tensor:
    if preds.ndim == 2 and preds.shape[1] > 1:
        preds = preds.argmax(dim=1)
    elif preds.is_floating_point():
        raise ValueError(
            f"preds came as {preds.dtype} of {tuple(preds.shape)}; expected scores of (B, classes) or labels of (B,), "
            "integers: of a binary head give labels, such as (scores > 0.5).long()."
        )
    if target.ndim != 1 or preds.shape != target.shape:
        raise ValueError(
            f"preds gives {tuple(preds.shape)} labels for target {tuple(target.shape)}; expected preds of "
            "(B, classes) or (B,) and target of (B,): flatten other shapes first."
        )
    return preds == target


def _index(task: int | Tensor, right: Tensor, num_tasks: int) -> Tensor:
    if isinstance(task, int):
        if not 0 <= task < num_tasks:
            raise ValueError(
                f"task={task}; expected 0..{num_tasks - 1}: raise num_tasks to count more than {num_tasks}."
            )
        return torch.full(right.shape, task, dtype=torch.long, device=right.device)
    index = torch.as_tensor(task, device=right.device).expand(right.shape)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"task came as {index.dtype}; expected an integer, or a tensor of them, one a sample.")
    if len(index) and not bool(((index >= 0) & (index < num_tasks)).all()):
        raise ValueError(f"task holds {index.unique().tolist()}; expected 0..{num_tasks - 1}: raise num_tasks.")
    return index
