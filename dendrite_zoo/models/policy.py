"""One network for many robot skills: the task is its context."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.names import nearest
from dendrite_zoo.functional import Gate
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers.sparse import check_size
from dendrite_zoo.models.folded import plain_linear
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.row_sparse.activation_cache import stamp

__all__ = ["ActiveDendritePolicy"]

Array: TypeAlias = npt.NDArray[Any]

SAMPLE = 16
"""Numbers of each parameter that are looked at to notice that it was changed."""


@register_model("active-dendrite-policy")
class ActiveDendritePolicy(HubModel, nn.Module):
    r"""A Gaussian policy for many tasks: an `ActiveDendriteMLP` whose context is the task's one-hot id.

    The network maps an observation to mean and log standard deviation of a Gaussian; an action is its sample or its
    mean :math:`\mu`, squashed: :math:`a = \tanh(\mu + \sigma \epsilon)`. The defaults are those of the paper's
    Meta-World experiments (Iyer et al. 2022): only the second hidden layer has dendrites.

    Args:
        tasks: names of the tasks, in the order of their indices.
        observation_size: numbers in an observation.
        action_size: numbers in an action, each in [-1, 1].
        hidden_features: units of each hidden layer.
        num_segments: segments a unit; 0 for a network without dendrites.
        dendrite_layers: which hidden layers have dendrites; None for all.
        gate: this and the following as in `ActiveDendriteMLP`.
        activation: ``"k-winners"`` or ``"relu"``.
        activation_density: share of the units of a hidden layer that win.
        winners: what they are chosen by, ``"activation"`` or ``"context"``.
        weight_density: share of inputs each hidden unit sees.
        segment_density: share of the context each segment sees.
        append_task: put the one-hot task id behind the observation, too: how a network without dendrites is told.
        log_std_range: bounds of the log standard deviation.

    Attributes:
        tasks: their names.
        observation_mean: ``(observation_size,)``, subtracted from every observation; see `fit_normalizer`.
        observation_scale: ``(observation_size,)``, which then divides it.

    Shape:
        observation ``(B, observation_size)`` and task ``(B,)`` or ``()`` to mean and log standard deviation, each ``(B,
        action_size)``.

    Raises:
        ValueError: an argument out of range; an unknown task, or an observation that is none.

    Example:
        >>> policy = ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[32, 32])
        >>> mean, log_std = policy(torch.randn(5, 39), torch.tensor([0, 1, 1, 0, 0]))
        >>> mean.shape, log_std.shape
        (torch.Size([5, 4]), torch.Size([5, 4]))
        >>> policy.act(np.zeros(39), "push-v3").shape
        (4,)
    """

    pipeline_tag = "robotics"
    card_template = "policy.md.j2"
    card_tags = ("robotics", "imitation-learning", "multi-task", "meta-world", "active-dendrites")
    card_task = "Multi-task robot control"
    card_metric = "success"
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
        dendrite_layers: Sequence[int] | None = (1,),
        gate: Gate = "abs_max",
        activation: Literal["k-winners", "relu"] = "k-winners",
        activation_density: float = 0.25,
        winners: Literal["activation", "context"] = "activation",
        weight_density: float = 0.9,
        segment_density: float = 1.0,
        append_task: bool = False,
        log_std_range: Sequence[float] = (-20.0, 2.0),
    ) -> None:
        super().__init__()
        self.config = {
            "tasks": tasks if isinstance(tasks, str) else list(tasks),
            "observation_size": observation_size,
            "action_size": action_size,
            "hidden_features": list(hidden_features),
            "num_segments": num_segments,
            "dendrite_layers": None if dendrite_layers is None else list(dendrite_layers),
            "gate": gate,
            "activation": activation,
            "activation_density": activation_density,
            "winners": winners,
            "weight_density": weight_density,
            "segment_density": segment_density,
            "append_task": append_task,
            "log_std_range": [float(bound) for bound in log_std_range],
        }
        self.validate_config(self.config)
        self.tasks = tuple(tasks)
        self.mlp = ActiveDendriteMLP(
            observation_size + (len(self.tasks) if append_task else 0),
            hidden_features,
            2 * action_size,
            context_dim=len(self.tasks),
            num_segments=num_segments,
            dendrite_layers=dendrite_layers,
            gate=gate,
            activation=activation,
            activation_density=activation_density,
            winners=winners,
            weight_density=weight_density,
            segment_density=segment_density,
            context_density=1.0,
        )
        self.register_buffer("observation_mean", torch.zeros(observation_size))
        self.register_buffer("observation_scale", torch.ones(observation_size))
        self._folded: dict[int, nn.Module] = {}
        self._stamps: list[Any] = []
        self._sampled: list[Tensor] = []
        self._sample = torch.empty(0)

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Raise a ValueError for the first argument out of range; nothing is allocated."""
        check_tasks(config["tasks"])
        tasks, bounds = list(config["tasks"]), list(config.get("log_std_range", (-20.0, 2.0)))
        observation_size, action_size = config.get("observation_size", 39), config.get("action_size", 4)
        check_size(observation_size=observation_size, action_size=action_size)
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise ValueError(f"log_std_range={bounds} came; expected the lower and the upper bound.")
        defaults = {"hidden_features": [2800, 2800], "num_segments": 10, "dendrite_layers": [1]}
        sizes = {"in_features": observation_size, "out_features": 2 * action_size, "context_dim": len(tasks)}
        ActiveDendriteMLP.validate_config({**defaults, **config, **sizes})

    @classmethod
    def usage(cls, config: Mapping[str, Any]) -> str:
        """Lines for the card: one action."""
        size, task = config.get("observation_size", 39), config["tasks"][0]
        observation = f"observation = torch.zeros({size})  # as the environment gives it"
        return f'{observation}\naction = model.act(observation, "{task}")'

    @classmethod
    def limits(cls, config: Mapping[str, Any]) -> list[str]:
        """Sentences for the card: the observation it needs."""
        return [
            f"It must be told its task, one of {len(config['tasks'])}, and sees the state of the simulation (positions "
            "of hand, objects and goal), no images.",
        ]

    @property
    def num_tasks(self) -> int:
        """How many tasks it is for."""
        return len(self.tasks)

    def task_index(self, task: str | int) -> int:
        """The index of a task, given by its name or by the index itself.

        Raises:
            ValueError: there is no such task.

        Example:
            >>> ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[8, 8]).task_index("push-v3")
            1
        """
        if isinstance(task, str):
            if task not in self.tasks:
                raise ValueError(f"The task {task!r} came; expected one of {', '.join(self.tasks)}."
                                 f"{nearest(task, self.tasks)}")  # fmt: skip
            return self.tasks.index(task)
        try:
            index = operator.index(task)
        except TypeError:
            index = -1
        if not 0 <= index < len(self.tasks):
            raise ValueError(f"The task {task} came; expected an index from 0 to {len(self.tasks) - 1}, or a name.")
        return index

    @torch.no_grad()
    def fit_normalizer(self, observations: Tensor, *, smallest: float = 1e-2) -> None:
        """Set mean and scale to those of observations ``(N, observation_size)``.

        Args:
            observations: what the policy will see.
            smallest: no number is divided by less, metres in Meta-World, so that what hardly moves stays small.

        Raises:
            ValueError: observations of another shape, or none.
        """
        size = len(self.observation_mean)
        if observations.ndim != 2 or observations.shape[1] != size or len(observations) == 0:
            raise ValueError(
                f"Observations of shape {tuple(observations.shape)} came to normalise by; expected (N, {size}) with "
                "one row or more. Collect some first."
            )
        x = observations.double()
        self.observation_mean.copy_(x.mean(0))
        self.observation_scale.copy_(x.std(0, correction=0).clamp(min=smallest))

    @property
    def has_normalizer(self) -> bool:
        """Whether mean and scale were set, as those of every trained policy are."""
        return bool(self.observation_mean.any()) or bool((self.observation_scale != 1).any())

    @torch.no_grad()
    def set_std(self, std: float) -> None:
        """Give every action, before it is squashed, the same standard deviation, whatever the observation."""
        output, size = self.mlp.output, self.config["action_size"]
        output.weight[size:] = 0
        output.bias[size:] = math.log(std)

    def forward(self, observation: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation ``(B, action_size)`` of the actions, before they are squashed."""
        x = (observation - self.observation_mean) / self.observation_scale
        if self.config["append_task"]:
            x = torch.cat([x, F.one_hot(task, len(self.tasks)).to(x).expand(len(x), -1)], dim=1)
        return self._split(self.mlp(x, task))

    def act(
        self, observation: Array | Tensor | Sequence[float], task: str | int, *, deterministic: bool = True
    ) -> npt.NDArray[np.float32]:
        """The action for one observation; what the dendrites do for a task is folded into weights once, and kept.

        Args:
            observation: ``(observation_size,)``, as the environment gives it.
            task: name or index.
            deterministic: the mean, squashed; else a sample.

        Returns:
            ``(action_size,)``, each in [-1, 1].

        Raises:
            ValueError: an unknown task, or an observation of another size, or one that is not finite.
        """
        index = self.task_index(task)
        x = self._tensor(observation)
        if x.shape != self.observation_mean.shape:
            raise ValueError(
                f"An observation of shape {tuple(x.shape)} came; expected {tuple(self.observation_mean.shape)}, as one "
                "environment gives it. For many at once there is act_batch."
            )
        with torch.inference_mode():
            x = x.to(self.observation_mean.dtype).sub(self.observation_mean).div_(self.observation_scale)
            output = self._fold(index)(x[None])
            if deterministic:
                action = output[0, : self.config["action_size"]].tanh_().float().cpu().numpy()
            else:
                action = _squashed(*self._split(output), deterministic)[0].float().cpu().numpy()
        if not math.isfinite(action.sum()) or not math.isfinite(x.sum()):
            raise ValueError(_not_finite(observation))
        return action

    def act_batch(
        self,
        observations: Array | Tensor,
        task_index: Array | Tensor | Sequence[str | int],
        *,
        deterministic: bool = True,
    ) -> npt.NDArray[np.float32]:
        """The actions for many observations, each in a task of its own.

        Args:
            observations: ``(N, observation_size)``.
            task_index: ``(N,)``, indices, or a list of names.
            deterministic: the means, squashed; else samples.

        Returns:
            ``(N, action_size)``.

        Raises:
            ValueError: an unknown task, or observations of another size, or that are not finite.
        """
        mean = self.observation_mean
        x = self._tensor(observations).to(mean.dtype)
        tasks = task_index.tolist() if isinstance(task_index, np.ndarray | Tensor) else task_index
        if isinstance(tasks, str) or not isinstance(tasks, Iterable):
            raise ValueError(
                f"task_index={task_index!r} came; expected a task for each observation. Repeat it: "
                f"act_batch(observations, [{tasks!r}] * len(observations))."
            )
        index = torch.tensor([self.task_index(task) for task in tasks], dtype=torch.long, device=mean.device)
        if x.shape != (len(index), len(mean)):
            raise ValueError(
                f"Observations of shape {tuple(x.shape)} came with {len(index)} task indices; expected "
                f"{(len(index), len(mean))}."
            )
        if not bool(x.isfinite().all()):
            raise ValueError(_not_finite(observations))
        with torch.no_grad():
            mean, log_std = self(x, index)
            return _squashed(mean, log_std, deterministic).float().cpu().numpy()

    def train(self, mode: bool = True) -> ActiveDendritePolicy:
        """Switch to training or evaluation; what was folded is forgotten."""
        self._folded.clear()
        return super().train(mode)

    def _tensor(self, observation: Any) -> Tensor:
        try:
            return torch.as_tensor(observation, dtype=torch.float32, device=self.observation_mean.device)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"An observation came as a {type(observation).__name__} that is no array of numbers; expected "
                f"{len(self.observation_mean)} numbers. Of what gymnasium's reset gives, take the first."
            ) from None

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = output.chunk(2, dim=-1)
        return mean, log_std.clamp(*self.config["log_std_range"])

    def _fold(self, index: int) -> nn.Module:
        """The network in one task, without dendrites."""
        stamps = [stamp(parameter) for parameter in self.mlp.parameters()]
        if stamps != self._stamps or self.training or not torch.equal(torch.cat(self._sampled), self._sample):
            # A fused optimizer, and who writes through `.data`, leave no trace but in the numbers themselves.
            flat = [parameter.detach().view(-1) for parameter in self.mlp.parameters()]
            self._sampled = [weights[:: max(1, len(weights) // SAMPLE)] for weights in flat]
            self._folded, self._stamps, self._sample = {}, stamps, torch.cat(self._sampled)
        if index not in self._folded:
            with torch.inference_mode(False):
                network = self.mlp.fold(torch.tensor(index, device=self.observation_mean.device))
                assert isinstance(network, nn.Sequential)
                if self.config["append_task"]:  # a constant input is a bias
                    first, size = network[0], len(self.observation_mean)
                    assert isinstance(first, nn.Linear)
                    network[0] = plain_linear(first.weight[:, :size], first.bias + first.weight[:, size + index])
                self._folded[index] = network.requires_grad_(False)
        return self._folded[index]


def check_tasks(tasks: Any) -> None:
    """Check the names of a network's tasks.

    Raises:
        ValueError: they are no list, there is none, or one comes twice.
    """
    if isinstance(tasks, str):
        raise ValueError(f"tasks={tasks!r} came; expected a list of names. Write [{tasks!r}] for one task.")
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks={list(tasks)} came; expected the names of one task or more, each once.")


def _squashed(mean: Tensor, log_std: Tensor, deterministic: bool) -> Tensor:
    return torch.tanh(mean if deterministic else mean + log_std.exp() * torch.randn_like(mean))


def _not_finite(observation: Any) -> str:
    bad = np.argwhere(~np.isfinite(np.asarray(torch.as_tensor(observation).cpu()))).tolist()
    return (
        f"An observation came that is not finite (at {bad[:3]}), or too large; expected numbers as the environment "
        "gives them. No action was taken: end the episode, for the simulation may have diverged."
    )
