"""What scripted experts do, as data to imitate."""

from __future__ import annotations

import inspect
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl.environments import TaskEnvironments
from dendrite_zoo.rl.evaluation import Act
from dendrite_zoo.rl.metaworld.goals import Split
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, OBSERVATION_SIZE, task_names

__all__ = ["Demonstrations", "Disturbance", "collect_demonstrations", "recipe_of"]


@dataclass(frozen=True)
class Demonstrations:
    """Observations, and what the expert of the task would do there.

    Attributes:
        tasks: names of the tasks.
        observation: ``(N, 39)`` float32, as the environments give them.
        action: ``(N, 4)`` float32, the expert's, in [-1, 1].
        task: ``(N,)``, positions in ``tasks``.
        solved: ``(N,)``, whether the episode that a row is of reached its goal.
        recipe: how they were collected, see `recipe_of`; None where that is not known.

    Raises:
        ValueError: tensors of other shapes, or a task that is no position in ``tasks``.

    Example:
        >>> one = Demonstrations(("reach-v3",), torch.zeros(2, 39), torch.zeros(2, 4), torch.zeros(2).long(),
        ...     torch.ones(2).bool())
        >>> len(one), len(one + one)
        (2, 4)
    """

    tasks: tuple[str, ...]
    observation: Tensor
    action: Tensor
    task: Tensor
    solved: Tensor
    recipe: Mapping[str, Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        rows = len(self.task)
        shapes = tuple(self.observation.shape), tuple(self.action.shape), tuple(self.solved.shape)
        if shapes != ((rows, OBSERVATION_SIZE), (rows, ACTION_SIZE), (rows,)):
            raise ValueError(
                f"Observations, actions and flags of shapes {shapes} came for {rows} rows; expected {(rows, 39)}, "
                f"{(rows, 4)} and {(rows,)}."
            )
        if rows and not 0 <= int(self.task.min()) <= int(self.task.max()) < len(self.tasks):
            raise ValueError(
                f"Task indices from {int(self.task.min())} to {int(self.task.max())} came; expected 0 to "
                f"{len(self.tasks) - 1}, positions in tasks={self.tasks}."
            )

    def __len__(self) -> int:
        return len(self.task)

    def __add__(self, other: Demonstrations) -> Demonstrations:
        """These and others of the same tasks."""
        if self.tasks != other.tasks:
            raise ValueError(f"Demonstrations of {self.tasks} and of {other.tasks} came; expected the same tasks.")
        pairs = [(getattr(self, name), getattr(other, name)) for name in _TENSORS]
        return Demonstrations(self.tasks, *(torch.cat(pair) for pair in pairs))

    def of(self, task: int) -> Demonstrations:
        """The rows of one task."""
        rows = self.task == task
        return Demonstrations(self.tasks, *(getattr(self, name)[rows] for name in _TENSORS))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a safetensors file, which holds no code; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # another run may be writing the same file
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        known = {"tasks": self.tasks} | ({} if self.recipe is None else {"recipe": self.recipe})
        try:
            save_file(tensors, waiting, {name: json.dumps(value) for name, value in known.items()})
            os.replace(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Demonstrations:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"There are no demonstrations at {path}; collect_demonstrations(...).save makes them."
            )
        try:
            with safe_open(path, "pt") as file:
                known = {name: json.loads(file.metadata()[name]) for name in file.metadata() if name in _METADATA}
                tensors = [file.get_tensor(name) for name in _TENSORS]
                return cls(tuple(known["tasks"]), *tensors, recipe=known.get("recipe"))
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no demonstrations ({error}); expected a file of Demonstrations.save."
            ) from None


_TENSORS = ("observation", "action", "task", "solved")
_METADATA = ("tasks", "recipe")


@dataclass(frozen=True)
class Disturbance:
    """Chance that leads an episode off the expert's path, so that the way back is shown, too (DART).

    Args:
        noise: standard deviation of what is added to each action, 0 or more.
        bursts: chance a step, from 0 to 1, that a push begins: 3 to 10 steps into one random direction, the gripper as
            it would be.

    Raises:
        ValueError: a number out of range.

    Source:
        Laskey et al. 2017, DART: Noise Injection for Robust Imitation Learning, https://arxiv.org/abs/1703.09327.
    """

    noise: float = 0.2
    bursts: float = 0.02

    def __post_init__(self) -> None:
        if not (0 <= self.noise < math.inf and 0 <= self.bursts <= 1):
            raise ValueError(
                f"noise={self.noise} and bursts={self.bursts} came; expected a deviation of 0 or more and a chance "
                "from 0 to 1. Change what is out of range."
            )


