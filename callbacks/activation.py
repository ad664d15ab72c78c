"""An activation that has run: where it stands in a network, and how often each of its units was active."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_zoo._core.torch import transforms_active
from dendrite_zoo.callbacks.layer_selection import FUNCTIONS

ACTIVATION_OF = {
    function: name
    for name in FUNCTIONS
    for owner in (F, torch, Tensor)
    for function in (getattr(owner, name, None), getattr(owner, f"{name}_", None))
    if function is not None
}
UNIT_OF: dict[Any, int] = {
    **{F.linear: -1, F.conv1d: -2, F.conv2d: -3, F.conv3d: -4},
    **{F.conv_transpose1d: -2, F.conv_transpose2d: -3, F.conv_transpose3d: -4},
    **{F.batch_norm: 1, F.instance_norm: 1, F.group_norm: 1},
}
"""The dimension of units in what a function gives."""


class Place(NamedTuple):
    """Where in a network an activation is used; the same in all batches, validations and processes.

    Attributes:
        layer: the name of the layer, that of the module or ``"{module}.{function}"``.
        module: in whose forward it is used.
        after: the module that ran before it there.
        line: of code, which uses it.
    """

    layer: str
    module: str
    after: str
    line: str


class Activation(NamedTuple):
    """How often each unit was active, ``(U,)`` integers, in how many samples."""

    place: Place
    active: Tensor
    samples: int


def count_active(output: Tensor, unit: int) -> tuple[Tensor, int]:
    """How often each unit was not zero, and the number of samples.

    Args:
        output: of a layer.
        unit: the dimension of the units; all others are samples.

    Example:
        >>> count_active(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), -1)
        (tensor([0, 1]), 2)
    """
    # written as floats, comparison and sum take a fraction of the time of a boolean's; half ones cannot count
    active = torch.empty_like(output, dtype=torch.float32, requires_grad=False)
    torch.ne(output.detach(), 0, out=active)
    unit %= output.ndim
    if output.ndim > 1:
        active = active.sum(dim=[d for d in range(output.ndim) if d != unit])
    return active.long(), output.numel() // max(output.shape[unit], 1)


def is_activation(module: nn.Module, args: Any, output: Any) -> bool:
    """Whether a module, in which an activation function was called, is nothing but an activation."""
    bare = next(module.children(), None) is None and next(module.parameters(), None) is None
    if not bare or not args or not isinstance(output, Tensor):
        return False
    return output.is_nested or (isinstance(args[0], Tensor) and output.shape == args[0].shape)


def is_number(output: Any) -> bool:
    """Whether an output is a tensor of one number, such as a loss."""
    return isinstance(output, Tensor) and not output.is_nested and output.ndim == 0


def is_countable(output: Tensor) -> bool:
    """Whether a tensor is an ordinary one that holds numbers now."""
    if transforms_active() or torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined]
        return False
    plain = type(output) in (Tensor, nn.Parameter) and output.layout is torch.strided
    return output.is_nested or (plain and not output.is_meta and not output.is_quantized)
