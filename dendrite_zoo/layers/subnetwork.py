"""Layers of which each context uses a part: the arithmetic over tensors stands in `dendrite_zoo.row_sparse`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dendrite_zoo.layers.dendrites import ActiveDendriteLinear
from dendrite_zoo.row_sparse import subnetworks
from dendrite_zoo.row_sparse.parameter import RowParameter
from dendrite_zoo.row_sparse.subnetworks import ActiveUnits

__all__ = ["ActiveUnits", "active_units", "make_partial"]


def active_units(layer: ActiveDendriteLinear, context: Tensor, density: float) -> ActiveUnits:
    """The units of a layer whose dendrites respond most to a context; in a layer without dendrites all of them.

    Example:
        >>> layer = ActiveDendriteLinear(8, 100, context_dim=3, num_segments=5)
        >>> active_units(layer, torch.randn(3), density=0.05).units.shape
        torch.Size([5])
    """
    if layer.segments is None:
        return ActiveUnits(torch.arange(layer.out_features, device=layer.weight.device), None)
    return subnetworks.active_units(layer.segments, context, density, layer.gate, layer.segment_mask)


def make_partial(layers: Sequence[nn.Linear | ActiveDendriteLinear], chosen: Sequence[bool]) -> None:
    """Let gradients be as sparse as the part that a context uses, where an optimizer wants that.

    Args:
        layers: one after another; the inputs of each are the units of the one before.
        chosen: of each layer, whether a context chooses among its units.
    """
    for layer, units, inputs in zip(layers, chosen, [False, *chosen], strict=False):
        if units or inputs:
            layer.weight = RowParameter(layer.weight.detach(), row_dims=2 if inputs else 1)
            if layer.bias is not None:
                layer.bias = RowParameter(layer.bias.detach(), row_dims=1)
