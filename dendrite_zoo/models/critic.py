"""Critics that judge the actions of a policy in many tasks."""

import inspect
from typing import cast

from torch import Tensor, nn

from dendrite_zoo.hub import register_model
from dendrite_zoo.models.config import takes
from dendrite_zoo.models.control import ControlArguments, ControlModel, TaskParts
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.row_sparse.groups import Take
from dendrite_zoo.row_sparse.subnetworks import Subnetworks, cut_out
from dendrite_zoo.row_sparse.taken_rows import take_together

__all__ = ["TwinCritic"]


@register_model("twin-critic")
class TwinCritic(ControlModel):
    """Two Q networks of the same form, drawn apart, for soft actor-critic in several tasks; the task is the context.

    The defaults are the paper's for Meta-World (Iyer et al. 2022): dendrites in the second hidden layer alone, one-hot
    contexts. ``num_segments=0``, ``activation="relu"``, ``weight_density=1`` and ``append_task=True`` make plain MLPs.

    Args:
        tasks: names of the tasks; a task's index is its place.
        observation_size: numbers an observation has; by default as for an `ActiveDendritePolicy`.
        action_size: numbers an action has.
        hidden_features: units of each hidden layer; by default as for an `ActiveDendritePolicy`.
        append_task: whether the one-hot task is also part of the input.
        observation_features: what is read of an observation, as of an `ActiveDendritePolicy`.
        observation_clip: no number of it is read as more than this, once it is normalised; None for no bound.

    All options of `dendrite_zoo.models.MLPConfig` are arguments, too.

    Shape:
        observation ``(B, O)``, action ``(B, A)``, task ``(B,)`` or ``()`` integers, or an int, to two values, ``(B,)``
        each.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> critic = TwinCritic(["reach-v3", "push-v3"], hidden_features=[32, 32])
        >>> q1, q2 = critic(torch.randn(5, 39), torch.zeros(5, 4), torch.tensor([0, 0, 1, 1, 1]))
        >>> q1.shape, q2.shape
        (torch.Size([5]), torch.Size([5]))
    """

    @takes(ControlArguments)
    def __init__(self, config: ControlArguments) -> None:
        super().__init__(config)
        size = len(self.observation_mean) + self.config["action_size"]
        self.critics = nn.ModuleList(self._network(config, size, 1, number) for number in range(2))

    @property
    def networks(self) -> list[ActiveDendriteMLP]:
        """The two networks."""
        return cast("list[ActiveDendriteMLP]", list(self.critics))

    @classmethod
    def like(cls, policy: nn.Module) -> "TwinCritic":
        """Make critics whose networks have the form of a policy's, with segments of their own.

        Args:
            policy: an `ActiveDendritePolicy`.

        Raises:
            TypeError: it is another module.

        Example:
            >>> from dendrite_zoo.models import ActiveDendritePolicy
            >>> policy = ActiveDendritePolicy(["reach-v3"], hidden_features=[16], dendrite_layers=None)
            >>> TwinCritic.like(policy).config["hidden_features"]
            [16]
        """
        if not isinstance(policy, ControlModel):
            got = f"{type(policy).__name__}. Give critic=... beside it."
            raise TypeError(f"Expected an ActiveDendritePolicy, whose form the critics take, but got {got}")
        known = set(inspect.signature(cls).parameters) - {"segment_seed"}
        return cls(**{name: value for name, value in policy.config.items() if name in known})

    def parts(self, task: Tensor | int, take: Take = take_together) -> TaskParts:
        """What may be given in the place of tasks; where they are several, both networks are one product."""
        chosen, layers = zip(
            *((each.chosen_parts(task), each.parameters_by_layer) for each in self.networks), strict=True
        )
        both = cut_out(chosen, layers, self.networks[0].nonlinearities, take)
        return super().parts(task, take) if both is None else TaskParts(task, [both])

    def forward(self, observation: Tensor, action: Tensor, task: Tensor | int | TaskParts) -> tuple[Tensor, Tensor]:
        """What each critic expects of actions: the discounted sum of rewards, and of entropy to come."""
        parts = task if isinstance(task, TaskParts) else TaskParts(task, [task, task])
        x = self._inputs(observation, parts.task, action)
        if len(parts.networks) == 1:
            q1, q2 = cast(Subnetworks, parts.networks[0])(x).squeeze(-1)
            return q1, q2
        first, second = parts.networks
        return self.critics[0](x, first).squeeze(1), self.critics[1](x, second).squeeze(1)
