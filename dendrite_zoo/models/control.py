"""What networks that control a body in several tasks have in common: tasks by name, observations normalised."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_positive, check_range, wrong_argument
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo._core.torch import full_precision, is_mixed_precision
from dendrite_zoo.functional import Context
from dendrite_zoo.models.config import MLPConfig
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.observations import SIZES, features_of, normalised, plain_features, statistics_of
from dendrite_zoo.models.room import begin_additive, move_columns, move_subnetworks, say_what_is_new, starts_of
from dendrite_zoo.models.segments import DendriteModel
from dendrite_zoo.models.unused import cleared, with_unused, without_unused
from dendrite_zoo.row_sparse.groups import Take
from dendrite_zoo.row_sparse.subnetworks import Subnetworks
from dendrite_zoo.row_sparse.taken_rows import take_together


@dataclass(kw_only=True)
class ControlArguments(MLPConfig):
    """The arguments that policy and critics share; the defaults are the paper's for Meta-World (Iyer et al. 2022)."""

    tasks: Sequence[str] = field(kw_only=False)
    observation_size: int | None = None
    action_size: int | None = None
    hidden_features: Sequence[int] | None = None
    num_segments: int = 10
    dendrite_layers: Sequence[int] | None = (1,)
    activation_density: float = 0.25
    weight_density: float = 0.9
    append_task: bool = False
    observation_features: str | Sequence[Sequence[float]] | None = None
    observation_clip: float | None = None

    def __post_init__(self) -> None:
        given, self.tasks = self.tasks, _names(self.tasks)
        for name, of_metaworld in SIZES.items():
            if getattr(self, name) is None:
                of_specs = (getattr(task, name) for task in given if hasattr(task, name))
                setattr(self, name, next(of_specs, of_metaworld))
        if self.hidden_features is None:
            is_metaworld = all(getattr(self, name) == size for name, size in SIZES.items())
            self.hidden_features = [2800 if is_metaworld else 256] * 2
        self.observation_features = plain_features(self.observation_features)
        super().__post_init__()
        if self.observation_clip is not None:
            check_positive(observation_clip=self.observation_clip)


class TaskParts(NamedTuple):
    """The parts of a model's networks that tasks use, which it takes in the place of the tasks.

    Attributes:
        task: the tasks.
        networks: of each network, what it takes as a context.
    """

    task: Tensor | int
    networks: list[Context | Subnetworks]

    @property
    def are_cut(self) -> bool:
        """Whether all are cut out of the networks, whose own parameters are then not asked again."""
        return all(isinstance(network, Subnetworks) for network in self.networks)

    @property
    def are_parameters(self) -> bool:
        """Whether they need not be cut out anew after a step of an optimizer."""
        return all(isinstance(network, Subnetworks) and network.are_parameters for network in self.networks)

    def detach(self) -> "TaskParts":
        """The same, through which gradients pass without reaching the parameters; tasks stay tasks."""
        return TaskParts(self.task, [n.detach() if isinstance(n, Subnetworks) else n for n in self.networks])


