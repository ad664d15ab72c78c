"""What is practised at a time: some tasks, their environments, and what was played in them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo.rl.environments import TaskEnvironments
from dendrite_zoo.rl.replay import ReplayBuffer, Transitions
from dendrite_zoo.rl.spec import TaskSpec
from dendrite_zoo.rl.statistics import EpisodeStatistics
from dendrite_zoo.rl.task_list import without_success


class Practice:
    """Environments of some tasks, the statistics of their episodes, and a replay buffer.

    Args:
        specs: the tasks.
        first_task: the index of the first among all tasks that are learned; the others follow.
        envs_per_task: environments of each task.
        capacity: steps in the replay buffer.
        normalize_rewards: divide each task's rewards by their root mean square before its first sample.
        device: of the replay buffer.

    Attributes:
        steps: how many actions were played in every environment.
        simulated: how many steps were simulated in the latest round, in all environments.
        environments: None until `open`, and after `close`.
        replay: the buffer, in which tasks count from 0.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        first_task: int,
        *,
        envs_per_task: int,
        capacity: int,
        normalize_rewards: bool,
        device: torch.device,
    ) -> None:
        self.specs, self.first_task, self.envs_per_task = specs, first_task, envs_per_task
        self.steps, self.simulated, self.normalize_rewards = 0, 0, normalize_rewards
        names = [spec.name for spec in specs]
        index = [task for task in range(len(specs)) for _ in range(envs_per_task)]
        self.statistics = EpisodeStatistics(names, index, without_success(specs))
        sizes = {"observation_size": specs[0].observation_size, "action_size": specs[0].action_size}
        self.replay = ReplayBuffer(len(specs), capacity, envs_per_task=envs_per_task, device=device, **sizes)
        self.reward_rms = torch.zeros(len(specs), device=device)  # 0: not measured yet
        self.environments: TaskEnvironments | None = None
        self._last_state: dict[str, Any] | None = None  # of environments that were closed

    def open(self, **options: Any) -> None:
        """Make the environments.

        Args:
            **options: further arguments of `dendrite_zoo.rl.TaskEnvironments`.
        """
        self.environments = TaskEnvironments(self.specs, envs_per_task=self.envs_per_task, **options)

    def close(self, *, keep_state: bool = False) -> None:
        """End the environments.

        Args:
            keep_state: a `state_dict` can still be taken.
        """
        if self.environments is not None:
            if keep_state:
                with suppress(RuntimeError):  # they crashed, or were never reset
                    self._last_state = self.environments.state_dict()
            self.environments.close()
            self.environments = None

    def collect(self, act: Callable[[Tensor, Tensor], Tensor], steps: int) -> dict[str, float]:
        """Play, and add every step to the replay buffer.

        Args:
            act: maps observations ``(N, O)``, float32, and tasks ``(N,)``, by their index among all, to actions
                ``(N, A)``.
            steps: actions in every environment.

        Returns:
            As `dendrite_zoo.rl.statistics.EpisodeStatistics.compute`.

        Raises:
            RuntimeError: before `open`, or when a process of the environments crashed.
        """
        if self.environments is None:
            raise RuntimeError("There are no environments yet: expected setup() before collect(). Call it once.")
        environments, device = self.environments, self.replay.rows.device
        tensor = partial(torch.as_tensor, dtype=torch.float32, device=device)
        place = torch.from_numpy(environments.task_index).to(device)
        if self.steps == 0:
            environments.reset()
        observation = tensor(environments.observation)
        transitions: list[tuple[Tensor, ...]] = []
        self.simulated = 0
        for _ in range(steps):
            action = act(observation, place + self.first_task).float()  # of which NumPy knows more than of bfloat16
            step = environments.step(action.cpu().numpy())
            next_observation, ends = (
                tensor(step.final_observation),
                map(torch.from_numpy, (step.terminated, step.ended)),
            )
            transitions.append((observation, action, tensor(step.reward), next_observation, place, *ends))
            observation = tensor(step.observation) if step.ended.any() else next_observation
            self.statistics.update(step)
            self.simulated += int(step.steps.sum())
        self.replay.add(*(torch.cat(column) for column in zip(*transitions, strict=True)))
        self.steps += steps
        return self.statistics.compute()

    def sample(self, per_task: int, generator: torch.Generator | None = None, **options: Any) -> Transitions:
        """Sample the same number of steps of every task from the replay buffer; tasks by their index among all.

        Args:
            per_task: steps of each task.
            generator: of random numbers.
            **options: further arguments of `dendrite_zoo.rl.replay.ReplayBuffer.sample`.
        """
        batch = self.replay.sample(per_task, generator, **options)
        if self.normalize_rewards:
            if not self.reward_rms.all():
                self._measure_rewards()
            batch = batch._replace(reward=batch.reward / self.reward_rms[batch.task])
        return batch._replace(task=batch.task + self.first_task) if self.first_task else batch

    def _measure_rewards(self) -> None:
        """Of what all processes have seen; where there was no reward yet, as if it were 1."""
        for place in range(len(self.specs)):
            rewards = self.replay.rewards(place, len(self.replay))
            sums = torch.stack([rewards.square().sum(), rewards.new_tensor(len(rewards))])
            sum_over_ranks(sums)
            size = float((sums[0] / sums[1]).sqrt())
            self.reward_rms[place] = size or 1.0

    def latest(self, task: int, count: int) -> Tensor:
        """The latest observations of a task, by its index among all, ``(<= count, O)``; none of those not practised."""
        place = task - self.first_task
        known = 0 <= place < len(self.specs)
        return self.replay.observations(place if known else 0, count if known else 0)

    def state_dict(self) -> dict[str, Any] | None:
        """The state of environments and replay buffer, also after `close`; None where environments crashed."""
        running = self.environments if self.steps else None
        environments = self._last_state if running is None else running.state_dict()
        if self.steps and environments is None:
            return None
        normalizer = {"reward_rms": self.reward_rms.cpu()} if self.normalize_rewards else {}
        own = {"environments": environments, **self.statistics.state_dict(), "replay": self.replay.state_dict()}
        return own | normalizer

    def load_state_dict(self, state: dict[str, Any], steps: int) -> None:
        """Continue from a state.

        Args:
            state: of `state_dict`.
            steps: how many had been played in every environment.
        """
        self.steps = steps
        if steps and self.environments is not None:
            self.environments.load_state_dict(state["environments"])
        self.statistics.load_state_dict(state)
        self.replay.load_state_dict(state["replay"])
        if self.normalize_rewards:
            self.reward_rms = state["reward_rms"].to(self.reward_rms)
