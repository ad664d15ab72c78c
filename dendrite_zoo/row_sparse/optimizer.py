"""The optimizer for networks with active dendrites: a step costs what the winning segments cost."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim.adam import adam

from dendrite_zoo._core.torch import fused_devices, sparse_values
from dendrite_zoo.row_sparse.activation_cache import CHUNK
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
        """Add parameters, and own those that have rows."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
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
        dense: dict[float, list[tuple[RowParameter, Tensor]]] = {}
        for parameter in _with_rows([group]):
            if (grad := parameter.grad) is None:
                continue
            state = self.state[parameter]
            if not state:
                zeros = torch.zeros_like(parameter)
                state.update(step=torch.tensor(0.0), exp_avg=zeros, exp_avg_sq=zeros.clone())
            state["step"] += 1
            if grad.is_sparse:
                grad = once(grad)
                self._update_some(parameter, row_ids(grad), sparse_values(grad), group)
                continue
            used = _used(rows_of(grad, parameter.row_dims))
            if parameter.device.type == "cpu" and parameter.row_dims < parameter.ndim and used.float().mean() < FEW:
                ids = used.nonzero().squeeze(1)
                self._update_some(parameter, ids, rows_of(grad, parameter.row_dims)[ids], group)
            else:
                dense.setdefault(float(state["step"]), []).append((parameter, used))
        for pairs in dense.values():
            self._update_all(pairs, group)
        ordinary = [parameter for parameter in group["params"] if not isinstance(parameter, RowParameter)]
        return super()._init_group({**group, "params": ordinary}, *lists)

    def _update_some(self, parameter: RowParameter, ids: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Gather these rows and their moments, update them and put them back."""
        state = self.state[parameter]
        everything = [rows_of(t.detach(), parameter.row_dims) for t in self._tensors(parameter)]
        parameter.activation_cache.check(everything[0])
        chunk = max(1, CHUNK // max(1, grad[:1].numel()))
        for some, g in zip(ids.split(chunk), grad.split(chunk), strict=True):
            rows = [tensor.index_select(0, some) for tensor in everything]
            _adam(rows[:1], [g], rows[1:2], rows[2:], state["step"], group)
            for tensor, new in zip(everything, rows, strict=True):
                tensor.index_copy_(0, some, new)
            parameter.activation_cache.refresh(everything[0], some, rows[0])

    def _update_all(self, pairs: list[tuple[RowParameter, Tensor]], group: dict[str, Any]) -> None:
        """Update whole parameters, and put the rows that are not used back where they were."""
        parameters = [parameter for parameter, _ in pairs]
        with_moments = [self._tensors(parameter) for parameter in parameters]
        aside = [
            _Aside([rows_of(tensor, parameter.row_dims) for tensor in tensors], used)
            for (parameter, used), tensors in zip(pairs, with_moments, strict=True)
        ]
        weights, means, squares = (list(tensors) for tensors in zip(*with_moments, strict=True))
        grads = [cast(Tensor, parameter.grad) for parameter in parameters]
        _adam(weights, grads, means, squares, self.state[parameters[0]]["step"], group)
        for parameter, unused in zip(parameters, aside, strict=True):
            unused.put_back()
            parameter.activation_cache.invalidate()

    def _tensors(self, parameter: RowParameter) -> tuple[Tensor, Tensor, Tensor]:
        state = self.state[parameter]
        return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


FEW = 0.5
"""Below this share of rows with gradient, gathering them is cheaper than updating all and putting the others back."""


def _adam(
    weights: list[Tensor], grads: list[Tensor], means: list[Tensor], squares: list[Tensor], step: Tensor, group: Any
) -> None:
    """One step of Adam, with the small number where `torch.optim.SparseAdam` adds it: to the uncorrected root."""
    (beta1, beta2), fused = group["betas"], bool(group["fused"])
    before = [torch.full((), float(step) - 1, device=w.device if fused else "cpu") for w in weights]
    adam(
        weights,
        grads,
        means,
        squares,
        [],
        before,  # which it counts up
        fused=fused,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=0.0,
        eps=group["eps"] / math.sqrt(1 - beta2 ** float(step)),
        maximize=False,
    )


def _used(grad: Tensor) -> Tensor:
    """Which rows of a gradient ``(N, ...)`` are other than zero, ``(N,)``."""
    if grad.ndim == 1:
        return grad != 0
    grad = grad.flatten(1)
    return (grad.amax(1) != 0) | (grad.amin(1) != 0)


class _Aside:
    """A copy of the rows ``(N, ...)`` of tensors that are not used, to be put back."""

    def __init__(self, rows: Sequence[Tensor], used: Tensor) -> None:
        self.rows, self.by_id = rows, used.device.type == "cpu" and rows[0].ndim > 1
        if self.by_id:
            self.unused = (~used).nonzero().squeeze(1)
            self.copies = [tensor.index_select(0, self.unused) for tensor in rows]
        else:
            self.unused = (~used).to(rows[0].dtype).view(-1, *[1] * (rows[0].ndim - 1))
            self.copies = [tensor.clone() for tensor in rows]

    def put_back(self) -> None:
        for rows, old in zip(self.rows, self.copies, strict=True):
            if self.by_id:
                rows.index_copy_(0, self.unused, old)
            else:  # exact for shares of 0 and 1, and several times as fast as `torch.where`
                rows.lerp_(old, self.unused)


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
