"""A quadratic pull on weights towards where earlier tasks left them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Index", "QuadraticPenalty", "select_parameters"]

Index: TypeAlias = "Tensor | tuple[Tensor, ...]"


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
    include = [include] if isinstance(include, str) else include
    exclude = [exclude] if isinstance(exclude, str) else exclude
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    idle = [pattern for pattern in include if not any(fnmatchcase(name, pattern) for name in learning)]
    chosen = {
        name: p
        for name, p in learning.items()
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    }
    if idle or not chosen:
        raise ValueError(
            f"include={include}, exclude={exclude} leave {len(chosen)} parameters of {type(module).__name__}"
            f"{f', and {idle} match none' if idle else ''}; expected patterns such as '*.weight'. It has "
            f"{', '.join(list(learning)[:8]) or 'none that learn'}{', ...' if len(learning) > 8 else ''}."
        )
    return chosen


class QuadraticPenalty:
    r"""The penalty :math:`\kappa \sum_k \Omega_k (\theta_k - \theta^*_k)^2` that consolidation methods share.

    All state is as large as the parameters, whatever the number of tasks, and float32 where they are half precision.

    Where a task can move only part of a parameter (the weights among its active units, say), `restrict` names it:
    work and traffic then follow that part. Nothing outside may move until the task ends.

    Args:
        parameters: name -> parameter, such as ``dict(model.named_parameters())``.
        coefficient: :math:`\kappa`.

    Attributes:
        importance: :math:`\Omega`, name -> tensor.
        anchor: :math:`\theta^*`, name -> tensor; at first the parameters as they are.
        num_tasks: how many tasks were consolidated; at 0 nothing is pulled.
    """

    def __init__(self, parameters: Mapping[str, Tensor], coefficient: float) -> None:
        if not coefficient >= 0:
            raise ValueError(f"The strength of a penalty came as {coefficient}; expected a number from 0.")
        self.parameters = dict(parameters)
        self.coefficient = coefficient
        self.importance = {name: _zeros(p) for name, p in self.parameters.items()}
        self.anchor = {name: _zeros(p).copy_(p.detach()) for name, p in self.parameters.items()}
        self.num_tasks = 0
        self._index: dict[str, Index] = {}

    def restrict(self, active: Mapping[str, Index]) -> None:
        """Say which part of each parameter the coming task can move.

        Args:
            active: name -> index tensors, such as ``(rows[:, None], columns)``; a parameter not named is whole.

        Raises:
            ValueError: a name that is none of the parameters.
        """
        self._check_names(active)
        self._index = dict(active)

    def penalty(self) -> Tensor:
        """The penalty, a scalar with a gradient: for those who put it into the loss themselves."""
        terms = [
            (self.importance[name] * (theta - self.anchor[name]).square()).sum()
            for name, theta in self.parameters.items()
        ]
        return self.coefficient * torch.stack(terms).sum()

    @torch.no_grad()
    def add_gradient(self, parameters: Collection[Tensor] | None = None) -> None:
        r"""Add :math:`2 \kappa \Omega (\theta - \theta^*)` to the gradients: as if the penalty stood in the loss.

        A parameter without a gradient is left alone, as its optimizer leaves it.

        Args:
            parameters: only these, those of one of several optimizers; None for all.
        """
        self._add_gradient(self._with_gradient(parameters))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint must hold: primitives and tensors."""
        return {
            "num_tasks": self.num_tasks,
            "importance": dict(self.importance),
            "anchor": dict(self.anchor),
            "index": dict(self._index),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state.

        Raises:
            ValueError: the state is one of other parameters.
        """
        self.num_tasks = state["num_tasks"]
        self._load(self.importance, state["importance"])
        self._load(self.anchor, state["anchor"])
        self._index = {name: _to(index, self.parameters[name].device) for name, index in state["index"].items()}

    def _add_gradient(self, names: Sequence[str]) -> None:
        if not names or not self.num_tasks or not self.coefficient:
            return
        gradients = {name: _gradient(self.parameters[name]) for name in names}
        parts = self._parts(gradients, names)
        pull = torch._foreach_sub(_detached(self._parts(self.parameters, names)), self._parts(self.anchor, names))
        torch._foreach_addcmul_(parts, pull, self._parts(self.importance, names), value=2 * self.coefficient)
        self._put(gradients, parts, names)

    def _with_gradient(self, parameters: Collection[Tensor] | None) -> list[str]:
        among = None if parameters is None else {id(p) for p in parameters}
        return [name for name, p in self.parameters.items() if p.grad is not None and (among is None or id(p) in among)]

    def _parts(self, tensors: Mapping[str, Tensor], names: Iterable[str]) -> list[Tensor]:
        """What can move of each: the tensor itself, or a copy of its active part."""
        return [tensors[name][self._index[name]] if name in self._index else tensors[name] for name in names]

    def _put(self, tensors: Mapping[str, Tensor], parts: Iterable[Tensor], names: Iterable[str]) -> None:
        """Write changed copies of active parts back."""
        for name, part in zip(names, parts, strict=True):
            if name in self._index:
                tensors[name][self._index[name]] = part

    def _load(self, ours: dict[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        self._check_names(theirs)
        wrong = [name for name, tensor in ours.items() if name not in theirs or theirs[name].shape != tensor.shape]
        if wrong:
            raise ValueError(
                f"A state of {type(self).__name__} lacks {wrong[0]!r} in the shape {tuple(ours[wrong[0]].shape)}; "
                "expected the same parameters as when it was saved. Build the model and the patterns as they were."
            )
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])

    def _check_names(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.parameters]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} was given {unknown[0]!r}, which is none of its parameters; expected some of "
                f"{', '.join(list(self.parameters)[:8])}. Check the names."
            )


def _zeros(p: Tensor) -> Tensor:
    return torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32), requires_grad=False)


def _detached(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors]


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    if p.grad.layout != torch.strided:
        raise ValueError(
            f"A parameter of shape {tuple(p.shape)} has a sparse gradient; expected dense ones. Leave it out by "
            "exclude=, or give its layer sparse=False."
        )
    return p.grad


def _to(index: Index, device: torch.device) -> Index:
    return index.to(device) if isinstance(index, Tensor) else tuple(part.to(device) for part in index)
