"""Multi-layer perceptrons with active dendrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from dendrite_zoo.functional import Context, Gate
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers import ActiveDendriteLinear, KWinners
from dendrite_zoo.layers.sparse import check_density, check_size, uniform_

__all__ = ["ActiveDendriteMLP"]


@register_model("active-dendrite-mlp")
class ActiveDendriteMLP(HubModel, nn.Module):
    """The paper's network: sparse layers with active dendrites and k-winner-take-all (Iyer et al. 2022, figure 4).

    The defaults are those of permuted MNIST. ``num_segments=0`` and ``activation="relu"`` take the dendrites and the
    k-winners away one at a time, as the paper's controls do; both with ``weight_density=1`` make a plain MLP.

    Args:
        in_features: size of an input row.
        hidden_features: units of each hidden layer.
        out_features: size of the output; its layer is dense, without dendrites.
        context_dim: size of the context.
        num_segments: segments a unit.
        gate: see `dendrite_zoo.layers.ActiveDendriteLinear`.
        activation: ``"k-winners"`` or ``"relu"``.
        activation_density: share of the units of a hidden layer that win.
        weight_density: share of inputs each hidden unit sees.
        segment_density: share of the context each segment sees.
        context_density: expected share of the context that is active, for the initialisation; 0.1 for prototypes, 1
            for one-hot.
        modulated: which hidden layers have dendrites, counted from 0; None for all.

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
        weight_density: float = 0.5,
        segment_density: float = 1.0,
        context_density: float = 0.1,
        modulated: Sequence[int] | None = None,
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
            "weight_density": weight_density,
            "segment_density": segment_density,
            "context_density": context_density,
            "modulated": None if modulated is None else list(modulated),
        }
        self.validate_config(self.config)
        layers, input_density = [], 1.0
        for number, units in enumerate(hidden_features):
            has_dendrites = modulated is None or number in modulated
            layer = ActiveDendriteLinear(
                in_features,
                units,
                context_dim=context_dim,
                num_segments=num_segments if has_dendrites else 0,
                gate=gate,
                weight_density=weight_density,
                segment_density=segment_density,
            )
            layer.reset_parameters(input_density=input_density, context_density=context_density)
            layers.append(layer)
            in_features, input_density = units, activation_density if activation == "k-winners" else 1.0
        self.hidden = nn.ModuleList(layers)
        self.activations = nn.ModuleList(
            KWinners(density=activation_density) if activation == "k-winners" else nn.ReLU() for _ in layers
        )
        self.output = nn.Linear(in_features, out_features)
        uniform_(self.output.weight, fan_in=input_density * in_features)

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Raise a ValueError for the first argument out of range; nothing is allocated."""
        hidden = config["hidden_features"]
        check_size(in_features=config["in_features"], out_features=config["out_features"])
        if not hidden:
            raise ValueError("hidden_features came empty; expected the units of at least one hidden layer.")
        for units in hidden:
            check_size(hidden_features=units)
        activation, modulated = config.get("activation", "k-winners"), config.get("modulated")
        if activation not in ("k-winners", "relu"):
            raise ValueError(f"activation={activation!r} came; expected 'k-winners' or 'relu'.")
        for name in ("activation_density", "weight_density", "segment_density", "context_density"):
            check_density(**{name: config.get(name, 1.0)})
        if modulated is not None and not set(modulated) <= set(range(len(hidden))):
            raise ValueError(f"modulated={list(modulated)} came; there are hidden layers 0 to {len(hidden) - 1}.")

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Map ``x`` ``(B, in_features)`` in a context to ``(B, out_features)``."""
        for layer, activation in zip(self.hidden, self.activations, strict=True):
            x = activation(layer(x, context))
        return self.output(x)
