"""k-winner-take-all as a pure tensor function (Iyer et al. 2022, eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["k_winners"]


def k_winners(x: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest of the last dimension, zero the rest (k-winner-take-all; Iyer et al. 2022, eq. 5).

    Exactly ``k`` pass, ties and negative values included; only they receive gradient.

    Shape:
        ``(..., U)`` to ``(..., U)``.

    Raises:
        ValueError: ``k`` is below 1 or larger than the layer.

    Example:
        >>> k_winners(torch.tensor([3.0, 1.0, 2.0, 3.0]), 2)
        tensor([3., 0., 0., 3.])
    """
    if not 1 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} winners were asked of a layer of {x.shape[-1]} units; choose 1 <= k <= {x.shape[-1]}.")
    values, index = _largest(x, k)
    return torch.zeros_like(x).scatter(-1, index, values)


def _largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest and where they are: in the ``k`` groups with the largest maxima, so few are looked through."""
    groups, rest = divmod(x.shape[-1], 4)
    if rest or 2 * k > groups or x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.topk(k, dim=-1, sorted=False)
    best = x.detach().unflatten(-1, (4, groups)).amax(-2).topk(k, dim=-1, sorted=False).indices
    candidates = (best.unsqueeze(-2) + groups * torch.arange(4).unsqueeze(-1)).flatten(-2)
    values, index = x.gather(-1, candidates).topk(k, dim=-1, sorted=False)
    return values, candidates.gather(-1, index)
