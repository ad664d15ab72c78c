"""Prototype contexts: the mean input of each task."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dendrite_zoo._core.batches import input_batches
from dendrite_zoo._core.torch import full_precision
from dendrite_zoo.contexts.base import TaskContext, flat_rows, mean_over_ranks, usable_rows
from dendrite_zoo.functional.context import Context

__all__ = ["PrototypeContext", "nearest_prototype"]


class PrototypeContext(TaskContext):
    """The mean of all training inputs of a task as its context (Iyer et al. 2022, section on permuted MNIST).

    A prototype is computed in one pass when its task starts, then fixed. At test time each single input takes the
    nearest prototype (Euclidean): no task id is needed. Before any task is learned the context is zero, and every gate
    one half.

    Lightning's ``EMAWeightAveraging`` averages buffers, too: it needs ``use_buffers=False``, or the prototypes that it
    leaves were no means of their tasks. Our LightningModules refuse it without.

    Args:
        num_features: size of an input row, and of the context.
        max_tasks: capacity, in tasks.

    Example:
        >>> context = PrototypeContext(num_features=2, max_tasks=3)
        >>> context.start_task(0, [torch.tensor([[0.0, 1.0], [0.0, 3.0]])])
        >>> context.start_task(1, [torch.tensor([[5.0, 5.0]])])
        >>> context.prototypes[:2], context.num_tasks
        (tensor([[0., 2.],
                [5., 5.]]), 2)
        >>> context.infer(torch.tensor([[4.0, 4.0], [0.0, 0.0]]))
        tensor([1, 0])
    """

    def __init__(self, num_features: int, max_tasks: int) -> None:
        super().__init__(context_dim=num_features, max_tasks=max_tasks)
        self.prototypes = nn.Buffer(torch.zeros(max_tasks, num_features, dtype=torch.float32))

    @torch.no_grad()
    def start_task(self, task: int, batches: Iterable[Tensor]) -> None:
        """Set the task's prototype to the mean of its inputs; see `TaskContext.start_task`."""
        self.task_ids(task)
        mean, self.counts[task] = mean_over_ranks(flat_rows(x, self.context_dim) for x in input_batches(batches))
        self.prototypes[task] = mean.to(self.prototypes)

    @torch.no_grad()
    def infer(self, x: Tensor) -> Tensor:
        """The task with the nearest prototype for each row of ``x`` ``(B, features)``, as ``(B,)`` integers."""
        return nearest_prototype(x, self.prototypes, self.counts > 0)

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Context:
        """``(C,)`` for one given task, else ``(prototypes, index (B,))``."""
        if task is None:
            return self.prototypes, self.infer(x)
        ids = self.task_ids(task)
        return self.prototypes[int(ids)] if ids.ndim == 0 else (self.prototypes, ids)


def nearest_prototype(x: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    r"""The index of the nearest known prototype, :math:`\arg\min_k \lVert x - p_k \rVert`, in float32.

    A prototype that lies far from all others (whose data had an outlier) is no trouble to them.

    Shape:
        x ``(B, C)``, prototypes ``(K, C)``, known ``(K,)`` bool; result ``(B,)`` integers, 0 where none is known.

    Raises:
        ValueError: rows of another size, or with NaN, infinity or numbers too large.

    Example:
        >>> nearest_prototype(torch.ones(1, 2), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([False, True]))
        tensor([1])
    """
    x = usable_rows(x, prototypes.shape[1])
    with full_precision(x.device):
        # Seen from the smallest prototype, or a common offset would drown their differences in rounding.
        prototypes = prototypes.float()
        size = torch.linalg.vector_norm(prototypes, dim=1).masked_fill(~known, torch.inf)
        centre = prototypes.index_select(0, size.argmin(keepdim=True))
        x, prototypes = x - centre, prototypes - centre
        size = torch.linalg.vector_norm(prototypes, dim=1).square().masked_fill(~known, torch.inf)
        distance = torch.addmm(size, x, prototypes.T, alpha=-2)  # |x - p|² less |x|², the same for every k
        return distance.argmin(1)
