"""Corners of torch that have private names only, and what holds in a version that lacks one."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def for_each(operation: str, *arguments: Sequence[Tensor] | float, **keywords: float) -> Any:
    """Apply an operation to many tensors at once, which takes one kernel for all of them; without that, one by one.

    Args:
        operation: the name of a method of tensors; with an underscore at its end it works in place.
        *arguments: lists of tensors, one of each for each call; or a number for all.
        **keywords: for all calls.

    Example:
        >>> for_each("lerp", [torch.zeros(2)], [torch.ones(2)], 0.25)
        [tensor([0.2500, 0.2500])]
    """
    together = getattr(torch, f"_foreach_{operation}", None)
    if together is not None:
        results = together(*arguments, **keywords)
    else:
        columns = (itertools.repeat(given) if isinstance(given, (int, float)) else given for given in arguments)
        results = [getattr(first, operation)(*others, **keywords) for first, *others in zip(*columns, strict=False)]
    return None if operation.endswith("_") else list(results)


def sparse_indices(tensor: Tensor) -> Tensor:
    """The indices ``(D, N)`` of a sparse tensor as they are, sorted or not, where torch's public method refuses."""
    return tensor._indices() if hasattr(tensor, "_indices") else tensor.coalesce().indices()


def sparse_values(tensor: Tensor) -> Tensor:
    """The values ``(N, ...)`` that belong to `sparse_indices`."""
    return tensor._values() if hasattr(tensor, "_values") else tensor.coalesce().values()


def version_of(tensor: Tensor) -> Any:
    """What changes with every operation in place, but for fused optimizers and writes through ``.data``.

    In a version of torch without such a number, what is new each time: nothing counts as unchanged.
    """
    return 0 if tensor.is_inference() else getattr(tensor, "_version", object())


def transforms_active() -> bool:
    """Whether code runs inside ``torch.func`` (``vmap``, ``grad``); taken for true where torch does not say."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return True if active is None else bool(active())
