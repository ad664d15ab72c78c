"""Networks of which each context uses a part: which units, and the products of that part alone."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo.functional.dendrites import Gate
from dendrite_zoo.row_sparse.parameter import take_rows
from dendrite_zoo.row_sparse.segments import winning_activations


class ActiveUnits(NamedTuple):
    """The units of a layer that are active in a context, or in each of ``K``.

    Attributes:
        units: their indices in rising order, ``(k,)`` or ``(K, k)``.
        strength: the activations of their winning segments, shaped likewise; None in a layer without dendrites.
    """

    units: Tensor
    strength: Tensor | None


@torch.no_grad()
def active_units(
    segments: Tensor, context: Tensor, density: float, gate: Gate = "abs_max", mask: Tensor | None = None
) -> ActiveUnits:
    """The units whose dendrites respond most to a context, the share ``density`` of them; of several in one product.

    A unit's response is the activation of its winning segment (`dendrite_zoo.functional.winning_activations`): the
    units whose gates are most open win.

    Shape:
        segments and mask ``(U, S, C)``; context ``(C,)``, or the id ``()`` of a one-hot one, to ``(k,)``; contexts
        ``(K, C)``, or ids ``(K,)``, to ``(K, k)``.

    Example:
        >>> segments = torch.tensor([[[3.0]], [[1.0]], [[2.0]]])
        >>> active_units(segments, torch.tensor([1.0]), density=0.67)
        ActiveUnits(units=tensor([0, 2]), strength=tensor([3., 2.]))
    """
    strength = winning_activations(segments, context, gate, mask)
    units = strength.topk(max(1, round(density * strength.shape[-1]))).indices.sort().values
    return ActiveUnits(units, strength.gather(-1, units))


def linear_part(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor | None, columns: Tensor | None, mask: Tensor | None
) -> Tensor:
    """A linear layer of which only some units and inputs are there; None for all of them.

    Cost follows the size of the part, as do sparse gradients where an optimizer owns ``weight`` and ``bias``
    (`dendrite_zoo.row_sparse.parameter`).

    Shape:
        x ``(..., columns)`` to ``(..., rows)``; weight and mask ``(U, I)``, bias ``(U,)``.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> linear_part(torch.ones(1), weight, None, torch.tensor([0, 1]), torch.tensor([1]), None)
        tensor([2., 4.])
    """
    if rows is None and columns is None:
        return F.linear(x, weight if mask is None else weight * mask, bias)
    if rows is None:
        rows = torch.arange(len(weight), device=weight.device)
    ids, row_dims = (rows, 1) if columns is None else (rows.unsqueeze(-1) * weight.shape[1] + columns, 2)
    return F.linear(x, take_rows(weight, ids, row_dims, mask), None if bias is None else take_rows(bias, rows, 1))
