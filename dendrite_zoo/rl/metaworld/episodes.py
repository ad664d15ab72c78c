"""One environment of one task, playing episode after episode."""

import functools
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_choice, check_integers, wrong_argument
from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl.metaworld.goals import Split, goals
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, MAX_STEPS, OBSERVATION_SIZE, metaworld

Order = Literal["random", "each-once"]


@dataclass(frozen=True)
class EpisodeConfig:
    """Everything that decides the episodes of one environment.

    Attributes:
        task: its name.
        env: the environment's number, from which with ``seed`` its sequence of goals follows.
        split: which goals are played.
        num_goals: how many of them there are.
        order: ``"random"``, drawn anew for each episode, or ``"each-once"``.
        first: with ``"each-once"`` the first goal played.
        stride: with ``"each-once"`` the distance to the next one, so that environments can share a list.
        seed: of the goals and of their order.
        max_steps: length of an episode.
        stop_at_success: whether an episode ends with the first success.
        reward_version: Meta-World's name for the reward.
        fast: whether the faster Python paths are used.

    Raises:
        ValueError: an argument out of range.
    """

    task: str
    env: int = 0
    split: Split = "train"
    num_goals: int = 50
    order: Order = "random"
    first: int = 0
    stride: int = 1
    seed: int = 0
    max_steps: int = MAX_STEPS
    stop_at_success: bool = False
    reward_version: str = "v2"
    fast: bool = False

    def __post_init__(self) -> None:
        check_choice(get_args(Split), split=self.split)
        check_choice(get_args(Order), order=self.order)
        check_choice(("v1", "v2"), reward_version=self.reward_version)
        check_integers(1, num_goals=self.num_goals)
        check_integers(0, seed=self.seed)
        check_integers(1, MAX_STEPS, max_steps=self.max_steps)
        if self.stop_at_success and self.order != "each-once":
            expected = "'each-once' with stop_at_success=True: a learner would bootstrap from a wrong observation"
            raise wrong_argument("order", expected, self.order, "Leave `stop_at_success` out.")


class StepResult(NamedTuple):
    """What the environment returned for one action."""

    observation: NDArray[np.float64]
    reward: float
    success: bool
    ended: bool


class Episodes:
    """The environment itself; `begin` and `step` in turn.

    Args:
        config: which task, goals and rewards.

    Attributes:
        observation: the current one, from which the next action is chosen, ``(39,)``.
        goal: number of the goal being played, -1 before the first and after the last.
        finished: whether all goals were played (with ``order="each-once"``).
    """

    def __init__(self, config: EpisodeConfig) -> None:
        self.config = config
        environment = metaworld().env_dict.ALL_V3_ENVIRONMENTS[config.task]
        if config.fast:
            from dendrite_zoo.rl.metaworld.fast import faster

            environment = faster(environment)
        self.env = environment(reward_function_version=config.reward_version)
        self._goals = goals(config.task, config.split, count=config.num_goals, seed=config.seed)
        self._set_up: dict[int, Any] = {}  # Meta-World's own tasks, of the goals played so far
        self.observation: NDArray[np.float64] = np.zeros(OBSERVATION_SIZE)
        self.episode, self.steps, self.goal, self.finished = -1, 0, -1, False

    def restart(self) -> None:
        """Begin anew: the list of goals with ``"each-once"``, else the next episode."""
        if self.config.order == "each-once":
            self.episode = -1
        self.begin()

    def begin(self) -> None:
        """Begin the next episode."""
        self.episode += 1
        config = self.config
        if config.order == "each-once":
            goal = config.first + self.episode * config.stride
        else:
            goal = random_state(config.seed, config.env, self.episode).randint(config.num_goals)
        self.finished = goal >= config.num_goals
        self.goal, self.steps = -1 if self.finished else int(goal), 0
        if not self.finished:
            self.observation = self._put_at(self.goal)

    def _put_at(self, goal: int) -> NDArray[np.float64]:
        if goal not in self._set_up:
            self._set_up[goal] = self._goals[goal].official(self.env)
        self.env.set_task(self._set_up[goal])  # each time: some environments change the goal's vector in place
        return self.env.reset()[0]

    def step(self, action: NDArray[np.float64]) -> StepResult:
        """Play one step; after the last one of an episode, `begin` the next.

        Shape:
            action ``(4,)``.
        """
        self.observation, reward, _, _, info = self.env.step(action)
        self.steps += 1
        success = bool(info["success"])
        ended = self.steps >= self.config.max_steps or (success and self.config.stop_at_success)
        return StepResult(self.observation, float(reward), success, ended)

    @functools.cached_property
    def _expert(self) -> Any:
        return import_module("metaworld.policies").ENV_POLICY_MAP[self.config.task]()

    def expert_action(self) -> NDArray[np.float64]:
        """Return the action of Meta-World's scripted expert for the current observation.

        Shape:
            ``(4,)``, clipped to [-1, 1]; zeros when all goals were played.
        """
        if self.finished:
            return np.zeros(ACTION_SIZE)
        with warnings.catch_warnings():  # that its constants may be too high: hence the clip
            warnings.simplefilter("ignore")
            return np.clip(self._expert.get_action(self.observation), -1, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes: the physics, the environment's own attributes, and the place in its goals."""
        import mujoco

        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(self.env.model, kind))
        mujoco.mj_getState(self.env.model, self.env.data, physics, kind)
        return {
            **{name: getattr(self, name) for name in ("episode", "steps", "goal", "finished")},
            "observation": self.observation.copy(),
            "physics": physics,
            "memory": _plain_attributes(self.env),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        import mujoco

        self.episode, self.steps, self.goal = state["episode"], state["steps"], state["goal"]
        self.finished, self.observation = state["finished"], np.array(state["observation"])
        if self.goal < 0:
            return
        self._put_at(self.goal)  # what an episode never changes: the goal, and the model's bodies about it
        model, data, physics = self.env.model, self.env.data, np.array(state["physics"])
        mujoco.mj_setState(model, data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)  # positions of bodies, contacts and so on
        mujoco.mj_setState(model, data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)  # the solver's start again
        for name, value in state["memory"].items():
            setattr(self.env, name, np.array(value) if isinstance(value, np.ndarray) else value)


def _plain_attributes(env: Any) -> dict[str, Any]:
    """The plain attributes of an environment; arrays that are views of MuJoCo's memory belong to the physics."""
    plain: dict[str, Any] = {}
    for name, value in vars(env).items():
        if isinstance(value, np.ndarray) and _owner(value) is None:
            plain[name] = value.copy()
        elif value is None or isinstance(value, (bool, int, float, np.generic)):
            plain[name] = value.item() if isinstance(value, np.generic) else value
    return plain


def _owner(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        array = array.base
    return array
