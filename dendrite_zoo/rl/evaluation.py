"""What a policy reaches on each goal or start, in one episode each: how results on Meta-World are reported."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.names import refuse_unknown_names
from dendrite_zoo._core.progress import progress_bar
from dendrite_zoo.functional.bootstrap import bootstrap_interval
from dendrite_zoo.rl.environments import TaskEnvironments, checked_actions
from dendrite_zoo.rl.episodes import Split
from dendrite_zoo.rl.metaworld.tasks import MAX_STEPS, MT50, MetaWorldTask
from dendrite_zoo.rl.seen import Act, Policy, acting
from dendrite_zoo.rl.task_list import Tasks, benchmark_of, say_success, say_what_is_endless, task_specs

__all__ = ["GoalEvaluation", "SuccessReport", "evaluate_policy"]


@dataclass(frozen=True)
class SuccessReport:
    """The result of an episode on each goal.

    Attributes:
        tasks: their names.
        first: the step, counted from 1, at which a goal was first reached, ``(T, G)``; 0 where it never was; None where
            the tasks do not say what success is.
        last: whether the last step succeeded, ``(T, G)``; None where episodes ended with success.
        split: the split of the goals.
        max_steps: length of an episode; None for the environments' own.
        returns: the sum of rewards of each episode, ``(T, G)``; where episodes ended with success, up to there.
        action_repeat: how many steps each action was played for.
    """

    tasks: tuple[str, ...]
    first: NDArray[np.int64] | None
    last: NDArray[np.bool_] | None
    split: str
    max_steps: int | None = MAX_STEPS
    returns: NDArray[np.float64] | None = None
    action_repeat: int = 1

    @property
    def metric(self) -> str:
        """What ``per_task``, ``mean`` and ``interval`` are of: ``"success"``, or ``"return"`` where there is none."""
        return "return" if self.first is None else "success"

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether each goal was reached at any step, ``(T, G)``.

        Raises:
            ValueError: the tasks do not say what success is.
        """
        return self._first > 0

    @property
    def per_task(self) -> dict[str, float]:
        """The share of goals reached, or the mean return, of each task."""
        return dict(zip(self.tasks, self._values.mean(axis=1).tolist(), strict=True))

    @property
    def mean(self) -> float:
        """The share of goals reached, or the mean return, of all tasks."""
        return float(self._values.mean())

    @property
    def mean_at_last_step(self) -> float | None:
        """The share of goals reached at the last step of their episode."""
        return None if self.last is None else float(self.last.mean())

    @property
    def at_end_per_task(self) -> dict[str, float] | None:
        """The same of each task."""
        return None if self.last is None else dict(zip(self.tasks, self.last.mean(axis=1).tolist(), strict=True))

    @property
    def steps_to_success(self) -> dict[str, float | None]:
        """Mean number of steps, of the goals that were reached."""
        steps = [float(task[task > 0].mean()) if task.any() else None for task in self._first]
        return dict(zip(self.tasks, steps, strict=True))

    @property
    def return_per_task(self) -> dict[str, float]:
        """The mean sum of rewards of an episode, of each task."""
        assert self.returns is not None
        return dict(zip(self.tasks, self.returns.mean(axis=1).tolist(), strict=True))

    @property
    def mean_return(self) -> float:
        """The mean sum of rewards of an episode, of all tasks."""
        assert self.returns is not None
        return float(self.returns.mean())

    def to_state(self) -> dict[str, Any]:
        """Tensors and primitives, for a callback's state."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in values.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SuccessReport":
        """Go on from what `to_state` gave."""
        values: dict[str, Any] = {n: x.numpy() if isinstance(x, torch.Tensor) else x for n, x in state.items()}
        return cls(**values)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of the mean, over goals."""
        values = self._values
        if self.first is None and np.ptp(values) == 0:
            return self.mean, self.mean
        return bootstrap_interval(values, level=level)

    @property
    def _first(self) -> NDArray[np.int64]:
        if self.first is None:
            names = ", ".join(self.tasks)
            raise ValueError(
                f"Expected tasks that say what success is, but {names} do not. Give TaskSpec(success=...)."
            )
        return self.first

    @property
    def _values(self) -> NDArray[Any]:
        if self.first is not None:
            return self.reached
        assert self.returns is not None
        return self.returns

    def to_record(self, *, sequential: bool = False) -> dict[str, Any]:
        """All of it as JSON values, for a result record, in which success stands for accuracy.

        Args:
            sequential: the tasks were learned one after another.
        """
        record: dict[str, Any] = {
            "benchmark": benchmark_of(self.tasks, sequential=sequential),
            "context_at_test": "given",
            "metric": self.metric,
            "tasks": list(self.tasks),
            "goals": self.split,
            "num_goals": self._values.shape[1],
            "max_steps": self.max_steps,
        }
        if self.action_repeat > 1:
            record["action_repeat"] = self.action_repeat
        if self.first is None:
            return record | {"task_returns": list(self.per_task.values()), "interval": list(self.interval())}
        record |= {
            "task_accuracies": list(self.per_task.values()),
            "interval": list(self.interval()),
            "success_at_last_step": self.mean_at_last_step,
            "task_success_at_end": None if self.last is None else self.last.mean(axis=1).tolist(),
            "steps_to_success": list(self.steps_to_success.values()),
            "first_success": self.first.tolist(),
        }
        return record | ({"reward_version": "v2"} if set(self.tasks) <= set(MT50) else {})


