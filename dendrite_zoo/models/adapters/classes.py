"""How many classes the tasks of a backbone with dendrites have: all as many, or each its own number."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo._core.torch import runs_eagerly
from dendrite_zoo.functional.ridge import UNSEEN

BY_TASK_AND_CLASS = "heads.ridge_weight", "heads.ridge_bias"
"""Tables with a row a task and class."""


def check_classes(num_classes: int | Sequence[int], max_tasks: int) -> None:
    """Refuse what is neither a number of classes nor one for each task, and what is no number of tasks.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_classes([10, 10], max_tasks=3)
        Traceback (most recent call last):
        ValueError: Expected `num_classes` to be one number, or one for each of 3 tasks, but got [10, 10].
    """
    check_integers(1, max_tasks=max_tasks)
    if not isinstance(num_classes, Sequence):
        check_integers(1, num_classes=num_classes)
        return
    for number in num_classes:
        check_integers(1, num_classes=number)
    if len(num_classes) != max_tasks:
        raise wrong_argument("num_classes", f"one number, or one for each of {max_tasks} tasks", list(num_classes))


def classes_by_task(config: Mapping[str, Any]) -> list[int]:
    """The classes of each task there is room for, for a config of an `AdaptedBackbone`."""
    given: int | list[int] = config["num_classes"]
    return list(given) if isinstance(given, list) else [given] * config["max_tasks"]


def size_of_output(config: Mapping[str, Any]) -> int:
    """The most classes of a task: there are as many logits."""
    return max(classes_by_task(config))


def classes_with_room(config: Mapping[str, Any], changes: Mapping[str, Any], learned: int) -> int | list[int]:
    """``num_classes`` of a model that is loaded with another one, or with another ``max_tasks``.

    Tasks that were learned keep theirs. Where nothing is said of further tasks, they have as many as the largest.

    Args:
        config: of the artifact.
        changes: what is to differ.
        learned: how many tasks were learned.

    Raises:
        ValueError: one that was learned would have another number, or an argument is out of range.

    Example:
        >>> classes_with_room({"num_classes": [10, 26], "max_tasks": 2}, {"max_tasks": 3}, 2)
        [10, 26, 26]
        >>> classes_with_room({"num_classes": 10, "max_tasks": 2}, {"max_tasks": 3, "num_classes": 26}, 2)
        [10, 10, 26]
    """
    tasks, known = changes.get("max_tasks", config["max_tasks"]), classes_by_task(config)
    check_integers(1, max_tasks=tasks)
    given = changes.get("num_classes")
    if given is None:
        own: int | list[int] = config["num_classes"]
        return [*known, *[max(known)] * (tasks - len(known))][:tasks] if isinstance(own, list) else own
    check_classes(given, tasks)
    if isinstance(given, int):
        return [*known[:learned], *[given] * (tasks - learned)] if {given} != {*known} else given
    if given[:learned] != known[:learned]:
        expected = f"{known[:learned]} of the tasks that were learned"
        raise wrong_argument("num_classes", expected, given[:learned], "Their heads stay as they are.")
    return list(given)


def with_absent(logits: Tensor, size: int, task: int) -> Tensor:
    """Logits ``(B, K)`` of a task, followed by those of classes it does not have, far below all others: ``(B, size)``.

    A loss of these classes is refused when its gradient is computed.
    """
    if logits.shape[1] == size:
        return logits
    if logits.requires_grad and runs_eagerly():
        padded: Tensor = _WithAbsent.apply(logits, size, task)
        return padded
    return F.pad(logits, (0, size - logits.shape[1]), value=UNSEEN)


class _WithAbsent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, size: int, task: int) -> Tensor:
        ctx.own, ctx.task = logits.shape[1], task
        return F.pad(logits, (0, size - ctx.own), value=UNSEEN)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        wanted = (grad[0][:, ctx.own :] < 0).any(0)  # only what is to grow
        if wanted.any():
            label = ctx.own + int(wanted.nonzero()[0])
            raise ValueError(
                f"Expected labels from 0 to {ctx.own - 1} in task {ctx.task}, which has `num_classes` {ctx.own}, but "
                f"got {label}. Number the classes of each task from 0, and smooth no labels over those of other tasks; "
                "or give `num_classes` one number for all."
            )
        return grad[0][:, : ctx.own], None, None


def own_numbers(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Which numbers of a model's tables are of classes that a task has; empty where all have as many.

    Returns:
        by name masks ``(max_tasks, num_classes)``, or ``(max_tasks, ...)`` of columns.

    Example:
        >>> config = {"num_classes": [1, 2], "max_tasks": 2, "layers": {"a": 3}, "stages": {"": [2, 1]}, "shift": False}
        >>> own_numbers({**config, "head": "linear"})["columns"].int()
        tensor([[1, 1, 1, 1, 1, 0, 0, 1, 0],
                [1, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    """
    if not isinstance(config["num_classes"], list) or config["head"] is None:
        return {}
    classes = torch.tensor(classes_by_task(config))
    own = torch.arange(int(classes.max())) < classes[:, None]
    gates = own.new_ones(len(own), sum(config["layers"].values()) * (1 + config["shift"]))
    features = sum(stage[0] for stage in config["stages"].values())
    columns = torch.cat([gates, own.repeat_interleave(features, 1), own], 1)
    return {"columns": columns, **dict.fromkeys(BY_TASK_AND_CLASS, own)}


def without_absent(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, without the numbers of classes that a task does not have."""
    own = own_numbers(config)
    return {name: x[own[name].to(x.device)] if name in own else x for name, x in state.items()}


def filled_absent(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, from those of such a file."""
    made = dict(state)
    for name, own in own_numbers(config).items():
        found = state.get(name)
        if found is not None and found.ndim == 1 + name.endswith("weight") and len(found) == int(own.sum()):
            whole = found.new_full((*own.shape, *found.shape[1:]), UNSEEN if name.endswith("bias") else 0.0)
            whole[own] = found
            made[name] = whole
    return made


def with_classes(config: Mapping[str, Any], new: Mapping[str, Any], columns: Tensor) -> Tensor:
    """The columns ``(max_tasks, ...)`` of a model of one config, with linear heads as large as of another."""
    if config["head"] is None:
        return columns
    size, wanted = size_of_output(config), size_of_output(new)
    features = sum(stage[0] for stage in config["stages"].values())
    gates, weight, bias = columns.split([columns.shape[1] - size * (features + 1), size * features, size], 1)
    weight = F.pad(weight, (0, (wanted - size) * features))
    return torch.cat([gates, weight, F.pad(bias, (0, wanted - size))], 1)
