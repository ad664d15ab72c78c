"""Networks whose contexts are fixed need no dendrites: gates fold into the weights, or into one small table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo.contexts import TaskContext
from dendrite_zoo.layers import ActiveDendriteLinear
from dendrite_zoo.row_sparse.activation_cache import stamp
from dendrite_zoo.row_sparse.subnetworks import ActiveUnits

__all__ = ["FoldedCache", "FoldedClassifier", "FoldedMLP", "GateTable", "fold_codebook", "fold_one", "plain_linear"]


def plain_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of these weights, as a copy.

    Example:
        >>> plain_linear(torch.ones(2, 3), None)
        Linear(in_features=3, out_features=2, bias=False)
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def fold_one(
    hidden: Iterable[ActiveDendriteLinear],
    activations: Iterable[nn.Module],
    output: nn.Linear,
    active: Iterable[ActiveUnits],
) -> nn.Sequential:
    """Fold the gates of active units into their weights; other units are left out.

    Args:
        hidden: layers with active dendrites.
        activations: the nonlinearity of each.
        output: the output layer.
        active: of each hidden layer, in the context to be folded.
    """
    modules: list[nn.Module] = []
    columns: Tensor | None = None
    for layer, activation, (units, strength) in zip(hidden, activations, active, strict=True):
        weight, bias = layer.weight[units], None if layer.bias is None else layer.bias[units]
        weight = weight if columns is None else weight[:, columns]
        if strength is not None and layer.gate == "bias":
            bias = strength if bias is None else bias + strength
        elif strength is not None:
            gates = torch.sigmoid(strength)
            weight, bias = weight * gates.unsqueeze(-1), None if bias is None else bias * gates
        modules += [plain_linear(weight, bias), copy.deepcopy(activation)]
        columns = units
    return nn.Sequential(*modules, plain_linear(output.weight[:, columns], output.bias))


def fold_codebook(
    hidden: Iterable[ActiveDendriteLinear],
    activations: Iterable[nn.Module],
    output: nn.Linear,
    active: Sequence[Sequence[ActiveUnits]],
) -> FoldedMLP:
    """Gather the gates of all units in a few contexts; a unit that is not active is shut.

    Args:
        hidden: layers with active dendrites.
        activations: the nonlinearity of each.
        output: the output layer.
        active: of each context, of each hidden layer.
    """
    layers: list[nn.Linear] = []
    tables: list[GateTable | None] = []
    for layer, in_contexts in zip(hidden, zip(*active, strict=True), strict=True):
        layers.append(plain_linear(layer.weight, layer.bias))
        if layer.segments is None:
            tables.append(None)
            continue
        additive = layer.gate == "bias"
        shut = -torch.inf if additive else 0.0  # which a ReLU turns to zero, as is everything that is not active
        table = layer.weight.new_full((len(in_contexts), layer.out_features), shut)
        for row, (units, strength) in zip(table, in_contexts, strict=True):
            row[units] = strength if additive else torch.sigmoid(strength)
        tables.append(GateTable(table, additive))
    return FoldedMLP(layers, tables, activations, plain_linear(output.weight, output.bias))


class GateTable(nn.Module):
    """The gates of a layer's units in each of a few contexts, looked up.

    Args:
        table: the factor, or what is added, for each context and unit.
        additive: which of the two.

    Shape:
        table ``(K, U)``; drive ``(B, U)`` and index ``(B,)`` to ``(B, U)``.

    Example:
        >>> GateTable(torch.tensor([[0.0, 1.0], [0.5, 0.5]]))(torch.ones(2, 2), torch.tensor([1, 0]))
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]])
    """

    table: Tensor

    def __init__(self, table: Tensor, additive: bool = False) -> None:
        super().__init__()
        self.additive = additive
        self.register_buffer("table", table.detach().clone())

    def forward(self, drive: Tensor, index: Tensor) -> Tensor:
        """Gate ``drive`` in the context of each row."""
        gates = F.embedding(index, self.table)
        return drive + gates if self.additive else drive * gates


class FoldedMLP(nn.Module):
    """An `ActiveDendriteMLP` in a fixed codebook of contexts: plain layers, and a table of gates for each.

    ``model(x, index)`` with x ``(B, in_features)`` and index ``(B,)`` into the codebook gives ``(B, out_features)``.

    Args:
        hidden: plain hidden layers.
        gates: the table of each, None for a layer without dendrites.
        activations: the nonlinearity of each.
        output: the output layer.
    """

    def __init__(
        self,
        hidden: Iterable[nn.Linear],
        gates: Iterable[GateTable | None],
        activations: Iterable[nn.Module],
        output: nn.Linear,
    ) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(hidden)
        self.gates = nn.ModuleList(nn.Identity() if gate is None else gate for gate in gates)
        self.activations = nn.ModuleList(copy.deepcopy(activation) for activation in activations)
        self.output = output

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Map ``x`` in the contexts ``index``."""
        for layer, gate, activation in zip(self.hidden, self.gates, self.activations, strict=True):
            drive = layer(x)
            x = activation(gate(drive, index) if isinstance(gate, GateTable) else drive)
        return self.output(x)


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

    SAMPLE = 16
    """Numbers of each parameter that are compared to notice a change: a fused optimizer, and who writes through
    ``.data``, leave no other trace."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._folded: dict[int, nn.Module] = {}
        self._stamps: list[Any] = []
        self._watched: list[Tensor] = []
        self._sample = torch.empty(0)

    def get(self, network: nn.Module, task: int, fold: Callable[[], nn.Module]) -> nn.Module:
        """What ``fold`` makes of a network in a task; a network in training is folded each time."""
        stamps = [stamp(parameter) for parameter in network.parameters()]
        if stamps != self._stamps or network.training or not torch.equal(torch.cat(self._watched), self._sample):
            flat = [parameter.detach().view(-1) for parameter in network.parameters()]
            self._watched = [weights[:: max(1, len(weights) // self.SAMPLE)] for weights in flat]
            self._folded, self._stamps, self._sample = {}, stamps, torch.cat(self._watched)
        if task not in self._folded:
            with torch.inference_mode(False):
                self._folded[task] = fold().requires_grad_(False)
        return self._folded[task]
