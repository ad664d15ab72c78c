"""What every context object has in common."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

import torch
from torch import Tensor, nn

from dendrite_zoo._core.batches import input_batches
from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.describe import ranges
from dendrite_zoo._core.finite import LARGEST, unusable_rows
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo._core.torch import KeepsPrecision, runs_eagerly
from dendrite_zoo.functional.context import Context, check_ids

__all__ = ["TaskContext"]

MEASURING: ContextVar[bool] = ContextVar("MEASURING", default=False)
"""Whether tasks that were not learned are given on purpose."""


@contextmanager
def measuring() -> Iterator[None]:
    """Within it, tasks that were not learned are given on purpose: what a model does before is measured, too."""
    token = MEASURING.set(True)
    try:
        yield
    finally:
        MEASURING.reset(token)


class TaskContext(KeepsPrecision):
    """Where the context of a task comes from; its state lies in buffers, and so in every checkpoint.

    The buffers stay float32 whatever precision the model is cast to: a rounded prototype is another prototype.

    Args:
        context_dim: size of the context, ``C``.
        max_tasks: capacity, in tasks.

    Attributes:
        counts: how many inputs of each task were seen, ``(max_tasks,)`` float32.
    """

    inferable: ClassVar[bool] = True
    """Whether the context can be inferred from an input."""

    def __init__(self, context_dim: int, max_tasks: int) -> None:
        super().__init__()
        check_integers(1, max_tasks=max_tasks)
        self.context_dim, self.max_tasks = context_dim, max_tasks
        self.counts = nn.Buffer(torch.zeros(max_tasks, dtype=torch.float32))
        self._given: set[int] = set()  # tasks that `warn_of_unlearned` has looked at
        self._trained: set[int] = set()  # those that `warn_of_unstarted` has

    @property
    def num_tasks(self) -> int:
        """How many tasks there are so far: one more than the last that was learned."""
        return int(self.counts.nonzero().max()) + 1 if self.counts.any() else 0

    def start_task(self, task: int, batches: Iterable[Tensor]) -> None:
        """Take in the inputs of a task that is about to be learned, in one pass over ``batches``.

        Raises:
            TypeError: ``batches`` are no tensors, one after another.
            ValueError: ``task`` lies beyond the capacity, there are no inputs, or some are not finite or too large:
                then nothing has changed.
        """
        raise NotImplementedError

    def infer(self, x: Tensor) -> Tensor:
        """Which task each row of ``x`` ``(B, features)`` belongs to, as ``(B,)`` integers.

        Raises:
            ValueError: a row has NaN, infinity or numbers too large: it belongs to no task. Compiled code cannot look;
                there the output of a network for such a row is NaN.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Context:
        """The context for ``x`` ``(B, features)``: that of ``task`` (one, or ``(B,)``), or inferred where None."""
        raise NotImplementedError

    def task_ids(self, task: int | Tensor) -> Tensor:
        """Tasks as integers, ``()`` or ``(B,)``; raises a ValueError where one lies beyond the capacity."""
        try:
            ids = torch.as_tensor(task)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"Expected `task` to be an int, or one for each row, but got {task!r}.") from None
        check_ids(ids, self.max_tasks, what="task")
        return ids

    def warn_of_unlearned(self, task: int | Tensor | None) -> None:
        """Warn, once each, of given tasks that were not learned while others were: such outputs are of no use.

        In training, in compiled code, and of ids on a GPU, where it would wait for them, nothing is looked at.
        """
        if task is None or (self.training and torch.is_grad_enabled()) or MEASURING.get() or not runs_eagerly():
            return
        if not (new := self._tasks(task) - self._given):
            return
        self.task_ids(task)  # refuses those beyond the capacity
        if not self.counts.any():
            return
        self._given |= new
        if unlearned := sorted(one for one in new if not self.counts[one]):
            known = ranges(self.counts.nonzero().flatten().tolist())
            warnings.warn(
                f"Expected a task that was learned ({known}), but got {ranges(unlearned)}: the output is of weights "
                "that were never trained for it. Give a task that was learned, or train this one first.",
                stacklevel=3,
            )

    def warn_of_unstarted(self, task: int | Tensor | None, output: Tensor) -> None:
        """Warn, once each, of tasks whose context was not made of their inputs, where they are trained all the same.

        Args:
            task: those given.
            output: of a network in their contexts, of which a gradient may be computed.
        """
        if task is None or not (self.inferable and output.requires_grad and runs_eagerly()) or self.counts.is_meta:
            return
        new = self._tasks(task) - self._trained
        unstarted = sorted(one for one in new if not self.counts[one])
        self._trained |= new.difference(unstarted)
        if not unstarted:
            return

        def say(gradient: Tensor) -> None:
            if not self._trained.issuperset(unstarted):
                self._trained.update(unstarted)
                warnings.warn(
                    f"Expected a task whose context was made of its inputs, but got {ranges(unstarted)}: none is found "
                    "at test, and without prototypes all are the same to the network. Call "
                    f"model.context.start_task({unstarted[0]}, batches), of inputs alone, before it is trained; "
                    "ContinualClassifier does.",
                    stacklevel=2,
                )

        output.register_hook(say)

    def _tasks(self, task: int | Tensor) -> set[int]:
        """Those given, as numbers; of ids on a GPU none, for it would wait for them."""
        if isinstance(task, Tensor) and task.device.type != "cpu":
            return set()
        return {task} if isinstance(task, int) else set(self.task_ids(task).reshape(-1).tolist())


