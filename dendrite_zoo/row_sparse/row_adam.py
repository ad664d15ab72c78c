"""One step of Adam for the rows of parameters that have a gradient: the others, and their moments, stay as they are."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.adam import adam

from dendrite_zoo._core.torch import sparse_values, version_of
from dendrite_zoo.row_sparse.activation_cache import ActivationCache
from dendrite_zoo.row_sparse.parameter import RowParameter, once, row_ids, rows_of

PIECE = 1 << 18
"""Numbers of a weight that are updated at once, so that they stay in the processor's cache with their moments."""

GATHER = {1: 8.0, 2: 2.5}
"""What an update of gathered rows costs, in updates of rows as they lie; by their dimensions, one or more."""

WIDE = 64
"""Numbers of a row from which on its bits are joined in half the time."""

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Piece(NamedTuple):
    """Rows of weights and of their two moments, the gradient of these rows, and what is to be done after the update."""

    rows: list[Tensor]
    grad: Tensor
    after: Callable[[], None] | None


class MovedRows:
    """Which rows of a parameter have moments other than zero; the others would stay without a gradient by themselves.

    On a CPU.
    """

    def __init__(self, mean: Tensor, row_dims: int) -> None:
        self._mean = mean
        self.rows = other_than_zero(rows_of(mean, row_dims))
        self.keep()

    def keep(self) -> None:
        """After the owner's step: they are known still."""
        self._version = version_of(self._mean)

    def is_of(self, mean: Tensor) -> bool:
        """Whether the first moments are still the same, and nobody else has changed them."""
        return mean is self._mean and self._version == version_of(mean)


def update(pieces: Iterable[Piece], step: float, group: dict[str, Any]) -> None:
    """One step of Adam, for so many pieces at once that they stay in the processor's cache."""
    some: list[Piece] = []
    numbers = 0
    for piece in pieces:
        if some and numbers + piece.grad.numel() > PIECE:
            _adam(some, step, group)
            some, numbers = [], 0
        some.append(piece)
        numbers += piece.grad.numel()
    if some:
        _adam(some, step, group)


def pieces_of(parameter: RowParameter, state: dict[str, Any], moved: MovedRows | None, eps: float) -> Iterator[Piece]:
    """The rows of a parameter that have a gradient, some at a time."""
    grad, cache = cast(Tensor, parameter.grad), parameter.activation_cache
    tensors = parameter.detach(), state["exp_avg"], state["exp_avg_sq"]
    everything = [rows_of(tensor, parameter.row_dims) for tensor in tensors]
    count = len(everything[0])
    size = max(1, PIECE * count // max(1, parameter.numel()))
    if not grad.is_sparse:
        cache.invalidate()
        grads = rows_of(grad, parameter.row_dims)
        if moved is None:
            yield _masked_piece(everything, grads)
            return
        for first in range(0, count, size):
            part = slice(first, first + size)
            yield _dense_piece([rows[part] for rows in everything], grads[part], moved.rows[part], eps)
        return
    grad = once(grad)
    ids, values = row_ids(grad), sparse_values(grad)
    cache.check(everything[0])
    for some, grads in zip(ids.split(size), values.split(size), strict=True):
        used = other_than_zero(grads)
        if not bool(used.all()):  # such as those of active units that give nothing for a row of the batch
            some, grads = some[used], grads[used]
        if moved is not None:
            moved.rows[some] = True
        rows = [tensor.index_select(0, some) for tensor in everything]
        yield Piece(rows, grads, partial(_put, everything, some, rows, cache))


def _dense_piece(rows: list[Tensor], grad: Tensor, moved: Tensor, eps: float) -> Piece:
    """What to update where some rows of a dense gradient may be zero."""
    used = other_than_zero(grad)
    count = np.count_nonzero(used.numpy())
    if count == len(used):
        moved.fill_(True)
        return Piece(rows, grad, None)
    resting = used.logical_not()
    if eps > 0:  # what has no moments stays by itself
        resting &= moved
    moved |= used
    still = _places(resting)
    if GATHER[min(grad.ndim, 2)] * count > len(used) + len(still):
        after = partial(_put, rows, still, [tensor.index_select(0, still) for tensor in rows])
        return Piece(rows, grad, after if len(still) else None)
    ids = _places(used)
    gathered = [tensor.index_select(0, ids) for tensor in rows]
    return Piece(gathered, grad.index_select(0, ids), partial(_put, rows, ids, gathered))


def _masked_piece(rows: list[Tensor], grad: Tensor) -> Piece:
    """The same on a device where the number of rows is not known without waiting."""
    used = other_than_zero(grad).view(-1, *[1] * (grad.ndim - 1))
    return Piece(rows, grad, partial(_put_back, rows, used, [tensor.clone() for tensor in rows]))


def _places(marked: Tensor) -> Tensor:
    """Where ``(N,)`` is true, as `Tensor.nonzero` says, which takes five times as long."""
    return torch.from_numpy(np.flatnonzero(marked.numpy()))


def _put(everything: list[Tensor], ids: Tensor, rows: list[Tensor], cache: ActivationCache | None = None) -> None:
    for tensor, values in zip(everything, rows, strict=True):
        if tensor.ndim == 1:
            tensor.scatter_(0, ids, values)  # in half the time
        else:
            bits = BITS[tensor.itemsize]  # numpy takes a third of the time, but has not all types
            tensor.view(bits).numpy()[ids.numpy()] = values.view(bits).numpy()
    increment_version(everything[0])
    if cache is not None:
        cache.refresh(everything[0], ids, rows[0])


def _put_back(rows: list[Tensor], used: Tensor, old: list[Tensor]) -> None:
    for tensor, values in zip(rows, old, strict=True):
        tensor.copy_(torch.where(used, tensor, values))


def _adam(pieces: list[Piece], step: float, group: dict[str, Any]) -> None:
    """One step of Adam, with the small number where `torch.optim.SparseAdam` adds it: to the uncorrected root."""
    (beta1, beta2), fused = group["betas"], bool(group["fused"])
    weights, means, squares = (list(tensors) for tensors in zip(*(piece.rows for piece in pieces), strict=True))
    before = torch.full((len(weights),), step - 1, device=weights[0].device if fused else "cpu").unbind()
    adam(
        weights,
        [piece.grad for piece in pieces],
        means,
        squares,
        [],
        list(before),  # which it counts up
        fused=fused,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=0.0,
        eps=group["eps"] / math.sqrt(1 - beta2**step),
        maximize=False,
    )
    for piece in pieces:
        if piece.after is not None:
            piece.after()


def other_than_zero(rows: Tensor) -> Tensor:
    """Which rows ``(N, ...)`` are not all zero, ``(N,)``.

    Example:
        >>> other_than_zero(torch.tensor([[0.0, -0.0], [0.0, torch.nan]]))
        tensor([False,  True])
    """
    if rows.ndim == 1:
        return rows.bool()  # several times as fast as `!= 0`
    rows = rows.flatten(1)
    if rows.device.type != "cpu" or rows.shape[1] < WIDE:
        return rows.bool().view(torch.uint8).amax(1).bool()  # as is `amax` compared with `any`
    bits = np.bitwise_or.reduce(rows.contiguous().view(BITS[rows.itemsize]).numpy(), axis=1)
    return torch.from_numpy(bits << 1 != 0)  # without the signs, which zeros have, too
