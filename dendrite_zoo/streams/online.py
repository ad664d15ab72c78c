"""Tasks of which nothing is known beforehand: the data are made by the policy that learns from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from dendrite_zoo._core.names import nearest
from dendrite_zoo._core.ranks import gather_states, state_of_rank
from dendrite_zoo.rl import ACTION_SIZE, OBSERVATION_SIZE, TaskEnvironments, task_names
from dendrite_zoo.rl.replay import ReplayBuffer
from dendrite_zoo.streams.stream import check_trainer, resume_fit

__all__ = ["OnlineTasks", "Round"]

Act = Callable[[Tensor, Tensor], Tensor]

OPTIONS = ("fast", "max_steps", "num_goals", "num_processes", "reward_version", "timeout")
"""The arguments of `TaskEnvironments` that may be chosen; the others follow from those of `OnlineTasks`."""


class Round(NamedTuple):
    """What the training loader gives: nothing but what is to be done.

    Attributes:
        steps: play so many steps in every environment,
        updates: then learn so often from what was played so far.
    """

    steps: int
    updates: int


class OnlineTasks(LightningDataModule):
    """Robot tasks to be learned by trial and error, with the memory of what was tried.

    It owns environments and replay buffer, and hands out `Round` after `Round`; `MultiTaskSAC` does what they say with
    `collect` and `replay`. An epoch is as many rounds as there are between two validations, which show the policy what
    it saw last of each task, one loader a task. A checkpoint holds the buffer and where each environment is; under DDP
    each process has environments and a buffer of its own, with the same goals in another order.

    Args:
        tasks: ``"mt10"``, ``"mt50"`` or names of Meta-World's tasks.
        env_steps: how many steps to play, of all environments in all processes together; whole rounds, at least these.
        epochs: in how many epochs; each ends with a validation and a checkpoint.
        steps_per_round: steps of every environment in a round; the paper's by default.
        updates_per_round: updates after them.
        warmup_steps: steps of all environments before the first update, with uniform actions.
        capacity: steps that a process remembers.
        envs_per_task: environments of each task in a process.
        environments: further arguments of `dendrite_zoo.rl.TaskEnvironments`: any of ``fast``, ``max_steps``,
            ``num_goals``, ``num_processes``, ``reward_version`` and ``timeout``.
        seed: of the goals and their order, from 0.

    Attributes:
        rounds: how many were played.

    Raises:
        ValueError: an unknown task, an argument of the environments that cannot be chosen, or a number out of range; at
            fit, a Trainer without the arguments of `trainer_kwargs`; at resume, another number of processes or other
            environments.
        ImportError: at setup, the ``[metaworld]`` extra is missing.

    Example:
        >>> data = OnlineTasks(["reach-v3", "push-v3"], env_steps=100_000, epochs=10)
        >>> data.trainer_kwargs()
        {'max_epochs': 10, 'reload_dataloaders_every_n_epochs': 0, 'num_sanity_val_steps': 0}
        >>> len(data.train_dataloader()), data.num_tasks
        (10, 2)
    """

    metric: str | None = None
    """What a ForgettingLogger would read: nothing, where all tasks are learned at once."""

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
        numbers = {
            "env_steps": env_steps,
            "epochs": epochs,
            "steps_per_round": steps_per_round,
            "capacity": capacity,
            "envs_per_task": envs_per_task,
        }
        if min(*numbers.values(), updates_per_round + 1, warmup_steps + 1, seed + 1) < 1:
            raise ValueError(
                f"updates_per_round={updates_per_round}, warmup_steps={warmup_steps}, seed={seed} and {numbers} came; "
                "expected none below 0, and of the latter none below 1."
            )
        _check_options(environments or {})
        self.env_steps_in_all, self.epochs = env_steps, epochs
        self.steps_per_round, self.updates_per_round, self.warmup_steps = (
            steps_per_round,
            updates_per_round,
            warmup_steps,
        )
        self.capacity, self.envs_per_task, self.seed = capacity, envs_per_task, seed
        self._options = dict(environments or {})
        self._environments: TaskEnvironments | None = None
        self._ended: dict[str, Any] | None = None  # the state of environments that were closed
        self._solved = np.zeros(self.num_envs, dtype=bool)
        self._return = np.zeros(self.num_envs)
        self.rounds = 0
        self.replay = self._new_replay(torch.device("cpu"))

    @property
    def fast(self) -> bool:
        """Whether the environments take their faster Python paths."""
        return bool(self._options.get("fast", False))

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.tasks)

    @property
    def num_envs(self) -> int:
        """How many environments a process has."""
        return self.num_tasks * self.envs_per_task

    @property
    def env_steps(self) -> int:
        """How many steps were played, of all environments in all processes."""
        return self.rounds * self._steps_a_round

    @property
    def _steps_a_round(self) -> int:
        return self.steps_per_round * self.num_envs * self._world_size

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def trainer_kwargs(self) -> dict[str, Any]:
        """What the Trainer is to be told."""
        return {"max_epochs": self.epochs, "reload_dataloaders_every_n_epochs": 0, "num_sanity_val_steps": 0}

    def setup(self, stage: str | None = None) -> None:
        """Make the environments, each process its own, and begin with nothing played.

        Raises:
            ValueError: at fit, a Trainer without the arguments of `trainer_kwargs`.
        """
        if stage not in (None, "fit"):
            return
        if self.trainer is not None:
            check_trainer(self.trainer, self)
        self._close()
        self.rounds, self._ended = 0, None
        self._solved[:], self._return[:] = False, 0.0
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        self.replay = self._new_replay(device)
        self._environments = TaskEnvironments(
            self.tasks,
            envs_per_task=self.envs_per_task,
            first_env=self._rank * self.num_envs,
            seed=self.seed,
            **self._options,
        )

    def teardown(self, stage: str | None = None) -> None:
        """End the environments' processes; a checkpoint can still be taken, until the next `setup`."""
        if self._environments is not None:
            with suppress(RuntimeError):  # they crashed, or never began
                self._ended = self._environments.state_dict()
        self._close()

    def on_exception(self, exception: BaseException) -> None:
        """End the environments' processes: they may have crashed, and cannot be asked for their state."""
        self._close()

    def collect(self, act: Act, steps: int) -> dict[str, float]:
        """Play, and remember what happened.

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
            raise RuntimeError("There are no environments yet; expected setup() before collect(). Call it once.")
        environments, device = self._environments, self.replay.rows.device
        task = torch.from_numpy(environments.task_index).to(device)
        if self.rounds == 0:
            environments.reset()
        now = torch.from_numpy(environments.observation).to(device, torch.float32)
        parts: list[tuple[Tensor, ...]] = []
        solved: dict[str, list[bool]] = {}
        returns: dict[str, list[float]] = {}
        for _ in range(steps):
            action = act(now, task)
            step = environments.step(action.cpu().numpy())
            final = torch.from_numpy(step.final_observation).to(device, torch.float32)
            reward = torch.from_numpy(step.reward).to(device, torch.float32)
            parts.append((now, action, reward, final, task))
            now = final
            self._solved |= step.success
            self._return += step.reward
            if step.truncated.any():
                now = torch.from_numpy(step.observation).to(device, torch.float32)
                for env in np.flatnonzero(step.truncated):
                    name = self.tasks[environments.task_index[env]]
                    solved.setdefault(name, []).append(bool(self._solved[env]))
                    returns.setdefault(name, []).append(float(self._return[env]))
                self._solved[step.truncated], self._return[step.truncated] = False, 0.0
        self.replay.add(*(torch.cat(column) for column in zip(*parts, strict=True)))
        self.rounds += 1
        figures = {f"success/{name}": float(np.mean(of_task)) for name, of_task in solved.items()}
        means = {f"return/{name}": float(np.mean(of_task)) for name, of_task in returns.items()}
        if means:
            figures |= {**means, "return/mean": float(np.mean([*means.values()]))}
        return figures

    def train_dataloader(self) -> _Rounds:
        """The rounds of an epoch."""
        resume_fit(self)
        return _Rounds(self, -(-self.env_steps_in_all // (self._steps_a_round * self.epochs)))

    def val_dataloader(self) -> list[_Latest]:
        """What was seen last of each task: ``(observation (B, 39), task (B,))``."""
        resume_fit(self)
        return [_Latest(self, task) for task in range(self.num_tasks)]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, of all processes; also after the environments were closed."""
        if self.rounds == 0 or (self._environments is None and self._ended is None):
            return {}
        own = {
            "environments": self._ended if self._environments is None else self._environments.state_dict(),
            "solved": torch.from_numpy(self._solved.copy()),
            "return": torch.from_numpy(self._return.copy()),
            "replay": self.replay.state_dict(),
        }
        return {"rounds": self.rounds, "processes": gather_states(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it comes from another number of processes, or from other environments.
        """
        what = "environments and a replay buffer"
        own = state_of_rank(state_dict["processes"], self._rank, self._world_size, what)
        if self._environments is None:
            return
        self.rounds = state_dict["rounds"]
        self._environments.load_state_dict(own["environments"])
        self._solved = own["solved"].numpy().copy()
        if "return" in own:  # not in checkpoints of earlier versions
            self._return = own["return"].numpy().copy()
        self.replay.load_state_dict(own["replay"])

    def _close(self) -> None:
        if self._environments is not None:
            self._environments.close()
            self._environments = None

    def _new_replay(self, device: torch.device) -> ReplayBuffer:
        return ReplayBuffer(
            self.num_tasks,
            self.capacity,
            observation_size=OBSERVATION_SIZE,
            action_size=ACTION_SIZE,
            device=device,
        )


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in ("seed", "envs_per_task"):
            raise ValueError(f"environments came with {name!r}; expected it beside: OnlineTasks({name}=...).")
        if name not in OPTIONS:
            raise ValueError(
                f"environments came with {name!r}; expected some of {', '.join(OPTIONS)}. Leave it out."
                f"{nearest(name, OPTIONS)}"
            )


class _Rounds:
    """The rounds of an epoch: all alike, so that it does not matter where a resumed one goes on."""

    def __init__(self, data: OnlineTasks, length: int) -> None:
        self.data, self.length = data, length

    def __len__(self) -> int:
        return self.length

    def state_dict(self) -> dict[str, Any]:
        return {}  # which tells Lightning that it can go on within an epoch

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def __iter__(self) -> Iterator[Round]:
        data = self.data
        for _ in range(self.length):
            warm = (data.rounds + 1) * data._steps_a_round >= data.warmup_steps
            yield Round(data.steps_per_round, data.updates_per_round if warm else 0)


class _Latest:
    """One batch of a task's latest observations, or none where there are none yet."""

    def __init__(self, data: OnlineTasks, task: int, count: int = 1000) -> None:
        self.data, self.task, self.count = data, task, count

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        observation = self.data.replay.observations(self.task, self.count)
        if len(observation):
            yield observation, torch.full((len(observation),), self.task, device=observation.device)
