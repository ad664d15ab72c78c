"""One environment of one task, playing episode after episode."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_choice, check_flags, check_integers, wrong_argument
from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl.form import StepResult
from dendrite_zoo.rl.spec import TaskSpec

Split = Literal["train", "val", "test"]
SPLIT_SEEDS: dict[Split, int] = {"train": 0, "test": 1, "val": 2}  # published scores rest on these numbers
Order = Literal["random", "each-once"]
MOST_STEPS: dict[Order, int] = {"each-once": 10_000, "random": 100_000}
"""Where an episode is cut off that nothing else ends: of an evaluation, and of training."""
ENDLESS = 2**31  # so many starts are as good as a new one each time


@dataclass(frozen=True)
class EpisodeConfig:
    """Everything that decides the episodes of one environment.

    Attributes:
        task: its name.
        env: the environment's number, from which with ``seed`` its sequence of goals follows.
        split: which goals are played.
        num_goals: how many of them there are. What Meta-World has goals for is in other environments how an episode
            starts: by ``reset(seed=)``.
        order: ``"random"``, drawn anew for each episode, or ``"each-once"``.
        first: with ``"each-once"`` the first goal played.
        stride: with ``"each-once"`` the distance to the next one, so that environments can share a list.
        seed: of the goals and of their order.
        max_steps: length of an episode; None for the environment's own.
        stop_at_success: whether an episode ends with the first success.
        action_repeat: how many steps an action is played for.
        steps_after_success: how many steps later it then ends.
        reward_version: Meta-World's name for the reward.
        fast: whether Meta-World's faster Python paths are used.
        spec: what makes the environment; None for Meta-World's of this name.

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
    max_steps: int | None = 500
    stop_at_success: bool = False
    action_repeat: int = 1
    steps_after_success: int = 0
    reward_version: str = "v2"
    fast: bool = False
    spec: TaskSpec | None = None

    def __post_init__(self) -> None:
        check_choice(get_args(Split), split=self.split)
        check_choice(get_args(Order), order=self.order)
        check_choice(("v1", "v2"), reward_version=self.reward_version)
        check_flags(stop_at_success=self.stop_at_success, fast=self.fast)
        check_integers(1, num_goals=self.num_goals, action_repeat=self.action_repeat)
        check_integers(0, seed=self.seed, steps_after_success=self.steps_after_success)
        if self.max_steps is not None:
            check_integers(1, 500 if self.spec is None else self.spec.most_steps, max_steps=self.max_steps)
        if self.stop_at_success and self.order != "each-once":
            expected = "'each-once' with stop_at_success=True: a learner would bootstrap from a wrong observation"
            raise wrong_argument("order", expected, self.order, "Leave `stop_at_success` out.")


def start_seed(seed: int, split: Split, start: int) -> int:
    """What ``reset`` is seeded by for a start, the same in every task: 31 bits, which every generator takes."""
    return int(SeedSequence([seed, SPLIT_SEEDS[split], start]).generate_state(1)[0] >> 1)


