"""One-hot task ids."""

from collections.abc import Iterable

from torch import Tensor

from dendrite_zoo._core.batches import input_batches
from dendrite_zoo.contexts.base import TaskContext, mean_over_ranks

__all__ = ["OneHotContext"]


class OneHotContext(TaskContext):
    """The task id as context, always given (Iyer et al. 2022, Meta-World): layers look its segments up.

    Args:
        max_tasks: capacity, in tasks; also the size of the context.

    Example:
        >>> import torch
        >>> context = OneHotContext(3)
        >>> context(torch.zeros(2, 8), task=1)
        tensor(1)
    """

    inferable = False

    def __init__(self, max_tasks: int) -> None:
        super().__init__(context_dim=max_tasks, max_tasks=max_tasks)

    def start_task(self, task: int, batches: Iterable[Tensor]) -> None:
        """Count the inputs of a task; see `TaskContext.start_task`."""
        self.task_ids(task)
        self.counts[task] = mean_over_ranks(x[:, :1] for x in input_batches(batches))[1]

    def infer(self, x: Tensor) -> Tensor:
        """Raise a ValueError: an input does not tell its task id."""
        raise ValueError("A one-hot context cannot be inferred from inputs. Call model(x, task=...).")

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Integer ids, ``()`` or ``(B,)``."""
        return self.infer(x) if task is None else self.task_ids(task).to(x.device)
