"""Collecting demonstrations: the expert acts (behaviour cloning), or labels what a policy meets (DAgger)."""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_integers, check_range
from dendrite_zoo._core.progress import progress_bar
from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl.demonstrations import Demonstrations
from dendrite_zoo.rl.environments import Step, checked_actions
from dendrite_zoo.rl.episodes import Split
from dendrite_zoo.rl.evaluation import GoalEvaluation
from dendrite_zoo.rl.metaworld.experts import own_experts
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, LEAVING, MetaWorldTask
from dendrite_zoo.rl.seen import Act, Policy, acting, name_of
from dendrite_zoo.rl.task_list import Tasks, task_specs

__all__ = ["Disturbance", "collect_demonstrations"]

STEPS_ON = 3  # after the first success: where an expert stopped at the border of it, a policy would stop before

LENGTH = 300
"""Steps in which Meta-World's experts have reached a goal, if they do."""


@dataclass(frozen=True)
class Disturbance:
    """Noise that leads an episode off the expert's path, so that the way back is shown, too (DART).

    Args:
        noise: standard deviation of the Gaussian noise that is added to each action, 0 or more.
        bursts: probability, from 0 to 1, that a push begins at a step: 3 to 10 steps into one random direction, with
            the action of Meta-World's gripper unchanged.

    Raises:
        ValueError: a number out of range.

    Source:
        Laskey et al. 2017, DART: Noise Injection for Robust Imitation Learning, https://arxiv.org/abs/1703.09327.
    """

    noise: float = 0.2
    bursts: float = 0.02

    def __post_init__(self) -> None:
        check_range(0, math.inf, noise=self.noise)
        check_range(0, 1, bursts=self.bursts)


