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

from dendrite_zoo._core.torch import sparse_indices, sparse_values, version_of
from dendrite_zoo.row_sparse.activation_cache import ActivationCache
from dendrite_zoo.row_sparse.parameter import RowParameter, once, row_ids, rows_of

PIECE = 1 << 18
"""Numbers of a weight that are updated at once, so that they stay in the processor's cache with their moments."""

AT_ONCE = 4 * PIECE
"""Numbers of several small weights that are updated in one call."""

GATHER = {1: 8.0, 2: 2.5}
"""What an update of gathered rows costs, in updates of rows as they lie; by their dimensions, one or more."""

WIDE = 64
"""Numbers of a row from which on its bits are joined in half the time."""

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Piece(NamedTuple):
    """Rows of weights and of their two moments, the gradient of these rows, and what is to be done after the update.

    Attributes:
        rows: of the weights and of both moments.
        grad: their gradient.
        after: what then follows.
        moved: which of the rows have moments, where rows may have no gradient.
        zero: which of them have none, where that need not be looked for.
    """

    rows: list[Tensor]
    grad: Tensor
    after: Callable[[], None] | None = None
    moved: Tensor | None = None
    zero: Any = None


class KnownRows:
    """The rows of a parameter and of its two moments, and which of them have moved: moments other than zero.

    The others would stay without a gradient by themselves. They are looked for anew where somebody else has changed the
    moments, or put others in their place.
    """

    def __init__(self, parameter: RowParameter, state: dict[str, Any]) -> None:
        self._mean, self._pointer = state["exp_avg"], parameter.data_ptr()
        tensors = parameter.detach(), self._mean, state["exp_avg_sq"]
        self.everything = [rows_of(tensor, parameter.row_dims) for tensor in tensors]
        self.size = max(1, PIECE * self.everything[0].shape[0] // max(1, parameter.numel()))
        self.moved = other_than_zero(self.everything[1])
        splits = [tensor.split(self.size) for tensor in (*self.everything, self.moved)]
        self.parts = [(list(rows), moved) for *rows, moved in zip(*splits, strict=True)]
        self._ids: tuple[Tensor, Tensor] | None = None
        self.keep()

    def taken(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of the rows that a sparse gradient holds, each once, and their gradients.

        Where the rows are those of the last step, as parts that are cut out again and again say, they are known.
        """
        indices = sparse_indices(grad)
        if self._ids is None or self._ids[0].data_ptr() != indices.data_ptr() or self._ids[0].shape != indices.shape:
            grad = once(grad)
            self._ids = sparse_indices(grad), row_ids(grad)
        return self._ids[1], sparse_values(grad)

    def begin_anew(self) -> None:
        """Set all moments to zero, which costs what the rows cost that have moved."""
        ids = self.moved.nonzero().squeeze(1)
        for moments in self.everything[1:]:
            moments.index_fill_(0, ids, 0.0)
        self.moved.fill_(False)
        self.keep()

    def keep(self) -> None:
        """After the owner's step: they are known still."""
        self._version = version_of(self._mean)

    def are_of(self, parameter: RowParameter, state: dict[str, Any]) -> bool:
        """Whether they are what they were."""
        same = state["exp_avg"] is self._mean and parameter.data_ptr() == self._pointer
        return same and self._version == version_of(self._mean)


def update(pieces: Iterable[Piece], step: float, group: dict[str, Any]) -> None:
    """One step of Adam, for so many pieces at once that they stay in the processor's cache."""
    some: list[Piece] = []
    numbers = 0
    for piece in pieces:
        limit = AT_ONCE if piece.grad.ndim == 1 else PIECE
        if some and numbers + piece.grad.numel() > limit:
            _adam(some, step, group)
            some, numbers = [], 0
        some.append(piece)
        numbers += piece.grad.numel()
    if some:
        _adam(some, step, group)


def pieces_of(parameter: RowParameter, known: KnownRows) -> Iterator[Piece]:
    """The rows of a parameter that have a gradient, some at a time."""
    grad, cache = cast(Tensor, parameter.grad), parameter.activation_cache
    if grad.is_sparse:
        ids, values = known.taken(grad)
        if _gathering_pays(values, len(ids), 2 * len(known.moved) - len(ids)):
            cache.check(known.everything[0])
            yield from _gathered(ids, values, known, cache)
            return
    cache.invalidate()
    if grad.is_sparse:
        yield from _spread(ids, values, known)
        return
    grads = rows_of(grad, parameter.row_dims)
    if grad.device.type != "cpu":
        yield _masked_piece(known.everything, grads)
        return
    for (rows, moved), some in zip(known.parts, grads.split(known.size), strict=True):
        yield Piece(rows, some, moved=moved)


def _gathered(ids: Tensor, values: Tensor, known: KnownRows, cache: ActivationCache) -> Iterator[Piece]:
    """The few rows of a sparse gradient, side by side."""
    for some, grads in zip(ids.split(known.size), values.split(known.size), strict=True):
        used = other_than_zero(grads)
        if not bool(used.all()):  # such as those of active units that give nothing for a row of the batch
            some, grads = some[used], grads[used]
        known.moved[some] = True
        rows = [tensor.index_select(0, some) for tensor in known.everything]
        yield Piece(rows, grads, partial(_put, known.everything, some, rows, cache))


def _spread(ids: Tensor, values: Tensor, known: KnownRows) -> Iterator[Piece]:
    """The many rows of a sparse gradient, among those that rest."""
    starts = range(0, len(known.moved), known.size)
    lengths = np.diff(np.searchsorted(ids.numpy(), [*starts, len(known.moved)])).tolist()
    parts = zip(known.parts, starts, ids.split(lengths), values.split(lengths), strict=True)
    for (rows, moved), start, some, grads in parts:
        dense, places = values.new_zeros(rows[0].shape), some - start
        _put([dense], places, [grads])
        zero = np.ones(len(moved), bool)
        zero[places.numpy()] = zero_rows(grads)
        yield Piece(rows, dense, moved=moved, zero=zero)


def _gathering_pays(grad: Tensor, used: int, others: int) -> bool:
    """Whether rows are updated faster side by side than as they lie, with others updated or put back beside them."""
    return GATHER[min(grad.ndim, 2)] * used <= others


def _without_resting(piece: Piece, eps: float) -> Piece:
    """What is to be updated of a piece of which rows may have no gradient: those rows rest."""
    if piece.moved is None:
        return piece
    rows, grad, moved = piece.rows, piece.grad, piece.moved.numpy()
    zero = zero_rows(grad) if piece.zero is None else piece.zero
    still = np.flatnonzero(zero & moved if eps > 0 else zero)  # what has no moments stays by itself
    used = ~zero
    moved |= used
    count = int(np.count_nonzero(used))
    if count < len(moved) and _gathering_pays(grad, count, len(moved) + len(still)):
        ids = torch.from_numpy(np.flatnonzero(used))
        some = [tensor.index_select(0, ids) for tensor in rows]
        return Piece(some, grad.index_select(0, ids), partial(_put, rows, ids, some))
    if len(still) == 0:
        return Piece(rows, grad)
    ids = torch.from_numpy(still)
    kept = rows[1:] if eps > 0 else rows
    some = [tensor.index_select(0, ids) for tensor in kept]
    if eps > 0:
        _put(rows[1:2], ids, [torch.zeros_like(some[0])])  # then their weights stay by themselves
    return Piece(rows, grad, partial(_put, kept, ids, some))


def zero_rows(grad: Tensor) -> Any:
    """Which rows ``(N, ...)`` are all zero, an array ``(N,)``.

    Example:
        >>> zero_rows(torch.tensor([[0.0, -0.0], [0.0, torch.nan], [1.0, 0.0]]))
        array([ True, False, False])
    """
    if grad.ndim > 1:
        zero = ~grad.flatten(1)[:, 0].bool().numpy()
        ids = np.flatnonzero(zero)
        if 4 * len(ids) <= len(zero):
            zero[ids] = ~other_than_zero(grad.index_select(0, torch.from_numpy(ids))).numpy()
            return zero
    return ~other_than_zero(grad).numpy()


def _masked_piece(rows: list[Tensor], grad: Tensor) -> Piece:
    """The same on a device where the number of rows is not known without waiting."""
    used = other_than_zero(grad).view(-1, *[1] * (grad.ndim - 1))
    return Piece(rows, grad, partial(_put_back, rows, used, [tensor.clone() for tensor in rows]))


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
    pieces = [_without_resting(piece, group["eps"]) for piece in pieces]
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
        return rows.abs().sum(1).bool()  # as is the sum compared with `any`
    bits = np.bitwise_or.reduce(rows.contiguous().view(BITS[rows.itemsize]).numpy(), axis=1)
    return torch.from_numpy(bits << 1 != 0)  # without the signs, which zeros have, too
