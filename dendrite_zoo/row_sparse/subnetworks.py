"""Networks of which each context uses a part: which units, and what that part alone computes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dendrite_zoo._core.torch import is_mere_relu
from dendrite_zoo.functional.dendrites import Gate
from dendrite_zoo.row_sparse.groups import Groups, Parameters, Part, PartialLinear, Take, check_one_each, cut
from dendrite_zoo.row_sparse.segments import winning_activations
from dendrite_zoo.row_sparse.taken_rows import take_together


class ActiveUnits(NamedTuple):
    """The units of a layer that are active in a context, or in each of ``K``.

    Attributes:
        units: their indices in rising order, ``(k,)`` or ``(K, k)``.
        strength: the activations of their winning segments, shaped likewise; None in a layer without dendrites.
    """

    units: Tensor
    strength: Tensor | None

    def in_order(self, contexts: Tensor) -> "ActiveUnits":
        """The active units of these of the ``K`` contexts."""
        strength = None if self.strength is None else self.strength.index_select(0, contexts)
        return ActiveUnits(self.units.index_select(0, contexts), strength)


def num_active(density: float, units: int) -> int:
    """How many units of a layer are active, of which it is the share ``density``."""
    return max(1, round(density * units))


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
    units = strength.topk(num_active(density, strength.shape[-1])).indices.sort().values
    return ActiveUnits(units, strength.gather(-1, units))


class Subnetworks:
    """The parts of a network that the contexts of a batch use, cut out once for any number of such batches.

    What is computed with them has gradients as if the whole network had been called each time. They are of the
    parameters as they are now: after a step of an optimizer they are cut out anew.

    Args:
        layers: of the network, one after another.
        activations: between them.
        index: which context each row is in that will be given, ``(B,)``; or ``()`` where there is one for all.
        groups: of these rows; None where all are in one context.
        several: of how many networks they are; None for one.
    """

    def __init__(
        self,
        layers: Sequence[PartialLinear],
        activations: Iterable[Callable[[Tensor], Tensor]],
        index: Tensor,
        groups: Groups | None,
        several: int | None = None,
    ) -> None:
        self.layers, self.activations, self.index, self.groups = layers, list(activations), index, groups
        self.several = several

    def __call__(self, x: Tensor) -> Tensor:
        """Map rows ``(B, in_features)``, each in the context that it has had from the start.

        Of several networks the outputs are ``(several, B, out_features)``.
        """
        if self.index.ndim:
            check_one_each(self.index, x)
        if self.groups is not None:
            x = self.groups.sort(x)
        if self.several is not None:
            x = x.expand(self.several, -1, -1)
        for layer, activation in zip(self.layers, self.activations, strict=False):
            x = layer(x, relu=True) if is_mere_relu(activation) else activation(layer(x))
        x = self.layers[-1](x)
        return x if self.groups is None else self.groups.unsort(x, dim=-2)

    @property
    def are_parameters(self) -> bool:
        """Whether they need not be cut out anew after a step, for they are what an optimizer trains."""
        tensors = [tensor for layer in self.layers for tensor in (layer.weight, layer.bias) if tensor is not None]
        return all(tensor.is_leaf for tensor in tensors)

    def detach(self) -> "Subnetworks":
        """The same, through which gradients pass without reaching the parameters."""
        layers = [layer.detach() for layer in self.layers]
        return Subnetworks(layers, self.activations, self.index, self.groups, self.several)


@dataclass
class Chosen:
    """The parts of a network that the contexts of a batch use.

    Attributes:
        index: which context each row is in, ``(B,)``; or ``()`` where there is one for all.
        groups: of these rows; None where all are in one context.
        parts: of each layer.
    """

    index: Tensor
    groups: Groups | None
    parts: list[Part]


def cut_out(
    chosen: Sequence[Chosen | None],
    layers: Sequence[Sequence[Parameters]],
    activations: Iterable[Callable[[Tensor], Tensor]],
    take: Take = take_together,
) -> Subnetworks | None:
    """Cut parts out of a network, or of several of one form in the same contexts, which are then one product.

    Args:
        chosen: of each network; None where all of it is computed.
        layers: of each network.
        activations: of all of them.
        take: takes the rows out of the parameters.

    Returns:
        The parts; None where there are none, or where several networks have none that are alike.
    """
    known = [each for each in chosen if each is not None]
    if len(known) < len(chosen):
        return None
    index, groups = known[0].index, known[0].groups
    several = len(known) if len(known) > 1 else None
    if several and (groups is None or any(part.whole for each in known for part in each.parts)):
        return None
    return Subnetworks(cut([each.parts for each in known], layers, take), activations, index, groups, several)