def collect_demonstrations(
    tasks: Tasks,
    *,
    episodes_per_task: int = 50,
    expert: Act | Policy | Mapping[str, Any] | None = None,
    policy: Act | Policy | None = None,
    expert_share: float = 0.0,
    disturbance: Disturbance | None = None,
    split: Split = "train",
    num_processes: int = 2,
    fast: bool = False,
    seed: int = 0,
    max_steps: int | None = None,
    steps_after_success: int = 0,
    progress: bool = False,
) -> Demonstrations:
    """Play one episode on each of a number of goals, and record the expert's action at each step.

    Without a policy the expert itself acts (behaviour cloning). With one the policy acts, and the expert labels the
    observations that it meets (DAgger); in blocks of 20 steps the expert acts in its place with the probability
    ``expert_share``. An episode ends with success, where the task says what that is; else every episode counts as
    solved.

    With ``steps_after_success`` it goes on for so many steps, that a policy learns to stay. Where Meta-World's expert
    leaves a goal that it has reached (`dendrite_zoo.rl.metaworld.tasks.LEAVING`), its action is from the fourth step on
    to hold still while the task is solved: the hand does not move, and the gripper does what it did. An episode of the
    experts then counts as solved where its last step succeeds.

    Args:
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` or names of Meta-World's tasks, or a list of `TaskSpec`.
        episodes_per_task: number of goals or starts of each task, one episode each.
        expert: who shows what to do: a policy that knows these tasks, or a function from observations ``(N, O)`` and
            task indices ``(N,)``, positions in ``tasks``, to actions ``(N, A)``, from -1 to 1 as a policy's; or one
            for each task, by its name; by default Meta-World's scripted experts.
        policy: the policy that acts, likewise.
        expert_share: DAgger's beta, from 0 to 1.
        disturbance: noise on the actions, in every second episode.
        split: of the goals.
        num_processes: as for `TaskEnvironments`.
        fast: faster Python paths.
        seed: of goals and noise; equal seeds give equal demonstrations.
        max_steps: length of an episode at most; by default 300, or as many as the longest of environments of your own
            allows.
        steps_after_success: how long an episode goes on after its first success.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown task, a number out of range, actions of another shape or not finite, or no expert for a
            task that is not Meta-World's.
        ImportError: the ``[metaworld]`` extra is missing.

    Source:
        Ross, Gordon and Bagnell 2011, A Reduction of Imitation Learning ... to No-Regret Online Learning,
        https://arxiv.org/abs/1011.0686.
    """
    arguments, specs = locals(), task_specs(tasks)
    given = {"expert": expert, "policy": policy}
    expert, policy = (None if one is None else acting(one, specs, name)[0] for name, one in given.items())
    config = collection_config(**{**arguments, "tasks": specs, "expert": expert})
    check_integers(1, episodes_per_task=episodes_per_task)
    check_range(0, 1, expert_share=expert_share)
    episodes: Any = {"split": split, "num_goals": episodes_per_task, "seed": seed, "max_steps": config["max_steps"]}
    episodes |= {"stop_at_success": True, "steps_after_success": steps_after_success}
    rows: list[tuple[NDArray[Any], ...]] = []  # observation, expert's action, task and number of the episode
    with (
        GoalEvaluation(specs, num_processes=num_processes, fast=fast, **episodes) as envs,
        progress_bar(progress) as bar,
    ):
        solved = np.full((len(specs), episodes_per_task), not envs.has_success)
        shown = bar.add_task("demonstrations", total=solved.size)
        generator = random_state(seed, len(specs), episodes_per_task)
        has_gripper = isinstance(specs[0], MetaWorldTask)
        behavior = _BehaviorPolicy(
            envs.num_envs, generator, disturbance, expert_share, push_size=envs.action_size - has_gripper
        )
        goal = np.arange(envs.num_envs) % envs.config.stride
        rest = _Rest(np.array([envs.tasks[task] in LEAVING for task in envs.task_index]))
        envs.reset()
        while len(busy := np.flatnonzero(~envs.finished)):
            observation, task = envs.observation[busy], envs.task_index[busy]
            shape, of = (len(busy), envs.action_size), envs.task_of(busy)
            if expert is None:
                right = rest(envs.expert_actions())
            else:
                right = np.zeros((envs.num_envs, envs.action_size))
                right[busy] = np.clip(checked_actions(expert(observation, task), shape, of), -1, 1)
            action = right.copy()
            if policy is not None:
                action[busy] = checked_actions(policy(observation, task), shape, of)
            action = behavior(action, right, disturbed=goal % 2 == 1)
            rows.append((observation, right[busy], task, task * episodes_per_task + goal[busy]))
            step = envs.step(action)
            rest.see(step, right)
            if envs.has_success:
                done = step.success if policy is None else rest.since > 0
                solved[task, goal[busy]] = done[busy]  # of an episode the last one stays
            goal[step.ended] += envs.config.stride
            rest.begin(step.ended)
            bar.advance(shown, int(step.ended.sum()))
    observations, actions, index, number = (torch.from_numpy(np.concatenate(x)) for x in zip(*rows, strict=True))
    reached = torch.from_numpy(solved.flatten())[number]
    return Demonstrations(envs.tasks, observations.float(), actions.float(), index, reached, config=config)


def collection_config(**arguments: Any) -> dict[str, Any]:
    """The arguments that decide the demonstrations, except for the tasks and a policy's weights, as JSON values.

    An expert that was given goes by its name, and those of Meta-World's tasks by theirs where they are ours.

    Args:
        **arguments: of `collect_demonstrations`; its defaults for those left out.

    Example:
        >>> collection_config(episodes_per_task=20, seed=1)["split"]
        'train'
    """
    given = inspect.signature(collect_demonstrations).bind_partial(**arguments)
    given.apply_defaults()
    names = ("episodes_per_task", "expert_share", "split", "seed", "max_steps", "disturbance")
    values = {name: given.arguments[name] for name in names}
    if values["max_steps"] is None:
        values["max_steps"] = _length(given.arguments.get("tasks"))
    if steps := given.arguments["steps_after_success"]:  # as in files of earlier versions where there are none
        values["steps_after_success"] = steps
    if expert := _expert(given.arguments["expert"], given.arguments.get("tasks")):
        values["expert"] = expert
    values["played_by"] = "expert" if given.arguments["policy"] is None else "policy"
    plain = json.dumps(values, default=lambda value: vars(value) if isinstance(value, Disturbance) else int(value))
    return cast(dict[str, Any], json.loads(plain))  # integers of NumPy too


