"""The form of an environment, which is gymnasium's: what is seen and done in it, and what a step gives."""

import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAKER = "functools.partial(gymnasium.make, 'Pendulum-v1', g=9.8)"
FLATTEN = "wrap the environment in `make_env`: gymnasium.wrappers.FlattenObservation(env)"
"""What makes one array of what is seen."""
RUNNING = {
    "NormalizeObservation": "policies normalise what they see by themselves, and TaskSpec.normalized() by task",
    "NormalizeReward": "OnlineTasks(normalize_rewards=True) does it for learning alone",
}
"""Wrappers of gymnasium whose numbers depend on all that an environment has met, and what is here in their place."""


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


def maker(name: str, given: Any) -> Callable[[], Any]:
    """What makes the environment of a task: a function, or `gymnasium.make` of an id such as ``"Pendulum-v1"``.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, str) and re.search(r"-v\d+$", given):
        return partial(_registered, given)
    if callable(given):
        return given
    raise ValueError(
        f"Expected `make_env` of {name} to be a function that makes an environment, or gymnasium's id of one, but got "
        f"{given!r}. Give one such as {MAKER}."
    )


def _registered(env_id: str) -> Any:
    import gymnasium  # which is not needed where environments are one's own

    return gymnasium.make(env_id)


def _is_environment(thing: Any) -> bool:
    return callable(getattr(thing, "reset", None)) and callable(getattr(thing, "step", None))


def spaces_of(name: str, env: Any) -> Spaces:
    """The sizes and bounds of an environment.

    Raises:
        ValueError: it is none, or what is seen or done in it is something else than a flat array of numbers.
    """
    if not _is_environment(env) or isinstance(env, type) or hasattr(env, "single_action_space"):  # of several at once
        got = f"{env!r}" if isinstance(env, type) else type(env).__name__
        raise ValueError(
            f"Expected `make_env` of {name} to return a gymnasium.Env, but got {got}. Give one such as {MAKER}."
        )
    seen: Any = getattr(env, "observation_space", None)
    done: Any = getattr(env, "action_space", None)
    if not _is_flat(seen):
        raise ValueError(
            f"Expected the observation space of {name} to be a Box of one dimension, but got {seen}. "
            f"{_remedy_for_what_is_seen(seen)}"
        )
    if not _is_flat(done):
        raise ValueError(
            f"Expected the action space of {name} to be a Box of one dimension, but got {done}. Policies here act by "
            "numbers from -1 to 1; wrap the environment in `make_env` so that it takes such: gymnasium.wrappers."
            f"TransformAction(env, lambda action: {_translation(done)})."
        )
    low, high = np.asarray(done.low, np.float64), np.asarray(done.high, np.float64)
    if not (np.isfinite(low) & np.isfinite(high)).all():
        raise ValueError(
            f"Expected the actions of {name} to have finite bounds, but got {done}. Wrap the environment in "
            "`make_env`, with bounds of your choice in place of 10: gymnasium.wrappers.TransformAction(env, "
            f"lambda action: action, {_with_bounds(low, high)})."
        )
    if not (low < high).all():
        raise ValueError(
            f"Expected the actions of {name} to have lower bounds below the upper ones, but got {low.tolist()} and "
            f"{high.tolist()}. Correct the action space, or leave out what cannot be chosen."
        )
    return Spaces(seen.shape[0], low, high, done.dtype, _limit_of(env))


def _with_bounds(low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """The space of actions as one writes it, with 10 for a bound that is missing."""
    if not (np.isfinite(low) | np.isfinite(high)).any():
        return f"gymnasium.spaces.Box(-10, 10, {low.shape})"
    low = np.where(np.isfinite(low), low, np.minimum(-10, high - 10))
    high = np.where(np.isfinite(high), high, np.maximum(10, low + 10))
    return f"gymnasium.spaces.Box(numpy.float32({low.tolist()}), numpy.float32({high.tolist()}))"


def _limit_of(env: Any) -> int | None:
    """Length of an episode by the environment's own limit of time, as `gymnasium.make` or a wrapper sets it."""
    limits = [getattr(getattr(env, "spec", None), "max_episode_steps", None)]
    while env is not None:
        if type(env).__name__ == "TimeLimit":  # of an environment that was not made by its id, which has no `spec`
            limits.append(getattr(env, "_max_episode_steps", None))
        env = vars(env).get("env") if hasattr(env, "__dict__") else None
    return min((limit for limit in limits if limit), default=None)


def close(env: Any) -> None:
    """Free what an environment uses, where it says how."""
    getattr(env, "close", lambda: None)()


def warn_of_running_statistics(name: str, env: Any) -> bool:
    """Say so, and return it, where wrappers of an environment normalise by what it has met itself so far."""
    found = False
    while env is not None:
        wrapper = type(env).__name__
        if wrapper in RUNNING and getattr(env, "update_running_mean", True):
            warnings.warn(
                f"{name}: {wrapper} has statistics of its own in each environment, so that a policy meets other "
                "numbers in training, validation and tests and after it was loaded, and returns cannot be compared. "
                f"Leave it out: {RUNNING[wrapper]}; or fix it, update_running_mean=False.",
                stacklevel=5,
            )
            found = True
        env = getattr(env, "env", None)
    return found


