"""Steps of several tasks: what a learner learns from, a replay buffer's or those of a loader of one's own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument

__all__ = ["Transitions"]

DEMONSTRATED = ("observation", "action", "task")
"""What is imitated, by the names of `Transitions`."""
OF_BATCHES = "Of a list of batches make a loader: DataLoader(batches, batch_size=None)."
"""What to do where each batch of a list would be taken for a loader."""
OF_ROWS = "Of its rows make one: DataLoader(TensorDataset(observation, action, ...), batch_size=256, shuffle=True)."
"""What to do with the parts of one batch, or of all data there are."""
ONE_TASK = "Where there is one task, its number is torch.zeros(len(observation), dtype=torch.long)."
OTHER_NAMES = {
    **{f"{name}s": name for name in ("observation", "action", "reward", "next_observation", "task", "discount")},
    **{"terminals": "terminated", "terminations": "terminated"},
}
"""What D4RL and Minari call these."""
ENDS_OF_TIME = "timeouts", "truncations", "truncated"
"""Where they say that time was up, at which critics bootstrap as at any step."""


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


def as_transitions(batch: Any, model: nn.Module | None = None) -> Transitions:
    """A batch of a loader of one's own as `Transitions`.

    Args:
        batch: five to seven tensors in the order of `Transitions`, or a mapping of them by their names, or by those of
            D4RL and Minari (``observations``, ``terminals``, ...), whose ``timeouts`` and ``truncations`` are left out.
        model: that learns from them, whose sizes they are to have, and whose precision they get.

    Raises:
        ValueError: it is something else.

    Example:
        >>> parts = [torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 3), torch.zeros(2).long()]
        >>> as_transitions(parts).task
        tensor([0, 0])
    """
    try:
        steps = Transitions(**by_name(batch)) if isinstance(batch, Mapping) else Transitions(*batch)
        rows = [len(part) for part in steps if part is not None]
    except TypeError:
        rows = []
    if len(set(rows)) != 1:
        names = ", ".join(Transitions._fields)
        one = f" {ONE_TASK}" if isinstance(batch, Mapping) and "task" not in by_name(batch) else ""
        raise ValueError(
            f"Expected data of OnlineTasks, or batches of {names} with as many rows each, but got "
            f"{shapes_of(batch)}.{_of_a_list(batch)}{one}"
        )
    check_shapes(steps._asdict(), model)
    _check_kind(steps.task, batch)
    _check_ends(steps)
    kind = _precision(model)
    ends = None if steps.terminated is None else steps.terminated.bool()
    seen, done, reward, then = (part.to(kind) for part in steps[:4])
    factor = None if steps.discount is None else steps.discount.to(kind)
    return Transitions(seen, done, reward, then, steps.task.long(), ends, factor)


def as_demonstrated(batch: Any, model: nn.Module | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of a loader of one's own as observations ``(B, O)``, actions ``(B, A)`` and tasks ``(B,)`` to imitate.

    Args:
        batch: these three tensors in this order, or a mapping with them by the names of `Transitions`, or such.
        model: as in `as_transitions`.

    Raises:
        TypeError: it is something else.
        ValueError: of other shapes.

    Example:
        >>> rows = {"observation": torch.zeros(2, 3), "action": torch.zeros(2, 1), "task": torch.zeros(2)}
        >>> as_demonstrated(rows)[2]
        tensor([0, 0])
    """
    named = by_name(batch)
    given: Any = [named.get(name) for name in DEMONSTRATED] if isinstance(named, Mapping) else named
    if not isinstance(given, Sequence) or len(given) != 3 or not all(isinstance(part, Tensor) for part in given):
        raise TypeError(
            f"Expected batches of tensors (observation, action, task), or a dictionary of them, but got "
            f"{shapes_of(batch)}. {ONE_TASK}{_of_a_list(batch)}"
        )
    check_shapes(dict(zip(DEMONSTRATED, given, strict=True)), model)
    _check_kind(given[2], batch)
    return given[0].to(kind := _precision(model)), given[1].to(kind), given[2].long()


def by_name(batch: Any) -> Any:
    """`Transitions` as a mapping, and any other mapping with their names; what is none as it is."""
    if isinstance(batch, Transitions):
        return batch._asdict()
    if not isinstance(batch, Mapping):
        return batch
    return {OTHER_NAMES.get(name, name): part for name, part in batch.items() if name not in ENDS_OF_TIME}


def shapes_of(batch: Any) -> str:
    """What a batch has, for a message."""
    if isinstance(batch, Mapping):
        return "the keys " + ", ".join(f"{key} {_shape(part)}" for key, part in batch.items())
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return f"{len(batch)} parts of the shapes {', '.join(map(_shape, batch))}"
    return f"a {type(batch).__name__} of the shape {_shape(batch)}"


def _of_a_list(batch: Any) -> str:
    """What to do where a Trainer was given a list of batches, in which each is taken for a loader of its own."""
    is_list = isinstance(batch, list) and batch and all(isinstance(part, list | tuple | Mapping) for part in batch)
    return f" {OF_BATCHES}" if is_list else ""


