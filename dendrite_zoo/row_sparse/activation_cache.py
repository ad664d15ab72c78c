"""A cache of segment activations from one training step to the next."""

import operator
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.torch import lying_in, version_of

CHUNK = 1 << 18
"""Numbers handled at once on a CPU, so that they stay in its cache."""


def dot_rows(rows: Tensor, vector: Tensor) -> Tensor:
    r"""The inner product of each row with a vector, bit for bit the same whatever other rows there are.

    The last bits of ``rows @ vector`` depend on how many rows there are, so that a winner could change with what was
    cached and what was computed anew.

    Shape:
        rows ``(N, C)``, vector ``(C,)``; result ``(N,)``.

    Example:
        >>> dot_rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 1.0]))
        tensor([3., 7.])
    """
    result = rows.new_empty(len(rows))
    chunk = max(1, CHUNK // len(vector)) if rows.device.type == "cpu" else len(rows)
    for part, out in zip(rows.split(chunk), result.split(chunk), strict=True):
        products = part * vector
        # A row that is alone would be shared out among threads, and summed in another order.
        out.copy_(products.expand(2, -1).sum(-1)[:1] if len(part) == 1 else products.sum(-1))
    return result


class ActivationCache:
    """Segment activations in one context, cached from one step to the next.

    They are exactly what would be computed anew. A segment that did not win has not changed, so the owner's step
    brings the rows it updated up to date (`refresh`) and the others stay. Whatever else changes the segments is
    noticed, and everything computed anew: operations in place by the version they count up; a fused optimizer, or a
    write through ``.data``, by a sample of the rows that won last. For a write through ``.data`` to a few rows alone
    there is `invalidate`.
    """

    SAMPLE = 16

    def __init__(self) -> None:
        self._context: Tensor | None = None
        self._values, self._sample = torch.empty(0), torch.empty(0, dtype=torch.long)
        self._stamp: tuple[Any, ...] = ()

    def invalidate(self) -> None:
        """Forget everything."""
        if self._context is not None:
            self.__init__()  # type: ignore[misc]

    def activations(self, segments: Tensor, context: Tensor) -> Tensor:
        """The activation of each row of segments ``(N, C)`` in ``context`` ``(C,)``, or in one of an id ``()``."""
        self.check(segments)
        if self._context is None or self._context.dtype != context.dtype or not torch.equal(self._context, context):
            self._context, self._stamp = context.detach().clone(), stamp(segments)
            self._values, self._sample = _activate(segments, context), torch.empty(0, dtype=torch.long)
        return self._values

    def watch(self, winners: Tensor) -> None:
        """Sample these rows, which the next step is about to change, to notice the steps of other optimizers."""
        self._sample = winners[:: max(1, len(winners) // self.SAMPLE)]

    def check(self, segments: Tensor) -> None:
        """Forget everything if the segments were changed by anyone but their owner."""
        if self._context is None:
            return
        if self._stamp == stamp(segments):
            sample = segments[self._sample]
            if torch.equal(_activate(sample, self._context), self._values[self._sample]):
                return
        self.invalidate()

    def refresh(self, segments: Tensor, ids: Tensor, rows: Tensor) -> None:
        """Take note that the owner, after a `check`, has changed the rows ``ids`` to ``rows``."""
        if self._context is not None:
            self._values[ids] = _activate(rows, self._context)
            self._stamp = stamp(segments)


def _activate(rows: Tensor, context: Tensor) -> Tensor:
    if context.is_floating_point():
        return dot_rows(rows, context)
    return rows.index_select(1, context.reshape(1)).squeeze(1)


def stamp(tensor: Tensor) -> tuple[Any, ...]:
    """What changes with every operation in place (but for fused optimizers and writes through ``.data``)."""
    return tensor.data_ptr(), version_of(tensor), tensor.shape, tensor.dtype, tensor.device


def mark(tensor: Tensor) -> tuple[Any, ...]:
    """Its `stamp`, and some of its numbers: a fused optimizer, or a write through ``.data``, leaves no other trace."""
    return *stamp(tensor), _some_of(tensor).tolist()


class Marks:
    """What would change if anybody changed the parameters of a network, looked up in a fraction of the time of `mark`.

    Args:
        network: with the parameters.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> marks = Marks(layer)
        >>> marks.hold_for(layer)
        True
        >>> layer.bias.data[0] = 5.0
        >>> marks.hold_for(layer)
        False
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = list(network.modules())
        self._parts = lying_in(self._modules)
        self._parameters = list(network.parameters())
        # of a tensor that lies in one piece, a view of the numbers as they will be
        self._some = [_some_of(p) if p.is_contiguous() else None for p in self._parameters]
        self._values = self._now()

    def hold_for(self, network: nn.Module) -> bool:
        """Whether a network has the same parameters as then, and they are what they were."""
        parts = lying_in(self._modules)
        same = self._modules[0] is network and len(parts) == len(self._parts)
        return same and all(map(operator.is_, parts, self._parts)) and self._now() == self._values

    def _now(self) -> list[Any]:
        pairs = zip(self._parameters, self._some, strict=True)
        return [(p.data_ptr(), version_of(p), (_some_of(p) if some is None else some).tolist()) for p, some in pairs]


def _some_of(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1)[:: max(1, tensor.numel() // 16)]
