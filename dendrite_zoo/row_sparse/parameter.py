"""Parameters of which a training step uses some rows, and gradients that hold no more than those.

A layer of ``U`` units with ``S`` segments has ``U × S`` rows of segment weights, and in one context ``U`` of them win.
`dendrite_zoo.row_sparse.taken_rows` takes those out. The gradient is an ordinary dense one, right for every optimizer,
gradient clipping and DDP, until an optimizer that knows about rows (`dendrite_zoo.optim.DendriteAdam`) owns the
parameter: then it is sparse, as that of ``torch.nn.Embedding(sparse=True)``.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.torch import runs_eagerly, sparse_indices
from dendrite_zoo.row_sparse.activation_cache import ActivationCache


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