def refuse_batches(given: Any) -> None:
    """Refuse batches in the place of a loader, in which a Trainer would take each part for a loader of its own.

    Raises:
        ValueError: it is a batch, or a list or tuple of batches.

    Example:
        >>> refuse_batches([(torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2))])
        Traceback (most recent call last):
        ValueError: Expected a loader of batches, but got a list of tuple. Of a list of batches make a loader: ...
    """
    if isinstance(given, Transitions) or _is_batch(given):
        got, remedy = f"one batch, a {type(given).__name__}", OF_ROWS
    elif isinstance(given, list | tuple) and given and all(map(_is_batch, given)):
        got, remedy = f"a {type(given).__name__} of {type(given[0]).__name__}", OF_BATCHES
    else:
        return
    raise ValueError(f"Expected a loader of batches, but got {got}. {remedy}")


def _is_batch(given: Any) -> bool:
    """Whether it is tensors or arrays in a collection, and nothing else."""
    parts = list(given.values()) if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    given_parts = [part for part in parts if part is not None]
    return bool(given_parts) and all(hasattr(part, "shape") for part in given_parts)


def _shape(part: Any) -> str:
    kind = "" if isinstance(part, Tensor) else type(part).__name__
    return f"{kind} {tuple(part.shape)}".strip() if hasattr(part, "shape") else f"({kind})"


def _precision(model: nn.Module | None) -> torch.dtype:
    return torch.float32 if model is None else next(model.parameters()).dtype


def check_shapes(steps: Mapping[str, Tensor | None], model: nn.Module | None = None) -> None:
    """Refuse what would be compared each row with each, or is of another policy.

    Args:
        steps: tensors by the names of `Transitions`, among them ``task``.
        model: whose config says the sizes of observations and actions; else these are as they are.

    Raises:
        ValueError: of another shape than `Transitions` says.
    """
    sizes, rows = getattr(model, "config", {}), steps["task"]
    if rows is None or rows.ndim != 1:
        remedy = "Of one-hot tasks pass task.argmax(1); single rows need a DataLoader(data, batch_size=...)."
        raise wrong_argument(
            "task", "of shape (B,), a number a row", None if rows is None else tuple(rows.shape), remedy
        )
    for name, part in steps.items():
        if part is None:
            continue
        kind, shape = f"{name.removeprefix('next_')}_size", tuple(part.shape)
        expected: tuple[int, ...] = (len(rows),)
        remedy = f"Pass {name}.squeeze(1)." if shape == (len(rows), 1) else ""
        if name.endswith(("observation", "action")):
            size = sizes.get(kind, shape[-1] if len(shape) > 1 else 1)
            expected, remedy = (len(rows), size), f"The policy has {kind}={size}." if kind in sizes else ""
            if part.ndim == size == 1:
                remedy = f"Pass {name}.unsqueeze(1)."
        if shape != expected:
            words = f"of shape {expected}" + ", a number a row" * (len(expected) == 1)
            raise wrong_argument(name, words, shape, remedy)


def _check_kind(task: Tensor, batch: Any) -> None:
    """Refuse what is no number of a task, but maybe a reward, or whether an episode ended, in its place."""
    if not isinstance(batch, Mapping) and (task.is_floating_point() or task.dtype == torch.bool):
        order = f"{', '.join(Transitions._fields)}, or {', '.join(DEMONSTRATED)}"
        raise wrong_argument(
            "task", f"integers, where parts have the order {order}", task.dtype, "Pass task.long() if they are tasks."
        )
    if task.is_floating_point() and bool((task != task.round()).any()):
        raise wrong_argument("task", "whole numbers", task[:8].tolist(), "They are positions in the policy's `tasks`.")


def _check_ends(steps: Transitions) -> None:
    """Refuse discounts in the place of ends, where all would count as such, and the other way round."""
    ends, factor = steps.terminated, steps.discount
    if ends is not None and ends.dtype != torch.bool and bool(((ends != 0) & (ends != 1)).any()):
        remedy = "Give discounts by name, Transitions(..., discount=...), and no ends where there are none."
        raise wrong_argument("terminated", "0 or 1 in each row", ends[:8].tolist(), remedy)
    if factor is not None and (factor.dtype == torch.bool or bool(((factor < 0) | (factor > 1)).any())):
        remedy = "Give discount ** n, and 0 where the task ended; or leave it out, and give `terminated`."
        raise wrong_argument("discount", "a factor from 0 to 1 in each row", factor[:8].tolist(), remedy)


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
    check_actions(action)
    if bool(((task < 0) | (task >= num_tasks)).any()):
        raise wrong_argument("task", f"from 0 to {num_tasks - 1}, tasks of the policy", task.unique().tolist())


def check_actions(action: Tensor) -> None:
    """Refuse actions ``(B, A)`` that are in the units of an environment.

    Raises:
        ValueError: one is not from -1 to 1.
    """
    if action.numel() == 0:
        return
    low, high = map(float, action.aminmax())
    if low < -1 - 1e-4 or high > 1 + 1e-4:  # what is not finite is said by the loss
        raise ValueError(
            f"Expected actions from -1 to 1, as policies act, but got some from {low:.4g} to {high:.4g}. Scale those "
            "of an environment by its bounds: 2 * (action - low) / (high - low) - 1."
        )
