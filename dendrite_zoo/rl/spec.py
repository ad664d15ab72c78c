"""A task by its environment: any of gymnasium's form with numbers to see and numbers to act by."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_integers, wrong_argument

__all__ = ["TaskSpec"]

MAKER = "functools.partial(gymnasium.make, 'Pendulum-v1', g=9.8)"


class Spaces(NamedTuple):
    """What is seen and done in an environment.

    Attributes:
        observation_size: numbers in an observation.
        low: the smallest action, ``(A,)``.
        high: the largest, ``(A,)``.
        action_type: of the numbers that the environment takes.
        max_steps: length of an episode by the environment's own limit; None where it has none.
    """

    observation_size: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    action_type: np.dtype[Any]
    max_steps: int | None


@dataclass(frozen=True)
class TaskSpec:
    """A task of one's own: a name, and what makes its environment.

    The environment has the form of `gymnasium.Env`: ``reset(seed=)`` gives an observation and info, ``step`` gives
    observation, reward, terminated, truncated and info. Observations are flat (`gymnasium.wrappers.FlattenObservation`
    makes them so), actions a Box with bounds: policies act from -1 to 1, which is scaled to the bounds. Nothing else is
    asked of it, and gymnasium itself is only needed where it is used.

    With ``num_processes`` above 0 environments are made in other processes, and ``make_env`` is sent there: by
    cloudpickle where that is installed, as gymnasium has it, and then it may be a lambda; else by pickle, and it must
    be a function of a module, or a `functools.partial` of one.

    Args:
        name: of the task, as policies, logs and records have it.
        make_env: called without arguments, gives a new environment.
        success: what counts as solved at a step: a key of ``info`` such as ``"is_success"``, or a function of what
            ``step`` returned, ``success(observation, reward, terminated, truncated, info)``. None: the mean return is
            what is reported.
        normalizer: mean and scale of each number in an observation, see `normalized`.

    Raises:
        ValueError: an argument of another kind; when the environment is first made, one that does not have this form.

    Example:
        >>> import functools, gymnasium
        >>> moon = TaskSpec("moon", functools.partial(gymnasium.make, "Pendulum-v1", g=1.6))
        >>> moon.observation_size, moon.action_size, moon.max_steps
        (3, 1, 200)
    """

    num_goals: ClassVar[int | None] = None
    """How many starts episodes of training have, where nothing else is said; None for a new one each time."""
    most_steps: ClassVar[int] = 100_000
    """Where an episode without any other limit is given up."""

    name: str
    make_env: Callable[[], Any]
    _: KW_ONLY
    success: Callable[..., Any] | str | None = None  # in this order: a path in YAML is a function where it can be
    normalizer: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        name, make_env, success = self._given()
        if not isinstance(name, str) or not name:
            raise wrong_argument("name", "the task's name", name)
        if not callable(make_env):
            raise ValueError(
                f"Expected `make_env` of {name} to be a function that makes an environment, but got {make_env!r}. Give "
                f"one such as {MAKER}."
            )
        if not (success is None or isinstance(success, str) or callable(success)):
            expected = "a key of info, or a function (observation, reward, terminated, truncated, info) -> bool"
            raise wrong_argument("success", expected, success)
        if self.normalizer is not None:
            numbers = np.array([*self.normalizer[0], *self.normalizer[1]], np.float64)
            if len(self.normalizer[0]) != len(self.normalizer[1]) or not np.isfinite(numbers).all():
                raise wrong_argument("normalizer", "as many finite means as deviations", self.normalizer)
            if min(self.normalizer[1], default=1.0) <= 0:
                raise wrong_argument("normalizer", "deviations above 0", self.normalizer)

    def _given(self) -> tuple[Any, ...]:
        return self.name, self.make_env, self.success

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return self._spaces.observation_size

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return len(self._spaces.low)

    @property
    def max_steps(self) -> int | None:
        """Length of an episode by the environment's own limit of time; None where it has none."""
        return self._spaces.max_steps

    def make(self) -> Any:
        """Make an environment, and see that it has the form that is needed."""
        env = self.make_env()
        self.__dict__.setdefault("_spaces", _spaces(self.name, env))
        return env

    @cached_property
    def _spaces(self) -> Spaces:
        env = self.make_env()
        spaces = _spaces(self.name, env)
        getattr(env, "close", lambda: None)()
        return spaces

    def normalized(self, *, steps: int = 1000, seed: int = 0) -> "TaskSpec":
        """The same task with observations of mean 0 and standard deviation 1, as random actions meet them.

        Policies normalise observations by themselves, but in the same way for all tasks; this is for tasks that see
        numbers of other sizes. What was measured is a part of the task: evaluate with the same one. ``success`` is
        asked about observations as they were.

        Args:
            steps: that are played to measure by.
            seed: of starts and actions.

        Example:
            >>> import functools, gymnasium
            >>> moon = TaskSpec("moon", functools.partial(gymnasium.make, "Pendulum-v1", g=1.6)).normalized()
            >>> [round(number, 2) for number in moon.normalizer[1]]
            [0.69, 0.65, 1.59]
        """
        check_integers(1, steps=steps)
        draws, env, seen = np.random.RandomState(seed), self.make(), []
        ended, episode = True, 0
        for _ in range(steps):
            if ended:
                observation, episode = env.reset(seed=seed + episode)[0], episode + 1
            seen.append(np.array(observation, np.float64))
            observation, _, terminated, truncated, _ = env.step(self.played(draws.uniform(-1, 1, self.action_size)))
            ended = terminated or truncated
        getattr(env, "close", lambda: None)()
        mean, scale = np.mean(seen, axis=0), np.std(seen, axis=0)
        scale[scale < 1e-8] = 1.0  # what never changes
        return replace(self, normalizer=(tuple(mean.tolist()), tuple(scale.tolist())))

    def played(self, action: NDArray[np.float64]) -> NDArray[Any]:
        """The action that the environment takes, for one from -1 to 1; what lies outside is clipped.

        Whole numbers share the range equally.

        Shape:
            ``(A,)`` to ``(A,)``.
        """
        _, low, high, kind, _ = self._spaces
        if np.issubdtype(kind, np.integer):
            scaled = np.floor(low + (np.clip(action, -1, 1) + 1) / 2 * (high - low + 1))
        else:
            scaled = (high + low) / 2 + np.clip(action, -1, 1) * ((high - low) / 2)
        return np.clip(scaled, low, high).astype(kind)

    def succeeded(self, *result: Any) -> bool:
        """Whether the task is solved at a step.

        Args:
            *result: what ``step`` returned: observation, reward, terminated, truncated and info.

        Raises:
            ValueError: ``info`` lacks the key where an episode ends, or the answer is neither yes nor no.
        """
        if self.success is None:
            return False
        if callable(self.success):
            answer = self.success(*result)
        else:
            _, _, terminated, truncated, info = result
            if self.success not in info and (terminated or truncated):
                keys = f"one of {', '.join(map(repr, info))}" if info else "which has none"
                expected = f"a key of the info of {self.name}, {keys}"
                raise wrong_argument("success", expected, self.success)
            answer = info.get(self.success, False)
        said = np.asarray(answer)
        if said.size != 1 or said.dtype.kind not in "biuf" or said.item() not in (0, 1):
            raise ValueError(f"Expected `success` of {self.name} to say True or False, but got {answer!r}.")
        return bool(said.item())

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to another process: functions by value, where they can be."""
        module = _pickler()
        sent = {name: module.dumps(getattr(self, name)) for name in ("make_env", "success")}
        return {**vars(self), **sent}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        received = {name: pickle.loads(state[name]) for name in ("make_env", "success")}
        self.__dict__.update({**state, **received})


def _pickler() -> ModuleType:
    """What sends functions: cloudpickle takes lambdas and those of a script, too."""
    try:
        import cloudpickle
    except ImportError:
        return pickle
    return cloudpickle


def _is_environment(thing: Any) -> bool:
    return callable(getattr(thing, "reset", None)) and callable(getattr(thing, "step", None))


def _spaces(name: str, env: Any) -> Spaces:
    """The sizes and bounds of an environment.

    Raises:
        ValueError: it is none, or what is seen or done in it is something else than a flat array of numbers.
    """
    if not _is_environment(env) or isinstance(env, type):
        got = f"{env!r}" if isinstance(env, type) else type(env).__name__
        raise ValueError(
            f"Expected `make_env` of {name} to return a gymnasium.Env, but got {got}. Give one such as {MAKER}."
        )
    seen: Any = getattr(env, "observation_space", None)
    done: Any = getattr(env, "action_space", None)
    if not _is_flat(seen):
        raise ValueError(
            f"Expected the observation space of {name} to be a Box of one dimension, but got {seen}. Wrap the "
            "environment in `make_env`: gymnasium.wrappers.FlattenObservation(env)."
        )
    if not _is_flat(done):
        raise ValueError(
            f"Expected the action space of {name} to be a Box of one dimension, but got {done}. Policies here act by "
            "numbers from -1 to 1; wrap the environment in `make_env` so that it takes such."
        )
    low, high = np.asarray(done.low, np.float64), np.asarray(done.high, np.float64)
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise ValueError(
            f"Expected the actions of {name} to have finite bounds, but got {done}. Wrap the environment in "
            "`make_env`: gymnasium.wrappers.TransformAction(env, lambda action: ..., gymnasium.spaces.Box(-1, 1, ...))."
        )
    limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    return Spaces(seen.shape[0], low, high, done.dtype, limit)


def _is_flat(space: Any) -> bool:
    shape = getattr(space, "shape", None)
    return hasattr(space, "low") and hasattr(space, "high") and shape is not None and len(shape) == 1 and shape[0] > 0
