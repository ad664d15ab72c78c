"""How sparse a layer is: its activations, its weights, and how evenly its units are used."""

import math

import torch
from torch import Tensor

__all__ = ["activation_sparsity", "dead_units", "duty_cycle_entropy", "weight_sparsity"]


def activation_sparsity(activations: Tensor) -> Tensor:
    """Share of activations that are exactly zero.

    Args:
        activations: what a layer gave, of any shape.

    Shape:
        ``activations``: ``(*)``; result: ``()``, between 0 and 1.

    Example:
        >>> activation_sparsity(torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
        tensor(0.7500)
    """
    return 1 - activations.count_nonzero() / activations.numel()


def dead_units(counts: Tensor) -> Tensor:
    """Share of units that were never active.

    Args:
        counts: how often each unit was active (not zero).

    Shape:
        ``counts``: ``(..., U)``; result: ``(...)``, between 0 and 1.

    Example:
        >>> dead_units(torch.tensor([3, 0, 1, 4]))
        tensor(0.2500)
    """
    return (counts == 0).to(torch.get_default_dtype()).mean(-1)


def duty_cycle_entropy(counts: Tensor, total: int | Tensor) -> Tensor:
    r"""Mean binary entropy of the units' duty cycles, in bits.

    A unit's duty cycle is the share ``p = counts / total`` of samples on which it is active;
    :math:`H(p) = -p \log_2 p - (1 - p) \log_2 (1 - p)`. A unit that is always or never active says nothing
    and adds 0. A layer that keeps a share ``d`` of its units active reaches its maximum ``H(d)`` when all
    units are used equally often (0.286 bits at ``d = 0.05``). Source: Cui, Ahmad & Hawkins 2017, "The HTM
    Spatial Pooler", section "Entropy"; the mean over units instead of their sum.

    Args:
        counts: how often each unit was active.
        total: how many samples were seen, for all units together or for each.

    Shape:
        ``counts``: ``(..., U)``; ``total``: ``()`` or ``(..., U)``; result: ``(...)``, between 0 and 1; NaN
        without samples.

    Example:
        >>> duty_cycle_entropy(torch.tensor([5, 5, 0, 10]), total=10)
        tensor(0.5000)
    """
    p = counts / torch.as_tensor(total, device=counts.device)
    return (torch.special.entr(p) + torch.special.entr(1 - p)).mean(-1) / math.log(2)


def weight_sparsity(weight: Tensor) -> Tensor:
    """Share of weights that are exactly zero.

    Args:
        weight: a parameter of any shape.

    Shape:
        ``weight``: ``(*)``; result: ``()``, between 0 and 1.

    Example:
        >>> weight_sparsity(torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
        tensor(0.7500)
    """
    return activation_sparsity(weight.detach())
