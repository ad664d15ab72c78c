"""How often each unit of a layer was active, for each task and over all processes."""

import itertools
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from dendrite_zoo._core.ranks import all_gather, sum_over_ranks
from dendrite_zoo.callbacks.activation import Activation, Place

Key = tuple[Place, int, int]  # place, task, number of units


class LayerCounts(NamedTuple):
    """How often each unit of a layer was active in each task, and in how many samples.

    Attributes:
        tasks: that were seen, ``T``.
        active: ``(T, U)`` integers.
        samples: ``(T, U)`` integers.
    """

    tasks: list[int]
    active: Tensor
    samples: Tensor


class ActivationCounts:
    """How often each unit was active (not zero), for each task; only sums, on the device of the network.

    Example:
        >>> counts = ActivationCounts()
        >>> counts.add(Activation(Place("relu", "", "", ""), torch.tensor([0, 1]), 2), task=0)
        >>> counts.by_layer(torch.device("cpu"))["relu"]
        LayerCounts(tasks=[0], active=tensor([[0, 1]]), samples=tensor([[2, 2]]))
    """

    def __init__(self) -> None:
        self._active: dict[Key, Tensor] = {}
        self._samples: dict[Key, int] = {}

    def add(self, seen: Activation, task: int) -> None:
        """Count one use of an activation."""
        key = seen.place, task, len(seen.active)
        self._active[key] = self._active.get(key, 0) + seen.active
        self._samples[key] = self._samples.get(key, 0) + seen.samples

    def by_layer(self, device: torch.device) -> dict[str, LayerCounts]:
        """The counts of all processes, added up on a device and brought to the CPU: the one wait of a validation.

        A layer that is used at several places of the network is several, in the order in which they first ran:
        ``relu``, ``relu#2``, ... At a place that it has several widths at, the units of all stand side by side.
        """
        # a process whose share of a loader is empty has not seen its layers
        keys = list(dict.fromkeys(itertools.chain.from_iterable(all_gather(list(self._active)))))
        samples = torch.tensor([self._samples.get(key, 0) for key in keys], dtype=torch.long, device=device)
        active = [self._active.get(key, torch.zeros(key[2], dtype=torch.long)).to(device) for key in keys]
        vector = torch.cat([samples, *active])
        sum_over_ranks(vector)
        samples, *active = vector.cpu().split([len(keys), *(key[2] for key in keys)])
        places: dict[Place, dict[tuple[int, int], tuple[Tensor, Tensor]]] = {}
        for (place, task, width), row in zip(keys, zip(active, samples, strict=True), strict=True):
            places.setdefault(place, {})[task, width] = row
        layers, uses = {}, Counter[str]()
        for place, counts in places.items():
            uses[place.layer] += 1
            number = uses[place.layer]
            layers[place.layer if number == 1 else f"{place.layer}#{number}"] = _side_by_side(counts)
        return layers


def _side_by_side(counts: dict[tuple[int, int], tuple[Tensor, Tensor]]) -> LayerCounts:
    """Tasks below each other, widths side by side; from (task, width) to counts ``(width,)`` and samples ``()``."""
    tasks, widths = sorted({task for task, _ in counts}), list(dict.fromkeys(width for _, width in counts))
    blank = {width: (torch.zeros(width, dtype=torch.long), torch.tensor(0)) for width in widths}
    rows = [[counts.get((task, width), blank[width]) for width in widths] for task in tasks]
    active = [torch.cat([active for active, _ in row]) for row in rows]
    samples = [torch.cat([samples.expand(len(active)) for active, samples in row]) for row in rows]
    return LayerCounts(tasks, torch.stack(active), torch.stack(samples))
