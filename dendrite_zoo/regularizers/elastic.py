"""Elastic weight consolidation: a pull on the weights on which the likelihood of earlier tasks depends."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_range
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.regularizers.quadratic import QuadraticPenalty, check_finite

__all__ = ["ElasticWeightConsolidation"]


@say_new_names
class ElasticWeightConsolidation(QuadraticPenalty):
    r"""Importance of weights from the Fisher information at a task's end.

    With stored tasks (Kirkpatrick et al. 2017) the penalty is :math:`\frac\lambda2 \sum_t \sum_k F_{t,k} (\theta_k -
    \theta^*_{t,k})^2`. A sum of parabolas is a parabola: :math:`\sum_t F_t` and the mean of the :math:`\theta^*_t`
    weighted by :math:`F_t` hold all of it, exactly, so memory does not grow with tasks. Online (Schwarz et al. 2018) it
    is :math:`F \leftarrow \gamma F + F_t` with the latest :math:`\theta^*` alone.

    Args:
        parameters: name -> parameter.
        ewc_lambda: :math:`\lambda`.
        online: one running importance and the latest weights, instead of all tasks'.
        decay: :math:`\gamma`, of the online kind.

    Raises:
        ValueError: a negative ewc_lambda, or a decay that is not in (0, 1] or not used.

    Example:
        >>> theta = torch.tensor([0.0], requires_grad=True)
        >>> ewc = ElasticWeightConsolidation({"theta": theta}, ewc_lambda=2.0)
        >>> ewc.end_task({"theta": torch.tensor([1.0])})    # at 0, importance 1
        >>> theta.data.fill_(4.0).item()
        4.0
        >>> ewc.end_task({"theta": torch.tensor([3.0])})    # at 4, importance 3
        >>> ewc.anchor["theta"], ewc.penalty().item()       # 1 * 4**2 + 3 * 0
        (tensor([3.]), 16.0)
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], ewc_lambda: float = 500.0, *, online: bool = False, decay: float = 1.0
    ) -> None:
        if not 0 < decay <= 1 or (decay != 1 and not online):
            raise ValueError(
                f"Expected `decay` in (0, 1], and 1 unless online=True, but got {decay} and online={online}."
            )
        check_range(0, math.inf, ewc_lambda=ewc_lambda)
        super().__init__(parameters, ewc_lambda, factor=0.5)
        self.online, self.decay = online, decay
        self._constant = 0.0  # what the tasks' parabolas leave where their sum is lowest

    @torch.no_grad()
    def end_task(self, fisher: Mapping[str, Tensor]) -> None:
        """Hold on to the weights as they are now.

        Args:
            fisher: the task's Fisher information, as `fisher_diagonal` gives it.

        Raises:
            ValueError: it is one of other parameters, or not finite; nothing is changed then.
        """
        new = {name: torch.zeros_like(tensor) for name, tensor in self.importance.items()}
        self._load(new, fisher)
        check_finite(
            "the Fisher information of the task",
            new,
            "Some sample has a log-likelihood, or a gradient of it, that is NaN or too large. Leave such samples out "
            "of the task's data, or check that the weights are finite.",
        )
        for name, p in self.parameters.items():
            theta, anchor, importance = p.detach(), self.anchor[name], self.importance[name]
            if self.online:
                importance.mul_(self.decay).add_(new[name])
                anchor.copy_(theta)
                continue
            share = new[name] / (importance + new[name])
            share.nan_to_num_(nan=1.0)  # important to no task: anywhere will do
            self._constant += float((importance * share * (theta - anchor).square()).sum(dtype=torch.float64))
            anchor.lerp_(theta.to(anchor.dtype), share)
            importance.add_(new[name])
        self.num_tasks += 1

    def penalty(self) -> Tensor:
        """The penalty, a scalar with a gradient: for those who put it into the loss themselves."""
        return super().penalty() + self.coefficient * self._constant

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint must contain: primitives and tensors."""
        return {**super().state_dict(), "constant": self._constant}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state; see `QuadraticPenalty.load_state_dict`."""
        super().load_state_dict(state)
        self._constant = state["constant"]
