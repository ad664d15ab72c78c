"""Tasks to be learned online: the policy that learns from the data also collects them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.names import nearest
from dendrite_zoo._core.ranks import gather_states, state_of_rank
from dendrite_zoo.rl import ACTION_SIZE, OBSERVATION_SIZE, TaskEnvironments, task_names
from dendrite_zoo.rl.replay import ReplayBuffer
from dendrite_zoo.rl.statistics import EpisodeStatistics
from dendrite_zoo.streams.datamodule import TaskDataModule
from dendrite_zoo.streams.loader import ResumableLoader, SingleBatch

__all__ = ["OnlineTasks", "Round"]

# The arguments of TaskEnvironments that a user may choose; the others follow from those of OnlineTasks.
OPTIONS = ("fast", "max_steps", "num_goals", "num_processes", "reward_version", "timeout")
LATEST = 1000  # observations of each task in a validation


class Round(NamedTuple):
    """An item of the training loader: not data, but how much to collect, and how often to learn from it.

    Attributes:
        steps: number of steps to collect in every environment.
        updates: number of updates after them.
    """

    steps: int
    updates: int


@dataclass(eq=False, repr=False)
class RoundLoader(ResumableLoader):
    """The rounds of one epoch."""

    data: "OnlineTasks"

    def __len__(self) -> int:
        return -(-self.data.total_env_steps // (self.data.env_steps_per_round * self.data.epochs))

    def batches(self, start: int) -> Iterator[Round]:
        """A `Round` each; without updates until the warm-up has been played."""
        data = self.data
        for _ in range(start, len(self)):
            warm = data.env_steps + data.env_steps_per_round >= data.warmup_steps
            yield Round(data.steps_per_round, data.updates_per_round if warm else 0)


class OnlineTasks(TaskDataModule):
    """Robot tasks to be learned by reinforcement, with environments and a replay buffer.

    The training loader gives one `Round` after another, for which `MultiTaskSAC` calls `collect` and samples from
    `replay`. An epoch is a number of rounds and a validation on the latest observations of each task, one loader a
    task. A checkpoint holds the buffer and the state of each environment; under DDP each process has environments and
    a buffer of its own, with the same goals in another order.

    Args:
        tasks: ``"mt10"``, ``"mt50"`` or names of Meta-World's tasks.
        env_steps: number of steps, of all environments in all processes together, rounded up to whole rounds.
        epochs: number of epochs; each ends with a validation and a checkpoint.
        steps_per_round: steps of every environment in a round; the paper's by default.
        updates_per_round: updates after them.
        warmup_steps: steps of all environments before the first update, with uniform actions.
        capacity: steps in the replay buffer of a process.
        envs_per_task: environments of each task in a process.
        environments: further arguments of `dendrite_zoo.rl.TaskEnvironments`: any of ``fast``, ``max_steps``,
            ``num_goals``, ``num_processes``, ``reward_version`` and ``timeout``.
        seed: of the goals and their order, from 0.

    Attributes:
        fast: whether the environments take their faster Python paths.
        num_envs: number of environments of a process.
        rounds: number of rounds that were played.
        replay: the `dendrite_zoo.rl.replay.ReplayBuffer`.

    Raises:
        ValueError: an unknown task, an argument of the environments that cannot be chosen, or a number out of range; at
            fit, a Trainer without the arguments of `trainer_kwargs`; at resume, another number of processes or other
            environments.
        ImportError: at setup, the ``[metaworld]`` extra is missing.

    Example:
        >>> data = OnlineTasks(["reach-v3", "push-v3"], env_steps=100_000, epochs=10)
        >>> data.trainer_kwargs()
        {'max_epochs': 10, 'reload_dataloaders_every_n_epochs': 1, 'num_sanity_val_steps': 0}
        >>> len(data.train_dataloader()), data.num_tasks
        (10, 2)
    """

    def __init__(
        self,
        tasks: str | Sequence[str] = "mt10",
        *,
        env_steps: int,
        epochs: int = 20,
        steps_per_round: int = 500,
        updates_per_round: int = 250,
        warmup_steps: int = 10_000,
        capacity: int = 1_000_000,
        envs_per_task: int = 1,
        environments: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = task_names(tasks)
        self.num_tasks = len(self.tasks)
        check_integers(1, env_steps=env_steps, epochs=epochs, steps_per_round=steps_per_round)
        check_integers(1, capacity=capacity, envs_per_task=envs_per_task)
        check_integers(0, updates_per_round=updates_per_round, warmup_steps=warmup_steps, seed=seed)
        self.total_env_steps, self.capacity, self.num_envs = env_steps, capacity, self.num_tasks * envs_per_task
        self.epochs = self.max_epochs = epochs
        self.steps_per_round, self.updates_per_round = steps_per_round, updates_per_round
        self.warmup_steps, self.envs_per_task, self.seed = warmup_steps, envs_per_task, seed
        self._options = dict(environments or {})
        for name in self._options:
            if name in ("seed", "envs_per_task"):
                raise ValueError(f"Expected `environments` without {name!r}: give it as OnlineTasks({name}=...).")
            if name not in OPTIONS:
                known = f"some of {', '.join(OPTIONS)}"
                raise ValueError(f"Expected `environments` to hold {known}, but got {name!r}.{nearest(name, OPTIONS)}")
        # the attribute `env_steps` counts the steps played so far
        self.save_hyperparameters({"env_steps": env_steps, "environments": self._options}, logger=False)
        self.fast = bool(self._options.get("fast"))
        self._environments: TaskEnvironments | None = None
        self._last_state: dict[str, Any] | None = None  # of environments that were closed
        self._restart(torch.device("cpu"))

    def _restart(self, device: torch.device) -> None:
        """Begin with nothing played."""
        self.rounds, self._last_state = 0, None
        self._statistics = EpisodeStatistics(self.tasks, np.repeat(range(self.num_tasks), self.envs_per_task).tolist())
        self.replay = ReplayBuffer(
            self.num_tasks, self.capacity, observation_size=OBSERVATION_SIZE, action_size=ACTION_SIZE, device=device
        )

    @property
    def env_steps(self) -> int:
        """Number of steps that were played, of all environments in all processes."""
        return self.rounds * self.env_steps_per_round

    @property
    def env_steps_per_round(self) -> int:
        """Number of steps in a round, of all environments in all processes."""
        return self.steps_per_round * self.num_envs * self.world_size

    @property
    def total_updates(self) -> int:
        """Number of updates in a fit: none before the round that completes the warm-up."""
        rounds = self.epochs * len(RoundLoader(self, epoch=0))
        warm = max(0, -(-self.warmup_steps // self.env_steps_per_round) - 1)
        return max(0, rounds - warm) * self.updates_per_round

    def setup(self, stage: str | None = None) -> None:
        """Make the environments, each process its own, and begin with nothing played.

        Raises:
            ValueError: at fit, a Trainer without the arguments of `trainer_kwargs`.
        """
        super().setup(stage)
        if stage not in (None, "fit"):
            return
        self._close()
        self._restart(torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device)
        first = self.rank * self.num_envs
        self._environments = TaskEnvironments(
            self.tasks, envs_per_task=self.envs_per_task, first_env=first, seed=self.seed, **self._options
        )

    def teardown(self, stage: str | None = None) -> None:
        """End the environments' processes; a checkpoint can still be taken, until the next `setup`."""
        if self._environments is not None:
            with suppress(RuntimeError):  # they crashed, or were never reset
                self._last_state = self._environments.state_dict()
        self._close()

    def on_exception(self, exception: BaseException) -> None:
        """End the environments' processes: they may have crashed, and cannot be asked for their state."""
        self._close()

    def collect(self, act: Callable[[Tensor, Tensor], Tensor], steps: int) -> dict[str, float]:
        """Play, and add every step to the replay buffer.

        Args:
            act: maps observations ``(N, 39)``, float32, and tasks ``(N,)`` to actions ``(N, 4)``.
            steps: in every environment.

        Returns:
            Of the tasks with episodes that ended: ``success/{task}``, the share of these in which the task was solved
            at some step; ``return/{task}``, their mean sum of rewards, not scaled; and ``return/mean`` over the tasks.

        Raises:
            RuntimeError: before `setup`, or when a process of the environments crashed.
        """
        if self._environments is None:
            raise RuntimeError("There are no environments yet: expected setup() before collect(). Call it once.")
        environments, device = self._environments, self.replay.rows.device
        tensor = partial(torch.as_tensor, dtype=torch.float32, device=device)
        task = torch.from_numpy(environments.task_index).to(device)
        if self.rounds == 0:
            environments.reset()
        observation = tensor(environments.observation)
        transitions: list[tuple[Tensor, ...]] = []
        for _ in range(steps):
            action = act(observation, task)
            step = environments.step(action.cpu().numpy())
            next_observation = tensor(step.final_observation)
            transitions.append((observation, action, tensor(step.reward), next_observation, task))
            observation = tensor(step.observation) if step.truncated.any() else next_observation
            self._statistics.update(step)
        self.replay.add(*(torch.cat(column) for column in zip(*transitions, strict=True)))
        self.rounds += 1
        return self._statistics.compute()

    def train_dataloader(self) -> RoundLoader:
        """Return the rounds of an epoch."""
        self.resume_fit()
        return RoundLoader(self, epoch=self.epoch)

    def val_dataloader(self) -> list[SingleBatch]:
        """Return the latest observations of each task: ``(observation (B, 39), task (B,))``."""
        self.resume_fit()
        return [SingleBatch(partial(self._latest, task)) for task in range(self.num_tasks)]

    def _latest(self, task: int) -> tuple[Tensor, Tensor]:
        observation = self.replay.observations(task, LATEST)
        return observation, torch.full((len(observation),), task, device=observation.device)

    def state_dict(self) -> dict[str, Any]:
        """The state of environments and replay buffer, of all processes; also after the environments were closed."""
        running = self._environments if self.rounds else None
        environments = self._last_state if running is None else running.state_dict()
        if self.rounds == 0 or environments is None:
            return {}
        own = {"environments": environments, **self._statistics.state_dict(), "replay": self.replay.state_dict()}
        return {"rounds": self.rounds, "processes": gather_states(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: it is of another number of processes, or of other environments.
        """
        own = state_of_rank(state_dict["processes"], self.rank, self.world_size, "environments and a replay buffer")
        if self._environments is None:
            return
        self.rounds = state_dict["rounds"]
        self._environments.load_state_dict(own["environments"])
        self._statistics.load_state_dict(own)
        self.replay.load_state_dict(own["replay"])

    def _close(self) -> None:
        if self._environments is not None:
            self._environments.close()
            self._environments = None