class GoalEvaluation(TaskEnvironments):
    """Environments to evaluate policies in, one episode on each goal; a context manager that closes them.

    For the arguments see `evaluate_policy`.

    Attributes:
        tasks: their names.

    Raises:
        ValueError: as `TaskEnvironments`; or some of the tasks say what success is, and others do not.
    """

    def __init__(
        self, tasks: Tasks, *, split: Split = "test", num_goals: int = 50, action_repeat: int = 1, **options: Any
    ) -> None:
        check_integers(1, action_repeat=action_repeat)
        self.action_repeat = action_repeat  # steps are played one by one, so that the first success is known exactly
        specs = task_specs(tasks)
        self.has_success = say_success(specs)
        options["envs_per_task"] = max(1, min(num_goals, 20 // len(specs)))
        super().__init__(specs, split=split, num_goals=num_goals, order="each-once", **options)

    def __call__(self, act: Act, *, progress: bool = False) -> SuccessReport:
        """Evaluate a policy on every goal."""
        config = self.config
        first = np.zeros((len(self.tasks), config.num_goals), dtype=np.int64)
        last, steps, returns = np.zeros(first.shape, dtype=bool), np.zeros_like(first), np.zeros(first.shape)
        actions, left = np.zeros((self.num_envs, self.action_size)), np.zeros(self.num_envs, dtype=np.int64)
        self.reset()
        with progress_bar(progress) as bar:
            shown, look = bar.add_task("goals", total=first.size), True
            while len(busy := np.flatnonzero(~self.finished)):
                for rows in self._at_once(busy[left[busy] == 0]):
                    chosen = act(self.observation[rows], self.task_index[rows])
                    actions[rows] = checked_actions(chosen, (len(rows), self.action_size), self.task_of(rows))
                    left[rows] = self.action_repeat
                step = self.step(actions)
                left = np.where(step.ended, 0, left - 1)
                goal, success = (self.task_index[busy], step.goal[busy]), step.success[busy]
                steps[goal] += 1
                look = look and say_what_is_endless(self.specs, config.max_steps, steps)
                returns[goal] += step.reward[busy]
                first[goal] = np.where(success & (first[goal] == 0), steps[goal], first[goal])
                last[goal] = success  # of an episode the last one stays
                bar.advance(shown, int(step.ended.sum()))
        at_end = None if config.stop_at_success or not self.has_success else last
        rules = config.split, config.max_steps, returns, self.action_repeat
        return SuccessReport(self.tasks, first if self.has_success else None, at_end, *rules)

    def _at_once(self, busy: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows that the policy is given together: of environments of one's own, those of a task.

        What a network says of a row depends in the last bit on how many rows there are. So an episode of a task is the
        same whatever happens in the other tasks.
        """
        if all(isinstance(spec, MetaWorldTask) for spec in self.specs):
            return [busy] if len(busy) else []
        of_task = self.task_index[busy]
        return [busy[of_task == task] for task in np.unique(of_task)]


def evaluate_policy(
    policy: Act | Policy | Mapping[str, Any], tasks: Tasks | None = None, *, progress: bool = False, **options: Any
) -> SuccessReport:
    """Play one episode on each goal of each task; a goal is reached if any step succeeds.

    Environments without goals are started in as many ways, by the seeds of ``reset``. Where the tasks do not say what
    success is, the mean return is what is reported.

    Args:
        policy: an `ActiveDendritePolicy` or a module that trains one, or any object with ``act_batch`` and ``tasks``;
            or a function of observations ``(N, O)`` and positions in ``tasks``, ``(N,)``, or a network of both, or of
            observations alone; or one of these for each task, by its name. Actions are from -1 to 1.
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` or names of Meta-World's tasks, or a list of `TaskSpec`; None for all
            ``tasks`` of the policy, if they are Meta-World's.
        progress: show a progress bar.
        **options: ``split`` (``"test"`` to report, ``"val"`` to choose models on, or ``"train"``), ``num_goals`` of
            each task (50), ``max_steps`` (500, or the environment's own), ``stop_at_success`` (end episodes with
            success: faster, but success at the last step stays unknown), ``action_repeat`` (how many steps an action
            is played for, 1; a policy that was trained with more may act at each step, too), and of `TaskEnvironments`
            ``num_processes``, ``fast`` and ``seed``.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
        ValueError: an unknown task, one that the policy does not know, or actions of another shape or not finite.
    """
    known = (inspect.signature(cls).parameters for cls in (evaluate_policy, GoalEvaluation, TaskEnvironments))
    refuse_unknown_names(options, [name for names in known for name in names], "evaluate_policy")
    act, specs = acting(policy, tasks)
    with GoalEvaluation(specs, **options) as evaluation:
        return evaluation(act, progress=progress)
