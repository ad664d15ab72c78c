"""Rows taken out of parameters, and gradients that hold no more than those."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dendrite_zoo._core.ranks import num_ranks
from dendrite_zoo._core.torch import runs_eagerly
from dendrite_zoo.row_sparse.parameter import RowParameter, rows_of

FULL = 0.9
"""A gradient of rows times vectors is dense where it holds more than this share of them."""

OVERLAP = 4
"""A gradient with repetitions is dense where it holds more than one number in so many, or as many rows as there are."""


class Rows:
    """Numbers of rows, and what follows from them for a gradient: found once, however often they are taken.

    Args:
        ids: ``(...)``, with repetitions or without.
    """

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self._distinct: tuple[Tensor, Tensor, bool] | None = None
        self._indices: tuple[Any, Tensor] | None = None

    def sums(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct rows, in rising order, and of each the sum of its values ``(N, ...)``.

        Example:
            >>> Rows(torch.tensor([4, 2, 4])).sums(torch.tensor([1.0, 2.0, 3.0]))
            (tensor([2, 4]), tensor([2., 4.]))
        """
        if self._distinct is None:
            with torch.inference_mode(False):
                ids = self.ids.reshape(-1)
                distinct, places = ids.unique(return_inverse=True)
                all_differ = len(distinct) == len(ids)
                self._distinct = distinct, places.argsort() if all_differ else places, all_differ
        distinct, places, all_differ = self._distinct
        return distinct, values.index_select(0, places) if all_differ else _sums(places, values, len(distinct))

    def indices(self, ids: Tensor, shape: Sequence[int]) -> Tensor:
        """The indices of these rows in a tensor of whose dimensions the first are of this shape, ``(row_dims, N)``."""
        if self._indices is None or self._indices[0] != shape:
            self._indices = shape, _indices(ids, shape)
        return self._indices[1]


def take_rows(parameter: Tensor, ids: Tensor | Rows, row_dims: int, mask: Tensor | None = None) -> Tensor:
    """The rows ``ids`` of a parameter; where its owner wants it, the gradient holds these alone.

    Where a mask is zero, so is the parameter; what it leaves out gets no gradient.

    Under DDP, which exchanges gradients in dense buckets, inside ``torch.compile``, and on a GPU, where a program would
    wait to hear how many rows there are, the gradient stays dense.

    Shape:
        ids ``(...)``, counting over the first ``row_dims`` dimensions of ``parameter``, with repetitions or without;
        mask shaped as the parameter; result ``(..., *parameter.shape[row_dims:])``.

    Example:
        >>> take_rows(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.tensor([1]), row_dims=2)
        tensor([[3., 4.]])
    """
    if wants_sparse(parameter):
        return _TakeRows.apply(parameter, ids if isinstance(ids, Rows) else Rows(ids), mask)
    ids = ids.ids if isinstance(ids, Rows) else ids
    rows = _select(rows_of(parameter, row_dims), ids)
    return rows if mask is None else rows * factors(mask, ids, row_dims, rows)


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """A whole weight of which a mask, where it is zero, lets no gradient pass, as `take_rows` does for rows."""
    if mask is None:
        return weight
    return _MaskedGradient.apply(weight, mask) if wants_sparse(weight) else weight * mask.to(weight.dtype)


