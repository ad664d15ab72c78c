"""Synaptic intelligence: how much did each weight lower the loss on its way?"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_range, wrong_argument
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.torch import for_each
from dendrite_zoo.regularizers.quadratic import Covered, QuadraticPenalty, _zeros, check_finite

__all__ = ["SynapticIntelligence"]


@say_new_names
class SynapticIntelligence(QuadraticPenalty):
    r"""Importance of weights from the path that they took (Zenke, Poole and Ganguli 2017, eq. 3-5).

    While a task is learned, each step adds what each weight did for the loss, :math:`\omega \leftarrow \omega - g
    \Delta\theta`: ``g`` is the gradient of the task's loss alone, :math:`\Delta\theta` the step as it was taken, by
    any optimizer, clipped or not. When the task ends,

    .. math:: \Omega \leftarrow \Omega + \frac{\max(\omega, 0)}{(\theta - \theta^*)^2 + \xi}, \quad
        \theta^* \leftarrow \theta, \quad \omega \leftarrow 0,

    and from then on the penalty :math:`c \sum \Omega (\theta - \theta^*)^2` is part of the loss.

    Args:
        parameters: name -> parameter.
        si_lambda: :math:`c`.
        eps: :math:`\xi`, which bounds the importance of weights that hardly moved.

    Attributes:
        path: :math:`\omega`, name -> tensor.

    Raises:
        ValueError: a negative `si_lambda`, or an `eps` that is not positive.

    Example:
        >>> model = torch.nn.Linear(3, 1)
        >>> si = SynapticIntelligence(dict(model.named_parameters()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for task in range(2):
        ...     for step in range(5):
        ...         optimizer.zero_grad()
        ...         model(torch.rand(8, 3)).square().mean().backward()
        ...         si.before_step()    # reads the task's gradient, then adds the penalty's
        ...         optimizer.step()
        ...         si.after_step()     # sees the step that was taken
        ...     si.end_task()
        >>> bool(si.importance["weight"].min() > 0)
        True
    """

    def __init__(self, parameters: Mapping[str, Tensor], si_lambda: float = 0.1, eps: float = 0.1) -> None:
        if not eps > 0:
            raise wrong_argument("eps", "a positive number, such as 0.1", eps)
        check_range(0, math.inf, si_lambda=si_lambda)
        self.eps = eps
        self.path: dict[str, Tensor] = {}
        self._moved: dict[str, Moved] = {}
        super().__init__(parameters, si_lambda)
        self._pending: dict[str, Covered] = {}
        self._before: dict[str, Tensor] = {}
        self._gradient: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_step(self, parameters: Collection[Tensor] | None = None) -> None:
        """Read the gradients of the task's loss, then add the penalty's; call it once they are complete.

        Args:
            parameters: those that the coming step moves, where it is one of several optimizers; None for all.
        """
        self.after_step()
        covered = self._pending = self._covered(parameters)
        for name, c in covered.items():
            self._moved[name].add(c)
        thetas = self._parts(self.parameters, covered)
        _remember(self._before, covered, thetas)
        _remember(self._gradient, covered, [c.gradient for c in covered.values()])
        self._add_gradient(covered, thetas)

    @torch.no_grad()
    def after_step(self) -> None:
        """Add what the step did to the path; harmless where no step was taken."""
        covered, self._pending = self._pending, {}
        if not covered:
            return
        back = [self._before[name] for name in covered]
        for_each("sub_", back, self._parts(self.parameters, covered))
        paths = self._parts(self.path, covered)
        for_each("addcmul_", paths, [self._gradient[name] for name in covered], back)
        for (name, c), path in zip(covered.items(), paths, strict=True):
            c.put(self.path[name], path)

    @torch.no_grad()
    def end_task(self) -> None:
        """Turn the path into importance, and make the weights as they are now the anchor.

        Raises:
            ValueError: weights or importance are not finite; nothing is changed then.
        """
        self.after_step()
        remedy = "Skip steps whose loss or gradient is not finite, or clip the gradients."
        check_finite("the weights at the end of a task", self.parameters, remedy)
        importance, parts = {}, {name: moved.so_far(self.path[name].device) for name, moved in self._moved.items()}
        for name, part in parts.items():
            theta, anchor = part.of(self.parameters[name].detach()), part.of(self.anchor[name])
            distance = (theta - anchor).square_().add_(self.eps)
            gain = part.of(self.path[name]).clamp(min=0)
            importance[name] = part.of(self.importance[name]).addcdiv(gain, distance)
        check_finite("the importance of the weights", importance, remedy)
        for name, part in parts.items():
            part.put(self.importance[name], importance[name])
            part.put(self.path[name], torch.zeros_like(importance[name]))
            self.anchor[name].copy_(self.parameters[name].detach())
            self._moved[name] = Moved()
        self.num_tasks += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint must contain: primitives and tensors."""
        self.after_step()
        return {**super().state_dict(), "path": dict(self.path)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state; see `QuadraticPenalty.load_state_dict`."""
        super().load_state_dict(state)
        self._load(self.path, state["path"])
        self._pending = {}
        for moved in self._moved.values():
            moved.rows = None  # the state does not say it

    def _hold(self, name: str, p: Tensor) -> None:
        super()._hold(name, p)
        self.path[name], self._moved[name] = _zeros(p), Moved()


class Moved:
    """The rows of a parameter that the steps of a task have covered: what it costs to end the task follows them.

    Attributes:
        rows: those of some steps, where they differ; None where all may have been covered.

    Example:
        >>> moved = Moved()
        >>> for rows in ([2, 5], [2, 5], [5, 7]):
        ...     moved.add(Covered(torch.zeros(2, 3), torch.tensor(rows), row_dims=1))
        >>> moved.so_far().rows
        tensor([2, 5, 7])
    """

    MANY = 1 << 20
    """Rows from which on those that are there more than once are left out."""

    def __init__(self) -> None:
        self.rows: list[Tensor] | None = []
        self._row_dims, self._most = 0, self.MANY

    def add(self, part: Covered) -> None:
        """Take note of what a step covers."""
        if part.rows is None or self.rows is None:
            self.rows = None
        elif not self.rows or not torch.equal(self.rows[-1], part.rows):
            self.rows.append(part.rows)
            self._row_dims = part.row_dims
            if sum(map(len, self.rows)) > self._most:
                self.rows = [torch.cat(self.rows).unique()]
                self._most = 2 * len(self.rows[0]) + self.MANY

    def so_far(self, device: torch.device | None = None) -> Covered:
        """What they have covered, as a part of any tensor of the parameter's shape, which is on this device."""
        if self.rows is None:
            return Covered(torch.empty(0))
        rows = torch.cat(self.rows).unique() if self.rows else torch.zeros(0, dtype=torch.long, device=device)
        return Covered(torch.empty(0), rows, self._row_dims)


def _remember(store: dict[str, Tensor], covered: Mapping[str, Covered], tensors: list[Tensor]) -> None:
    """Copy tensors until the step is over: rows into new memory, all else into memory that is used again."""
    for (name, c), tensor in zip(covered.items(), tensors, strict=True):
        if c.rows is not None or name not in store or store[name].shape != tensor.shape:
            store[name] = torch.empty_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
    if covered:
        for_each("copy_", [store[name] for name in covered], tensors)
