"""A quadratic pull on weights towards where earlier tasks left them."""

import math
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_range
from dendrite_zoo._core.finite import unusable_tensor
from dendrite_zoo._core.torch import for_each, sparse_values
from dendrite_zoo.row_sparse.parameter import once, row_ids, rows_of

__all__ = ["QuadraticPenalty", "select_parameters"]


def select_parameters(
    module: nn.Module, include: str | Sequence[str] = "*", exclude: str | Sequence[str] = "*segments"
) -> dict[str, nn.Parameter]:
    """The parameters of a module that learn and whose names match (`fnmatch` patterns).

    Dendritic segments are left out unless asked for, as in Iyer et al. 2022.

    Raises:
        ValueError: none is left, or a pattern to include matches none.

    Example:
        >>> list(select_parameters(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), include="0.*"))
        ['0.weight', '0.bias']
    """
    include, exclude = ([given] if isinstance(given, str) else given for given in (include, exclude))
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    chosen = {name: p for name, p in learning.items() if _matches(name, include) and not _matches(name, exclude)}
    idle = [pattern for pattern in include if not any(_matches(name, [pattern]) for name in learning)]
    if idle or not chosen:
        raise ValueError(
            f"Expected patterns of names of {type(module).__name__}, such as '*.weight', but got include={include} and "
            f"exclude={exclude}: {len(chosen)} parameters are left, and {idle} match none. The first that learn are "
            f"{list(learning)[:8]}."
        )
    return chosen


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Covered(NamedTuple):
    """What a gradient covers of a parameter: all of it, or some rows, each once, where it is sparse.

    Attributes:
        gradient: its numbers; a change in place is one of the gradient.
        rows: which rows, ``(N,)``, counted over the first ``row_dims`` dimensions; None for all.
        row_dims: how many leading dimensions number the rows.
    """

    gradient: Tensor
    rows: Tensor | None = None
    row_dims: int = 0

    def of(self, tensor: Tensor) -> Tensor:
        """That part of a tensor of the parameter's shape: itself, or a copy of the rows."""
        return tensor if self.rows is None else rows_of(tensor, self.row_dims).index_select(0, self.rows)

    def put(self, tensor: Tensor, part: Tensor) -> None:
        """Write a changed copy of that part back."""
        if self.rows is not None:
            rows_of(tensor, self.row_dims).index_copy_(0, self.rows, part)
        elif part is not tensor:
            tensor.copy_(part)


def covered_by(gradient: Tensor) -> Covered:
    """What a gradient covers; of a sparse one with rows more than once, give `once` of it.

    Example:
        >>> covered_by(torch.tensor([[0.0, 0.0], [1.0, 2.0]]).to_sparse(1)).rows
        tensor([1])
    """
    if not gradient.is_sparse:
        return Covered(gradient)
    return Covered(sparse_values(gradient), row_ids(gradient), gradient.sparse_dim())


