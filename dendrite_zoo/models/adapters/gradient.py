"""Where the gradient of an output goes that was computed without one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Again(torch.autograd.Function):
    """Leaves an output that was computed without a graph as it is, and computes it again where there is a gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, column: Tensor, compute: Callable[[], Tensor], solved: bool) -> Tensor:
        """The output as it is.

        Args:
            ctx: what the backward pass needs.
            output: computed without a graph.
            column: what has the gradient.
            compute: computes the output again.
            solved: whether it is that of a solved head, by which nothing is to be trained.
        """
        ctx.column, ctx.compute, ctx.solved = column, compute, solved
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        """The gradient of the column.

        Raises:
            RuntimeError: the output is that of a solved head, and nothing but the column has a gradient.
        """
        if ctx.solved and not ctx.needs_input_grad[0]:  # that of an input may be asked for, beside
            raise RuntimeError(
                "Expected train mode to train a task whose ridge head is solved, but got eval mode, in which gates "
                "have the gradient of that head. Call model.train() before, and model.fit_head(task, batches) after."
            )
        with torch.enable_grad():
            (own,) = torch.autograd.grad(ctx.compute(), ctx.column, grad)
        return grad[0], own, None, None


class NotLearning(torch.autograd.Function):
    """Leaves the output of a task that does not learn as it is, and says so where something is to learn from it."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, column: Tensor, task: int, learning: int | None) -> Tensor:
        """The output as it is."""
        ctx.task, ctx.learning = task, learning
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        """Refuse it.

        Raises:
            RuntimeError: always.
        """
        now = "none does" if ctx.learning is None else f"task {ctx.learning} does"
        raise RuntimeError(
            f"Expected a loss of the task that learns, but got one of task {ctx.task}, while {now}. Tasks are learned "
            f"one after another: call model.start_task({ctx.task}, batches_of_inputs) before it is trained."
        )
