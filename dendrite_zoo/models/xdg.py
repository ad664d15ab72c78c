"""Context-dependent gating: the baseline that is given the task, and gates units at random."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.torch import off_meta
from dendrite_zoo.contexts import OneHotContext
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.models.classifier import TaskArguments, TaskClassifier
from dendrite_zoo.models.config import takes
from dendrite_zoo.row_sparse.groups import Groups, Part, can_group, check_one_each
from dendrite_zoo.row_sparse.parameter import make_partial

__all__ = ["XdGClassifier"]


@dataclass(kw_only=True)
class XdGArguments(TaskArguments):
    """The arguments of `XdGClassifier`."""

    gate_fraction: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gate_fraction < 1:
            raise wrong_argument("gate_fraction", "a share in [0, 1), such as 0.8", self.gate_fraction)
        if whole := [units for units in self.hidden_features if round(self.gate_fraction * units) == units]:
            smaller = f"smaller, for it turns all {whole[0]} units of a layer off"
            raise wrong_argument("gate_fraction", smaller, self.gate_fraction)


@register_model("xdg-classifier")
class XdGClassifier(TaskClassifier, HubModel, nn.Module):
    r"""A ReLU network whose hidden units are gated by the task: XdG (Masse, Grant and Freedman 2018).

    For each task a fixed random share of the units of each hidden layer is off: :math:`h = g_t \odot \max(0, W x + b)`.
    The task must be given, at test too. With `dendrite_zoo.callbacks.SynapticIntelligence` it is their best method.
    Products are computed for the units that are on alone; where `dendrite_zoo.optim.DendriteAdam` owns the parameters,
    gradients are sparse and hold that part alone.

    Args:
        in_features: size of an input row.
        hidden_features: units of each hidden layer.
        num_classes: size of the one output that all tasks share.
        max_tasks: how many tasks there is room for.
        gate_fraction: share of the units that is off, in [0, 1); 0 makes a plain MLP.

    Attributes:
        gates: for each hidden layer which units are on, ``(max_tasks, U)`` bool.

    Shape:
        x ``(B, ...)``, flattened to ``(B, in_features)``, to logits ``(B, num_classes)``.

    Raises:
        ValueError: an argument out of range; in the forward pass, no task.

    Example:
        >>> model = XdGClassifier(64, [50, 50], 10, max_tasks=5)
        >>> model(torch.rand(3, 64), task=4).shape
        torch.Size([3, 10])
        >>> model.gates[0].sum(dim=1)
        tensor([10, 10, 10, 10, 10])
    """

    @takes(XdGArguments)
    def __init__(self, config: XdGArguments) -> None:
        super().__init__()
        self.config = config.as_config()
        self.context = OneHotContext(config.max_tasks)
        sizes = [config.in_features, *config.hidden_features]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.activations = nn.ModuleList(nn.ReLU() for _ in self.hidden)
        self.output = nn.Linear(sizes[-1], config.num_classes)
        make_partial([*self.hidden, self.output], [True for _ in self.hidden] + [False])
        for number, units in enumerate(config.hidden_features):
            self.register_buffer(f"gate_{number}", _gate(config.max_tasks, units, config.gate_fraction))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "XdGClassifier":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name in off_meta(before, self):  # by `to_empty`: random memory
            gate = self.get_buffer(name)
            gate.copy_(_gate(gate.shape[0], gate.shape[1], self.config["gate_fraction"]))
        return self

    @property
    def gates(self) -> list[Tensor]:
        """For each hidden layer which units are on, ``(max_tasks, U)`` bool."""
        return [self.get_buffer(f"gate_{number}") for number in range(len(self.hidden))]

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Logits ``(B, num_classes)`` for ``x`` in a task, one or ``(B,)``."""
        x = self._rows(x)
        ids = self.context(x, task)
        self.context.warn_of_unlearned(task)
        if ids.ndim == 0 or len(x) == 0:
            return self._forward_in(x, ids.reshape(1) if ids.ndim == 0 else ids.new_zeros(1), None)
        check_one_each(ids, x)
        if not can_group(ids):
            return self._forward_masked(x, ids)
        used, index, sizes = ids.unique(return_inverse=True, return_counts=True)
        groups = Groups(index, sizes)
        return groups.unsort(self._forward_in(groups.sort(x), used[groups.groups], groups))

    def _forward_masked(self, x: Tensor, tasks: Tensor) -> Tensor:
        """Logits of rows in the tasks ``(B,)``: compute the whole, and take to zero what is off."""
        for layer, activation, gate in zip(self.hidden, self.activations, self.gates, strict=True):
            x = activation(layer(x) * F.embedding(tasks, gate.to(x.dtype)))
        return self.output(x)

    def _forward_in(self, x: Tensor, tasks: Tensor, groups: Groups | None) -> Tensor:
        """Logits of rows in one task ``(1,)``, or of sorted rows in groups of the tasks ``(K,)``."""
        columns: Tensor | None = None
        layers = cast("list[nn.Linear]", list(self.hidden))
        for layer, activation, gate in zip(layers, self.activations, self.gates, strict=True):
            units = gate.shape[1] - round(self.config["gate_fraction"] * gate.shape[1])
            rows = gate[tasks].float().topk(units).indices.sort().values
            drive = Part(layer.weight.shape, rows, columns, groups).of(layer.weight, layer.bias)(x)
            places = rows.expand(len(x), -1) if groups is None else rows[groups.index]
            whole = drive.new_zeros(len(x), gate.shape[1]).scatter(1, places, drive)  # for who watches the activation
            whole = activation(whole) if groups is None else groups.sort(activation(groups.unsort(whole)))
            x, columns = whole.gather(1, places), rows
        output = Part(self.output.weight.shape, None, columns, groups).of(self.output.weight, self.output.bias)
        return output(x)


def _gate(tasks: int, units: int, fraction: float) -> Tensor:
    """Which units of a layer are on in each task, ``(tasks, units)``."""
    on = torch.rand(tasks, units).topk(units - round(fraction * units), dim=1).indices
    return torch.zeros(tasks, units, dtype=torch.bool).scatter(1, on, True)
