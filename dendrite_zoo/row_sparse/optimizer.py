"""The optimizer for networks with active dendrites: a step costs what the winning segments cost."""

import itertools
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from dendrite_zoo._core.torch import fused_devices, sparse_values
from dendrite_zoo.row_sparse.parameter import RowParameter, once
from dendrite_zoo.row_sparse.row_adam import KnownRows, pieces_of, update


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
        self._known: dict[int, KnownRows] = {}
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
        self._known = {}
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

    @torch.no_grad()
    def begin_anew(self) -> None:
        """Forget all moments and steps, as a new optimizer of the same parameters would have none."""
        for parameter in [*self.state]:
            state, known = self.state[parameter], self._known.get(id(parameter))
            if known is not None and isinstance(parameter, RowParameter) and known.are_of(parameter, state):
                known.begin_anew()
                state["step"].zero_()
            else:
                del self.state[parameter]

    def forget(self, parameter: Tensor) -> dict[str, Any]:
        """Forget a parameter that is in no group any more; return its moments."""
        self._known.pop(id(parameter), None)
        return dict(self.state.pop(parameter, {}))

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        """Update the rows of a group, and leave its ordinary parameters to torch."""
        by_step: dict[float, list[RowParameter]] = {}
        for parameter in _with_rows([group]):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                zeros = torch.zeros_like(parameter)
                state.update(step=torch.tensor(0.0), exp_avg=zeros, exp_avg_sq=zeros.clone())
            state["step"] += 1
            by_step.setdefault(float(state["step"]), []).append(parameter)
        for step, parameters in by_step.items():
            known = [*map(self._known_rows, parameters)]
            update(itertools.chain.from_iterable(map(pieces_of, parameters, known)), step, group)
            for rows in known:
                rows.keep()
        ordinary = [parameter for parameter in group["params"] if not isinstance(parameter, RowParameter)]
        return super()._init_group({**group, "params": ordinary}, *lists)

    def _known_rows(self, parameter: RowParameter) -> KnownRows:
        state, known = self.state[parameter], self._known.get(id(parameter))
        if known is None or not known.are_of(parameter, state):
            known = self._known[id(parameter)] = KnownRows(parameter, state)
        return known


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
