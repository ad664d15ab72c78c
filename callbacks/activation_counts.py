"""How often each unit of a layer was active, counted by forward hooks."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dendrite_zoo._core.ranks import all_gather, sum_over_ranks
from dendrite_zoo.layers import KWinners

Key = tuple[str, int, int]  # layer, task, number of units


class ActivationCounts:
    """How often each unit was active (not zero), for each task; only sums, on the device of the network.

    A unit is one of the last dimension; a channel of images and volumes (4 or 5 dimensions), whose every
    position is a sample; of our ``KWinners`` one of its ``dim``.

    A module is one layer, wherever it is used: at places of one width their counts are added, so that a unit dead at
    one place and active at another is not dead, and at several widths the units of all stand side by side. Give each
    place a module of its own (its own ``nn.ReLU()``) to see each by itself.

    Attributes:
        task: the task that is counted for; None counts nothing, as between batches, where another callback may run the
            network.

    Example:
        >>> counts = ActivationCounts()
        >>> relu = nn.ReLU()
        >>> (hook,) = counts.watch({"relu": relu})
        >>> _ = relu(torch.tensor([[-1.0, 2.0], [-1.0, 0.0]]))
        >>> hook.remove()
        >>> counts.of("relu")
        ([0], tensor([[0, 1]]), tensor([[2, 2]]))
    """

    def __init__(self) -> None:
        self.task: int | None = 0
        self._active: dict[Key, Tensor] = {}
        self._samples: dict[Key, int] = {}

    def watch(self, layers: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        """Count what these modules give, until the hooks, which are returned, are removed."""
        return [module.register_forward_hook(self._hook(name)) for name, module in layers.items()]

    def add(self, layer: str, active: Tensor, samples: int) -> None:
        """Count by hand.

        Args:
            layer: name of the layer.
            active: ``(U,)`` integers, in how many of the samples each unit was active.
            samples: the number of samples.
        """
        if self.task is None:
            return
        key = layer, self.task, len(active)
        self._active[key] = self._active.get(key, 0) + active
        self._samples[key] = self._samples.get(key, 0) + samples

    @property
    def layers(self) -> list[str]:
        """The layers that ran, in the order in which they first did."""
        return list(dict.fromkeys(layer for layer, _, _ in self._active))

    def of(self, layer: str) -> tuple[list[int], Tensor, Tensor]:
        """Tasks, how often each unit was active in each, and in how many samples.

        A module that is used at several widths has the units of all, one used twice at one width the sum of both.

        Args:
            layer: name of the layer.

        Shape:
            ``T`` tasks; ``(T, U)`` both, integers.
        """
        keys = [key for key in self._active if key[0] == layer]
        tasks, widths = sorted({task for _, task, _ in keys}), list(dict.fromkeys(width for _, _, width in keys))
        blank = {width: torch.zeros(width, dtype=torch.long) for width in widths}
        active = [torch.cat([self._active.get((layer, j, w), blank[w]) for w in widths]) for j in tasks]
        samples = torch.tensor([[self._samples.get((layer, j, w), 0) for w in widths] for j in tasks])
        return tasks, torch.stack(active), samples.repeat_interleave(torch.tensor(widths), dim=1)

    def sum_over_ranks(self, device: torch.device) -> None:
        """Add up the counts of all processes on a device, and bring them to the CPU: the one wait of a validation."""
        # a process whose share of a loader is empty has not seen its layers
        keys = list(dict.fromkeys(itertools.chain.from_iterable(all_gather(list(self._active)))))
        samples = torch.tensor([self._samples.get(key, 0) for key in keys], dtype=torch.long, device=device)
        active = [self._active.get(key, torch.zeros(key[2], dtype=torch.long)).to(device) for key in keys]
        vector = torch.cat([samples, *active])
        sum_over_ranks(vector)
        samples, *active = vector.cpu().split([len(keys), *(key[2] for key in keys)])
        self._samples = dict(zip(keys, samples.tolist(), strict=True))
        self._active = dict(zip(keys, active, strict=True))

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
            self.add(name, active.long(), output.numel() // output.shape[unit])

        return count
