"""What networks that control a body in several tasks have in common: tasks by name, observations normalised."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo.models.config import MLPConfig
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.segments import DendriteModel


@dataclass(kw_only=True)
class ControlArguments(MLPConfig):
    """The arguments that policy and critics share; the defaults are the paper's for Meta-World (Iyer et al. 2022)."""

    tasks: Sequence[str] = field(kw_only=False)
    observation_size: int = 39
    action_size: int = 4
    hidden_features: Sequence[int] = (2800, 2800)
    num_segments: int = 10
    dendrite_layers: Sequence[int] | None = (1,)
    activation_density: float = 0.25
    weight_density: float = 0.9
    append_task: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str):
            raise wrong_argument("tasks", "a list of names", self.tasks, f"Write [{self.tasks!r}] for one task.")
        super().__post_init__()
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise wrong_argument("tasks", "the names of one task or more, each once", list(self.tasks))


class ControlModel(DendriteModel):
    """A model that sees an observation in one of several tasks, whose one-hot id is the context.

    Args:
        config: the arguments.

    Attributes:
        tasks: their names.
        observation_mean: ``(observation_size,)``, subtracted from every observation; see `fit_normalizer`.
        observation_scale: ``(observation_size,)``, which then divides it.
    """

    def __init__(self, config: ControlArguments) -> None:
        super().__init__(config)
        self.tasks = tuple(config.tasks)
        self.observation_mean = nn.Buffer(torch.zeros(config.observation_size))
        self.observation_scale = nn.Buffer(torch.ones(config.observation_size))

    @property
    def num_tasks(self) -> int:
        """How many tasks it is for."""
        return len(self.tasks)

    @property
    def has_normalizer(self) -> bool:
        """Whether mean and scale were set, as those of every trained policy are."""
        return bool(self.observation_mean.any()) or bool((self.observation_scale != 1).any())

    @torch.no_grad()
    def fit_normalizer(self, observations: Tensor, *, smallest: float = 1e-2) -> None:
        """Set mean and scale to those of observations ``(N, observation_size)``.

        Args:
            observations: what the model will see.
            smallest: no number is divided by less, metres in Meta-World, so that what hardly moves stays small.

        Raises:
            ValueError: observations of another shape, or none, or with NaN or infinity; the normaliser is as before.
        """
        size = len(self.observation_mean)
        if observations.ndim != 2 or observations.shape[1] != size or len(observations) == 0:
            shape = f"of shape (N, {size}) with one row or more to normalise by"
            raise wrong_argument("observations", shape, tuple(observations.shape), "Collect some first.")
        if rows := unusable_rows(observations):
            raise ValueError(
                f"Expected finite observations to normalise by, but got NaN or infinity in rows {rows[:8]}. Drop them."
            )
        x = observations.double()
        self.observation_mean.copy_(x.mean(0))
        self.observation_scale.copy_(x.std(0, correction=0).clamp(min=smallest))

    def _network(self, config: ControlArguments, inputs: int, outputs: int, number: int = 0) -> ActiveDendriteMLP:
        """A network of these options; ``number`` sets the segments of several apart."""
        seed, density = config.segment_seed, 1.0 if config.context_density is None else config.context_density
        seed = None if seed is None else (seed + number) % 2**31
        sizes = inputs + (len(self.tasks) if config.append_task else 0), config.hidden_features, outputs
        options = config.options(segment_seed=seed, context_density=density)
        return ActiveDendriteMLP(*sizes, context_dim=len(self.tasks), **options)

    def _inputs(self, observation: Tensor, task: Tensor | int, *others: Tensor) -> Tensor:
        """What a network reads: the observation, normalised, other inputs, and the one-hot task if it is appended."""
        parts = [(observation - self.observation_mean) / self.observation_scale, *others]
        if self.config["append_task"]:
            ids = torch.as_tensor(task, device=observation.device)
            one_hot = F.one_hot(ids, len(self.tasks)).to(parts[0])
            parts.append(one_hot.expand(len(parts[0]), -1))
        return torch.cat(parts, dim=1)
