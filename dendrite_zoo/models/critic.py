"""Critics that judge the actions of a policy in many tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo.functional import Gate
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers.sparse import check_size
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.policy import check_tasks

__all__ = ["TwinCritic"]

OF_THE_NETWORKS = (
    "hidden_features",
    "num_segments",
    "gate",
    "activation",
    "activation_density",
    "winners",
    "weight_density",
    "segment_density",
    "dendrite_layers",
)


@register_model("twin-critic")
class TwinCritic(HubModel, nn.Module):
    """Two Q networks of the same form, drawn apart, for soft actor-critic in several tasks; the task is the context.

    The defaults are the paper's for Meta-World (Iyer et al. 2022): dendrites in the second hidden layer alone, one-hot
    contexts. ``num_segments=0``, ``activation="relu"``, ``weight_density=1`` and ``append_task=True`` make plain MLPs.

    Args:
        tasks: names of the tasks; a task's index is its place.
        observation_size: numbers an observation has.
        action_size: numbers an action has.
        hidden_features: this and the following as in `ActiveDendriteMLP`.
        num_segments: segments a unit.
        gate: how the strongest segment acts.
        activation: ``"k-winners"`` or ``"relu"``.
        activation_density: share of the units of a hidden layer that win.
        winners: what they are chosen by, ``"activation"`` or ``"context"``.
        weight_density: share of inputs each hidden unit sees.
        segment_density: share of the context each segment sees.
        dendrite_layers: which hidden layers have dendrites; None for all.
        append_task: whether the one-hot task is also part of the input.

    Shape:
        observation ``(B, O)``, action ``(B, A)``, task ``(B,)`` or ``()`` integers to two values, ``(B,)`` each.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> critic = TwinCritic(["reach-v3", "push-v3"], hidden_features=[32, 32])
        >>> q1, q2 = critic(torch.randn(5, 39), torch.zeros(5, 4), torch.tensor([0, 0, 1, 1, 1]))
        >>> q1.shape, q2.shape
        (torch.Size([5]), torch.Size([5]))
    """

    observation_mean: Tensor
    observation_scale: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        observation_size: int = 39,
        action_size: int = 4,
        hidden_features: Sequence[int] = (2800, 2800),
        num_segments: int = 10,
        gate: Gate = "abs_max",
        activation: Literal["k-winners", "relu"] = "k-winners",
        activation_density: float = 0.25,
        winners: Literal["activation", "context"] = "activation",
        weight_density: float = 0.9,
        segment_density: float = 1.0,
        dendrite_layers: Sequence[int] | None = (1,),
        append_task: bool = False,
    ) -> None:
        super().__init__()
        self.config = {
            "tasks": tasks if isinstance(tasks, str) else list(tasks),
            "observation_size": observation_size,
            "action_size": action_size,
            "hidden_features": list(hidden_features),
            "num_segments": num_segments,
            "gate": gate,
            "activation": activation,
            "activation_density": activation_density,
            "winners": winners,
            "weight_density": weight_density,
            "segment_density": segment_density,
            "dendrite_layers": None if dendrite_layers is None else list(dendrite_layers),
            "append_task": append_task,
        }
        self.validate_config(self.config)
        arguments = {name: self.config[name] for name in OF_THE_NETWORKS}
        self.critics = nn.ModuleList(
            ActiveDendriteMLP(
                in_features=observation_size + action_size + (len(tasks) if append_task else 0),
                out_features=1,
                context_dim=len(tasks),
                context_density=1.0,
                **arguments,
            )
            for _ in range(2)
        )
        self.register_buffer("observation_mean", torch.zeros(observation_size))
        self.register_buffer("observation_scale", torch.ones(observation_size))

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Raise a ValueError for the first argument out of range; nothing is allocated."""
        check_tasks(config["tasks"])
        check_size(
            observation_size=config.get("observation_size", 39),
            action_size=config.get("action_size", 4),
        )
        given = {name: config[name] for name in OF_THE_NETWORKS if name in config}
        defaults = {"hidden_features": [1], "num_segments": 1}
        ActiveDendriteMLP.validate_config({"in_features": 1, "out_features": 1, **defaults, **given})

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(self.config["tasks"])

    def forward(self, observation: Tensor, action: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """What each critic expects of actions: the discounted sum of rewards, and of entropy to come."""
        x = torch.cat([(observation - self.observation_mean) / self.observation_scale, action], dim=1)
        if self.config["append_task"]:
            one_hot = F.one_hot(task, len(self.config["tasks"])).to(x)
            x = torch.cat([x, one_hot.expand(len(x), -1)], dim=1)
        first, second = (critic(x, task).squeeze(1) for critic in self.critics)
        return first, second
