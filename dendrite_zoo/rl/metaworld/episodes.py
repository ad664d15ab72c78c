"""One environment of one of Meta-World's tasks, playing its goals."""

import functools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl import episodes
from dendrite_zoo.rl.episodes import EpisodeConfig
from dendrite_zoo.rl.form import StepResult
from dendrite_zoo.rl.metaworld.experts import expert_of
from dendrite_zoo.rl.metaworld.goals import goals
from dendrite_zoo.rl.metaworld.picture import Picture
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, OBSERVATION_SIZE, metaworld

__all__ = ["EpisodeConfig", "Episodes"]


class Episodes(episodes.Episodes):
    """The environment itself; `begin` and `step` in turn. It takes no wrapper of gymnasium, whose state is known."""

    def _make(self) -> Any:
        config = self.config
        environment = metaworld().env_dict.ALL_V3_ENVIRONMENTS[config.task]
        if config.fast:
            from dendrite_zoo.rl.metaworld.fast import faster

            environment = faster(environment)
        self._goals = goals(config.task, config.split, count=config.num_goals, seed=config.seed)
        self._set_up: dict[int, Any] = {}  # Meta-World's own tasks, of the goals played so far
        self._picture: Picture | None = None
        self.observation = np.zeros(OBSERVATION_SIZE)
        return environment(reward_function_version=config.reward_version)

    def _put_at(self, goal: int) -> NDArray[np.float64]:
        if goal not in self._set_up:
            self._set_up[goal] = self._goals[goal].official(self.env)
        self.env.set_task(self._set_up[goal])  # each time: some environments change the goal's vector in place
        return self.env.reset()[0]

    def _play(self, action: NDArray[np.float64]) -> StepResult:
        observation, reward, _, _, info = self.env.step(action)
        return StepResult(observation, float(reward), bool(info["success"]), False, False)

    @functools.cached_property
    def _expert(self) -> Any:
        return expert_of(self.config.task)

    def expert_action(self) -> NDArray[np.float64]:
        """Return the action of the task's scripted expert for the current observation.

        Shape:
            ``(4,)``, clipped to [-1, 1]; zeros when all goals were played.
        """
        if self.finished:
            return np.zeros(ACTION_SIZE)
        with warnings.catch_warnings():  # that its constants may be too high: hence the clip
            warnings.simplefilter("ignore")
            return np.clip(self._expert.get_action(self.observation), -1, 1)

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """A picture of the environment as it stands, ``(height, width, 3)``.

        Raises:
            ImportError: there is no OpenGL to draw by.
        """
        if self._picture is None or self._picture.size != (height, width):
            self._put_down()
            self._picture = Picture(self.env, height, width)
        return self._picture.draw()

    def close(self) -> None:
        """Free what draws."""
        self._put_down()

    def _put_down(self) -> None:
        if self._picture is not None:
            self._picture.close()
            self._picture = None

    def _own_state(self) -> dict[str, Any]:
        """The physics, and the environment's own attributes."""
        import mujoco

        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(self.env.model, kind))
        mujoco.mj_getState(self.env.model, self.env.data, physics, kind)
        return {"physics": physics, "memory": _plain_attributes(self.env)}

    def _go_on(self, state: dict[str, Any]) -> bool:
        import mujoco

        self._put_at(self.goal)  # what an episode never changes: the goal, and the model's bodies about it
        model, data, physics = self.env.model, self.env.data, np.array(state["physics"])
        mujoco.mj_setState(model, data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)  # positions of bodies, contacts and so on
        mujoco.mj_setState(model, data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)  # the solver's start again
        for name, value in state["memory"].items():
            setattr(self.env, name, np.array(value) if isinstance(value, np.ndarray) else value)
        return True


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