def _length(tasks: Tasks | None) -> int:
    """How many steps an episode has at most where nothing is said about it."""
    specs = () if tasks is None else task_specs(tasks)
    if any(isinstance(spec, MetaWorldTask) for spec in specs):
        return LENGTH
    return max([LENGTH, *(spec.max_steps or 0 for spec in specs)])


def _expert(given: Act | None, tasks: Tasks | None) -> str | dict[str, str] | None:
    """Who shows the tasks; None if it is Meta-World's own expert of each."""
    if given is not None:
        return name_of(given)
    specs = () if tasks is None else task_specs(tasks)
    return own_experts(spec.name for spec in specs if isinstance(spec, MetaWorldTask)) or None


class _Rest:
    """What Meta-World's experts do once they have reached a goal: those that would leave it hold still."""

    def __init__(self, leaves: NDArray[np.bool_]) -> None:
        self.leaves = leaves
        self.since = np.zeros(len(leaves), dtype=np.int64)  # steps since the first success, which is 1
        self.solved = np.zeros(len(leaves), dtype=bool)
        self.still = np.zeros((len(leaves), ACTION_SIZE))

    def __call__(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        holds = self.leaves & self.solved & (self.since > STEPS_ON)
        return np.where(holds[:, None], self.still, action)

    def begin(self, rows: NDArray[np.bool_]) -> None:
        """Forget an episode that has ended."""
        self.since[rows], self.solved[rows] = 0, False

    def see(self, step: Step, action: NDArray[np.float64]) -> None:
        """Take note of a step, and of what the experts' actions were."""
        first = step.success & (self.since == 0)
        if first.any():
            self.still[first, -1] = action[first, -1]
        self.solved = step.success
        self.since = np.where(step.success | (self.since > 0), self.since + 1, 0)


class _BehaviorPolicy:
    """The policy that acts in each environment: expert or learner, with noise."""

    def __init__(
        self,
        num_envs: int,
        generator: np.random.RandomState,
        disturbance: Disturbance | None,
        expert_share: float,
        push_size: int = ACTION_SIZE - 1,
    ) -> None:
        self.generator, self.disturbance, self.expert_share = generator, disturbance, expert_share
        self.steps = 0
        self.expert_acts = np.zeros(num_envs, dtype=bool)
        self.push = np.zeros((num_envs, push_size))  # of the first numbers of an action
        self.push_left = np.zeros(num_envs, dtype=np.int64)

    def __call__(
        self, action: NDArray[np.float64], expert: NDArray[np.float64], *, disturbed: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        num_envs, generator = len(action), self.generator
        if self.steps % 20 == 0:
            self.expert_acts = generator.uniform(size=num_envs) < self.expert_share
        self.steps += 1
        action = np.where(self.expert_acts[:, None], expert, action)
        if self.disturbance is None:
            return action
        begins = (generator.uniform(size=num_envs) < self.disturbance.bursts) & (self.push_left == 0)
        self.push[begins] = generator.uniform(-1, 1, size=self.push.shape)[begins]
        self.push_left[begins] = generator.randint(3, 11, size=num_envs)[begins]
        noisy = np.clip(action + generator.normal(0, self.disturbance.noise, size=action.shape), -1, 1)
        pushed = np.where(self.push_left[:, None] > 0, np.c_[self.push, action[:, self.push.shape[1] :]], noisy)
        self.push_left = np.maximum(self.push_left - 1, 0)
        return np.where(disturbed[:, None], pushed, action)