def mean_over_ranks(batches: Iterable[Tensor]) -> tuple[Tensor, int]:
    """The mean row of all ``batches`` ``(B, ...)`` of all ranks, float64 on the CPU, and the number of rows.

    Raises:
        ValueError: in all ranks, where one of them has a batch with NaN, infinity or a number too large.
    """
    total, device, wrong = torch.zeros(1, dtype=torch.float64), torch.device("cpu"), ""
    for number, x in enumerate(input_batches(batches)):
        if rows := unusable_rows(x, LARGEST):
            wrong = f"batch {number} (from 0) of the task, row {rows[0]}"
        batch_sum = x.flatten(1).sum(0, dtype=torch.float32).cpu().double()
        total = total + torch.cat([batch_sum, batch_sum.new_tensor([len(x)])])
        device = x.device if x.is_cuda else device
        if wrong:
            break
    if total[-1] == 0:
        raise ValueError("Expected at least one input of the task, but got none. Check the task's data loader.")
    total = total.to(device)
    refused = torch.tensor(float(bool(wrong)), device=device)
    sum_over_ranks(total, refused)
    refuse_inputs(wrong or ("another process" if refused else ""))
    return (total[:-1] / total[-1]).cpu(), int(total[-1])


def refuse_inputs(where: str) -> None:
    """Raise the error of inputs that no context can be made of, unless ``where`` is empty."""
    if where:
        expected = f"finite inputs, smaller than {LARGEST:g}, for a context"
        remedy = "Nothing was learned from the data. Leave such rows out, or mend them."
        raise ValueError(f"Expected {expected}, but got NaN, infinity or larger numbers in {where}. {remedy}")


def flat_rows(x: Tensor, num_features: int) -> Tensor:
    """Inputs ``(B, ...)`` as float32 rows ``(B, num_features)``.

    Raises:
        ValueError: no real numbers; or rows of another size.
    """
    if not isinstance(x, Tensor) or x.ndim < 2 or x.is_complex():
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"Expected inputs as a tensor (batch, {num_features}) of real numbers, but got {got}.")
    x = x.flatten(1)
    if x.shape[1] != num_features:
        remedy = f"Build the context with num_features={x.shape[1]} (a model with in_features={x.shape[1]})."
        raise ValueError(f"Expected inputs of {num_features} features, but got {x.shape[1]}. {remedy}")
    return x.float()


def usable_rows(x: Tensor, num_features: int) -> Tensor:
    """Inputs ``(B, ...)`` as float32 rows ``(B, num_features)``, to infer the context from.

    Raises:
        ValueError: rows of another size, or with NaN, infinity or numbers too large.
    """
    x = flat_rows(x, num_features)
    if rows := unusable_rows(x, LARGEST):
        raise ValueError(
            f"Expected finite inputs, smaller than {LARGEST:g}, to infer the context from, but got NaN, infinity or "
            f"larger numbers in rows {rows[:8]} of {len(x)}. Leave such rows out; they belong to no task."
        )
    return x
