"""The optimizer for networks with active dendrites: a step costs what the winning segments cost."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from dendrite_zoo._core.torch import fused_devices, sparse_values
from dendrite_zoo.row_sparse.activation_cache import ActivationCache
from dendrite_zoo.row_sparse.parameter import RowParameter, once, row_ids, rows_of


class DendriteAdam(torch.optim.Adam):
    """Adam for a whole model, whose dendritic segments move only where they won.

    Ordinary parameters are updated by torch's fused `Adam`. Segments follow the rule of `torch.optim.SparseAdam`: rows
    with gradient move, and with them their moments; the other rows, and theirs, are not even read. As long as this
    optimizer lives, the segments it was given have sparse gradients, as those of ``torch.nn.Embedding(sparse=True)``,
    and their activations in one context are cached from step to step (see `dendrite_zoo.row_sparse.parameter`).

    Under DDP, in ``torch.compile`` and on a GPU gradients stay dense; rows without gradient do not move there either.

    Sparse gradients are refused by `torch.nn.utils.clip_grad_norm_`, and by other optimizers until `release` gives the
    segments back. `ContinualClassifier` sees to both; for ``Trainer(gradient_clip_val=...)`` a LightningModule of your
    own needs::

        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            if gradient_clip_val:
                clip_gradients_(self.parameters(), gradient_clip_val, gradient_clip_algorithm or "norm")

        def on_fit_end(self):
            self.optimizers().release()

    Args:
        params: parameters, or groups of them, as for any optimizer.
        lr: learning rate, 1/step.
        betas: decay of the running means of the gradient and of its square, from step to step.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty on ordinary parameters; segments have none.

    Example:
        >>> from dendrite_zoo.layers import ActiveDendriteLinear
        >>> layer = ActiveDendriteLinear(4, 3, context_dim=2, num_segments=5)
        >>> optimizer = DendriteAdam(layer.parameters(), lr=1e-3)
        >>> layer(torch.randn(8, 4), torch.randn(2)).sum().backward()
        >>> layer.segments.grad.is_sparse
        True
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # a GradScaler is to unscale sparse gradients, too, by itself

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, and own those that have rows.

        Raises:
            ValueError: a group of segments is to be updated by ``amsgrad``, or to ``maximize``.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for option in ("amsgrad", "maximize"):
            if group.get(option) and _with_rows([group]):
                self.param_groups.pop()
                raise ValueError(
                    f"Expected a group with segments to have {option}=False, for they follow torch.optim.SparseAdam, "
                    f"but got {option}={group[option]!r}. Leave it out, or give the segments a group of their own."
                )
        group["fused"] = all(parameter.device.type in fused_devices() for parameter in group["params"])
        for parameter in _with_rows(self.param_groups[-1:]):
            parameter.owner = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for parameter in _with_rows(self.param_groups):
            parameter.owner = self

    def release(self) -> None:
        """Give the parameters back: their gradients are dense again, for any other optimizer.

        Where nothing refers to this optimizer any more, that happens by itself.
        """
        for parameter in _with_rows(self.param_groups):
            owner = parameter.owner
            if owner is not None and owner.param_groups is self.param_groups:  # so too if Lightning has wrapped it
                parameter.owner = None

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        """Update the rows of a group, and leave its ordinary parameters to torch."""
        with_grad: dict[float, list[RowParameter]] = {}
        for parameter in _with_rows([group]):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                zeros = torch.zeros_like(parameter)
                state.update(step=torch.tensor(0.0), exp_avg=zeros, exp_avg_sq=zeros.clone())
            state["step"] += 1
            with_grad.setdefault(float(state["step"]), []).append(parameter)
        for step, parameters in with_grad.items():
            _update((piece for parameter in parameters for piece in self._pieces(parameter, group["eps"])), step, group)
        ordinary = [parameter for parameter in group["params"] if not isinstance(parameter, RowParameter)]
        return super()._init_group({**group, "params": ordinary}, *lists)

    def _pieces(self, parameter: RowParameter, eps: float) -> "Iterator[_Piece]":
        """The rows of a parameter that have a gradient, some at a time."""
        grad, cache, state = cast(Tensor, parameter.grad), parameter.activation_cache, self.state[parameter]
        tensors = parameter.detach(), state["exp_avg"], state["exp_avg_sq"]
        everything = [rows_of(tensor, parameter.row_dims) for tensor in tensors]
        size = max(1, PIECE * len(everything[0]) // max(1, parameter.numel()))
        if grad.is_sparse:
            grad = once(grad)
            cache.check(everything[0])
            for ids, values in zip(row_ids(grad).split(size), sparse_values(grad).split(size), strict=True):
                used = _places(_other_than_zero(values))
                if len(used) < len(ids):  # such as those of active units that give nothing for a row of the batch
                    ids, values = ids[used], values[used]
                rows = [tensor.index_select(0, ids) for tensor in everything]
                yield _Piece(rows, values, partial(_put, everything, ids, rows, cache))
            return
        cache.invalidate()
        grad = rows_of(grad, parameter.row_dims)
        if len(grad) <= size or grad.device.type != "cpu":
            yield _dense_piece(everything, grad, eps)
            return
        for values, *rows in zip(grad.split(size), *(tensor.split(size) for tensor in everything), strict=True):
            yield _dense_piece(rows, values, eps)


class _Piece(NamedTuple):
    """Rows of weights and of their two moments, the gradient of these rows, and what is to be done after the update."""

    rows: list[Tensor]
    grad: Tensor
    after: Callable[[], None] | None


PIECE = 1 << 18
"""Numbers of a weight that are updated at once, so that they stay in the processor's cache with their moments."""


def _dense_piece(rows: list[Tensor], grad: Tensor, eps: float) -> _Piece:
    """What to update where some rows of a dense gradient may be zero: those stay as they are, moments included."""
    used = _other_than_zero(grad)
    if grad.device.type != "cpu":  # where the number of rows is not known without waiting
        shape = -1, *[1] * (grad.ndim - 1)
        return _Piece(rows, grad, partial(_put_back, rows, used.view(shape), [tensor.clone() for tensor in rows]))
    unused = used.logical_not()
    would_move = unused & _other_than_zero(rows[1]) if eps > 0 else unused  # by their moments
    still = _places(would_move)
    if len(still) == 0:
        return _Piece(rows, grad, None)
    if len(still) < np.count_nonzero(used.numpy()):
        return _Piece(rows, grad, partial(_put, rows, still, [tensor.index_select(0, still) for tensor in rows]))
    ids = _places(used)
    gathered = [tensor.index_select(0, ids) for tensor in rows]
    return _Piece(gathered, grad.index_select(0, ids), partial(_put, rows, ids, gathered))


def _places(marked: Tensor) -> Tensor:
    """Where ``(N,)`` is true, as `Tensor.nonzero` says, which takes five times as long."""
    return torch.from_numpy(np.flatnonzero(marked.numpy()))


def _put(everything: list[Tensor], ids: Tensor, rows: list[Tensor], cache: ActivationCache | None = None) -> None:
    for tensor, values in zip(everything, rows, strict=True):
        if tensor.ndim == 1:
            tensor.scatter_(0, ids, values)  # in half the time
        else:
            tensor.index_copy_(0, ids, values)
    if cache is not None:
        cache.refresh(everything[0], ids, rows[0])


def _put_back(rows: list[Tensor], used: Tensor, old: list[Tensor]) -> None:
    for tensor, values in zip(rows, old, strict=True):
        tensor.copy_(torch.where(used, tensor, values))


def _update(pieces: Iterator[_Piece], step: float, group: dict[str, Any]) -> None:
    """One step of Adam, for so many pieces at once that they stay in the processor's cache."""
    some: list[_Piece] = []
    numbers = 0
    for piece in pieces:
        some.append(piece)
        numbers += piece.grad.numel()
        if numbers >= PIECE:
            _adam(some, step, group)
            some, numbers = [], 0
    if some:
        _adam(some, step, group)


def _adam(pieces: list[_Piece], step: float, group: dict[str, Any]) -> None:
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


def _other_than_zero(rows: Tensor) -> Tensor:
    """Which rows ``(N, ...)`` are not all zero, ``(N,)``."""
    numbers = rows.bool()  # several times as fast as `!= 0`, as is `amax` compared with `any`
    return numbers if rows.ndim == 1 else numbers.flatten(1).view(torch.uint8).amax(1).bool()


def _with_rows(groups: Iterable[dict[str, Any]]) -> list[RowParameter]:
    return [parameter for group in groups for parameter in group["params"] if isinstance(parameter, RowParameter)]


@torch.no_grad()
def clip_gradients_(
    parameters: Iterable[Tensor], limit: float, algorithm: Literal["norm", "value"] = "norm"
) -> Tensor | None:
    """Clip gradients in place, sparse ones included: `torch.nn.utils.clip_grad_norm_` takes dense ones only.

    Args:
        parameters: whose gradients to clip, together.
        limit: the largest norm of all of them, or with ``algorithm="value"`` the largest size of each number.
        algorithm: which of the two.

    Returns:
        The norm before, or None.

    Example:
        >>> table = torch.nn.Embedding(5, 1, sparse=True)
        >>> (table(torch.tensor([1, 1, 3])) * 2).sum().backward()
        >>> clip_gradients_(table.parameters(), 1.0)  # 2 + 2 in one row, 2 in another
        tensor(4.4721)
        >>> table.weight.grad.coalesce().values().flatten()
        tensor([0.8944, 0.4472])
    """
    grads: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = once(parameter.grad)
            grads.append(sparse_values(parameter.grad) if parameter.grad.is_sparse else parameter.grad)
    if algorithm == "value":
        for grad in grads:
            grad.clamp_(-limit, limit)
        return None
    norm = torch.nn.utils.get_total_norm(grads)
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as in torch
    for grad in grads:
        grad.mul_(scale)
    return norm