def _is_flat(space: Any) -> bool:
    shape = getattr(space, "shape", None)
    return hasattr(space, "low") and hasattr(space, "high") and shape is not None and len(shape) == 1 and shape[0] > 0


def _remedy_for_what_is_seen(space: Any) -> str:
    """What makes a flat array of numbers of it."""
    if space is None:
        return "Set it: self.observation_space = gymnasium.spaces.Box(low, high, (n,)), for n numbers."
    if not getattr(space, "is_np_flattenable", True):
        return "Its size changes: write a gymnasium.ObservationWrapper that makes as many numbers of it each time."
    return f"To make it one, {FLATTEN}."


def _translation(space: Any) -> str:
    """How an action of a space follows from numbers from -1 to 1, and the space of these."""
    kind, shape = type(space).__name__, tuple(getattr(space, "shape", None) or ())
    how, numbers = "...", "..."
    if kind == "Discrete":
        how, numbers = f"action.argmax(){f' + {space.start}' if space.start else ''}", f"({space.n},)"
    elif kind == "MultiDiscrete" and len(shape) == 1:
        how, numbers = f"((action + 1) / 2 * ({space.nvec.tolist()} - numpy.float64(1e-6))).astype(int)", str(shape)
        how += f" + {space.start.tolist()}" * bool(np.any(space.start))
    elif kind == "MultiBinary":
        how, numbers = f"(action > 0).astype(int){f'.reshape{shape}' * (len(shape) > 1)}", f"({math.prod(shape)},)"
    elif kind == "Box":  # of several dimensions
        bounds = [np.ravel(bound).astype(np.float64) for bound in (space.low, space.high)]
        if not all(np.all(abs(bound) == 1) for bound in bounds):
            return f"action.reshape({shape}), {_with_bounds(*bounds)}"
        how, numbers = f"action.reshape({shape})", f"({math.prod(shape)},)"
    return f"{how}, gymnasium.spaces.Box(-1, 1, {numbers})"


def warn_of_form(name: str, env: Any) -> None:
    """Say what of an environment keeps its episodes from being repeated, or its numbers from being compared."""
    if not warn_of_running_statistics(name, env):  # by which each start looks different
        warn_of_seed(name, env)


def warn_of_seed(name: str, env: Any) -> None:
    """Say so where two episodes with one seed start differently: nothing that is played can be repeated then."""
    try:
        first, second = (np.asarray(env.reset(seed=0)[0], np.float64) for _ in range(2))
    except Exception:
        return  # whoever begins an episode says what is wrong
    if first.shape == second.shape and not np.allclose(first, second, equal_nan=True):
        warnings.warn(
            f"reset(seed=0) of {name} gives another start each time, so that no two evaluations have the same starts, "
            "and a run that is resumed goes on otherwise than without interruption. Call super().reset(seed=seed) in "
            "it, and draw all random numbers from `self.np_random`.",
            stacklevel=2,
        )


class StepResult(NamedTuple):
    """What the environment returned for one action; see `dendrite_zoo.rl.episodes.Step`."""

    observation: NDArray[np.float64]
    reward: float
    success: bool
    truncated: bool
    terminated: bool
    success_at_end: bool = False
    steps: int = 1

    @property
    def ended(self) -> bool:
        """Whether the episode ended with this step."""
        return self.truncated or self.terminated


def check_step(name: str, result: Any) -> None:
    """Refuse what ``step`` returned where it is not what gymnasium's returns.

    Args:
        name: of the task.
        result: observation, reward, terminated, truncated and info; the observation is not looked at.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(result, tuple | list) or len(result) != 5:
        got = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise ValueError(
            f"Expected `step` of {name} to return observation, reward, terminated, truncated and info, as "
            f"gymnasium's does, but got {got}. Check the environment."
        )
    _, reward, terminated, truncated, info = result
    number = np.asarray(reward)  # a tensor's own `size` is a method
    if number.size != 1 or number.dtype.kind not in "biuf" or not np.isfinite(number).all():
        expected = f"the reward of {name} to be a finite number"
        raise ValueError(f"Expected {expected}, but got {reward!r}. Check the environment.")
    if not isinstance(info, Mapping):
        expected = f"the info that `step` of {name} returns to be a dictionary"
        raise ValueError(f"Expected {expected}, but got {info!r}. Return {{}} where there is nothing to say.")
    if terminated and not truncated and info.get("TimeLimit.truncated"):  # as before gymnasium 0.26
        warnings.warn(
            f"{name}: the info of a step says TimeLimit.truncated, but the step `terminated`, and not `truncated`: "
            "critics take the end of time for the end of the task. Return terminated=False, truncated=True there.",
            stacklevel=4,
        )


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function, or a module, can be called with so many arguments; True where they are not known."""
    try:
        inspect.signature(getattr(function, "forward", function)).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # of one that is not written in Python
        return True
    return True