def collect_demonstrations(
    tasks: str | Sequence[str],
    *,
    episodes_per_task: int = 50,
    policy: Act | None = None,
    expert_share: float = 0.0,
    disturbance: Disturbance | None = None,
    split: Split = "train",
    num_processes: int = 2,
    fast: bool = False,
    seed: int = 0,
    max_steps: int = 300,
    progress: bool = False,
) -> Demonstrations:
    """Play one episode on each of a number of goals, and note at each step what the expert would do.

    Without a policy the expert itself plays (behaviour cloning). With one the policy does, and the expert says what it
    would have done (DAgger); in blocks of 20 steps the expert plays for it with the chance ``expert_share``. An
    episode ends with success.

    Args:
        tasks: ``"mt10"``, ``"mt50"`` or names.
        episodes_per_task: as many goals.
        policy: who plays, such as ``policy.act_batch``.
        expert_share: DAgger's beta, from 0 to 1.
        disturbance: of what is played, in every second episode.
        split: of the goals.
        num_processes: as for `TaskEnvironments`.
        fast: faster Python paths.
        seed: of goals and chance; equal seeds give equal demonstrations.
        max_steps: length of an episode.
        progress: show a bar.

    Raises:
        ValueError: an unknown task, a number out of range, or a policy whose actions cannot be played.
        ImportError: the ``[metaworld]`` extra is missing.

    Source:
        Ross, Gordon and Bagnell 2011, A Reduction of Imitation Learning ... to No-Regret Online Learning,
        https://arxiv.org/abs/1011.0686.
    """
    names = task_names(tasks)
    if not 0 <= expert_share <= 1:
        raise ValueError(f"expert_share={expert_share} came; expected a chance from 0 to 1. Change it.")
    recipe = recipe_of(
        episodes_per_task=episodes_per_task,
        policy=policy,
        expert_share=expert_share,
        disturbance=disturbance,
        split=split,
        seed=seed,
        max_steps=max_steps,
    )
    envs_per_task = min(episodes_per_task, max(1, 20 // len(names)))
    generator = random_state(seed, len(names), episodes_per_task)
    rows: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]] = []
    solved = np.zeros((len(names), episodes_per_task), dtype=bool)
    with (
        TaskEnvironments(
            names,
            envs_per_task=envs_per_task,
            split=split,
            num_goals=episodes_per_task,
            order="each-once",
            num_processes=num_processes,
            seed=seed,
            fast=fast,
            max_steps=max_steps,
            stop_at_success=True,
        ) as envs,
        Progress(transient=True, disable=not progress) as bar,
    ):
        shown = bar.add_task("demonstrations", total=solved.size)
        chance = _Chance(envs.num_envs, generator, disturbance, expert_share)
        goal = np.arange(envs.num_envs) % envs_per_task
        observation = envs.reset()
        while len(busy := np.flatnonzero(~envs.finished)):
            expert = envs.expert_actions()
            played = expert.copy()
            if policy is not None:
                played[busy] = policy(observation[busy], envs.task_index[busy])
            played = chance.change(played, expert, disturbed=goal % 2 == 1)
            task = envs.task_index[busy]
            rows.append((observation[busy], expert[busy], task, task * episodes_per_task + goal[busy]))
            step = envs.step(played)
            ended = busy[step.truncated[busy]]
            solved[envs.task_index[ended], goal[ended]] = step.success[ended]
            goal[ended] += envs_per_task
            bar.advance(shown, len(ended))
            observation = step.observation
    observations, actions, index, episode = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Demonstrations(
        names,
        torch.from_numpy(observations).float(),
        torch.from_numpy(actions).float(),
        torch.from_numpy(index),
        torch.from_numpy(solved.flatten()[episode]),
        recipe=recipe,
    )


def recipe_of(**arguments: Any) -> dict[str, Any]:
    """What decides the content of demonstrations, except for the tasks and a policy's weights, as JSON values.

    Args:
        **arguments: those of `collect_demonstrations`; by default its own.

    Example:
        >>> recipe_of(episodes_per_task=20, seed=1)["split"]
        'train'
    """
    given = inspect.signature(collect_demonstrations).bind_partial(**arguments)
    given.apply_defaults()
    values: dict[str, Any] = {name: given.arguments[name] for name in _DECISIVE}
    disturbance = given.arguments["disturbance"]
    values["disturbance"] = None if disturbance is None else asdict(disturbance)
    values["played_by"] = "expert" if given.arguments["policy"] is None else "policy"
    return cast(dict[str, Any], json.loads(json.dumps(values, default=int)))  # NumPy's integers are none of JSON's


_DECISIVE = ("episodes_per_task", "expert_share", "split", "seed", "max_steps")


class _Chance:
    """Who plays in each environment, and what disturbs it."""

    def __init__(
        self, num_envs: int, generator: np.random.RandomState, disturbance: Disturbance | None, expert_share: float
    ) -> None:
        self.generator, self.disturbance, self.expert_share = generator, disturbance, expert_share
        self.steps = 0
        self.expert_plays = np.zeros(num_envs, dtype=bool)
        self.push = np.zeros((num_envs, ACTION_SIZE - 1))
        self.push_left = np.zeros(num_envs, dtype=np.int64)

    def change(
        self, played: NDArray[np.float64], expert: NDArray[np.float64], *, disturbed: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        num_envs, generator = len(played), self.generator
        if self.steps % 20 == 0:
            self.expert_plays = generator.uniform(size=num_envs) < self.expert_share
        self.steps += 1
        played = np.where(self.expert_plays[:, None], expert, played)
        if self.disturbance is None:
            return played
        begins = (generator.uniform(size=num_envs) < self.disturbance.bursts) & (self.push_left == 0)
        self.push[begins] = generator.uniform(-1, 1, size=self.push.shape)[begins]
        self.push_left[begins] = generator.randint(3, 11, size=num_envs)[begins]
        noisy = np.clip(played + generator.normal(0, self.disturbance.noise, size=played.shape), -1, 1)
        pushed = np.where(self.push_left[:, None] > 0, np.c_[self.push, played[:, -1:]], noisy)
        self.push_left = np.maximum(self.push_left - 1, 0)
        return np.where(disturbed[:, None], pushed, played)