class QuadraticPenalty:
    r"""The penalty :math:`\kappa \sum_k \Omega_k (\theta_k - \theta^*_k)^2` that consolidation methods share.

    All state is as large as the parameters, whatever the number of tasks, and float32 where they are half precision.
    Where a gradient is sparse, a step reads and writes the rows that it covers, no others: those that its optimizer
    moves.

    Args:
        parameters: name -> parameter, such as ``dict(model.named_parameters())``.
        weight: weight of the penalty, as users give it.
        factor: what makes it :math:`\kappa`.

    Attributes:
        importance: :math:`\Omega`, name -> tensor.
        anchor: :math:`\theta^*`, name -> tensor; at first the parameters as they are.
        num_tasks: how many tasks were consolidated; at 0 nothing is pulled.
    """

    def __init__(self, parameters: Mapping[str, Tensor], weight: float, factor: float = 1.0) -> None:
        check_range(0, math.inf, weight=weight)
        self.coefficient = factor * weight
        self.parameters: dict[str, Tensor] = {}
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.num_tasks = 0
        self.hold(parameters)

    def hold(self, parameters: Mapping[str, Tensor]) -> None:
        """Add parameters that are new, or that replace others: important to no task so far.

        Parameters that are known already are left as they are.

        Args:
            parameters: name -> parameter.

        Raises:
            TypeError: they have no names.
        """
        given: Any = parameters
        if not isinstance(given, Mapping):
            expected = "Expected `parameters` by name, such as dict(model.named_parameters())"
            remedy = "What a Trainer takes has the same name in dendrite_zoo.callbacks."
            raise TypeError(f"{expected}, but got {type(given).__name__}. {remedy}")
        for name, p in parameters.items():
            if self.parameters.get(name) is not p:
                self._hold(name, p)

    def _hold(self, name: str, p: Tensor) -> None:
        self.parameters[name], self.importance[name], self.anchor[name] = p, _zeros(p), _zeros(p).copy_(p.detach())

    def penalty(self) -> Tensor:
        """The penalty, a scalar with a gradient: for those who put it into the loss themselves."""
        pulls = {name: theta - self.anchor[name] for name, theta in self.parameters.items()}
        terms = [(self.importance[name] * pull.square()).sum() for name, pull in pulls.items()]
        return self.coefficient * torch.stack(terms).sum()

    @torch.no_grad()
    def add_gradient(self, parameters: Collection[Tensor] | None = None) -> None:
        r"""Add :math:`2 \kappa \Omega (\theta - \theta^*)` to the gradients: as if the penalty stood in the loss.

        A parameter without a gradient is left alone, as its optimizer leaves it.

        Args:
            parameters: only these, those of one of several optimizers; None for all.
        """
        covered = self._covered(parameters)
        self._add_gradient(covered, self._parts(self.parameters, covered))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint must contain: primitives and tensors."""
        return {"num_tasks": self.num_tasks, "importance": dict(self.importance), "anchor": dict(self.anchor)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state.

        Raises:
            ValueError: the state is one of other parameters.
        """
        self.num_tasks = state["num_tasks"]
        self._load(self.importance, state["importance"])
        self._load(self.anchor, state["anchor"])

    def _add_gradient(self, covered: Mapping[str, Covered], thetas: list[Tensor]) -> None:
        if not covered or not self.num_tasks or not self.coefficient:
            return
        pull = for_each("sub", thetas, self._parts(self.anchor, covered))
        gradients, importances = [c.gradient for c in covered.values()], self._parts(self.importance, covered)
        for_each("addcmul_", gradients, pull, importances, value=2 * self.coefficient)

    def _covered(self, parameters: Collection[Tensor] | None) -> dict[str, Covered]:
        """What is about to be moved: of each parameter with a gradient the part that it covers."""
        among = {id(p) for p in (self.parameters.values() if parameters is None else parameters)}
        covered = {}
        for name, p in self.parameters.items():
            if p.grad is not None and id(p) in among:
                p.grad = once(p.grad)
                covered[name] = covered_by(p.grad)
        return covered

    def _parts(self, tensors: Mapping[str, Tensor], covered: Mapping[str, Covered]) -> list[Tensor]:
        return [c.of(tensors[name].detach()) for name, c in covered.items()]

    def _load(self, ours: dict[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        wrong = [name for name, tensor in ours.items() if name not in theirs or theirs[name].shape != tensor.shape]
        if wrong:
            raise ValueError(
                f"Expected {wrong[0]!r} of shape {tuple(ours[wrong[0]].shape)} in the state of {type(self).__name__}, "
                "but got other parameters. Build the model and choose its parameters as when the state was saved."
            )
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])


def check_finite(what: str, tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Refuse NaN and infinity, which the penalty would carry into every weight.

    Raises:
        ValueError: naming the first parameter that has one.
    """
    if wrong := unusable_tensor(tensors):
        raise ValueError(f"Expected {what} to be finite, but got NaN or infinity for {wrong!r}. {remedy}")


def _zeros(p: Tensor) -> Tensor:
    dtype = torch.promote_types(p.dtype, torch.float32)
    return torch.zeros(p.shape, dtype=dtype, device=p.device)  # contiguous, whatever the parameter is
