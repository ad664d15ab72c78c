"""Multi-layer perceptrons with active dendrites."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.torch import full_precision, is_mixed_precision
from dendrite_zoo.functional import Context, active_layer_norm, apply_gate, distinct_contexts
from dendrite_zoo.hub import register_model
from dendrite_zoo.layers import ActiveDendriteLinear, KWinners
from dendrite_zoo.layers.sparse import uniform_
from dendrite_zoo.models.additive import AdditiveSegments
from dendrite_zoo.models.config import MLPArguments, takes
from dendrite_zoo.models.folded import FoldedLayer, FoldedMLP, fold_one
from dendrite_zoo.models.segments import STATE_FOLLOWS, DendriteModel, drawn_segments
from dendrite_zoo.row_sparse.context_cache import ContextCache, LastBatch
from dendrite_zoo.row_sparse.groups import Groups, Parameters, Part, Take, can_group, check_one_each
from dendrite_zoo.row_sparse.parameter import make_partial
from dendrite_zoo.row_sparse.subnetworks import ActiveUnits, Chosen, Subnetworks, active_units, cut_out
from dendrite_zoo.row_sparse.taken_rows import take_together

__all__ = ["ActiveDendriteMLP"]


@register_model("active-dendrite-mlp")
class ActiveDendriteMLP(DendriteModel):
    """The paper's network: sparse layers with active dendrites and k-winner-take-all (Iyer et al. 2022, figure 4).

    The defaults are those of permuted MNIST. ``num_segments=0`` and ``activation="relu"`` take the dendrites and the
    k-winners away one at a time, as the paper's controls do; both with ``weight_density=1`` make a plain MLP.
    Under autocast layers whose units compete are computed in float32: rounded, other units would win.

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
        context_density: expected share of the context that is active, for the initialisation; 0.1 for prototypes, 1
            for one-hot.

    All options of `dendrite_zoo.models.MLPConfig` are arguments, too.

    Shape:
        x ``(B, in_features)`` and a context of any form of `dendrite_zoo.functional` to ``(B, out_features)``.

    Raises:
        ValueError: a size, density or layer number out of range.

    Example:
        >>> model = ActiveDendriteMLP(64, [128, 128], 10, context_dim=5, num_segments=5)
        >>> model(torch.randn(3, 64), torch.tensor(2)).shape
        torch.Size([3, 10])
    """

    @takes(MLPArguments)
    def __init__(self, config: MLPArguments) -> None:
        super().__init__(config)
        sizes = [config.in_features, *config.hidden_features]
        self.hidden = nn.ModuleList(self._hidden_layer(config, n, *pair) for n, pair in enumerate(pairwise(sizes)))
        paper, density = config.activation == "k-winners" and config.winners == "activation", config.activation_density
        self.activations = nn.ModuleList(KWinners(density=density) if paper else nn.ReLU() for _ in self.hidden)
        self.output = nn.Linear(sizes[-1], config.out_features, bias=config.output_bias)
        uniform_(self.output.weight, fan_in=config.active_inputs * sizes[-1] / config.output_scale**2)
        form = config.hidden_features, config.out_features, config.context_dim, config.output_bias
        self.additive = AdditiveSegments(*form) if config.additive_segments else None
        self._chosen: ContextCache | None = None
        if config.winners == "context":
            self._chosen, self._last_batch = ContextCache(), LastBatch()
            self._fix_segments(config)

    @staticmethod
    def _hidden_layer(config: MLPArguments, number: int, in_features: int, units: int) -> ActiveDendriteLinear:
        has_dendrites = config.dendrite_layers is None or number in config.dendrite_layers
        layer = ActiveDendriteLinear(
            in_features,
            units,
            context_dim=config.context_dim,
            num_segments=config.num_segments if has_dendrites else 0,
            gate=config.gate,
            weight_density=config.weight_density,
            segment_density=config.segment_density,
        )
        active = config.active_inputs if number else 1.0
        layer.reset_parameters(input_density=active, context_density=config.context_density)
        return layer

    @torch.no_grad()
    def _fix_segments(self, config: MLPArguments) -> None:
        """Set the segments to what the seed gives, for good; each context has its part of the other weights."""
        bound = 1 / math.sqrt(config.context_density * config.segment_density * config.context_dim)
        self.segment_draws: dict[str, tuple[Any, ...]] = {}  # name of a layer to the arguments of `draw_segments`
        for number, layer in enumerate(self.layers):
            if layer.segments is not None:
                layer.segments.requires_grad_(False)
                self.segment_draws[f"hidden.{number}"] = config.segment_seed, number, layer.segments.shape, bound
        make_partial([*self.layers, self.output], [layer.segments is not None for layer in self.layers] + [False])
        if not (self.output.weight.is_meta or STATE_FOLLOWS.get()):
            for name, drawn in drawn_segments(self, self.state_dict()):
                self.get_parameter(name).copy_(drawn)

    def forward(self, x: Tensor, context: Context | Subnetworks | None = None) -> Tensor:
        """Map ``x`` ``(B, in_features)`` in a context, or in `subnetworks` of one, to ``(B, out_features)``."""
        if self._chosen is not None:
            return self._forward_parts(x, context)
        in_full = self.config["activation"] == "k-winners" and is_mixed_precision(x.device)
        with full_precision(x.device) if in_full else nullcontext():
            added = None if self.additive is None else self.additive(cast("Context | None", context))
            x = x.to(self.output.weight.dtype) if in_full else x
            for number, (layer, nonlinearity) in enumerate(zip(self.hidden, self.nonlinearities, strict=True)):
                y = layer(x, context)
                x = nonlinearity(y if added is None else added.to_units(number, y))
        return self.output(x) if added is None else added.to_output(self.output(x), x)

    @property
    def nonlinearities(self) -> list[Callable[[Tensor], Tensor]]:
        """What comes after each hidden layer."""
        activations: list[Any] = list(self.activations)
        return [partial(_normed, each) for each in activations] if self.config["layer_norm"] else activations

    def active_units(self, context: Tensor | int) -> list[Tensor]:
        """The units of each hidden layer that are active in one context (floats ``(C,)`` or an id), in rising order.

        Raises:
            ValueError: the winners are chosen by activation: any unit may be active.

        Example:
            >>> model = ActiveDendriteMLP(8, [40, 40], 2, context_dim=3, num_segments=5, winners="context")
            >>> [units.shape for units in model.active_units(0)]
            [torch.Size([8]), torch.Size([8])]
        """
        if self._chosen is None:
            remedy = "`dendrite_zoo.callbacks.SubnetworkLogger` shows which units each input activates."
            raise wrong_argument("winners", "'context', whose units are the same for all inputs", "activation", remedy)
        context = torch.as_tensor(context, device=self.output.weight.device)
        return [active.units[0] for active in self.active(context.unsqueeze(0))]

    def active_parameters(self, context: Tensor | int) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """The part of each parameter that a context uses, as an index: ``parameter[index]``.

        A parameter of which all is used is not named. The values of a sparse gradient are those of ``gradient[index]``,
        in order.
        """
        parts: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
        columns: Tensor | None = None
        for number, (layer, rows) in enumerate(zip(self.layers, self.active_units(context), strict=True)):
            if layer.segments is not None or columns is not None:
                parts[f"hidden.{number}.weight"] = rows if columns is None else (rows.unsqueeze(-1), columns)
                parts[f"hidden.{number}.bias"] = rows
            columns = rows if layer.segments is not None else None
        if columns is not None:
            parts["output.weight"] = (torch.arange(self.output.out_features, device=columns.device)[:, None], columns)
        return parts

    @torch.no_grad()
    def fold(self, context: Tensor | int) -> nn.Sequential | FoldedMLP:
        """A plain network without dendrites that computes the same in a fixed context, or in a few of them.

        Args:
            context: one context ``(C,)``, or the id of a one-hot one: gates fold into the weights, and the result
                maps ``x``; where winners are chosen by the context, it has the active units alone. Or a codebook
                ``(K, C)``, or ids ``(K,)``: the result has a table of gates, and maps ``(x, index)``.

        Example:
            >>> model = ActiveDendriteMLP(8, [20], 2, context_dim=3, num_segments=5)
            >>> model.fold(0)
            Sequential(
              (0): Linear(in_features=8, out_features=20, bias=True)
              (1): KWinners(density=0.2)
              (2): Linear(in_features=20, out_features=2, bias=True)
            )
            >>> model.fold(torch.arange(3))(torch.randn(2, 8), torch.tensor([1, 1])).shape
            torch.Size([2, 2])
        """
        context, norm = torch.as_tensor(context, device=self.output.weight.device), self.config["layer_norm"]
        is_one = context.ndim == (1 if context.is_floating_point() else 0)
        layers = zip(self.layers, self.activations, self.active(context[None] if is_one else context), strict=True)
        own = self.additive if self.additive is None or is_one else self.additive.of(context)
        if is_one:
            return fold_one(layers, self.output, None if own is None else own(context), layer_norm=norm)
        return FoldedMLP((FoldedLayer(*each, layer_norm=norm) for each in layers), self.output, own)

    @property
    def layers(self) -> list[ActiveDendriteLinear]:
        """The hidden layers."""
        return cast("list[ActiveDendriteLinear]", list(self.hidden))

    @property
    def _segments(self) -> list[Tensor]:
        return [layer.segments for layer in self.layers if layer.segments is not None]

    def active(self, contexts: Tensor, used: Tensor | None = None) -> list[ActiveUnits]:
        """The active units of each layer in contexts ``(K, C)``, or by ids ``(K,)``, or in those of them ``used``."""
        density = 1.0 if self._chosen is None else self.config["activation_density"]

        def choose(some: Tensor) -> list[Tensor]:
            of_layers = (_active_units(layer, some, density) for layer in self.layers)
            return [tensor for active in of_layers for tensor in active if tensor is not None]

        chosen = self._chosen
        found = iter(choose(contexts) if chosen is None else chosen(contexts, self._segments, choose, used))
        return [ActiveUnits(next(found), None if layer.segments is None else next(found)) for layer in self.layers]

    def subnetworks(self, context: Context, take: Take = take_together) -> Context | Subnetworks:
        """What may be given to ``forward`` in the place of a context, so that its part is cut out once, not each time.

        For batches in the same contexts between two steps of an optimizer; with ``winners="activation"``, and where
        code is compiled or on a GPU, it is the context.

        Example:
            >>> model = ActiveDendriteMLP(8, [40, 40], 2, context_dim=3, num_segments=5, winners="context")
            >>> parts = model.subnetworks(torch.tensor([0, 1]))
            >>> [model(torch.randn(2, 8), parts).shape for _ in range(2)]
            [torch.Size([2, 2]), torch.Size([2, 2])]
        """
        parts = cut_out([self.chosen_parts(context)], [self.parameters_by_layer], self.nonlinearities, take)
        return context if parts is None else parts

    def chosen_parts(self, context: Context) -> Chosen | None:
        """The parts that the contexts of a batch use; None where all is computed."""
        return None if self._chosen is None else self._last_batch(context, self._segments, self._choose)

    @property
    def parameters_by_layer(self) -> list[Parameters]:
        """Weight, bias and mask of each layer."""
        layers = [(layer.weight, layer.bias, layer.mask) for layer in self.layers]
        return [*layers, (self.output.weight, self.output.bias, None)]

    def _choose(self, context: Context) -> Chosen | None:
        contexts, index = distinct_contexts(context, self.config["context_dim"], self.output.weight.device)
        if index is None:
            index = torch.arange(len(contexts), device=contexts.device)
        used: Tensor | None = None
        groups: Groups | None = None
        if index.ndim:
            if not can_group(index) or len(index) == 0:
                return None
            used, places, sizes = index.unique(return_inverse=True, return_counts=True)
            groups = Groups(places, sizes) if len(used) > 1 else None
        active = self.active(contexts, used)
        if groups is not None:
            active = [units.in_order(groups.groups) for units in active]
        parts: list[Part] = []
        inputs: Tensor | None = None
        for layer, (units, strength) in zip(self.layers, active, strict=True):
            chosen = None if strength is None else units
            parts.append(Part(layer.weight.shape, chosen, inputs, groups, strength, layer.gate))
            inputs = chosen
        return Chosen(index, groups, [*parts, Part(self.output.weight.shape, None, inputs, groups)])

    def _forward_parts(self, x: Tensor, context: Context | Subnetworks | None) -> Tensor:
        if context is None:
            raise TypeError("Expected a context, which chooses the winners, but got None. Call model(x, context).")
        if len(x) == 0:
            return self.output(x.new_zeros(*x.shape[:-1], self.output.in_features))
        parts = context if isinstance(context, Subnetworks) else self.subnetworks(context)
        return parts(x) if isinstance(parts, Subnetworks) else self._forward_masked(x, parts)

    def _forward_masked(self, x: Tensor, context: Context) -> Tensor:
        """Compute the whole, and take to zero what no row's context has chosen."""
        contexts, index = distinct_contexts(context, self.config["context_dim"], x.device)
        if index is None:
            index = torch.arange(len(contexts), device=x.device)
        check_one_each(index, x)
        if len(contexts) > len(index):
            contexts, index = contexts.index_select(0, index), torch.arange(len(index), device=index.device)
        for layer, activation, active in zip(self.layers, self.activations, self.active(contexts), strict=True):
            x, chosen = F.linear(x, layer.masked_weight(), layer.bias), None
            if active.strength is not None:
                zeros = x.new_zeros(len(contexts), layer.out_features)
                strength, table = (zeros.scatter(1, active.units, value) for value in (active.strength.to(x), 1.0))
                x, chosen = apply_gate(x, F.embedding(index, strength), layer.gate), F.embedding(index, table)
            x = activation(active_layer_norm(x, chosen) if self.config["layer_norm"] else x)
            x = x if chosen is None else x * chosen
        return self.output(x)


def _normed(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return activation(active_layer_norm(x))


def _active_units(layer: ActiveDendriteLinear, contexts: Tensor, density: float) -> ActiveUnits:
    """The units whose dendrites respond most to contexts; in a layer without dendrites all of them."""
    if layer.segments is None:
        units = torch.arange(layer.out_features, device=layer.weight.device)
        return ActiveUnits(units.expand(len(contexts), -1), None)
    return active_units(layer.segments, contexts, density, layer.gate, layer.segment_mask)
