"""How a file holds the tables of a backbone with dendrites: in as few bits as they need."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

WHITENING = "context.inner.whitening"
"""Lower triangles, ``(T, N, N)``, of which a file has ``(T, N (N + 1) / 2)``."""

LEAST = 1024  # numbers, of a table that is worth it
NORMALISERS = "centre", "mean", "scale"  # in units of what a network gives: beside a deviation half of a mean is coarse
ROUNDED = 1e-3  # of the length of a table, by which it is changed at most


def is_large(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is a table of heads or of a context, which are float32 in a model of any precision."""
    return name.startswith(("heads.", "context.")) and tensor.dtype == torch.float32 and tensor.numel() >= LEAST


def rounded(name: str, tensor: Tensor) -> Tensor:
    """A table in float16 numbers, where these are near to it: nothing is too large for them, or too small."""
    if not is_large(name, tensor) or name.rpartition(".")[2] in NORMALISERS:
        return tensor
    half = tensor.half().to(tensor)
    return half if bool((half - tensor).norm() <= ROUNDED * tensor.norm()) else tensor


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file: tables that are float16 numbers as float16, triangles without what is zero."""
    made = {name: _fewer_bits(x) if is_large(name, x) else x for name, x in state.items()}
    if WHITENING in made:
        own = made[WHITENING]
        row, column = torch.tril_indices(own.shape[1], own.shape[1], device=own.device)
        made[WHITENING] = own[:, row, column]
    return made


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, equal to the bit; those of an earlier file, which are whole, stay."""
    made = {name: x.float() if _was_packed(name, x) else x for name, x in state.items()}
    own = made.get(WHITENING)
    if own is not None and own.ndim == 2:
        side = (math.isqrt(8 * own.shape[1] + 1) - 1) // 2
        row, column = torch.tril_indices(side, side)
        if len(row) == own.shape[1]:
            made[WHITENING] = own.new_zeros(len(own), side, side)
            made[WHITENING][:, row, column] = own
    return made


def _fewer_bits(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _was_packed(name: str, tensor: Tensor) -> bool:
    return name.startswith(("heads.", "context.")) and tensor.dtype == torch.float16
