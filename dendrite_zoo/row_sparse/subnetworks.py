"""Networks of which each context uses a part of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo.layers import ActiveDendriteLinear
from dendrite_zoo.layers.subnetwork import ActiveUnits, active_units
from dendrite_zoo.row_sparse.activation_cache import stamp

__all__ = ["Subnetworks", "in_groups"]


class Subnetworks:
    """Which units of each layer are active in a context: chosen once, as long as the segments stay what they are.

    Args:
        density: share of a layer's units that is active.
    """

    CAPACITY = 4096
    """Contexts remembered; on a CPU only, where looking one up is cheaper than choosing again."""

    def __init__(self, density: float) -> None:
        self.density = density
        self._known: dict[Any, list[ActiveUnits]] = {}
        self._stamps: list[Any] = []

    def __call__(self, layers: Iterable[ActiveDendriteLinear], context: Tensor) -> list[ActiveUnits]:
        """The active units of each layer in a context ``(C,)``, or in a one-hot one by its id ``()``."""
        layers, context = list(layers), context.detach()
        if context.device.type != "cpu" or torch.compiler.is_compiling():
            return [active_units(layer, context, self.density) for layer in layers]
        stamps = [stamp(layer.segments) for layer in layers if layer.segments is not None]
        if stamps != self._stamps or len(self._known) >= self.CAPACITY:
            self._known, self._stamps = {}, stamps
        key = context.dtype, context.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        if key not in self._known:
            with torch.inference_mode(False):  # they outlive the pass in which they are chosen
                self._known[key] = [active_units(layer, context.clone(), self.density) for layer in layers]
        return self._known[key]


def in_groups(x: Tensor, index: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a function to the rows of each group together, and put the results back in order.

    Args:
        x: the rows.
        index: which group each row belongs to.
        function: takes the rows of a group and its number.

    Shape:
        x ``(B, ...)``, index ``(B,)``; result ``(B, ...)``.

    Raises:
        ValueError: another number of rows than of groups.

    Example:
        >>> in_groups(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 0]), lambda x, group: x + 10 * group)
        tensor([ 1., 12.,  3.])
    """
    if len(index) != len(x):
        raise ValueError(f"{len(x)} rows came with {len(index)} contexts; expected one each, or one for all.")
    if len(x) == 0:
        return function(x, 0)
    order = index.argsort(stable=True)
    groups, counts = index.unique(return_counts=True)
    parts = x.index_select(0, order).split(counts.tolist())
    results = [function(part, group) for part, group in zip(parts, groups.tolist(), strict=True)]
    return torch.cat(results).index_select(0, order.argsort())
