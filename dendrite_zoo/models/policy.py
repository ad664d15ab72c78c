"""One network for many robot skills: the task is its context."""

import math
import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import nearest
from dendrite_zoo.hub import register_model
from dendrite_zoo.models.config import takes
from dendrite_zoo.models.control import ControlArguments, ControlModel, TaskParts
from dendrite_zoo.models.folded import FoldedCache, plain_linear
from dendrite_zoo.models.learned import LearnedTasks
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.observations import Features, Normalization

__all__ = ["ActiveDendritePolicy"]

Array: TypeAlias = npt.NDArray[Any]
Task: TypeAlias = str | int


@dataclass(kw_only=True)
class PolicyArguments(ControlArguments):
    """The arguments of `ActiveDendritePolicy`."""

    log_std_range: Sequence[float] = (-20.0, 2.0)
    log_std_bound: Literal["clamp", "tanh"] = "clamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.log_std_range = bounds = [float(bound) for bound in self.log_std_range]
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise wrong_argument("log_std_range", "the lower and the upper bound", bounds)


@register_model("active-dendrite-policy")
class ActiveDendritePolicy(LearnedTasks, ControlModel):
    r"""A Gaussian policy for many tasks: an `ActiveDendriteMLP` whose context is the task's one-hot id.

    The network maps an observation to mean and log standard deviation of a Gaussian; an action is its sample or its
    mean :math:`\mu`, squashed: :math:`a = \tanh(\mu + \sigma \epsilon)`. The defaults are those of the paper's
    Meta-World experiments (Iyer et al. 2022): only the second hidden layer has dendrites.

    ``from_pretrained(name, tasks=[...], init_from=...)`` gives a policy room for more tasks, see `adapt`; to teach it
    these alone train it with ``learn="new"``, as `dendrite_zoo.lightning_modules.BehaviorCloning` does.

    Args:
        tasks: names of the tasks, or `dendrite_zoo.rl.TaskSpec`, in the order of their indices.
        observation_size: numbers in an observation; by default those of a `TaskSpec` among the tasks, else 39.
        action_size: numbers in an action, each in [-1, 1]; likewise, or 4.
        hidden_features: units of each hidden layer; by default (256, 256), for Meta-World's sizes (2800, 2800).
        append_task: put the one-hot task id behind the observation, too, for a network without dendrites.
        observation_features: what is read of an observation: None for its numbers, a matrix ``(observation_size, F)``
            by which it is multiplied, or ``"metaworld"`` or ``"metaworld-raw"``, which come with their means and scales
            (see `dendrite_zoo.models.observations.features_of`).
        observation_clip: no number is read as more than this, once it is normalised; None for no bound.
        log_std_range: bounds of the log standard deviation.
        log_std_bound: how it is kept between them: ``"clamp"``, or ``"tanh"``, which maps all numbers there.

    All options of `dendrite_zoo.models.MLPConfig` are arguments, too.

    Attributes:
        tasks: their names.
        learned_tasks: those that it has learned, as far as is known; acting in another one is a warning.
        observation_matrix: ``(observation_size, F)``, by which every observation is multiplied where there are
            ``observation_features``; else None, and F is ``observation_size``.
        observation_mean: ``(F,)``, then subtracted; see `fit_normalizer`.
        observation_scale: ``(F,)``, which then divides it.

    Shape:
        observation ``(B, observation_size)`` and task ``(B,)`` or ``()`` integers, or an int, to mean and log
        standard deviation, each ``(B, action_size)``.

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

    @takes(PolicyArguments)
    def __init__(self, config: PolicyArguments) -> None:
        super().__init__(config)
        self.mlp = self._network(config, len(self.observation_mean), 2 * self.config["action_size"])
        self._folded = FoldedCache()
        self.note_draw()

    @property
    def networks(self) -> list[ActiveDendriteMLP]:
        """The network."""
        return [self.mlp]

    def task_index(self, task: Task) -> int:
        """The index of a task, given by its name or by the index itself.

        Raises:
            ValueError: there is no such task.

        Example:
            >>> ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[8, 8]).task_index("push-v3")
            1
        """
        if isinstance(task, str) and task in self.tasks:
            return self.tasks.index(task)
        with suppress(TypeError):
            if 0 <= (index := operator.index(cast(int, task))) < len(self.tasks):
                return index
        expected = f"one of {', '.join(self.tasks)}, or an index from 0 to {len(self.tasks) - 1}"
        raise wrong_argument("task", expected, task, nearest(str(task), self.tasks, cutoff=0.7).strip())

    @torch.no_grad()
    def set_std(self, std: float) -> None:
        """Give every action, before it is squashed, the same standard deviation, whatever the observation.

        Raises:
            ValueError: it is not between the bounds of ``log_std_range``; or the output layer has no bias to set.
        """
        if not self.config["output_bias"]:
            remedy = "Give output_bias=True, or let the deviations be learned from where they start."
            raise wrong_argument("output_bias", "True, where all deviations are set", False, remedy)
        output, size, log_std = self.mlp.output, self.config["action_size"], math.log(std)
        low, high = self.config["log_std_range"]
        if not low < log_std < high:  # nothing is learned beyond
            raise wrong_argument("std", f"between {math.exp(low):.2g} and {math.exp(high):.2g}", std)
        if self.config["log_std_bound"] == "tanh":
            log_std = math.atanh(2 * (log_std - low) / (high - low) - 1)
        output.weight[size:] = 0
        output.bias[size:] = log_std

    @torch.no_grad()
    def level_std(self) -> float:
        """Give every action the standard deviation that takes no bias, whatever the observation, and return it.

        It is in the middle of ``log_std_range`` where that is bounded by tanh, and else 1, or the nearest bound.

        Example:
            >>> round(ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8], output_bias=False).level_std(), 2)
            1.0
        """
        output, size = self.mlp.output, self.config["action_size"]
        output.weight[size:] = 0
        if output.bias is not None:
            output.bias[size:] = 0
        return float(self._gaussian(torch.zeros(2 * size))[1][0].exp())

    def forward(self, observation: Tensor, task: Tensor | int | TaskParts) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation ``(B, action_size)`` of the actions, before they are squashed."""
        task, (context,) = task if isinstance(task, TaskParts) else (task, [task])
        return self._gaussian(self.mlp(self._inputs(observation, task), context))

    def act(
        self, observation: Array | Tensor | Sequence[float], task: Task, *, deterministic: bool = True
    ) -> npt.NDArray[np.float32]:
        """The action for one observation; what the dendrites do for a task is folded into weights once, and cached.

        Other weights are noticed, and folded anew. After a write to a few numbers of a weight through ``.data``, of
        which PyTorch keeps no account, call ``policy.eval()``.

        Args:
            observation: ``(observation_size,)``, as the environment gives it; or as `seen` does.
            task: name or index.
            deterministic: the mean, squashed; else a sample.

        Returns:
            ``(action_size,)``, each in [-1, 1]; `dendrite_zoo.rl.TaskSpec.played` scales it to the bounds of an
            environment of your own.

        Raises:
            ValueError: an unknown task, or an observation of another size, or one that is not finite.
        """
        index, x = self.acted_in(task), self._tensor(observation)
        size = self.config["observation_size"]
        if x.shape != (size,):
            raise wrong_argument(
                "observation", f"of shape {(size,)}", tuple(x.shape), "For many at once call act_batch."
            )
        with torch.inference_mode():
            total, x = x.sum(), self.normalized(self.looked_at(x, index))
            network = self._folded.get(self.mlp, index, lambda: self._fold(index))
            action = self._squash(network(x[None]), deterministic)[0]
        if not all(map(math.isfinite, (action.sum(), x.sum(), total))):
            raise ValueError(_not_finite(observation))
        return action

    def act_batch(
        self,
        observations: Array | Tensor,
        task_index: Array | Tensor | Sequence[Task] | Task,
        *,
        deterministic: bool = True,
    ) -> npt.NDArray[np.float32]:
        """The actions ``(N, action_size)`` for many observations, each in a task of its own, or all in one.

        Args:
            observations: ``(N, observation_size)``.
            task_index: ``(N,)``, indices, or a list of names; or one of them for all.
            deterministic: the means, squashed; else samples.

        Raises:
            ValueError: an unknown task, or observations of another size, or that are not finite.
        """
        x, size, device = self._tensor(observations), self.config["observation_size"], self.observation_mean.device
        tasks = task_index.tolist() if isinstance(task_index, np.ndarray | Tensor) else task_index
        if isinstance(tasks, str) or not isinstance(tasks, Iterable):
            tasks = [tasks] * (len(x) if x.ndim == 2 else 1)
        index = torch.tensor([self.acted_in(task) for task in tasks], dtype=torch.long, device=device)
        if x.shape != (len(index), size):
            raise wrong_argument("observations", f"of shape {(len(index), size)}", tuple(x.shape))
        if not bool(x.isfinite().all()):
            raise ValueError(_not_finite(observations))
        with torch.no_grad():
            return self._squash(self.mlp(self._inputs(self.looked_at(x, index), index), index), deterministic)

    def fold(self, task: Task) -> nn.Sequential:
        """A plain network without dendrites that acts as `act` does in one task; `torch.export` takes it.

        It maps observations ``(B, observation_size)``, as `act` takes them, to actions ``(B, action_size)``,
        each in [-1, 1]; the normaliser is its first part.

        Args:
            task: name or index.

        Raises:
            ValueError: there is no such task.

        Example:
            >>> policy = ActiveDendritePolicy(["lift"], observation_size=3, hidden_features=[8], dendrite_layers=[0])
            >>> policy.fold("lift")
            Sequential(
              (0): Normalization()
              (1): Linear(in_features=3, out_features=8, bias=True)
              (2): KWinners(density=0.25)
              (3): Linear(in_features=8, out_features=4, bias=True)
              (4): Tanh()
            )
        """
        *hidden, last = self._fold(self.acted_in(task))
        features = Features(self.observation_matrix, self.observation_mean, self.observation_scale)
        read, size = Normalization(features, self.config["observation_clip"]), self.config["action_size"]
        output = cast(nn.Linear, last)
        means = plain_linear(output.weight[:size], None if output.bias is None else output.bias[:size])
        return nn.Sequential(read, *hidden, means, nn.Tanh()).requires_grad_(False)

    def train(self, mode: bool = True) -> "ActiveDendritePolicy":
        """Switch to training or evaluation; what was folded is forgotten."""
        self._folded.clear()
        return super().train(mode)

    def _tensor(self, observation: Any) -> Tensor:
        mean = self.observation_mean
        try:
            return torch.as_tensor(observation, dtype=torch.float32, device=mean.device).to(mean.dtype)
        except (TypeError, ValueError, RuntimeError):
            size, got = self.config["observation_size"], type(observation).__name__
            got += ". Of what gymnasium's reset gives, take the first."
            raise ValueError(f"Expected an array of {size} numbers as an observation, but got {got}") from None

    def _gaussian(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = output.chunk(2, dim=-1)
        low, high = self.config["log_std_range"]
        if self.config["log_std_bound"] == "tanh":
            return mean, low + (high - low) / 2 * (log_std.tanh() + 1)
        return mean, log_std.clamp(low, high)

    def _squash(self, output: Tensor, deterministic: bool) -> npt.NDArray[np.float32]:
        """Actions from the output of a network: means, or samples, in [-1, 1]."""
        if deterministic:
            action = output[..., : self.config["action_size"]]
        else:
            mean, log_std = self._gaussian(output)
            action = mean + log_std.exp() * torch.randn_like(mean)
        return action.tanh().float().cpu().numpy()

    def _fold(self, index: int) -> nn.Sequential:
        """The network in one task, without dendrites."""
        network = cast(nn.Sequential, self.mlp.fold(index))
        if self.config["append_task"]:  # a constant input is a bias
            first, size = cast(nn.Linear, network[0]), len(self.observation_mean)
            network[0] = plain_linear(first.weight[:, :size], first.bias + first.weight[:, size + index])
        return network.requires_grad_(False)


def _not_finite(observation: Any) -> str:
    bad = np.argwhere(~np.isfinite(np.asarray(torch.as_tensor(observation).cpu()))).tolist()
    remedy = "No action was taken: end the episode, for the simulation may have diverged."
    return f"Expected finite observations, but got one that is not finite (at {bad[:3]}), or too large. {remedy}"
