"""Additive segments: what a context adds of its own, beside the gates that it sets."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo.functional import Context, distinct_contexts

__all__ = ["AdditiveSegments"]


class Added(NamedTuple):
    """What contexts add to a network.

    Attributes:
        place: of the context of each row ``(B,)``; ``()`` where all are in one; None where each has its own, ``K = B``.
        units: of each hidden layer, ``(K, U)``.
        weight: of the output layer, ``(K, O, I)``.
        bias: of the output layer, ``(K, O)``; or None.
    """

    place: Tensor | None
    units: list[Tensor]
    weight: Tensor
    bias: Tensor | None

    def to_units(self, layer: int, y: Tensor) -> Tensor:
        """The units ``(B, ..., U)`` of a hidden layer, with what is added."""
        rows = self.units[layer] if self.place is None else F.embedding(self.place, self.units[layer])
        return y + (_by_row(rows, y) if rows.ndim == 2 else rows)

    def to_output(self, y: Tensor, x: Tensor) -> Tensor:
        """The output ``(B, ..., O)`` of a layer whose inputs are ``(B, ..., I)``, with what is added."""
        if self.place is None:
            added = torch.einsum("b...i,boi->b...o", x, self.weight)
            return y + (added if self.bias is None else added + _by_row(self.bias, y))
        biases = [None] * len(self.weight) if self.bias is None else self.bias
        # A product for each: that of all at once is rounded otherwise where there are more contexts.
        of_all = [F.linear(x, weight, bias) for weight, bias in zip(self.weight, biases, strict=True)]
        if len(of_all) == 1:
            return y + of_all[0]
        ids = self.place.view(len(self.place), *[1] * y.ndim).expand(*y.shape[:-1], 1, y.shape[-1])
        return y + torch.stack(of_all, dim=-2).gather(-2, ids).squeeze(-2)


class AdditiveSegments(nn.Module):
    r"""What contexts add to each unit of the hidden layers, and to each weight and bias of the output layer.

    A gate opens and shuts what was trained, in other tasks, too. An additive segment :math:`v` is linear in the context
    :math:`c`: :math:`y = (w \cdot x + b) \cdot \sigma(u_{s^*} \cdot c) + v \cdot c`; with the gate this is feature-wise
    linear modulation (Perez et al. 2018). So are those of the output layer, of which a task with a one-hot context thus
    has one of its own. All begin at 0: then, and in tasks that were learned without them, the network computes what it
    does without them, to the bit.

    Args:
        hidden: units of each hidden layer, ``U``.
        out_features: size of the output, ``O``.
        context_dim: size of the context, ``C``.
        bias: whether the output layer has a bias.

    Shape:
        ``units``, of each hidden layer ``(U, C)``; ``weight`` ``(O, I, C)``; ``bias`` ``(O, C)``.

    Example:
        >>> additive = AdditiveSegments([4, 6], 2, context_dim=3)
        >>> added = additive(torch.tensor([0, 2, 2]))
        >>> added.to_units(1, torch.ones(3, 6)).shape, added.to_output(torch.ones(3, 2), torch.ones(3, 6)).shape
        (torch.Size([3, 6]), torch.Size([3, 2]))
    """

    bias: Tensor | None

    def __init__(self, hidden: Sequence[int], out_features: int, context_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.units = nn.ParameterList(torch.zeros(units, context_dim) for units in hidden)
        self.weight = nn.Parameter(torch.zeros(out_features, hidden[-1], context_dim))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features, context_dim)) if bias else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Let them add nothing."""
        for parameter in self.parameters():
            parameter.zero_()

    def forward(self, context: Context | None) -> Added:
        """What a context of any form of `dendrite_zoo.functional` adds."""
        if context is None:
            raise TypeError("Expected a context, which has additive segments, but got None. Call model(x, context).")
        contexts, index = distinct_contexts(context, self.context_dim, self.weight.device)
        units = [_columns(each, contexts).T for each in self.units]
        bias = None if self.bias is None else _columns(self.bias, contexts).T
        place = None if index is None else index.to(self.weight.device)
        return Added(place, units, _columns(self.weight, contexts).movedim(-1, 0), bias)

    @torch.no_grad()
    def of(self, contexts: Tensor) -> "AdditiveSegments":
        """A copy for a few contexts ``(K, C)``, or ids ``(K,)``, of which their numbers from 0 are the ids."""
        few = copy.deepcopy(self)
        few.context_dim = len(contexts)
        for parameter in few.parameters():
            parameter.data = _columns(parameter, contexts).clone()
        return few


def _by_row(rows: Tensor, y: Tensor) -> Tensor:
    """``(B, U)`` as what may be added to ``(B, ..., U)``."""
    return rows.view(len(rows), *[1] * (y.ndim - 2), y.shape[-1])


def _columns(numbers: Tensor, contexts: Tensor) -> Tensor:
    """Of ``(..., C)`` the columns of one-hot contexts ``(K,)``, or the sums by contexts ``(K, C)``: ``(..., K)``."""
    if contexts.is_floating_point():
        return numbers @ contexts.to(numbers.dtype).T
    return numbers.index_select(-1, contexts)
