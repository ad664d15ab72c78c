"""The accuracy matrix, and what follows from it, as torchmetrics."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from dendrite_zoo.functional import accuracy_matrix as F
from dendrite_zoo.functional.summary import summarize
from dendrite_zoo.metrics.accuracy import LEFT_OUT, count_answers, right_answers, task_index

__all__ = ["AccuracyMatrix", "AverageAccuracy", "BackwardTransfer", "Forgetting", "ForwardTransfer", "LearningAccuracy"]


class AccuracyMatrix(Metric):
    """The accuracy matrix ``R``: accuracy on each task after each task was learned.

    Feed it batches (`update`), or accuracies that were computed elsewhere (`put`). A sample of label -100 does not
    count, as in torch's cross-entropy. The metric holds a whole stream of tasks, so never reset it: log
    ``metric.compute()``, for Lightning resets a metric that is itself given to ``self.log`` at the end of each epoch.
    Its state is in the ``state_dict``, and so in checkpoints.

    Args:
        num_tasks: number of tasks ``T``; None for a matrix that grows with the tasks it is given (on one process).
        **kwargs: passed to ``torchmetrics.Metric``.

    Shape:
        ``update(preds, target, task, after)``: ``preds`` ``(B, classes)`` or ``(B,)``; ``target`` ``(B,)``;
        ``task`` an int, ``()`` or ``(B,)``; ``after`` the task learned last, None for the untrained model.
        ``compute()`` and ``matrix``: ``(T, T)``; ``baseline``: ``(T,)``; NaN where nothing was measured.

    Raises:
        ValueError: shapes that do not fit together, scores for labels, or a task outside ``0..T-1``.

    Example:
        >>> metric = AccuracyMatrix(num_tasks=2)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.compute()
        tensor([[0.5000,    nan],
                [   nan,    nan]])
        >>> growing = AccuracyMatrix()
        >>> for after, row in enumerate([{0: 0.9, 1: 0.1}, {0: 0.8, 1: 0.9}]):
        ...     _ = growing.put(row, after)
        >>> growing.compute()
        tensor([[0.9000, 0.1000],
                [0.8000, 0.9000]])
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = True  # `forward` of one batch must not meet a matrix of another size
    correct: Tensor
    total: Tensor
    given: Tensor

    def __init__(self, num_tasks: int | None = None, **kwargs: Any) -> None:
        super().__init__(**{"compute_with_cache": False, **kwargs})
        self._capacity = math.inf if num_tasks is None else num_tasks
        shape = (num_tasks or 0) + 1, num_tasks or 0
        # Row 0 is the untrained model, row i + 1 the one after task i. An accuracy that was put counts as one sample.
        for name, dtype in {"correct": torch.long, "total": torch.long, "given": torch.float32}.items():
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum", persistent=True)

    @property
    def num_tasks(self) -> int:
        """The number of tasks ``T`` that there is room for."""
        return self.total.shape[1]

    @property
    def update_called(self) -> bool:
        """Whether anything was measured."""
        return bool(self.total.any())

    @property
    def matrix(self) -> Tensor:
        """``R`` from what this process has seen."""
        return self._accuracy()[1:]

    @property
    def baseline(self) -> Tensor:
        """Accuracy of the untrained model, from what this process has seen."""
        return self._accuracy()[0]

    def update(self, preds: Tensor, target: Tensor, task: int | Tensor, after: int | None) -> None:
        """Count one batch.

        Args:
            preds: class scores or labels.
            target: labels.
            task: the task of the whole batch, or of each sample.
            after: the task learned last; None before any was.
        """
        right, index = right_answers(preds, target), task_index(task, self._capacity)
        fits = index.numel() == 0 or (self.num_tasks == self._capacity and index.device.type != "cpu")
        row = self._row(after, 0 if fits else int(index.max()))
        count_answers(self.correct[row], self.total[row], right, target != LEFT_OUT, index)

    def put(self, accuracies: Mapping[int, float], after: int | None, *, overwrite: bool = True) -> list[int]:
        """Write accuracies into the row of a task, in place of what was there.

        Args:
            accuracies: task -> accuracy.
            after: the task learned last; None before any was.
            overwrite: False leaves entries alone that were measured before.

        Returns:
            The tasks of which an accuracy was written.
        """
        row = self._row(after, *accuracies)
        written = [j for j in accuracies if overwrite or not self.total[row, j]]
        for j in written:
            self.correct[row, j], self.total[row, j], self.given[row, j] = 0, 1, accuracies[j]
        return written

    @torch.inference_mode(False)  # Lightning validates in inference mode, whose tensors cannot be written to later
    def grow(self, num_tasks: int) -> None:
        """Make room for so many tasks."""
        if (more := num_tasks - self.num_tasks) > 0:
            for name in ("correct", "total", "given"):
                setattr(self, name, nn.functional.pad(getattr(self, name), (0, more, 0, more)))

    def measured(self, after: int) -> bool:
        """Whether anything was measured after a task."""
        return after < self.num_tasks and bool(self.total[after + 1].any())

    def values(self, after: int | None, mode: Literal["max", "min"] = "max") -> dict[str, float]:
        """The five metrics and the forgetting of each task after a task was learned, by the names that are logged.

        ``average_accuracy`` is NaN where a task that was measured before is missing in the row: it would be another
        mean than in the rows around it. Every name is there from the start, NaN for tasks to come.

        Args:
            after: the task learned last; None before any was.
            mode: ``"min"`` where less is better.
        """
        end = (after or 0) + 1
        R, baseline = self.matrix[:end, :end], self.baseline[:end]
        values = {name: metric.value for name, metric in summarize(R, baseline, mode).items()}
        if R[-1, self.total[:, :end].any(dim=0)].isnan().any():
            values["average_accuracy"] = math.nan
        lost = F.forgetting_per_task(R, mode).tolist() + [math.nan] * (self.num_tasks - end)
        return values | {f"forgetting/task_{j}": value for j, value in enumerate(lost)}

    def compute(self) -> Tensor:
        """The accuracy matrix."""
        return self.matrix

    def _accuracy(self) -> Tensor:
        return (self.correct + self.given) / self.total

    def _row(self, after: int | None, *tasks: int) -> int:
        """The row of a task, in a matrix with room for it and for those measured."""
        self.grow(max(task_index([after or 0, *tasks], self._capacity).tolist()) + 1)
        return 0 if after is None else after + 1


