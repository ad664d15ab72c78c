"""Parameters of which a training step uses some rows, and gradients that hold no more than those.

A layer of ``U`` units with ``S`` segments has ``U × S`` rows of segment weights, and in one context ``U`` of them win.
`take_rows` takes those out. Its gradient is an ordinary dense one, right for every optimizer, gradient clipping and
DDP, until an optimizer that knows about rows (`dendrite_zoo.optim.DendriteAdam`) owns the parameter: then it is
sparse, as that of ``torch.nn.Embedding(sparse=True)``.
"""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.ranks import num_ranks
from dendrite_zoo._core.torch import runs_eagerly, sparse_indices
from dendrite_zoo.row_sparse.activation_cache import ActivationCache

OVERLAP = 4
"""A gradient with repetitions is dense where it holds more than one number in so many, or as many rows as there are."""


class RowParameter(nn.Parameter):
    """A parameter whose first ``row_dims`` dimensions number its rows.

    Everywhere else it is an ordinary parameter. A copy, or one that was pickled, belongs to no optimizer.

    Args:
        data: the tensor.
        requires_grad: as for any parameter.
        row_dims: how many leading dimensions number the rows; all of them where each number is a row of its own.

    Attributes:
        activation_cache: of the activations of its rows, where they are segments; call
            ``activation_cache.invalidate()`` after a write to a few rows through ``.data``.
    """

    row_dims: int
    activation_cache: ActivationCache
    _owner: weakref.ref[torch.optim.Optimizer] | None

    def __new__(cls, data: Tensor, requires_grad: bool = True, row_dims: int = 1) -> "RowParameter":
        """Wrap ``data``, without an owner."""
        parameter = super().__new__(cls, data, requires_grad)
        parameter.row_dims, parameter.activation_cache, parameter._owner = row_dims, ActivationCache(), None
        return parameter

    @property
    def owner(self) -> torch.optim.Optimizer | None:
        """The optimizer that takes sparse gradients and updates their rows, while it lives."""
        return None if self._owner is None else self._owner()

    @owner.setter
    def owner(self, optimizer: torch.optim.Optimizer | None) -> None:
        self._owner = None if optimizer is None else weakref.ref(optimizer)
        self.activation_cache.invalidate()

    @property
    def usable_cache(self) -> ActivationCache | None:
        """Its cache where activations are cached from step to step: on a CPU, in training, while there is an owner."""
        if self.owner is None or not runs_eagerly() or self.device.type != "cpu":
            return None
        return self.activation_cache if self.requires_grad and torch.is_grad_enabled() else None

    def __deepcopy__(self, memo: dict[int, Any]) -> "RowParameter":
        return RowParameter(self.data.clone(), self.requires_grad, self.row_dims)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return RowParameter, (self.data, self.requires_grad, self.row_dims)


def make_partial(layers: Sequence[Any], chosen: Sequence[bool]) -> None:
    """Let gradients be as sparse as the part that a context uses, where an optimizer wants that.

    Args:
        layers: modules with a weight and a bias, one after another; the inputs of each are the units of the one before.
        chosen: of each layer, whether a context chooses among its units.
    """
    for layer, units, inputs in zip(layers, chosen, [False, *chosen], strict=False):
        if units or inputs:
            layer.weight = RowParameter(layer.weight.detach(), row_dims=2 if inputs else 1)
            if layer.bias is not None:
                layer.bias = RowParameter(layer.bias.detach(), row_dims=1)


def rows_of(tensor: Tensor, row_dims: int) -> Tensor:
    """A view of ``tensor`` as ``(rows, ...)``, its first ``row_dims`` dimensions as one."""
    return tensor.view(-1, *tensor.shape[row_dims:])


def row_ids(gradient: Tensor) -> Tensor:
    """The numbers of the rows that a sparse gradient holds, ``(N,)``, counted over all its sparse dimensions.

    Example:
        >>> row_ids(torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]]).to_sparse())
        tensor([4])
    """
    indices = sparse_indices(gradient)
    ids = indices[0]
    for dim in range(1, gradient.sparse_dim()):
        ids = ids * gradient.shape[dim] + indices[dim]
    return ids