def dot_taken_rows(
    weight: Tensor, ids: Tensor, vectors: Tensor, row_dims: int, mask: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """The rows ``ids`` of a weight, each times the vector of its line: ``take_rows`` and an inner product.

    A row's gradient is a multiple of the vector; a sparse gradient leaves out the rows for which it is zero.

    Args:
        weight: any tensor.
        ids: which rows.
        vectors: one for each line of ``ids``.
        row_dims: how many leading dimensions number the rows.
        mask: shaped as the weight; multiplies the rows.
        known: the result, where it is known already: then the gradient alone is seen to.

    Shape:
        ids and known ``(K, N)``, vectors ``(K, C)``; result ``(K, N)``.

    Example:
        >>> dot_taken_rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1, 1]]), torch.ones(1, 2), row_dims=1)
        tensor([[7., 7.]])
    """
    if wants_sparse(weight) and not vectors.requires_grad:
        return _DotTakenRows.apply(weight, ids, vectors, mask, known)
    return _dot(take_rows(weight, ids, row_dims, mask), vectors)


def wants_sparse(parameter: Tensor) -> bool:
    """Whether gradients of a parameter are to hold some of its rows alone."""
    return isinstance(parameter, RowParameter) and parameter.owner is not None and not _dense_needed(parameter.device)


def _dense_needed(device: torch.device) -> bool:
    return device.type != "cpu" or not runs_eagerly() or num_ranks() > 1


def _select(rows: Tensor, ids: Tensor) -> Tensor:
    return rows.index_select(0, ids.reshape(-1)).unflatten(0, ids.shape)


def factors(mask: Tensor, ids: Tensor, row_dims: int, like: Tensor) -> Tensor:
    """The rows of a mask as numbers of the type of a tensor, which multiply several times as fast as bools."""
    return _select(rows_of(mask, row_dims), ids).to(like.dtype)


def _dot(rows: Tensor, vectors: Tensor) -> Tensor:
    return torch.matmul(rows, vectors.unsqueeze(-1)).squeeze(-1)


class Taken(NamedTuple):
    """Rows to take out of parameters of one shape, as `take_rows`, the same number of each.

    Attributes:
        parameters: ``N`` of them.
        rows: of each parameter.
        row_dims: how many leading dimensions number the rows.
        masks: of each parameter, shaped as it, or None.
    """

    parameters: Sequence[Tensor]
    rows: Sequence[Rows]
    row_dims: int
    masks: Sequence[Tensor | None]


def take_together(wanted: Sequence[Taken]) -> list[Tensor]:
    """What `take_rows` takes out of many parameters, at once; of several of one shape as one tensor.

    Shape:
        ``(*ids, ...)`` for each that is wanted of one parameter, ``(N, *ids, ...)`` of ``N``.
    """
    parameters = [parameter for taken in wanted for parameter in taken.parameters]
    learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)
    if learns and all(map(wants_sparse, parameters)):
        return list(_TakeTogether.apply(wanted, *parameters))
    results = []
    for taken in wanted:
        each = zip(taken.parameters, taken.rows, taken.masks, strict=True)
        some = [take_rows(parameter, rows, taken.row_dims, mask) for parameter, rows, mask in each]
        results.append(some[0] if len(some) == 1 else torch.stack(some))
    return results