class Step(NamedTuple):
    """The result of one action in each of N environments: of one step, or of ``action_repeat``.

    Attributes:
        observation: to choose the next action by, ``(N, O)``; where an episode ended, the first of the next one.
        reward: ``(N,)``, the sum over the action's steps.
        success: ``(N,)``, whether the task is solved at some of these steps.
        truncated: ``(N,)``, whether the episode was cut off after this step. It is a limit of time and not an end of
            the task: learners bootstrap from ``final_observation``.
        final_observation: the observation after the action, ``(N, O)``; equal to ``observation`` where no episode
            ended.
        goal: ``(N,)``, number of the goal of the episode, -1 where all goals were played before.
        terminated: ``(N,)``, whether this step led to an end of the task itself, after which no reward comes: the
            robot fell. Meta-World's tasks have none.
        success_at_end: ``(N,)``, whether the task is solved at the last of the action's steps.
        steps: ``(N,)``, how many steps were simulated: ``action_repeat``, or fewer where an episode ended; 0 where all
            goals were played before, or the environment rests.
    """

    observation: NDArray[np.float64]
    reward: NDArray[np.float64]
    success: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_observation: NDArray[np.float64]
    goal: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    success_at_end: NDArray[np.bool_]
    steps: NDArray[np.int64]

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Where an episode ended with this step, ``(N,)``, whatever ended it."""
        return self.truncated | self.terminated


class Episodes:
    """The environment itself; `begin` and `step` in turn.

    A start is a number that ``reset`` is seeded by, the same in every task; no two splits share one. Where an episode
    stands follows from its start and its actions, which is how `load_state_dict` comes back to it.

    Args:
        config: which task, starts and limits.

    Attributes:
        observation: the current one, from which the next action is chosen, ``(O,)``.
        goal: number of the goal or start being played, -1 before the first and after the last.
        finished: whether all of them were played (with ``order="each-once"``).
        limit: length of an episode; None where the environment has a limit of its own. Where nothing ends one, it is
            cut off all the same, in an evaluation sooner than in training.
    """

    def __init__(self, config: EpisodeConfig) -> None:
        self.config, self.limit = config, config.max_steps
        self.env = self._make()
        self.episode, self.steps, self.goal, self.finished = -1, 0, -1, False
        self.reached_at = 0  # the step of the first success, from 1

    def _make(self) -> Any:
        """Make the environment, and set the first ``observation``."""
        assert self.config.spec is not None
        self.spec = self.config.spec
        env = self.spec.make()
        if self.limit is None and self.spec.max_steps is None:
            self.limit = MOST_STEPS[self.config.order]
        self.observation: NDArray[np.float64] = np.zeros(self.spec.observation_size)
        self._played: list[NDArray[np.float64]] = []  # of this episode
        return env

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
        self.goal, self.steps, self.reached_at = -1 if self.finished else int(goal), 0, 0
        if not self.finished:
            self.observation = self._put_at(self.goal)

    def _put_at(self, goal: int) -> NDArray[np.float64]:
        """Begin an episode at a goal or start, and return its first observation."""
        self._played = []
        return self.spec.begin(self.env, start_seed(self.config.seed, self.config.split, goal))

    def step(self, action: NDArray[np.float64]) -> StepResult:
        """Play an action, ``action_repeat`` steps or to the episode's end; after the last one of it, `begin` the next.

        Shape:
            action ``(A,)``.
        """
        results = [self._step(action)]
        while len(results) < self.config.action_repeat and not results[-1].ended:
            results.append(self._step(action))
        total, last = sum(result.reward for result in results), results[-1]
        success = any(result.success for result in results)
        return last._replace(reward=total, success=success, success_at_end=last.success, steps=len(results))

    def _step(self, action: NDArray[np.float64]) -> StepResult:
        result = self._play(action)
        self.observation = result.observation
        self.steps += 1
        if result.success and not self.reached_at:
            self.reached_at = self.steps
        since = self.steps - self.reached_at
        stop = self.config.stop_at_success and self.reached_at > 0 and since >= self.config.steps_after_success
        is_over = self.limit is not None and self.steps >= self.limit
        return result._replace(truncated=result.truncated or stop or is_over)

    def _play(self, action: NDArray[np.float64]) -> StepResult:
        self._played.append(np.array(action))
        return self.spec.play(self.env, action)

    def expert_action(self) -> NDArray[np.float64]:
        """The action of the task's scripted expert, if it has one.

        Raises:
            ValueError: it has none.
        """
        raise ValueError(
            f"Expected a task of Meta-World, which has a scripted expert, but got {self.config.task}. Give a policy "
            "that shows it: expert=..."
        )

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """A picture of the environment as it stands, ``(H, W, 3)``, of a size of its own.

        Raises:
            ValueError: the environment draws none.
        """
        try:
            picture = self.env.render()
        except NotImplementedError:  # as gymnasium.Env has it
            picture = None
        is_array = isinstance(picture, np.ndarray)
        if not is_array or picture.dtype.kind not in "iu" or picture.ndim != 3 or picture.shape[2] not in (3, 4):
            got = f"{picture.dtype} of shape {picture.shape}" if is_array else type(picture).__name__
            raise ValueError(
                f"Expected {self.config.task} to render an array of pixels, (H, W, 3) from 0 to 255, but got {got}. "
                "Make the environment with render_mode='rgb_array'."
            )
        return picture[..., :3].astype(np.uint8)

    def close(self) -> None:
        """Close the environment."""
        getattr(self.env, "close", lambda: None)()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes: the place in the list of goals, and in the episode."""
        places = {name: getattr(self, name) for name in ("episode", "steps", "goal", "finished", "reached_at")}
        return {**places, "observation": self.observation.copy(), **self._own_state()}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Continue exactly where `state_dict` was taken.

        Returns:
            Whether that was possible: not where an environment depends on more than its seed and actions.
        """
        self.episode, self.steps, self.goal = state["episode"], state["steps"], state["goal"]
        self.finished, self.observation = state["finished"], np.array(state["observation"])
        self.reached_at = state.get("reached_at", 0)  # earlier versions stopped there
        return self.goal < 0 or self._go_on(state)

    def _own_state(self) -> dict[str, Any]:
        size = self.spec.action_size
        return {"actions": np.array(self._played, dtype=np.float64).reshape(-1, size)}

    def _go_on(self, state: dict[str, Any]) -> bool:
        """Come back to where an episode stood, by its start and its actions."""
        expected, self.observation = self.observation, self._put_at(self.goal)
        for action in np.array(state["actions"]):
            result = self._play(action)
            self.observation = result.observation
        return np.array_equal(self.observation, expected)
