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


def take_rows(parameter: Tensor, ids: Tensor, row_dims: int, mask: Tensor | None = None) -> Tensor:
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
        return _TakeRows.apply(parameter, ids, mask)
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
    def forward(ctx: Any, parameter: RowParameter, ids: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(ids, mask)
        ctx.shape, ctx.row_dims, ctx.several = parameter.shape, parameter.row_dims, ids.ndim > parameter.row_dims
        return _select(rows_of(parameter, parameter.row_dims), ids)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ids, mask = ctx.saved_tensors
        if mask is not None:
            grad = grad * _factors(mask, ids, ctx.row_dims, grad)
        return (
            _gradient(ids.reshape(-1), rows_of(grad.contiguous(), ids.ndim), ctx, ids.ndim <= ctx.row_dims),
            None,
            None,
        )


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
    if not unique:
        count = math.prod(ctx.shape[: ctx.row_dims])
        if len(ids) * (OVERLAP if values.ndim == 1 else 1) > count:
            return _sums(ids, values, count).view(ctx.shape)
        ids, places = ids.unique(return_inverse=True)
        values = _sums(places, values, len(ids))
    indices = [ids]
    for size in reversed(ctx.shape[1 : ctx.row_dims]):  # `torch.unravel_index` takes three to ten times as long
        indices[:1] = [indices[0] // size, indices[0] % size]
    known = None if unique else True  # that rows are sorted, and there once
    return torch.sparse_coo_tensor(torch.stack(indices), values, ctx.shape, is_coalesced=known, check_invariants=False)


def _sums(places: Tensor, values: Tensor, count: int) -> Tensor:
    sums = values.new_zeros(count, *values.shape[1:])
    return sums.scatter_add_(0, places, values) if values.ndim == 1 else sums.index_add_(0, places, values)
