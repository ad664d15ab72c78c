"""Which units of a network are active, counted by forward hooks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations
from torch.utils.hooks import RemovableHandle

from dendrite_zoo.layers import KWinners, SparseLinear

__all__ = ["UnitCounts", "activation_layers", "weight_layers"]

NOT_UNITS = {"MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
ACTIVATIONS = (
    KWinners,
    *(getattr(torch_activations, name) for name in torch_activations.__all__ if name not in NOT_UNITS),
)
WEIGHTS = (SparseLinear, nn.Linear, nn.modules.conv._ConvNd)

Key = tuple[str, int, int]


def activation_layers(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The modules whose output is watched: every activation module, our ``KWinners`` among them.

    Args:
        model: the network.
        layers: narrows it to these modules and what is in them; one without an activation or a weight in it
        is
            watched itself.

    Raises:
        ValueError: a name that the network does not have.

    Example:
        >>> list(activation_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))))
        ['1']
    """
    found = _narrowed(model, ACTIVATIONS, layers)
    for name in layers or ():
        if not _inside(name, [*found, *_narrowed(model, WEIGHTS, layers)]):
            found[name] = model.get_submodule(name)
    return found


def weight_layers(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The modules whose weight is watched: every linear layer and convolution.

    Args:
        model: the network.
        layers: narrows it to these modules and what is in them.

    Raises:
        ValueError: a name that the network does not have.

    Example:
        >>> list(weight_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), layers=["0"]))
        ['0']
    """
    return _narrowed(model, WEIGHTS, layers)


class UnitCounts:
    """How often each unit was active (not zero), for each task; only sums, kept where the network runs.

    A unit is one of the last dimension; a channel of images and volumes (4 or 5 dimensions), whose every
    position is a sample.

    Example:
        >>> counts = UnitCounts()
        >>> relu = nn.ReLU()
        >>> with counts.watch({"relu": relu}):
        ...     _ = relu(torch.tensor([[-1.0, 2.0], [-1.0, 0.0]]))
        >>> counts.of("relu")
        (tensor([0, 1]), tensor([2, 2]))
        >>> len(relu._forward_hooks)
        0
    """

    def __init__(self) -> None:
        self.task = 0
        self._active: dict[Key, Tensor] = {}
        self._total: dict[Key, int] = {}
        self._hooks: list[RemovableHandle] = []

    def watch(self, layers: dict[str, nn.Module]) -> UnitCounts:
        """Count from now on what these modules give, until `stop`."""
        for name, module in layers.items():
            self._hooks.append(module.register_forward_hook(self._hook(name)))
        return self

    def stop(self) -> None:
        """Remove every hook."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> UnitCounts:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def keys(self) -> list[Key]:
        """Layer, task and number of units of every count."""
        return list(self._active)

    @property
    def tasks(self) -> list[int]:
        """The tasks seen."""
        return sorted({task for _, task, _ in self._active})

    @property
    def layers(self) -> list[str]:
        """The layers that ran, in the order in which they first did."""
        return list(dict.fromkeys(name for name, _, _ in self._active))

    def tasks_of(self, layer: str) -> set[int]:
        """The tasks in which a layer ran."""
        return {task for name, task, _ in self._active if name == layer}

    def of(self, layer: str, task: int | None = None) -> tuple[Tensor, Tensor]:
        """Counts and samples of each unit; a module used at several widths has the units of all.

        Args:
            layer: name of the layer.
            task: one task; None for all together.

        Shape:
            ``(U,)`` both, integers.
        """
        counts: dict[int, Any] = {}
        totals: dict[int, int] = {}
        for (name, j, units), active in self._active.items():
            if name == layer and task in (None, j):
                counts[units] = counts.get(units, 0) + active
                totals[units] = totals.get(units, 0) + self._total[name, j, units]
        active = torch.cat(list(counts.values()))
        return active, torch.cat([torch.full((n,), totals[n], device=active.device) for n in counts])

    def state(self, keys: Iterable[Key], device: torch.device) -> Tensor:
        """All counts and totals as one vector, zeros for what was not seen: processes add them up."""
        parts = []
        for key in keys:
            active = self._active.get(key, torch.zeros(key[2], dtype=torch.long))
            parts += [active.to(device), torch.tensor([self._total.get(key, 0)], device=device)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long, device=device)

    def load(self, keys: Iterable[Key], vector: Tensor) -> None:
        """Take counts and totals from such a vector."""
        keys = list(keys)
        parts = vector.split([n for key in keys for n in (key[2], 1)])
        self._active = dict(zip(keys, parts[::2], strict=True))
        self._total = {key: int(total) for key, total in zip(keys, parts[1::2], strict=True)}

    def _hook(self, name: str) -> Any:
        @torch.compiler.disable  # in a compiled network it would be compiled too, for every count anew
        def count(module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim == 0:
                return
            channels = output.ndim in (4, 5) and not isinstance(module, KWinners)
            unit = 1 if channels else output.ndim - 1
            others = [d for d in range(output.ndim) if d != unit]
            active = (output.detach() != 0).sum(dim=others) if others else (output.detach() != 0).long()
            key = (name, self.task, output.shape[unit])
            seen = self._active.get(key)
            self._active[key] = active if seen is None else seen.add_(active)
            self._total[key] = self._total.get(key, 0) + output.numel() // output.shape[unit]

        return count


def _inside(name: str, names: Iterable[str]) -> bool:
    return any(other == name or other.startswith(f"{name}.") for other in names)


def _narrowed(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], layers: Sequence[str] | None
) -> dict[str, nn.Module]:
    modules = {name: module for name, module in model.named_modules() if name}
    for layer in layers or ():
        if layer not in modules:
            near = difflib.get_close_matches(layer, modules, n=1, cutoff=0)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"SparsityLogger: {type(model).__name__} has no layer {layer!r}{hint} Expected a name of "
                "named_modules()."
            )
    return {
        name: module
        for name, module in modules.items()
        if isinstance(module, kinds) and (layers is None or any(_inside(layer, [name]) for layer in layers))
    }
