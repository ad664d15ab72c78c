"""Who plays: environments, round after round, what is explored in them, and the statistics of their episodes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo.rl.environments import TaskEnvironments
from dendrite_zoo.rl.exploration import Exploration, Explorer
from dendrite_zoo.rl.spec import TaskSpec
from dendrite_zoo.rl.statistics import EpisodeStatistics
from dendrite_zoo.rl.task_list import without_success

Act: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From observations ``(N, O)``, float32, and tasks ``(N,)``, by their index among all, to actions ``(N, A)``."""


class Played(NamedTuple):
    """What a round gave.

    Attributes:
        transitions: the columns that `dendrite_zoo.rl.replay.ReplayBuffer.add` takes.
        statistics: as `dendrite_zoo.rl.statistics.EpisodeStatistics.compute`.
        simulated: how many steps were simulated, in all environments.
        solved: of each task, whether it is solved by now, see `EpisodeStatistics.which_are_solved`.
        places: the tasks that were played, counted from 0; None for all.
    """

    transitions: list[Tensor]
    statistics: dict[str, float]
    simulated: int
    solved: list[bool]
    places: list[int] | None


class Player:
    """Environments of some tasks in which rounds are played.

    Args:
        specs: the tasks.
        first_task: the index of the first among all tasks that are learned; the others follow.
        envs_per_task: environments of each task.
        exploration: what is played beside the policy's actions; None for nothing.
        seed: of the environments and of what is explored.
        device: on which actions are chosen.
        **options: further arguments of `dendrite_zoo.rl.TaskEnvironments`.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        first_task: int,
        *,
        envs_per_task: int,
        exploration: Exploration | None,
        seed: int,
        device: torch.device,
        **options: Any,
    ) -> None:
        self.environments = TaskEnvironments(specs, envs_per_task=envs_per_task, seed=seed, **options)
        index = self.environments.task_index
        names = [spec.name for spec in specs]
        self.statistics = EpisodeStatistics(names, index.tolist(), without_success(specs))
        self.explorer = None
        if exploration is not None:
            shape, number = (len(index), specs[0].action_size), self.environments.config.env
            self.explorer = Explorer(exploration, shape, (seed, first_task, number))
        self.place = torch.from_numpy(index).to(device)
        self.task = self.place + first_task
        self.rounds, self.device = 0, device

    def begin(self, act: Act, steps: int, *, places: list[int] | None = None) -> None:
        """Begin a round beside what else is done: this player does not, and plays when it is waited for."""

    def finish(self) -> Played | None:
        """The round that was begun: none."""
        return None

    def play(self, act: Act, steps: int, *, at_random: bool = False, places: list[int] | None = None) -> Played:
        """Play a round.

        Args:
            act: chooses the actions.
            steps: actions in every environment.
            at_random: whether ``act`` gives uniform actions, in the warm-up.
            places: the tasks to play, counted from 0; None for all.
        """
        environments, explorer = self.environments, self.explorer
        tensor = partial(torch.as_tensor, dtype=torch.float32, device=self.device)
        if self.rounds == 0:
            environments.reset()
        if explorer is not None:
            explorer.begin_round(self.rounds + 1)
        observation, simulated = tensor(environments.observation), 0
        awake = np.isin(environments.task_index, range(environments.num_envs) if places is None else places)
        self.statistics.begin_round(at_random)
        transitions: list[tuple[Tensor, ...]] = []
        for _ in range(steps):
            action = act(observation, self.task).float()  # of which NumPy knows more than of bfloat16
            if explorer is not None:
                action = tensor(explorer(action.cpu().double().numpy(), at_random, awake))
            step = environments.step(action.cpu().numpy(), ~awake)
            next_observation, ends = (
                tensor(step.final_observation),
                map(torch.from_numpy, (step.terminated, step.ended)),
            )
            transitions.append((observation, action, tensor(step.reward), next_observation, self.place, *ends))
            observation = tensor(step.observation) if step.ended.any() else next_observation
            simulated += int(step.steps.sum())
            self.statistics.update(step, None if explorer is None else ~explorer.has_bursts)
            if explorer is not None:
                explorer.end_episodes(step.ended, at_random)
        self.rounds += 1
        columns = [torch.cat(column) for column in zip(*transitions, strict=True)]
        if places is not None:
            rows = torch.from_numpy(np.flatnonzero(np.tile(awake, steps)))
            columns = [column[rows.to(column.device)] for column in columns]
        return Played(columns, self.statistics.compute(), simulated, self.statistics.which_are_solved(), places)

    def state_dict(self) -> dict[str, Any]:
        """The state of environments, statistics and exploration."""
        explored = {} if self.explorer is None else {"exploration": self.explorer.state_dict()}
        return {"environments": self.environments.state_dict(), **self.statistics.state_dict(), **explored}

    def load_state_dict(self, state: dict[str, Any], rounds: int) -> None:
        """Continue from a state.

        Args:
            state: of `state_dict`.
            rounds: how many had been played.
        """
        self.rounds = rounds
        if rounds:
            self.environments.load_state_dict(state["environments"])
        self.statistics.load_state_dict(state)
        if self.explorer is not None and "exploration" in state:
            self.explorer.load_state_dict(state["exploration"])

    def close(self) -> None:
        """End the environments."""
        self.environments.close()