def once(gradient: Tensor) -> Tensor:
    """The gradient, or a coalesced copy of a sparse one that may hold a row more than once.

    Example:
        >>> twice = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.ones(2), (3,), check_invariants=False)
        >>> once(twice).values()
        tensor([2.])
    """
    if not gradient.is_sparse or gradient.is_coalesced():
        return gradient
    ids = row_ids(gradient)
    return gradient if bool((ids[1:] > ids[:-1]).all()) else gradient.coalesce()


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
    if _wants_sparse(parameter):
        return _TakeRows.apply(parameter, ids if isinstance(ids, Rows) else Rows(ids), mask)
    ids = ids.ids if isinstance(ids, Rows) else ids
    rows = _select(rows_of(parameter, row_dims), ids)
    return rows if mask is None else rows * _factors(mask, ids, row_dims, rows)


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
    if _wants_sparse(weight) and not vectors.requires_grad:
        return _DotTakenRows.apply(weight, ids, vectors, mask, known)
    return _dot(take_rows(weight, ids, row_dims, mask), vectors)


def _wants_sparse(parameter: Tensor) -> bool:
    return isinstance(parameter, RowParameter) and parameter.owner is not None and not _dense_needed(parameter.device)


def _dense_needed(device: torch.device) -> bool:
    return device.type != "cpu" or not runs_eagerly() or num_ranks() > 1


def _select(rows: Tensor, ids: Tensor) -> Tensor:
    return rows.index_select(0, ids.reshape(-1)).unflatten(0, ids.shape)


def _factors(mask: Tensor, ids: Tensor, row_dims: int, like: Tensor) -> Tensor:
    """The rows of a mask as numbers, which multiply several times as fast as bools."""
    return _select(rows_of(mask, row_dims), ids).to(like.dtype)


def _dot(rows: Tensor, vectors: Tensor) -> Tensor:
    return torch.matmul(rows, vectors.unsqueeze(-1)).squeeze(-1)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: RowParameter, rows: Rows, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.rows, ctx.shape, ctx.row_dims = rows, parameter.shape, parameter.row_dims
        return _select(rows_of(parameter, parameter.row_dims), rows.ids)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (mask,), rows, shape = ctx.saved_tensors, ctx.rows, ctx.shape[: ctx.row_dims]
        ids, values = rows.ids.reshape(-1), rows_of(grad.contiguous(), rows.ids.ndim)
        if mask is not None:
            values = values * _factors(mask, ids, ctx.row_dims, values)
        several = rows.ids.ndim > ctx.row_dims
        if several and _is_most(ids, values, math.prod(shape)):
            return _sums(ids, values, math.prod(shape)).view(ctx.shape), None, None
        if several:
            ids, values = rows.sums(values)
        return _sparse(rows.indices(ids, shape), values, ctx.shape, True if several else None), None, None


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
        return _dot(rows if mask is None else rows.mul_(_factors(mask, ids, parameter.row_dims, rows)), vectors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ids, vectors, mask = ctx.saved_tensors
        if mask is not None:
            vectors = vectors.unsqueeze(1) * _factors(mask, ids, ctx.row_dims, vectors)  # (K, N, C)
        elif len(vectors) > 1:
            vectors = vectors.unsqueeze(1).expand(-1, ids.shape[1], -1)
        used = grad != 0 if mask is None else (grad != 0) & vectors.any(-1)
        values = grad[used].unsqueeze(-1) * (vectors if vectors.ndim == 2 else vectors[used])
        return _gradient(ids[used], values, ctx, unique=len(ids) == 1), None, None, None, None


def _gradient(ids: Tensor, values: Tensor, ctx: Any, unique: bool) -> Tensor:
    """The gradient of the rows ``ids``: sparse, but where several parts may overlap and are most of it."""
    shape = ctx.shape[: ctx.row_dims]
    if not unique and _is_most(ids, values, math.prod(shape)):
        return _sums(ids, values, math.prod(shape)).view(ctx.shape)
    if not unique:
        ids, values = Rows(ids).sums(values)
    return _sparse(_indices(ids, shape), values, ctx.shape, None if unique else True)


def _is_most(ids: Tensor, values: Tensor, count: int) -> bool:
    return len(ids) * (OVERLAP if values.ndim == 1 else 1) > count


def _indices(ids: Tensor, shape: Sequence[int]) -> Tensor:
    indices = [ids]
    for size in reversed(shape[1:]):  # `torch.unravel_index` takes three to ten times as long
        indices[:1] = [indices[0] // size, indices[0] % size]
    return torch.stack(indices)


def _sparse(indices: Tensor, values: Tensor, shape: Sequence[int], is_coalesced: bool | None) -> Tensor:
    """A sparse tensor, of which is known or not that rows are sorted, and there once."""
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=is_coalesced, check_invariants=False)


def _sums(places: Tensor, values: Tensor, count: int) -> Tensor:
    sums = values.new_zeros(count, *values.shape[1:])
    return sums.scatter_add_(0, places, values) if values.ndim == 1 else sums.index_add_(0, places, values)
