"""Which contexts a network was called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo.callbacks.activation import Activation, Place
from dendrite_zoo.callbacks.activation_counts import ActivationCounts
from dendrite_zoo.callbacks.layer_selection import Layers, is_within, layer_filter, named_layers
from dendrite_zoo.functional import distinct_contexts, select_winners


class ContextWatcher:
    """The context that each layer with segments was called with in a task: of the first batch's rows the most frequent.

    A network whose winners the context chooses computes the active units alone, so that its layers are not called and
    the outputs of its activations do not say which units they are. Here the network itself is watched, and what each
    row's context chose is counted, under the names of the activations.

    Args:
        counts: where to count.
        model: the network.
        layers: narrows it, as in `dendrite_zoo.callbacks.layer_selection.layer_filter`.

    Attributes:
        task: the task that contexts are noted for.
        contexts: (layer, task) -> the layer and its context, ``(C,)`` or an id ``()``.

    Example:
        >>> from dendrite_zoo.layers import ActiveDendriteLinear
        >>> model = nn.ModuleDict({"a": ActiveDendriteLinear(3, 4, context_dim=2, num_segments=5)})
        >>> watcher = ContextWatcher(ActivationCounts(), model)
        >>> watcher.on_call("a", model["a"], (torch.randn(3, 3), torch.tensor([0, 1, 1])), {})
        >>> watcher.contexts["a", 0][1]
        tensor(1)
    """

    def __init__(self, counts: ActivationCounts, model: nn.Module, layers: Layers | None = None) -> None:
        self.counts, self.task = counts, 0
        self.contexts: dict[tuple[str, int], tuple[nn.Module, Tensor]] = {}
        self._watched = layer_filter(model, layers)
        self._by_context = networks_by_context(model)
        self._by_segments = {name for name, part in named_layers(model).items() if _has_segments(part)}

    def counts_for(self, layer: str) -> bool:
        """Whether a layer is one whose units the context chooses."""
        return is_within(layer, [f"{name}.activations".lstrip(".") for name in self._by_context])

    def on_call(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what a module of the network was called with."""
        if name in self._by_context:
            self._count_chosen(f"{name}." if name else "", module, args, kwargs)
        elif name in self._by_segments and self._watched(name):
            self._note(name, module, _context(args, kwargs))

    def _note(self, name: str, module: nn.Module, context: Tensor | tuple[Tensor, Tensor] | None) -> None:
        if context is not None and (name, self.task) not in self.contexts:
            self.contexts[name, self.task] = module, _most_frequent(context)

    def _count_chosen(self, prefix: str, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        context = _context(args, kwargs)
        if context is None:
            return
        for number, layer in enumerate(network.hidden):
            name = f"{prefix}hidden.{number}"
            if _has_segments(layer) and self._watched(name):
                self._note(name, layer, context)
        contexts, index = distinct_contexts(context, network.config["context_dim"])
        rows = len(args[0] if args else kwargs["x"])
        index = torch.arange(rows) if index is None else index.expand(rows).cpu()
        for one, share in zip(contexts, index.bincount(minlength=len(contexts)).tolist(), strict=True):
            for number, units in enumerate(network.active_units(one) if share else ()):
                name = f"{prefix}activations.{number}"
                if self._watched(name):
                    active = units.new_zeros(network.hidden[number].out_features).index_fill(0, units, share)
                    self.counts.add(Activation(Place(name, "", "", ""), active, share), self.task)


def networks_by_context(model: nn.Module) -> list[str]:
    """Names of the networks in a model whose context chooses the active units, such as ``winners="context"``.

    Such a network has ``active_units(context)``, module lists ``hidden`` and ``activations``, and a ``config``.
    """
    return [
        name
        for name, module in named_layers(model).items()
        if callable(getattr(module, "active_units", None))
        and isinstance(getattr(module, "hidden", None), nn.ModuleList)
        and isinstance(config := getattr(module, "config", None), Mapping)
        and config.get("winners") == "context"
    ]


@torch.no_grad()
def winning_segments(layer: nn.Module, context: Tensor) -> Tensor:
    """The segment of each unit that wins in a context.

    Args:
        layer: a module with ``segments`` ``(U, S, C)``, and a ``gate`` where it is not ``"abs_max"``.
        context: floats ``(C,)``, or the id of a one-hot context.

    Shape:
        Result ``(U,)`` integers, on the CPU.

    Example:
        >>> from dendrite_zoo.layers import ActiveDendriteLinear
        >>> layer = ActiveDendriteLinear(3, 4, context_dim=2, num_segments=5)
        >>> winning_segments(layer, torch.tensor([1.0, 0.0])).equal(winning_segments(layer, torch.tensor(0)))
        True
    """
    segments: Any = layer.segments
    activations = segments @ context.to(segments) if context.is_floating_point() else segments[..., context]
    return select_winners(activations, getattr(layer, "gate", "abs_max"))[1].cpu()


def _context(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | tuple[Tensor, Tensor] | None:
    """The context of a call; None for what is none, which the layer itself refuses."""
    context = kwargs.get("context", args[1] if len(args) > 1 else None)
    if isinstance(context, int):
        return torch.tensor(context)
    return context if isinstance(context, (Tensor, tuple)) else None


def _most_frequent(context: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    if isinstance(context, tuple):
        codebook, index = context
        return codebook[index.mode().values].detach().clone()
    if context.is_floating_point():
        rows, counts = context.detach().reshape(-1, context.shape[-1]).unique(dim=0, return_counts=True)
        return rows[counts.argmax()]
    return context.reshape(-1).mode().values


def _has_segments(module: nn.Module) -> bool:
    segments = getattr(module, "segments", None)
    return isinstance(segments, Tensor) and segments.ndim == 3
