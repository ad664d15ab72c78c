"""Steps of several tasks: what a learner learns from, a replay buffer's or those of a loader of one's own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument

__all__ = ["Transitions"]


class Transitions(NamedTuple):
    """Steps of several tasks, as many of each, one task after another; ``task`` says which.

    Attributes:
        observation: ``(B, O)``, before the action.
        action: ``(B, A)``, in [-1, 1].
        reward: ``(B,)``; of n steps their discounted sum.
        next_observation: ``(B, O)``, after the action or the n steps, also where an episode ended by its length.
        task: ``(B,)`` integers.
        terminated: ``(B,)``, whether the task itself ended with the step, so that no reward comes after it; None for
            nowhere.
        discount: ``(B,)``, factor of the value of ``next_observation``: the discount to the power of the number of
            steps, and 0 where the task itself ended; None for the learner's own discount of one step.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    task: Tensor
    terminated: Tensor | None = None
    discount: Tensor | None = None


def as_transitions(batch: Any, kind: torch.dtype = torch.float32) -> Transitions:
    """A batch of a loader of one's own as `Transitions`.

    Args:
        batch: five to seven tensors in the order of `Transitions`, or a mapping of them by their names.
        kind: of the numbers.

    Raises:
        ValueError: it is something else.

    Example:
        >>> parts = [torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 3), torch.zeros(2)]
        >>> as_transitions(parts).task
        tensor([0, 0])
    """
    try:
        steps = Transitions(**batch) if isinstance(batch, Mapping) else Transitions(*batch)
        rows = [len(part) for part in steps if part is not None]
    except TypeError:
        rows = []
    if len(set(rows)) != 1:
        names, got = ", ".join(Transitions._fields), type(batch).__name__
        shapes = (
            [tuple(part.shape) for part in batch if isinstance(part, Tensor)] if isinstance(batch, Sequence) else []
        )
        raise ValueError(
            f"Expected data of OnlineTasks, or batches of {names} with as many rows each, but got {got} of the shapes "
            f"{shapes}."
        )
    _check_shapes(steps)
    ends = None if steps.terminated is None else steps.terminated.bool()
    seen, done, reward, then = (part.to(kind) for part in steps[:4])
    factor = None if steps.discount is None else steps.discount.to(kind)
    return Transitions(seen, done, reward, then, steps.task.long(), ends, factor)


def _check_shapes(steps: Transitions) -> None:
    """Refuse what would be compared each row with each."""
    for name, part in steps._asdict().items():
        one = not name.endswith(("observation", "action"))  # number a row
        if part is not None and part.ndim != (1 if one else 2):
            shape = f"({len(part)},), a number a row" if one else f"({len(part)}, size)"
            raise wrong_argument(
                name, f"of shape {shape}", tuple(part.shape), f"Pass {name}.squeeze(1)." if one else ""
            )


def check_rows(action: Tensor, task: Tensor, num_tasks: int) -> None:
    """Refuse rows of a loader of one's own that no policy could have played.

    Args:
        action: ``(B, A)``.
        task: ``(B,)`` integers.
        num_tasks: how many tasks the policy has.

    Raises:
        ValueError: an action that is not from -1 to 1, or a task that the policy does not have.

    Example:
        >>> check_rows(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), num_tasks=2)
    """
    low, high = map(float, action.aminmax())
    if low < -1 - 1e-4 or high > 1 + 1e-4:  # what is not finite is said by the loss
        raise ValueError(
            f"Expected actions from -1 to 1, as policies act, but got some from {low:.4g} to {high:.4g}. Scale those "
            "of an environment by its bounds: 2 * (action - low) / (high - low) - 1."
        )
    if bool(((task < 0) | (task >= num_tasks)).any()):
        raise wrong_argument("task", f"from 0 to {num_tasks - 1}, tasks of the policy", task.unique().tolist())