class _MaskedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return weight.view_as(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.mul_(ctx.saved_tensors[0]), None  # a product's own, which nobody else has


class _TakeTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wanted: Sequence[Taken], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.wanted = wanted
        ctx.set_materialize_grads(False)
        results = []
        for taken in wanted:
            first, ids = taken.parameters[0], taken.rows[0].ids
            result = first.new_empty(len(taken.parameters), ids.numel(), *first.shape[taken.row_dims :])
            for parameter, rows, out in zip(taken.parameters, taken.rows, result, strict=True):
                torch.index_select(rows_of(parameter, taken.row_dims), 0, rows.ids.reshape(-1), out=out)
            results.append(result.unflatten(1, ids.shape) if len(result) > 1 else result[0].unflatten(0, ids.shape))
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = []
        for taken, grad in zip(ctx.wanted, grads, strict=True):
            several = len(taken.parameters) > 1
            for number, (parameter, rows, mask) in enumerate(
                zip(taken.parameters, taken.rows, taken.masks, strict=True)
            ):
                if grad is None or not parameter.requires_grad:
                    gradients.append(None)
                    continue
                one = grad[number] if several else grad
                gradients.append(_gradient_of(rows, one, parameter.shape, taken.row_dims, mask))
        return None, *gradients


def _gradient_of(rows: Rows, grad: Tensor, shape: torch.Size, row_dims: int, mask: Tensor | None) -> Tensor:
    """The gradient of a parameter of which these rows were taken."""
    ids, values = rows.ids.reshape(-1), rows_of(grad.contiguous(), rows.ids.ndim)
    several = rows.ids.ndim > row_dims
    if several and _is_most(ids, values, math.prod(shape[:row_dims])):
        sums = _sums(ids, values, math.prod(shape[:row_dims])).view(shape)
        return sums if mask is None else sums.mul_(mask)
    if several:
        ids, values = rows.sums(values)
    if mask is not None:
        values = values * _select(rows_of(mask, row_dims), ids)
    return _sparse(rows.indices(ids, shape[:row_dims]), values, shape, True if several else None)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: RowParameter, rows: Rows, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.rows, ctx.shape, ctx.row_dims = rows, parameter.shape, parameter.row_dims
        return _select(rows_of(parameter, parameter.row_dims), rows.ids)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _gradient_of(ctx.rows, grad, ctx.shape, ctx.row_dims, mask), None, None


class _DotTakenRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parameter: RowParameter, ids: Tensor, vectors: Tensor, mask: Tensor | None, known: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(ids, vectors, mask)
        ctx.shape, ctx.row_dims = parameter.shape, parameter.row_dims
        if known is not None:
            return known.clone()
        rows = _select(rows_of(parameter, parameter.row_dims), ids)
        return _dot(rows if mask is None else rows.mul_(factors(mask, ids, parameter.row_dims, rows)), vectors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ids, vectors, mask = ctx.saved_tensors
        if len(ids) > 1:
            return _products(ids, grad, vectors, mask, ctx), None, None, None, None
        if mask is not None:
            vectors = vectors * factors(mask, ids[0], ctx.row_dims, vectors)  # (N, C)
        used = grad[0] != 0 if mask is None else (grad[0] != 0) & vectors.any(-1)
        values = grad[0][used].unsqueeze(-1) * (vectors if mask is None else vectors[used])
        ids = _indices(ids[0][used], ctx.shape[: ctx.row_dims])
        return _sparse(ids, values, ctx.shape, None), None, None, None, None


def _products(ids: Tensor, grad: Tensor, vectors: Tensor, mask: Tensor | None, ctx: Any) -> Tensor:
    """The gradient of rows, of which each line of ids ``(K, N)`` has one once: a product with vectors ``(K, C)``."""
    shape = ctx.shape[: ctx.row_dims]
    factors = grad.new_zeros(len(ids), math.prod(shape)).scatter_(1, ids, grad)  # of each vector in each row
    used = factors.bool().view(torch.uint8).amax(0).nonzero().squeeze(1)
    is_most = len(used) > FULL * factors.shape[1]
    values = (factors if is_most else factors[:, used]).T @ vectors
    if mask is not None:
        rows = rows_of(mask, ctx.row_dims)
        values *= (rows if is_most else rows[used]).to(values.dtype)
    return values.view(ctx.shape) if is_most else _sparse(_indices(used, shape), values, ctx.shape, True)


def _is_most(ids: Tensor, values: Tensor, count: int) -> bool:
    return len(ids) * (OVERLAP if values.ndim == 1 else 1) > count


def _indices(ids: Tensor, shape: Sequence[int]) -> Tensor:
    indices = [ids]
    for size in reversed(shape[1:]):  # `torch.unravel_index` takes three to ten times as long
        indices[:1] = [indices[0] // size, indices[0] % size]
    return torch.stack(indices)


def _sparse(indices: Tensor, values: Tensor, shape: torch.Size, is_coalesced: bool | None) -> Tensor:
    """A sparse tensor, of which is known or not that rows are sorted, and there once."""
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=is_coalesced, check_invariants=False)


def _sums(places: Tensor, values: Tensor, count: int) -> Tensor:
    sums = values.new_zeros(count, *values.shape[1:])
    return sums.scatter_add_(0, places, values) if values.ndim == 1 else sums.index_add_(0, places, values)
