"""What every context object has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from dendrite_zoo.functional import Context

__all__ = ["TaskContext"]


class TaskContext(nn.Module):
    """Where the context of a task comes from; its state lies in buffers, and so in every checkpoint.

    The buffers stay float32 whatever precision the model is cast to: a rounded prototype is another prototype.

    Args:
        context_dim: size of the context, ``C``.
        max_tasks: capacity, in tasks.

    Attributes:
        counts: how many inputs of each task were seen, ``(max_tasks,)`` float32.
    """

    counts: Tensor
    inferable: ClassVar[bool] = True
    """Whether the context can be told from an input."""

    def __init__(self, context_dim: int, max_tasks: int) -> None:
        super().__init__()
        if max_tasks < 1:
            raise ValueError(f"max_tasks={max_tasks} came; expected a capacity of at least one task.")
        self.context_dim = context_dim
        self.max_tasks = max_tasks
        self.register_buffer("counts", torch.zeros(max_tasks, dtype=torch.float32))

    @property
    def num_tasks(self) -> int:
        """How many tasks there are so far: one more than the last that was learned."""
        return int(self.counts.nonzero().max()) + 1 if self.counts.any() else 0

    def start_task(self, task: int, batches: Iterable[Tensor]) -> None:
        """Take in the inputs of a task that is about to be learned, in one pass over ``batches``.

        Raises:
            ValueError: ``task`` lies beyond the capacity, or there are no inputs.
        """
        raise NotImplementedError

    def infer(self, x: Tensor) -> Tensor:
        """Which task each row of ``x`` ``(B, features)`` belongs to, as ``(B,)`` integers."""
        raise NotImplementedError

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Context:
        """The context for ``x`` ``(B, features)``: that of ``task`` (one, or ``(B,)``), or inferred where None."""
        raise NotImplementedError

    def check_task(self, task: int) -> None:
        """Raise a ValueError where ``task`` lies beyond the capacity."""
        if not 0 <= task < self.max_tasks:
            raise ValueError(
                f"Task {task} came to a context with room for {self.max_tasks} tasks (0 to {self.max_tasks - 1}). "
                "Build the model, or load it, with a larger max_tasks."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TaskContext:
        buffers = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, after in list(self.named_buffers(recurse=False)):  # moved, never rounded
            if after.dtype != buffers[name].dtype:
                self._buffers[name] = buffers[name].to(after.device)
        return self


def mean_over_ranks(batches: Iterable[Tensor]) -> tuple[Tensor, int]:
    """The mean row of all ``batches`` ``(B, ...)`` of all ranks, float64 on the CPU, and the number of rows."""
    total: Tensor | None = None
    rows = 0
    for x in batches:
        flat = x.flatten(1)
        batch_sum = flat.sum(0, dtype=torch.float32).cpu().double()
        total = batch_sum if total is None else total + batch_sum
        rows += len(flat)
    if total is None or rows == 0:
        raise ValueError("A task came without inputs; expected at least one batch. Check its data loader.")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        device = x.device if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
        packed = torch.cat([total, total.new_tensor([rows])]).to(device)
        torch.distributed.all_reduce(packed)
        total, rows = packed[:-1].cpu(), int(packed[-1])
    return total / rows, rows
