"""Networks whose contexts are fixed need no dendrites: gates fold into the weights, or into one small table."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo.contexts import TaskContext
from dendrite_zoo.functional import active_layer_norm
from dendrite_zoo.layers import ActiveDendriteLinear
from dendrite_zoo.models.additive import Added, AdditiveSegments
from dendrite_zoo.row_sparse.activation_cache import Marks
from dendrite_zoo.row_sparse.subnetworks import ActiveUnits


def plain_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of these weights, with a bias or without, as a copy.

    Example:
        >>> plain_linear(torch.ones(2, 3), torch.ones(2))
        Linear(in_features=3, out_features=2, bias=True)
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def fold_one(
    hidden: Iterable[tuple[ActiveDendriteLinear, nn.Module, ActiveUnits]],
    output: nn.Linear,
    added: Added | None = None,
    *,
    layer_norm: bool,
) -> nn.Sequential:
    """Fold the gates of active units into their weights; other units are left out.

    Args:
        hidden: layers with active dendrites, the nonlinearity of each, and its active units in the one context.
        output: the output layer.
        added: what the context adds, or nothing.
        layer_norm: whether active units are normalised before the nonlinearity.
    """
    modules: list[nn.Module] = []
    inputs: Tensor | slice = slice(None)
    for number, (layer, activation, active) in enumerate(hidden):
        units, strength = active.units[0], None if active.strength is None else active.strength[0]
        weight, bias = layer.masked_weight()[units][:, inputs], cast(Tensor, layer.bias)[units]
        if strength is not None and layer.gate == "bias":
            bias = bias + strength
        elif strength is not None:
            gates = torch.sigmoid(strength)
            weight, bias = weight * gates.unsqueeze(-1), bias * gates
        modules.append(plain_linear(weight, bias if added is None else bias + added.units[number][0]))
        if layer_norm:
            modules.append(nn.LayerNorm(len(units), elementwise_affine=False))
        modules.append(copy.deepcopy(activation))
        inputs = units
    weight, last = output.weight[:, inputs], cast("Tensor | None", output.bias)
    if added is not None:
        weight, last = weight + added.weight[0], None if last is None or added.bias is None else last + added.bias[0]
    return nn.Sequential(*modules, plain_linear(weight, last))


class FoldedLayer(nn.Module):
    """A hidden layer in a fixed codebook of contexts: a plain layer, and a table of the gates of its units.

    Args:
        layer: a layer with active dendrites.
        activation: its nonlinearity.
        active: its active units in each context; the gates of the others are shut.
        layer_norm: whether active units are normalised before the nonlinearity.

    Attributes:
        gates: the factor, or with ``gate="bias"`` what is added, for each context and unit, ``(K, U)``; None in a layer
            without dendrites.
        active: with layer norm 1 where a unit is active in a context, else 0, ``(K, U)``.

    Shape:
        x ``(B, I)`` and index ``(B,)`` into the codebook to ``(B, U)``.
    """

    gates: Tensor | None
    active: Tensor | None

    def __init__(
        self, layer: ActiveDendriteLinear, activation: nn.Module, active: ActiveUnits, *, layer_norm: bool
    ) -> None:
        super().__init__()
        self.linear = plain_linear(layer.masked_weight(), cast(Tensor, layer.bias))
        self.activation = copy.deepcopy(activation)
        self.additive, self.layer_norm = layer.gate == "bias", layer_norm
        gates: Tensor | None = None
        if active.strength is not None:
            # which a ReLU turns to zero, as is all that is not active, and so does the norm
            shut = -torch.inf if self.additive and not layer_norm else 0.0
            gates = layer.weight.new_full((len(active.units), layer.out_features), shut)
            gates.scatter_(1, active.units, active.strength if self.additive else torch.sigmoid(active.strength))
        self.register_buffer("gates", gates)
        norm_over = torch.zeros_like(gates).scatter_(1, active.units, 1.0) if layer_norm and gates is not None else None
        self.register_buffer("active", norm_over)

    def forward(self, x: Tensor, index: Tensor, add: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Map ``x`` in the contexts ``index``, which ``add`` something to the units."""
        x = self.linear(x)
        if self.gates is not None:
            gates = F.embedding(index, self.gates)
            x = x + gates if self.additive else x * gates
        x = x if add is None else add(x)
        if self.layer_norm:
            x = active_layer_norm(x, None if self.active is None else F.embedding(index, self.active))
        return self.activation(x)


class FoldedMLP(nn.Module):
    """An `ActiveDendriteMLP` in a fixed codebook of contexts.

    ``model(x, index)`` with x ``(B, in_features)`` and index ``(B,)`` into the codebook gives ``(B, out_features)``.

    Args:
        hidden: the hidden layers.
        output: the output layer, of which there will be a copy.
        additive: what the contexts add, or nothing.
    """

    def __init__(
        self, hidden: Iterable[FoldedLayer], output: nn.Linear, additive: AdditiveSegments | None = None
    ) -> None:
        super().__init__()
        self.additive = additive
        self.hidden = nn.ModuleList(hidden)
        self.output = plain_linear(output.weight, output.bias)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Map ``x`` in the contexts ``index``."""
        added = None if self.additive is None else self.additive(index)
        for number, layer in enumerate(self.hidden):
            x = layer(x, index, None if added is None else partial(added.to_units, number))
        return self.output(x) if added is None else added.to_output(self.output(x), x)


class FoldedClassifier(nn.Module):
    """An `ActiveDendriteClassifier` without dendrites, which still finds the context of each row by itself.

    ``model(x)`` with x ``(B, ...)`` gives logits ``(B, num_classes)``.

    Args:
        context: infers contexts.
        network: folded in the context's codebook.
    """

    def __init__(self, context: TaskContext, network: FoldedMLP) -> None:
        super().__init__()
        self.context = copy.deepcopy(context)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits for ``x`` in its inferred contexts."""
        x = x.flatten(1)
        return self.network(x, self.context.infer(x))


class FoldedCache:
    """Folded networks, each made once, as long as the weights that they were made from stay what they are."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._folded: dict[int, nn.Sequential] = {}
        self._marks: Marks | None = None

    def get(self, network: nn.Module, task: int, fold: Callable[[], nn.Sequential]) -> nn.Sequential:
        """What ``fold`` makes of a network in a task; a network in training is folded each time."""
        if network.training or self._marks is None or not self._marks.hold_for(network):
            self._folded, self._marks = {}, Marks(network)
        if task not in self._folded:
            with torch.inference_mode(False):
                self._folded[task] = fold()
        return self._folded[task]
