"""Context-dependent gating: the baseline that is told the task, and gates units at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from dendrite_zoo.contexts import OneHotContext
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers.sparse import check_size
from dendrite_zoo.layers.subnetwork import make_partial
from dendrite_zoo.row_sparse.subnetworks import in_groups, linear_part

__all__ = ["XdGClassifier"]


@register_model("xdg-classifier")
class XdGClassifier(HubModel, nn.Module):
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

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        num_classes: int,
        *,
        max_tasks: int,
        gate_fraction: float = 0.8,
    ) -> None:
        super().__init__()
        self.config = {
            "in_features": in_features,
            "hidden_features": list(hidden_features),
            "num_classes": num_classes,
            "max_tasks": max_tasks,
            "gate_fraction": gate_fraction,
        }
        self.validate_config(self.config)
        self.context = OneHotContext(max_tasks)
        sizes = [in_features, *hidden_features]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, sizes[1:], strict=False))
        self.activations = nn.ModuleList(nn.ReLU() for _ in hidden_features)
        self.output = nn.Linear(sizes[-1], num_classes)
        layers = cast("list[nn.Linear]", [*self.hidden, self.output])
        make_partial(layers, [layer is not self.output for layer in layers])
        for number, units in enumerate(hidden_features):
            on = torch.rand(max_tasks, units).topk(units - round(gate_fraction * units), dim=1).indices
            gate = torch.zeros(max_tasks, units, dtype=torch.bool).scatter(1, on, True)
            self.register_buffer(f"gate_{number}", gate)

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Raise a ValueError for the first argument out of range; nothing is allocated."""
        check_size(in_features=config["in_features"], num_classes=config["num_classes"], max_tasks=config["max_tasks"])
        if not config["hidden_features"]:
            raise ValueError("hidden_features came empty; expected the units of at least one hidden layer.")
        for units in config["hidden_features"]:
            check_size(hidden_features=units)
        gate_fraction = config.get("gate_fraction", 0.8)
        if not 0 <= gate_fraction < 1:
            raise ValueError(f"gate_fraction={gate_fraction!r} came; expected a share in [0, 1), such as 0.8.")
        for units in config["hidden_features"]:
            if round(gate_fraction * units) == units:
                raise ValueError(
                    f"gate_fraction={gate_fraction} would leave none of {units} units on; expected a smaller share."
                )

    @property
    def gates(self) -> list[Tensor]:
        """For each hidden layer which units are on, ``(max_tasks, U)`` bool."""
        return [self.get_buffer(f"gate_{number}") for number in range(len(self.hidden))]

    @property
    def num_tasks(self) -> int:
        """How many tasks were learned."""
        return self.context.num_tasks

    @property
    def max_tasks(self) -> int:
        """How many tasks there is room for."""
        return self.context.max_tasks

    @property
    def num_classes(self) -> int:
        """Size of the output."""
        return self.output.out_features

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Logits ``(B, num_classes)`` for ``x`` in a task, one or ``(B,)``."""
        x, ids = x.flatten(1), self.context(x, task)
        if ids.ndim == 0:
            return self._forward_in(x, int(ids))
        return in_groups(x, ids, self._forward_in)

    def _forward_in(self, x: Tensor, task: int) -> Tensor:
        columns: Tensor | None = None
        layers = cast("list[nn.Linear]", list(self.hidden))
        for layer, activation, gate in zip(layers, self.activations, self.gates, strict=True):
            rows = gate[task].nonzero().squeeze(1)
            drive = linear_part(x, layer.weight, layer.bias, rows, columns, None)
            whole = drive.new_zeros(len(x), gate.shape[1]).index_copy(1, rows, drive)  # for who watches the activation
            x, columns = activation(whole).index_select(1, rows), rows
        return linear_part(x, self.output.weight, self.output.bias, None, columns, None)
