"""Where there is NaN, infinity, or a number too large to compute with."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dendrite_zoo._core.torch import runs_eagerly

LARGEST = 1e15
"""No input or feature is as large: the squares of many such numbers still have a sum in float32."""


def unusable_rows(x: Tensor, largest: float = math.inf) -> list[int]:
    """The rows of ``x`` ``(B, ...)`` that hold NaN, infinity, or a number as large as ``largest`` or larger.

    It takes one reduction; where code is compiled or transformed, and nothing can be looked at, there are none.

    Example:
        >>> unusable_rows(torch.tensor([[1.0, 2.0], [0.0, torch.nan], [1e20, 0.0]]), largest=1e15)
        [1, 2]
    """
    if x.numel() == 0 or x.is_meta or not x.is_floating_point() or not runs_eagerly():
        return []
    low, high = torch.stack(x.detach().aminmax()).tolist()
    if -largest < low and high < largest:  # neither is so with NaN
        return []
    return (~(x.detach().reshape(len(x), -1).abs() < largest)).any(1).nonzero().flatten().tolist()


def unusable_parameter(module: nn.Module) -> str:
    """The name of the first parameter that is not finite; empty where all are."""
    return unusable_tensor(dict(module.named_parameters()))


def unusable_tensor(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that is not finite; empty where all are, and where nothing can be looked at."""
    seen = {name: p for name, p in tensors.items() if not p.is_meta and not hasattr(p, "__tensor_flatten__")}
    named = {name: p.detach() for name, p in seen.items() if p.is_floating_point()}  # quantised ones may have no sum
    sums = (p.sum(dtype=torch.promote_types(p.dtype, torch.float32)) for p in named.values())
    if all(math.isfinite(float(one)) for one in sums):
        return ""  # a sum takes a hundredth of the time that `isfinite` of all numbers takes
    return next((name for name, p in named.items() if not bool(p.isfinite().all())), "")
