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
        layers: narrows it to these modules and what is in them; one without an activation or a weight in it is
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
    position is a sample; of our ``KWinners`` one of its ``dim``.

    A module is one layer, wherever it is used: at places of one width their counts are added, so that a unit dead at
    one place and active at another is not dead, and at several widths the units of all stand side by side. Give each
    place a module of its own (its own ``nn.ReLU()``) to see each by itself.

    Attributes:
        task: the task that is counted for; None counts nothing, as between batches, where another callback may run the
            network.

    Example:
        >>> counts = UnitCounts()
        >>> relu = nn.ReLU()
        >>> with counts.watch({"relu": relu}):
        ...     _ = relu(torch.tensor([[-1.0, 2.0], [-1.0, 0.0]]))
        >>> counts.of("relu")
        ([0], tensor([[0, 1]]), tensor([[2, 2]]))
        >>> len(relu._forward_hooks)
        0
    """

    def __init__(self) -> None:
        self.task: int | None = 0
        self.active: dict[Key, Tensor] = {}
        self.samples: dict[Key, int] = {}
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
    def layers(self) -> list[str]:
        """The layers that ran, in the order in which they first did."""
        return list(dict.fromkeys(name for name, _, _ in self.active))

    def of(self, layer: str) -> tuple[list[int], Tensor, Tensor]:
        """Tasks, how often each unit was active in each, and in how many samples.

        A module that is used at several widths has the units of all, one used twice at one width the sum of both.

        Args:
            layer: name of the layer.

        Shape:
            ``T`` tasks; ``(T, U)`` both, integers.
        """
        keys = [key for key in self.active if key[0] == layer]
        tasks, widths = sorted({key[1] for key in keys}), list(dict.fromkeys(key[2] for key in keys))
        blank = {width: torch.zeros(width, dtype=torch.long) for width in widths}
        active = [torch.cat([self.active.get((layer, j, w), blank[w]) for w in widths]) for j in tasks]
        samples = torch.tensor([[self.samples.get((layer, j, w), 0) for w in widths] for j in tasks])
        return tasks, torch.stack(active), samples.repeat_interleave(torch.tensor(widths), dim=1)

    def pack(self, keys: Sequence[Key], device: torch.device) -> Tensor:
        """All that was counted under these keys as one vector, zeros for what was not seen."""
        parts = [torch.zeros(0, dtype=torch.long, device=device)]
        for key in keys:
            active = self.active.get(key, torch.zeros(key[2], dtype=torch.long))
            parts += [active.to(device), torch.tensor([self.samples.get(key, 0)], device=device)]
        return torch.cat(parts)

    def unpack(self, keys: Sequence[Key], vector: Tensor) -> None:
        """Take over what such a vector holds."""
        parts = vector.split([n for key in keys for n in (key[2], 1)])
        self.active = dict(zip(keys, parts[::2], strict=True))
        self.samples = {key: int(part) for key, part in zip(keys, parts[1::2], strict=True)}

    def _hook(self, name: str) -> Any:
        @torch.compiler.disable  # in a compiled network it would be compiled too, for every count anew
        def count(module: nn.Module, args: Any, output: Any) -> None:
            if self.task is None or not isinstance(output, Tensor) or output.ndim == 0:
                return
            images = output.ndim in (4, 5)
            unit = (module.dim if isinstance(module, KWinners) else 1 if images else -1) % output.ndim
            # written as floats, comparison and sum take a fraction of the time of a boolean's; half ones cannot count
            active = torch.empty(output.shape, dtype=torch.float32, device=output.device)
            torch.ne(output.detach(), 0, out=active)
            if output.ndim > 1:
                active = active.sum(dim=[d for d in range(output.ndim) if d != unit])
            key = (name, self.task, output.shape[unit])
            if key in self.active:
                self.active[key] += active.long()
            else:
                self.active[key], self.samples[key] = active.long(), 0
            self.samples[key] += output.numel() // output.shape[unit]

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
            raise ValueError(f"{type(model).__name__} has no layer {layer!r}{hint} Expected a name of named_modules().")
    return {
        name: module
        for name, module in modules.items()
        if isinstance(module, kinds) and (layers is None or any(_inside(layer, [name]) for layer in layers))
    }
