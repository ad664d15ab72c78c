"""The share of goals that a policy reaches, in one episode each: how results on Meta-World are reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.progress import Progress

from dendrite_zoo.metrics import bootstrap_interval
from dendrite_zoo.rl.environments import TaskEnvironments, checked_actions
from dendrite_zoo.rl.metaworld.goals import Split
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, MAX_STEPS, MT10, MT50, task_names

__all__ = ["GoalEvaluation", "SuccessReport", "evaluate_policy"]

Act: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.int64]], ArrayLike]
"""From observations ``(N, 39)`` and task indices ``(N,)`` to actions ``(N, 4)``."""


class Policy(Protocol):
    """A policy with names of its tasks, such as `dendrite_zoo.models.ActiveDendritePolicy`."""

    tasks: Sequence[str]
    act_batch: Act


@dataclass(frozen=True)
class SuccessReport:
    """The result of an episode on each goal.

    Attributes:
        tasks: their names.
        first: the step, counted from 1, at which a goal was first reached, ``(T, G)``; 0 where it never was.
        last: whether the last step succeeded, ``(T, G)``; None where episodes ended with success.
        split: the split of the goals.
        max_steps: length of an episode.
    """

    tasks: tuple[str, ...]
    first: NDArray[np.int64]
    last: NDArray[np.bool_] | None
    split: str
    max_steps: int = MAX_STEPS

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether each goal was reached at any step, ``(T, G)``."""
        return self.first > 0

    @property
    def per_task(self) -> dict[str, float]:
        """The share of goals reached, of each task."""
        return dict(zip(self.tasks, self.reached.mean(axis=1).tolist(), strict=True))

    @property
    def mean(self) -> float:
        """The share of goals reached, of all tasks."""
        return float(self.reached.mean())

    @property
    def mean_at_last_step(self) -> float | None:
        """The share of goals reached at the last step of their episode."""
        return None if self.last is None else float(self.last.mean())

    @property
    def steps_to_success(self) -> dict[str, float | None]:
        """Mean number of steps, of the goals that were reached."""
        steps = [float(task[task > 0].mean()) if task.any() else None for task in self.first]
        return dict(zip(self.tasks, steps, strict=True))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of the mean, over goals."""
        return bootstrap_interval(self.reached, level=level)

    def to_record(self, *, sequential: bool = False) -> dict[str, Any]:
        """All of it as JSON values, for a result record, in which success stands for accuracy.

        Args:
            sequential: the tasks were learned one after another.
        """
        known = {MT10: "metaworld-mt10", MT50: "metaworld-mt50"}
        name = f"metaworld-{len(self.tasks)}-tasks"
        return {
            "benchmark": f"metaworld-continual-{len(self.tasks)}" if sequential else known.get(self.tasks, name),
            "context_at_test": "given",
            "metric": "success",
            "tasks": list(self.tasks),
            "goals": self.split,
            "num_goals": self.first.shape[1],
            "max_steps": self.max_steps,
            "task_accuracies": list(self.per_task.values()),
            "interval": list(self.interval()),
            "success_at_last_step": self.mean_at_last_step,
            "steps_to_success": list(self.steps_to_success.values()),
            "first_success": self.first.tolist(),
            "reward_version": "v2",
        }


class GoalEvaluation(TaskEnvironments):
    """Environments to evaluate policies in, one episode on each goal; a context manager that closes them.

    For the arguments see `evaluate_policy`.

    Attributes:
        tasks: their names.
    """

    def __init__(
        self, tasks: str | Sequence[str], *, split: Split = "test", num_goals: int = 50, **options: Any
    ) -> None:
        options["envs_per_task"] = max(1, min(num_goals, 20 // len(task_names(tasks))))
        super().__init__(tasks, split=split, num_goals=num_goals, order="each-once", **options)

    def __call__(self, act: Act, *, progress: bool = False) -> SuccessReport:
        """Evaluate a policy on every goal."""
        config = self.config
        first = np.zeros((len(self.tasks), config.num_goals), dtype=np.int64)
        last, steps = np.zeros(first.shape, dtype=bool), np.zeros_like(first)
        actions = np.zeros((self.num_envs, ACTION_SIZE))
        self.reset()
        with Progress(transient=True, disable=not progress) as bar:
            shown = bar.add_task("goals", total=first.size)
            while len(busy := np.flatnonzero(~self.finished)):
                actions[busy] = checked_actions(act(self.observation[busy], self.task_index[busy]), len(busy))
                step = self.step(actions)
                goal, success = (self.task_index[busy], step.goal[busy]), step.success[busy]
                steps[goal] += 1
                first[goal] = np.where(success & (first[goal] == 0), steps[goal], first[goal])
                last[goal] = success  # of an episode the last one stays
                bar.advance(shown, int(step.truncated.sum()))
        at_end = None if config.stop_at_success else last
        return SuccessReport(self.tasks, first, at_end, config.split, config.max_steps)


def evaluate_policy(
    policy: Act | Policy, tasks: str | Sequence[str] | None = None, *, progress: bool = False, **options: Any
) -> SuccessReport:
    """Play one episode on each goal of each task; a goal is reached if any step succeeds.

    Args:
        policy: an `ActiveDendritePolicy` or a module that trains one, or any object with ``act_batch`` and ``tasks``;
            or a function such as its ``act_batch``, for which a task's index is the position in ``tasks``.
        tasks: ``"mt10"``, ``"mt50"`` or names; None for all ``tasks`` of the policy.
        progress: show a progress bar.
        **options: ``split`` (``"test"`` to report, ``"val"`` to choose models on, or ``"train"``), ``num_goals`` of
            each task (50), ``max_steps`` (500), ``stop_at_success`` (end episodes with success: faster, but success at
            the last step stays unknown), and of `TaskEnvironments` ``num_processes``, ``fast`` and ``seed``.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
        ValueError: an unknown task, one that the policy does not know, or actions of another shape or not finite.
    """
    act, names = _acting(policy, tasks)
    with GoalEvaluation(names, **options) as evaluation:
        return evaluation(act, progress=progress)


def _acting(policy: Act | Policy, tasks: str | Sequence[str] | None) -> tuple[Act, tuple[str, ...]]:
    """A function of the index in ``tasks``, in whatever order the policy has them."""
    act: Any = getattr(policy, "act_batch", policy)
    known: Any = None if act is policy else getattr(policy, "tasks", None)
    if (known is None and tasks is None) or not callable(act):
        got = f"{type(policy).__name__} and {tasks}"
        raise ValueError(f"Expected a policy with `tasks`, or a function with tasks=..., but got {got}.")
    names = task_names(known if tasks is None else tasks)
    if known is None:
        return act, names
    if unknown := ", ".join(name for name in names if name not in known):
        raise ValueError(f"Expected `tasks` to be some of the policy's, {', '.join(known)}, but got {unknown}.")
    own = np.array([list(known).index(name) for name in names])
    return lambda observation, index: act(observation, own[index]), names
