"""Multi-layer perceptrons with active dendrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dendrite_zoo.functional import Context, Gate, apply_gate, distinct_contexts
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers import ActiveDendriteLinear, KWinners
from dendrite_zoo.layers.sparse import check_density, check_size, uniform_
from dendrite_zoo.layers.subnetwork import ActiveUnits, active_units, make_partial
from dendrite_zoo.models.folded import FoldedMLP, fold_codebook, fold_one
from dendrite_zoo.row_sparse.subnetworks import ContextCache, in_groups, linear_part

__all__ = ["ActiveDendriteMLP"]


@register_model("active-dendrite-mlp")
class ActiveDendriteMLP(HubModel, nn.Module):
    """The paper's network: sparse layers with active dendrites and k-winner-take-all (Iyer et al. 2022, figure 4).

    The defaults are those of permuted MNIST. ``num_segments=0`` and ``activation="relu"`` take the dendrites and the
    k-winners away one at a time, as the paper's controls do; both with ``weight_density=1`` make a plain MLP.

    With ``winners="context"`` the dendrites choose a layer's winners before any input is seen: the units that respond
    most to the context are active, pass through their gate and a ReLU, and nothing else is computed; cost follows the
    number of active units, not the width. Segments stay as they were drawn. Rows of a batch in several contexts are
    grouped. Each task has its part of the network (`active_units`, `active_parameters`); gradients outside are zero,
    and where `dendrite_zoo.optim.DendriteAdam` owns the parameters, they are sparse and hold that part alone.

    Args:
        in_features: size of an input row.
        hidden_features: units of each hidden layer.
        out_features: size of the output; its layer is dense, without dendrites.
        context_dim: size of the context.
        num_segments: segments a unit.
        gate: see `dendrite_zoo.layers.ActiveDendriteLinear`.
        activation: ``"k-winners"`` or ``"relu"``.
        activation_density: share of the units of a hidden layer that win.
        winners: what the winners of a hidden layer are chosen by: ``"activation"``, of each input anew (the paper's
            k-winners), or ``"context"`` (see below).
        weight_density: share of inputs each hidden unit sees.
        segment_density: share of the context each segment sees.
        context_density: expected share of the context that is active, for the initialisation; 0.1 for prototypes, 1
            for one-hot.
        input_density: share of the inputs of hidden layers (but the first) and output that is active, for the
            initialisation; None for ``activation_density`` with k-winners, else 1.
        dendrite_layers: which hidden layers have dendrites, counted from 0; None for all.

    Shape:
        x ``(B, in_features)`` and a context of any form of `dendrite_zoo.functional` to ``(B, out_features)``.

    Raises:
        ValueError: a size, density or layer number out of range.

    Example:
        >>> model = ActiveDendriteMLP(64, [128, 128], 10, context_dim=5, num_segments=5)
        >>> model(torch.randn(3, 64), torch.tensor(2)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        *,
        context_dim: int,
        num_segments: int,
        gate: Gate = "abs_max",
        activation: Literal["k-winners", "relu"] = "k-winners",
        activation_density: float = 0.05,
        winners: Literal["activation", "context"] = "activation",
        weight_density: float = 0.5,
        segment_density: float = 1.0,
        context_density: float = 0.1,
        input_density: float | None = None,
        dendrite_layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "in_features": in_features,
            "hidden_features": list(hidden_features),
            "out_features": out_features,
            "context_dim": context_dim,
            "num_segments": num_segments,
            "gate": gate,
            "activation": activation,
            "activation_density": activation_density,
            "winners": winners,
            "weight_density": weight_density,
            "segment_density": segment_density,
            "context_density": context_density,
            "input_density": input_density,
            "dendrite_layers": None if dendrite_layers is None else list(dendrite_layers),
        }
        self.validate_config(self.config)
        if input_density is None:
            input_density = activation_density if activation == "k-winners" else 1.0
        layers, active_inputs = [], 1.0
        for number, units in enumerate(hidden_features):
            has_dendrites = dendrite_layers is None or number in dendrite_layers
            layer = ActiveDendriteLinear(
                in_features,
                units,
                context_dim=context_dim,
                num_segments=num_segments if has_dendrites else 0,
                gate=gate,
                weight_density=weight_density,
                segment_density=segment_density,
            )
            layer.reset_parameters(input_density=active_inputs, context_density=context_density)
            layers.append(layer)
            in_features, active_inputs = units, input_density
        self.hidden = nn.ModuleList(layers)
        paper = activation == "k-winners" and winners == "activation"
        self.activations = nn.ModuleList(KWinners(density=activation_density) if paper else nn.ReLU() for _ in layers)
        self.output = nn.Linear(in_features, out_features)
        uniform_(self.output.weight, fan_in=input_density * in_features)
        self._subnetworks: ContextCache[list[ActiveUnits]] | None = ContextCache() if winners == "context" else None
        if winners == "context":
            make_partial([*layers, self.output], [layer.segments is not None for layer in layers] + [False])
            for layer in layers:
                if layer.segments is not None:
                    layer.segments.requires_grad_(False)

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Raise a ValueError for the first argument out of range; nothing is allocated."""
        hidden = config["hidden_features"]
        check_size(in_features=config["in_features"], out_features=config["out_features"])
        if not hidden:
            raise ValueError("hidden_features came empty; expected the units of at least one hidden layer.")
        for units in hidden:
            check_size(hidden_features=units)
        activation, dendrite_layers = config.get("activation", "k-winners"), config.get("dendrite_layers")
        if activation not in ("k-winners", "relu"):
            raise ValueError(f"activation={activation!r} came; expected 'k-winners' or 'relu'.")
        winners = config.get("winners", "activation")
        if winners not in ("activation", "context"):
            raise ValueError(f"winners={winners!r} came; expected 'activation' or 'context'.")
        if winners == "context" and (activation != "k-winners" or config["num_segments"] == 0):
            raise ValueError(
                f"winners='context' came with activation={activation!r} and num_segments={config['num_segments']}; "
                "expected 'k-winners', and segments by which units compete. Leave winners= out for a network without."
            )
        for name in ("activation_density", "weight_density", "segment_density", "context_density"):
            check_density(**{name: config.get(name, 1.0)})
        if config.get("input_density") is not None:
            check_density(input_density=config["input_density"])
        if dendrite_layers is not None and not set(dendrite_layers) <= set(range(len(hidden))):
            raise ValueError(
                f"dendrite_layers={list(dendrite_layers)} came; there are hidden layers 0 to {len(hidden) - 1}."
            )

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Map ``x`` ``(B, in_features)`` in a context to ``(B, out_features)``."""
        if self._subnetworks is not None:
            return self._forward_parts(x, context)
        for layer, activation in zip(self.hidden, self.activations, strict=True):
            x = activation(layer(x, context))
        return self.output(x)

    def active_units(self, context: Tensor) -> list[Tensor]:
        """The units of each hidden layer that are active in a context ``(C,)`` or ``()``, in rising order.

        Raises:
            ValueError: the winners are chosen by activation: any unit may be active.

        Example:
            >>> model = ActiveDendriteMLP(8, [40, 40], 2, context_dim=3, num_segments=5, winners="context")
            >>> [units.shape for units in model.active_units(torch.tensor(0))]
            [torch.Size([2]), torch.Size([2])]
        """
        if self._subnetworks is None:
            raise ValueError(
                "A model with winners='activation' was asked for its active units; expected winners='context': here "
                "each input chooses its own. `dendrite_zoo.callbacks.SubnetworkLogger` tells which it chose."
            )
        return [active.units for active in self._active(context)]

    def active_parameters(self, context: Tensor) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """The part of each parameter that a context uses, as an index: ``parameter[index]``.

        A parameter of which all is used is not named. The values of a sparse gradient are those of ``gradient[index]``,
        in order.
        """
        parts: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
        columns: Tensor | None = None
        for number, (layer, rows) in enumerate(zip(self._layers, self.active_units(context), strict=True)):
            if layer.segments is not None or columns is not None:
                parts[f"hidden.{number}.weight"] = rows if columns is None else (rows.unsqueeze(-1), columns)
                parts[f"hidden.{number}.bias"] = rows
            columns = rows if layer.segments is not None else None
        if columns is not None:
            parts["output.weight"] = (torch.arange(self.output.out_features, device=columns.device)[:, None], columns)
        return parts

    @torch.no_grad()
    def fold(self, context: Tensor) -> nn.Sequential | FoldedMLP:
        """A plain network without dendrites that computes the same in a fixed context, or in a few of them.

        Args:
            context: one context ``(C,)``, or the id ``()`` of a one-hot one: gates fold into the weights, and the
                result maps ``x``; where winners are chosen by the context, it has the active units alone. Or a codebook
                ``(K, C)``, or ids ``(K,)``: the result has a table of gates, and maps ``(x, index)``.

        Example:
            >>> model = ActiveDendriteMLP(8, [20], 2, context_dim=3, num_segments=5)
            >>> model.fold(torch.tensor(0))
            Sequential(
              (0): Linear(in_features=8, out_features=20, bias=True)
              (1): KWinners(density=0.05)
              (2): Linear(in_features=20, out_features=2, bias=True)
            )
            >>> model.fold(torch.arange(3))(torch.randn(2, 8), torch.tensor([1, 1])).shape
            torch.Size([2, 2])
        """
        layers = self._layers, self.activations, self.output
        if context.ndim == (1 if context.is_floating_point() else 0):
            return fold_one(*layers, self._active(context))
        return fold_codebook(*layers, [self._active(one) for one in context])

    @property
    def _layers(self) -> list[ActiveDendriteLinear]:
        return cast("list[ActiveDendriteLinear]", list(self.hidden))

    def _active(self, context: Tensor) -> list[ActiveUnits]:
        if self._subnetworks is None:
            return [active_units(layer, context, density=1.0) for layer in self._layers]
        density: float = self.config["activation_density"]
        segments = [layer.segments for layer in self._layers if layer.segments is not None]
        return self._subnetworks(
            context, segments, lambda context: [active_units(layer, context, density) for layer in self._layers]
        )

    def _forward_parts(self, x: Tensor, context: Context | None) -> Tensor:
        if context is None:
            raise TypeError("A model with winners='context' was called without one; expected model(x, context).")
        if len(x) == 0:
            return self.output(x.new_zeros(*x.shape[:-1], self.output.in_features))
        contexts, index = distinct_contexts(context, self.config["context_dim"])
        if index is not None and index.ndim == 0:
            return self._forward_part(x, contexts[0])
        index = torch.arange(len(contexts), device=x.device) if index is None else index
        return in_groups(x, index, lambda rows, group: self._forward_part(rows, contexts[group]))

    def _forward_part(self, x: Tensor, context: Tensor) -> Tensor:
        columns: Tensor | None = None
        for layer, activation, (units, strength) in zip(
            self._layers, self.activations, self._active(context), strict=True
        ):
            rows = None if strength is None else units
            x = linear_part(x, layer.weight, layer.bias, rows, columns, layer.mask)
            x = activation(x if strength is None else apply_gate(x, strength, layer.gate))
            columns = rows
        return linear_part(x, self.output.weight, self.output.bias, None, columns, None)