class ControlModel(DendriteModel):
    """A model that sees an observation in one of several tasks, whose one-hot id is the context.

    Args:
        config: the arguments.

    Attributes:
        tasks: their names.
        observation_matrix: ``(observation_size, F)``, by which every observation is multiplied where there are
            ``observation_features``; else None, and F is ``observation_size``.
        observation_mean: ``(F,)``, then subtracted; see `fit_normalizer`.
        observation_scale: ``(F,)``, which then divides it.
    """

    changeable: ClassVar[tuple[str, ...]] = ("tasks", "init_from", "overlap", "additive_segments")
    observation_matrix: Tensor | None

    def __init__(self, config: ControlArguments) -> None:
        super().__init__(config)
        self.tasks = tuple(config.tasks)
        features = features_of(config.observation_features, self.config["observation_size"])
        self.register_buffer("observation_matrix", features.matrix)
        self.observation_mean, self.observation_scale = nn.Buffer(features.mean), nn.Buffer(features.scale)
        self.has_known_scales, self._clip = features.known, config.observation_clip

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Load with other ``tasks``, in any order.

        Tasks that the model knows keep their columns of segments, and with them their outputs, to the bit (with
        ``append_task`` up to rounding). New tasks get columns drawn as those of the old ones were, or copies of the
        column of the task ``init_from``; where that is a dictionary, such as ``{"hammer-v3": "push-v3"}``, the tasks
        that it names start from the others, also those that the model knows. All tasks get additive segments, 0 at
        first, where there are new ones or ``additive_segments=True``. Where winners are chosen by the context, a new
        column chooses a subnetwork of its own, with an ``overlap`` among the units that are left, and with
        ``init_from`` one of units that no task uses, whose weights start as a copy; where too few are left, hidden
        layers become wider. A batch of several tasks is then rounded otherwise where their order is another.
        """
        known, tasks = list(config["tasks"]), [str(task) for task in _names(changes.get("tasks", config["tasks"]))]
        starts, state = starts_of(changes.get("init_from"), known, tasks), dict(state)
        say_what_is_new(tasks, known, starts)
        if (overlap := changes.get("overlap", config["overlap"])) is not None:
            check_range(0, 1, overlap=overlap)
        config = {**begin_additive(config, state, len(known), changes), "overlap": overlap}
        if config["winners"] == "context":
            return (*move_subnetworks(cls, config, state, tasks, starts), [])
        return move_columns(config, state, tasks, starts), state, []

    @classmethod
    def to_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leave out what the seed gives, and weights that no task uses where they are zero (see `clear_unused`)."""
        return super().to_file(config, without_unused(config, state))

    @classmethod
    def from_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the whole state."""
        return with_unused(config, super().from_file(config, state))

    @torch.no_grad()
    def clear_unused(self) -> None:
        """Set weights to zero that no task uses, so that a file need not hold them; nothing else changes.

        They lie between units, chosen by contexts, that are never active together.
        """
        self.load_state_dict(cleared(self.config, self.state_dict()))

    @property
    def num_tasks(self) -> int:
        """How many tasks it is for."""
        return len(self.tasks)

    @property
    def has_normalizer(self) -> bool:
        """Whether mean and scale were set, as those of every trained policy are, or come with named features."""
        return self.has_known_scales or bool(self.observation_mean.any()) or bool((self.observation_scale != 1).any())

    @torch.no_grad()
    def fit_normalizer(self, observations: Tensor | NDArray[Any], *, smallest: float | None = None) -> None:
        """Set mean and scale to those of observations ``(N, observation_size)``, or of their features.

        The scale of a number that never changes is 1: where a task to come moves it, as the place of a second object
        where all tasks had one, it does not drown the others.

        Args:
            observations: what the model will see.
            smallest: no number that changes is divided by less, so that what hardly moves stays small. By default 1e-2,
                in metres, for observations of Meta-World's size; others are of any units, and have no such bound.

        Raises:
            ValueError: observations of another shape, or none, or with NaN or infinity; the normaliser is as before.
        """
        if smallest is None and self.config["observation_size"] == SIZES["observation_size"]:
            smallest = 1e-2
        mean, scale = statistics_of(self._linear(self._checked(observations)), smallest)
        self.observation_mean.copy_(mean)
        self.observation_scale.copy_(scale)

    @torch.no_grad()
    def extend_normalizer(self, observations: Tensor | NDArray[Any], *, smallest: float = 1e-2) -> list[int]:
        """Set the scale of numbers that were always zero in what the model was normalised by.

        Such a number, as the place of a second object where all tasks had one, has the scale 1, and the smallest in
        models of version 0.1: in a task that moves it by more, it would drown all others. Its scale becomes its largest
        size in other observations. Where it stays zero, as it is in the tasks that the model knows, all outputs stay as
        they are, to the bit.

        Args:
            observations: of a new task, ``(N, observation_size)``.
            smallest: scale of what hardly moved in what a model of version 0.1 was normalised by.

        Returns:
            Which numbers (or features) these are, of those that are larger here than their scale.

        Raises:
            ValueError: as `fit_normalizer`.

        Example:
            >>> from dendrite_zoo.models import ActiveDendritePolicy
            >>> policy = ActiveDendritePolicy(["lift"], hidden_features=[8, 8], observation_size=3, action_size=1)
            >>> policy.fit_normalizer(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]))
            >>> policy.extend_normalizer(torch.tensor([[9.0, 50.0, 0.0]])), policy.observation_scale
            ([1], tensor([ 1., 50.,  1.]))
        """
        sizes = self._linear(self._checked(observations)).abs().amax(0).to(self.observation_scale)
        unseen = self.observation_scale <= smallest
        if self.has_normalizer:
            unseen |= self.observation_scale == 1
        unseen &= not self.has_known_scales
        zero = (self.observation_mean == 0) & unseen & (sizes > self.observation_scale)
        self.observation_scale[zero] = sizes[zero]
        return zero.nonzero().flatten().tolist()

    def _checked(self, given: Tensor | NDArray[Any]) -> Tensor:
        """Observations to normalise by; of another shape, or none, or with NaN or infinity they are refused."""
        size, observations = self.config["observation_size"], torch.as_tensor(given, dtype=torch.float64)
        if observations.ndim != 2 or observations.shape[1] != size or len(observations) == 0:
            shape = f"of shape (N, {size}) with one row or more to normalise by"
            raise wrong_argument("observations", shape, tuple(observations.shape), "Collect some first.")
        if rows := unusable_rows(observations):
            raise ValueError(
                f"Expected finite observations to normalise by, but got NaN or infinity in rows {rows[:8]}. Drop them."
            )
        return observations

    def _network(self, config: ControlArguments, inputs: int, outputs: int, number: int = 0) -> ActiveDendriteMLP:
        """A network of these options; ``number`` sets the segments of several apart."""
        seed, density = config.segment_seed, 1.0 if config.context_density is None else config.context_density
        seed = None if seed is None else (seed + number) % 2**31
        sizes: Any = inputs + (len(self.tasks) if config.append_task else 0), config.hidden_features, outputs
        options = config.options(segment_seed=seed, context_density=density)
        return ActiveDendriteMLP(*sizes, context_dim=len(self.tasks), **options)

    @property
    def networks(self) -> list[ActiveDendriteMLP]:
        """Its networks, which all have the task as their context."""
        raise NotImplementedError

    def parts(self, task: Tensor | int, take: Take = take_together) -> TaskParts:
        """What may be given in the place of tasks, so that their parts of the networks are cut out once, not each time.

        For several batches in the same tasks between two steps of an optimizer.

        Example:
            >>> from dendrite_zoo.models import ActiveDendritePolicy
            >>> policy = ActiveDendritePolicy(["a", "b"], hidden_features=[8], dendrite_layers=None, winners="context")
            >>> task, observation = torch.tensor([0, 1, 1]), torch.randn(3, 39)
            >>> policy(observation, policy.parts(task))[0].equal(policy(observation, task)[0])
            True
        """
        return TaskParts(task, [network.subnetworks(task, take) for network in self.networks])

    def normalized(self, observation: Tensor) -> Tensor:
        """What is read of observations ``(..., observation_size)``: numbers or features, normalised, ``(..., F)``.

        Example:
            >>> from dendrite_zoo.models import ActiveDendritePolicy
            >>> sizes = {"observation_size": 2, "action_size": 1, "hidden_features": [8, 8]}
            >>> policy = ActiveDendritePolicy(["lift"], observation_features=[[1, -1], [0, 1]], **sizes)
            >>> policy.normalized(torch.tensor([3.0, 5.0]))  # the first number, and how much larger the second is
            tensor([3., 2.])
        """
        return normalised(self._linear(observation), self.observation_mean, self.observation_scale, self._clip)

    def _linear(self, observation: Tensor) -> Tensor:
        if self.observation_matrix is None:
            return observation
        mixed = is_mixed_precision(observation.device)
        with full_precision(observation.device) if mixed else nullcontext():  # differences of centimetres
            return observation @ self.observation_matrix.to(observation.dtype)

    def _inputs(self, observation: Tensor, task: Tensor | int, *others: Tensor) -> Tensor:
        """What a network reads: the observation, normalised, other inputs, and the one-hot task if it is appended."""
        parts = [self.normalized(observation), *others]
        if self.config["append_task"]:
            ids = torch.as_tensor(task, device=observation.device)
            one_hot = F.one_hot(ids, len(self.tasks)).to(parts[0])
            parts.append(one_hot.expand(len(parts[0]), -1))
        return torch.cat(parts, dim=1)


def _names(tasks: Any) -> list[str]:
    """The names of tasks, each given by its name or as a `dendrite_zoo.rl.TaskSpec`."""
    if isinstance(tasks, str):
        remedy = f"Write [{tasks!r}] for one task, dendrite_zoo.rl.task_names({tasks!r}) for those of a benchmark."
        raise wrong_argument("tasks", "a list of names", tasks, remedy)
    names: list[Any] = [getattr(task, "name", task) for task in tasks] if isinstance(tasks, Sequence) else []
    wrong = [name for name in names if not isinstance(name, str) or not name or names.count(name) > 1]
    if wrong or not names:
        remedy = "For a function give TaskSpec(name, make_env)." if any(map(callable, wrong)) else "Give a list."
        raise wrong_argument("tasks", "the names of one task or more, each once", wrong or tasks, remedy)
    return names
