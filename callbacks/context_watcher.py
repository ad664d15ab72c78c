"""Which contexts a network was called with, seen by forward hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dendrite_zoo.callbacks.activation_counts import ActivationCounts
from dendrite_zoo.callbacks.layer_selection import is_within, named_layers
from dendrite_zoo.functional import distinct_contexts, select_winners


class ContextWatcher:
    """The context that each layer with segments was called with in a task: of the first batch's rows the most frequent.

    A network whose winners the context chooses computes the active units alone, so that its layers are not called and
    the outputs of its activations do not say which units they are. Here the network itself is watched, and what each
    row's context chose is counted, under the names of the activations.

    Args:
        counts: where to count; its ``task`` is the one that contexts are noted for.

    Attributes:
        contexts: (layer, task) -> the layer and its context, ``(C,)`` or an id ``()``.

    Example:
        >>> from dendrite_zoo.layers import ActiveDendriteLinear
        >>> model = nn.ModuleDict({"a": ActiveDendriteLinear(3, 4, context_dim=2, num_segments=5)})
        >>> watcher = ContextWatcher(ActivationCounts())
        >>> (hook,) = watcher.watch(model)
        >>> _ = model["a"](torch.randn(3, 3), torch.tensor([0, 1, 1]))
        >>> hook.remove()
        >>> watcher.contexts["a", 0][1]
        tensor(1)
    """

    def __init__(self, counts: ActivationCounts) -> None:
        self.counts = counts
        self.contexts: dict[tuple[str, int], tuple[nn.Module, Tensor]] = {}

    def watch(self, model: nn.Module, layers: Sequence[str] | None = None) -> list[RemovableHandle]:
        """Note what the layers of a model are called with, until the hooks, which are returned, are removed.

        Args:
            model: the network.
            layers: narrows it to these modules and what is in them.
        """
        networks, hooks = networks_by_context(model), []
        for name, module in named_layers(model).items():
            if name in networks:
                hook = self._count_chosen(f"{name}." if name else "", layers)
            elif _has_segments(module) and is_within(name, layers):
                hook = self._note(name)
            else:
                continue
            hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        return hooks

    def _note(self, name: str) -> Any:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            context, task = _context(args, kwargs), self.counts.task
            if context is not None and task is not None and (name, task) not in self.contexts:
                self.contexts[name, task] = module, _most_frequent(context)

        return note

    def _count_chosen(self, prefix: str, layers: Sequence[str] | None) -> Any:
        def count(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            context = _context(args, kwargs)
            if context is None:
                return
            for number, layer in enumerate(network.hidden):
                name = f"{prefix}hidden.{number}"
                if _has_segments(layer) and is_within(name, layers):
                    self._note(name)(layer, args, kwargs)
            contexts, index = distinct_contexts(context, network.config["context_dim"])
            rows = len(args[0] if args else kwargs["x"])
            index = torch.arange(rows) if index is None else index.expand(rows).cpu()
            for one, share in zip(contexts, index.bincount(minlength=len(contexts)).tolist(), strict=True):
                for number, units in enumerate(network.active_units(one) if share else ()):
                    if is_within(f"{prefix}activations.{number}", layers):
                        active = units.new_zeros(network.hidden[number].out_features).index_fill(0, units, share)
                        self.counts.add(f"{prefix}activations.{number}", active, share)

        return count


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
