"""Winners chosen by the context alone: a layer of which only the active units are computed."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo.layers.dendrites import ActiveDendriteLinear
from dendrite_zoo.row_sparse.parameter import RowParameter, take_rows
from dendrite_zoo.row_sparse.segments import winning_activations

__all__ = ["ActiveUnits", "active_units", "linear_part", "make_partial"]


class ActiveUnits(NamedTuple):
    """The units of a layer that are active in a context.

    Attributes:
        units: their numbers in rising order, ``(k,)``.
        strength: the activations of their winning segments, ``(k,)``; None in a layer without dendrites.
    """

    units: Tensor
    strength: Tensor | None


@torch.no_grad()
def active_units(layer: ActiveDendriteLinear, context: Tensor, density: float) -> ActiveUnits:
    """The units of a layer whose dendrites respond most to a context, the share ``density`` of them.

    A unit's response is the activation of its winning segment (`dendrite_zoo.functional.winning_activations`): the
    units whose gates are most open win. In a layer without dendrites all are active.

    Example:
        >>> layer = ActiveDendriteLinear(8, 100, context_dim=3, num_segments=5)
        >>> active_units(layer, torch.randn(3), density=0.05).units.shape
        torch.Size([5])
    """
    if layer.segments is None:
        return ActiveUnits(torch.arange(layer.out_features, device=layer.weight.device), None)
    strength = winning_activations(layer.segments, context, layer.gate, layer.segment_mask)
    units = strength.topk(max(1, round(density * len(strength)))).indices.sort().values
    return ActiveUnits(units, strength[units])


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
    part = take_rows(weight, ids, row_dims)
    if mask is not None:
        part = part * (mask.index_select(0, rows) if columns is None else mask.view(-1)[ids])
    return F.linear(x, part, None if bias is None else take_rows(bias, rows, 1))


def make_partial(layer: nn.Linear | ActiveDendriteLinear, all_inputs: bool, all_units: bool) -> None:
    """Let a layer's gradients be as sparse as the part that `linear_part` uses, where an optimizer wants that."""
    if all_inputs and all_units:
        return
    layer.weight = RowParameter(layer.weight.detach(), row_dims=1 if all_inputs else 2)
    if layer.bias is not None:
        layer.bias = RowParameter(layer.bias.detach(), row_dims=1)