class _FunctionOfMatrix(AccuracyMatrix):
    function: Callable[[Tensor], Tensor]

    def compute(self) -> Tensor:
        """The function of the part of the matrix that was measured; NaN before anything was."""
        return self.function(F.learned_part(self.matrix)) if self.num_tasks else self.given.new_tensor(math.nan)


class AverageAccuracy(_FunctionOfMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.average_accuracy` after the last task measured.

    Example:
        >>> metric = AverageAccuracy(num_tasks=2)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.compute()
        tensor(0.5000)
    """

    function = staticmethod(F.average_accuracy)


class Forgetting(_FunctionOfMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.forgetting` after the last task measured.

    Example:
        >>> metric = Forgetting(num_tasks=2)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=1)
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False

    function = staticmethod(F.forgetting)


class BackwardTransfer(_FunctionOfMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.backward_transfer` after the last task measured.

    Example:
        >>> metric = BackwardTransfer(num_tasks=2)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), task=0, after=1)
        >>> metric.compute()
        tensor(-0.5000)
    """

    function = staticmethod(F.backward_transfer)


class ForwardTransfer(_FunctionOfMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.forward_transfer`; ``after=None`` counts the untrained.

    Example:
        >>> metric = ForwardTransfer(num_tasks=2)
        >>> metric.update(torch.tensor([0, 0]), torch.tensor([1, 1]), task=1, after=None)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([1, 1]), task=1, after=0)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=1, after=1)
        >>> metric.compute()
        tensor(0.5000)
    """

    def function(self, R: Tensor) -> Tensor:
        """What earlier tasks gave to those not yet learned."""
        return F.forward_transfer(R, self.baseline[: len(R)])


class LearningAccuracy(_FunctionOfMatrix):
    """:func:`~dendrite_zoo.functional.accuracy_matrix.learning_accuracy`: how well each task was learned.

    Example:
        >>> metric = LearningAccuracy(num_tasks=2)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]), task=0, after=0)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([1, 1]), task=1, after=1)
        >>> metric.compute()
        tensor(0.7500)
    """

    function = staticmethod(F.learning_accuracy)
