"""Which contexts a network was called with, seen by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dendrite_zoo.callbacks.layer_watcher import UnitCounts
from dendrite_zoo.functional import Context, distinct_contexts, select_winners
from dendrite_zoo.layers import ActiveDendriteLinear
from dendrite_zoo.models import ActiveDendriteMLP

__all__ = ["Contexts", "answering_segments", "without_parts"]


class Contexts:
    """The context that each layer with segments was called with in a task: of the first batch's rows the most frequent.

    A network whose winners the context chooses computes the active units alone, so that its layers are not called and
    the outputs of its activations do not say which units they are. Here the network itself is watched, and what each
    row's context chose is counted, under the names of the activations.

    Args:
        counts: where to count; its ``task`` is the one that contexts are noted for.

    Attributes:
        seen: (layer, task) -> the layer and its context, ``(C,)`` or an id ``()``.

    Example:
        >>> from dendrite_zoo.layers import ActiveDendriteLinear
        >>> model = nn.ModuleDict({"a": ActiveDendriteLinear(3, 4, context_dim=2, num_segments=5)})
        >>> contexts = Contexts(UnitCounts()).watch(model)
        >>> _ = model["a"](torch.randn(3, 3), torch.tensor([0, 1, 1]))
        >>> contexts.stop()
        >>> contexts.seen["a", 0][1]
        tensor(1)
    """

    def __init__(self, counts: UnitCounts) -> None:
        self.counts = counts
        self.seen: dict[tuple[str, int], tuple[nn.Module, Tensor]] = {}
        self._hooks: list[RemovableHandle] = []

    def watch(self, model: nn.Module, layers: Sequence[str] | None = None) -> Contexts:
        """Note from now on what the layers of a model are called with, until `stop`.

        Args:
            model: the network.
            layers: narrows it to these modules and what is in them.
        """
        chosen = dict(_choosing_by_context(model))
        for name, module in model.named_modules():
            if module in chosen.values():
                hook = self._count_chosen(name, layers)
            elif _segments(module) is not None and _inside(name, layers):
                hook = self._note(name)
            else:
                continue
            self._hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def stop(self) -> None:
        """Remove every hook."""
        while self._hooks:
            self._hooks.pop().remove()

    def _note(self, name: str) -> Any:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            context, task = kwargs.get("context", args[1] if len(args) > 1 else None), self.counts.task
            if _is_context(context) and task is not None and (name, task) not in self.seen:
                self.seen[name, task] = module, _most_frequent(context)

        return note

    def _count_chosen(self, name: str, layers: Sequence[str] | None) -> Any:
        prefix = f"{name}." if name else ""

        def count(module: ActiveDendriteMLP, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            context: Any = kwargs.get("context", args[1] if len(args) > 1 else None)
            if self.counts.task is None or not _is_context(context):
                return
            sizes = [int(layer.out_features) for layer in cast("list[ActiveDendriteLinear]", module.hidden)]
            for number, layer in enumerate(module.hidden):
                if _segments(layer) is not None and _inside(f"{prefix}hidden.{number}", layers):
                    self._note(f"{prefix}hidden.{number}")(layer, args, kwargs)
            contexts, index = distinct_contexts(context, module.config["context_dim"])
            rows = len(args[0] if args else kwargs["x"])
            index = torch.arange(rows) if index is None else index.expand(rows).cpu()
            for k, share in enumerate(index.bincount(minlength=len(contexts)).tolist()):
                for number, units in enumerate(module.active_units(contexts[k]) if share else ()):
                    if _inside(f"{prefix}activations.{number}", layers):
                        self._add(f"{prefix}activations.{number}", units, sizes[number], share)

        return count

    def _add(self, layer: str, units: Tensor, size: int, rows: int) -> None:
        assert self.counts.task is not None
        key, counts = (layer, self.counts.task, size), self.counts
        if key not in counts.active:
            counts.active[key], counts.samples[key] = torch.zeros(size, dtype=torch.long, device=units.device), 0
        counts.active[key][units] += rows
        counts.samples[key] += rows


def without_parts(model: nn.Module, activations: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Those activation modules whose output has all units of a layer, not only those that the context chose.

    Args:
        model: the network.
        activations: name -> module.
    """
    parts = [f"{name}.activations." if name else "activations." for name, _ in _choosing_by_context(model)]
    return {name: module for name, module in activations.items() if not name.startswith(tuple(parts))}


@torch.no_grad()
def answering_segments(layer: nn.Module, context: Tensor) -> Tensor:
    """The segment of each unit that answers a context: the one that wins.

    Args:
        layer: a module with ``segments`` ``(U, S, C)``, and a ``gate`` where it is not ``"abs_max"``.
        context: floats ``(C,)``, or the id of a one-hot context.

    Shape:
        Result ``(U,)`` integers, on the CPU.

    Example:
        >>> from dendrite_zoo.layers import ActiveDendriteLinear
        >>> layer = ActiveDendriteLinear(3, 4, context_dim=2, num_segments=5)
        >>> answering_segments(layer, torch.tensor([1.0, 0.0])).equal(answering_segments(layer, torch.tensor(0)))
        True
    """
    segments: Any = layer.segments
    activations = segments @ context.to(segments) if context.is_floating_point() else segments[..., context]
    return select_winners(activations, getattr(layer, "gate", "abs_max"))[1].cpu()


def _is_context(context: Any) -> TypeGuard[Context]:
    """Whether a layer takes it; if not, it is the layer that says so."""
    return isinstance(context, (Tensor, tuple))


def _most_frequent(context: Context) -> Tensor:
    if isinstance(context, tuple):
        codebook, index = context
        return codebook[index.mode().values].detach().clone()
    if context.is_floating_point():
        rows, counts = context.detach().reshape(-1, context.shape[-1]).unique(dim=0, return_counts=True)
        return rows[counts.argmax()]
    return context.reshape(-1).mode().values


def _choosing_by_context(model: nn.Module) -> Iterator[tuple[str, ActiveDendriteMLP]]:
    for name, module in model.named_modules():
        if isinstance(module, ActiveDendriteMLP) and module.config["winners"] == "context":
            yield name, module


def _segments(module: nn.Module) -> Tensor | None:
    segments = getattr(module, "segments", None)
    return segments if isinstance(segments, Tensor) and segments.ndim == 3 else None


def _inside(name: str, layers: Sequence[str] | None) -> bool:
    return layers is None or any(name == layer or name.startswith(f"{layer}.") for layer in layers)
