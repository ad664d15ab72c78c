"""A task by its environment: any of gymnasium's form with numbers to see and numbers to act by."""

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo.rl.form import FLATTEN, Spaces, StepResult, check_step, close, maker, spaces_of, takes, warn_of_form

__all__ = ["TaskSpec"]

SUCCESS = "a key of info, or a function (observation, reward, terminated, truncated, info) -> bool"
BY_FUNCTION = 'Where an end may lack it, give a function: lambda seen, reward, ended, cut, info: info.get("%s", False).'


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
        make_env: called without arguments, gives a new environment; or gymnasium's id of one, ``"Pendulum-v1"``.
        success: what counts as solved at a step: a key of ``info`` such as ``"is_success"``, or a function of what
            ``step`` returned, ``success(observation, reward, terminated, truncated, info)``. None: the mean return is
            what is reported.
        normalizer: mean and scale of each number in an observation, see `normalized`.

    Raises:
        ValueError: an argument of another kind; when the environment is first made, one that does not have this form.
        RuntimeError: when the environment raises an exception; it names the task.

    Example:
        >>> import functools, gymnasium
        >>> moon = TaskSpec("moon", functools.partial(gymnasium.make, "Pendulum-v1", g=1.6))
        >>> moon.observation_size, moon.action_size, moon.max_steps
        (3, 1, 200)
    """

    num_goals: ClassVar[int | None] = None
    """How many starts episodes of training have, where nothing else is said; None for a new one each time."""
    most_steps: ClassVar[float] = float("inf")
    """How long an episode may be at most."""

    name: str
    make_env: Callable[[], Any] | str
    _: KW_ONLY
    success: Callable[..., Any] | str | None = None  # in this order: a path in YAML is a function where it can be
    normalizer: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        name, make_env, success = self._given()
        if not isinstance(name, str) or not name:
            raise wrong_argument("name", "the task's name", name)
        object.__setattr__(self, "make_env", maker(name, make_env))
        if not (success is None or isinstance(success, str) or callable(success)):
            raise wrong_argument("success", SUCCESS, success)
        if callable(success) and not takes(success, 5):
            raise wrong_argument("success", SUCCESS, success, "Give it these five arguments.")
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
        env = self._call("make_env", cast(Callable[[], Any], self.make_env))
        self.__dict__.setdefault("_spaces", spaces_of(self.name, env))
        return env

    @cached_property
    def _spaces(self) -> Spaces:
        env = self._call("make_env", cast(Callable[[], Any], self.make_env))
        spaces = spaces_of(self.name, env)
        warn_of_form(self.name, env)
        close(env)
        return spaces

    def normalized(self, *, steps: int = 1000, seed: int = 0) -> "TaskSpec":
        """The same task with observations of mean 0 and standard deviation 1, as random actions meet them.

        Policies normalise observations by themselves, but in the same way for all tasks; this is for tasks that see
        numbers of other sizes. What was measured is a part of the task. A policy remembers it, and an evaluation in the
        plain task is right; a loop of your own in the plain environment gives ``policy.seen(observation, task)`` to
        ``act``. ``success`` is asked about observations as they were.

        Args:
            steps: that are played to measure by.
            seed: of starts and actions.

        Example:
            >>> import functools, gymnasium
            >>> moon = TaskSpec("moon", functools.partial(gymnasium.make, "Pendulum-v1", g=1.6)).normalized()
            >>> [round(number, 2) for number in moon.normalizer[1]]
            [0.69, 0.65, 1.59]
        """
        seen = replace(self, normalizer=None).sample_observations(steps=steps, seed=seed)
        mean, scale = np.mean(seen, axis=0), np.std(seen, axis=0)
        scale[scale < 1e-8] = 1.0  # what never changes
        return replace(self, normalizer=(tuple(mean.tolist()), tuple(scale.tolist())))

    def sample_observations(self, *, steps: int = 1000, seed: int = 0) -> NDArray[np.float64]:
        """What random actions meet, such as to normalise a policy by before it is trained.

        Args:
            steps: that are played.
            seed: of starts and actions.

        Returns:
            ``(steps, O)``.
        """
        check_integers(1, steps=steps)
        draws, env, seen = np.random.RandomState(seed), self.make(), []
        ended, episode = True, 0
        for _ in range(steps):
            if ended:
                observation, episode = self.begin(env, seed + episode), episode + 1
            seen.append(observation)
            result = self.play(env, draws.uniform(-1, 1, self.action_size))
            observation, ended = result.observation, result.ended
        close(env)
        return np.stack(seen)

    def begin(self, env: Any, seed: int) -> NDArray[np.float64]:
        """Begin an episode in an environment of this task.

        Args:
            env: as `make` gives it.
            seed: from which the episode's start follows.

        Returns:
            The first observation, ``(O,)``.

        Raises:
            ValueError: what ``reset`` returned is not what gymnasium's does, or not finite.
        """
        given = self._call("reset", env.reset, seed=seed)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ValueError(
                f"Expected `reset` of {self.name} to return an observation and info, as gymnasium's does, but got "
                f"{type(given).__name__}. Return the pair (observation, {{}})."
            )
        return self._seen(given[0])

    def play(self, env: Any, action: NDArray[np.float64]) -> StepResult:
        """Play a step in an environment of this task.

        Shape:
            action ``(A,)``, each from -1 to 1.

        Raises:
            ValueError: what ``step`` returned is not what gymnasium's does, or not finite, or ``success`` says neither
                yes nor no.
        """
        result = self._call("step", env.step, self.played(action))
        check_step(self.name, result)
        observation, reward, terminated, truncated, _ = result
        success, reward = self.succeeded(*result), float(np.asarray(reward).item())
        return StepResult(self._seen(observation), reward, success, bool(truncated), bool(terminated))

    def _seen(self, observation: Any) -> NDArray[np.float64]:
        """An observation as numbers, checked and normalised."""
        shape = (self.observation_size,)
        try:
            seen = np.array(observation, dtype=np.float64)
        except (TypeError, ValueError):
            expected = f"observations of {self.name} to be arrays of shape {shape}, as its space says"
            got = f"{type(observation).__name__}. Declare in `observation_space` what is seen, and {FLATTEN}."
            raise ValueError(f"Expected {expected}, but got {got}") from None
        if seen.shape != shape:
            expected = f"observations of {self.name} of shape {shape}, as its space says"
            raise ValueError(f"Expected {expected}, but got {seen.shape}. Check the environment.")
        if not np.isfinite(seen).all():
            expected = f"observations of {self.name} to be finite"
            raise ValueError(f"Expected {expected}, but got {seen.tolist()}. Check the environment.")
        if self.normalizer is not None:
            mean, scale = self.normalizer
            seen = (seen - mean) / scale
        return seen

    def _call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what a user wrote, and name the task where that raises an exception."""
        try:
            return function(*args, **kwargs)
        except ImportError:
            raise  # which says what to install
        except Exception as error:
            raise RuntimeError(
                f"Expected `{what}` of {self.name} to return without an exception, but it raised "
                f"{type(error).__name__}: {str(error).rstrip('.')}. The traceback above says where."
            ) from error

    def played(self, action: ArrayLike) -> NDArray[Any]:
        """The action that the environment takes, for one from -1 to 1; what lies outside is clipped.

        Whole numbers share the range equally.

        Shape:
            ``(A,)`` to ``(A,)``, or ``(N, A)`` to ``(N, A)``.

        Raises:
            ValueError: it has another size, or is not finite.
        """
        _, low, high, kind, _ = self._spaces
        action = np.asarray(action, np.float64)
        if action.shape[-1:] != low.shape or not np.isfinite(action).all():
            raise ValueError(f"Expected finite actions of shape {low.shape} for {self.name}, but got {action!r}.")
        if np.issubdtype(kind, np.integer):
            scaled = np.floor(low + (np.clip(action, -1, 1) + 1) / 2 * (high - low + 1))
        else:
            scaled = (high + low) / 2 + np.clip(action, -1, 1) * ((high - low) / 2)
        return np.clip(scaled, low, high).astype(kind)

    def warn_of_units(self) -> None:
        """Say that actions beyond -1 to 1 are clipped, where an environment has other bounds, and they its units."""
        _, low, high, *_ = self._spaces
        if np.any(low != -1) or np.any(high != 1):
            warnings.warn(
                f"Expected actions from -1 to 1, which are scaled to the bounds of {self.name}, {low.tolist()} to "
                f"{high.tolist()}, but got some beyond, which are clipped. Give 2 * (action - low) / (high - low) - 1 "
                "for an action in the units of the environment.",
                stacklevel=4,
            )

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
            answer = self._call("success", self.success, *result)
        else:
            _, _, terminated, truncated, info = result
            if self.success not in info and (terminated or truncated):
                keys = "one of " + ", ".join(map(repr, info)) if info else "which has none"
                expected = f"a key of the info of {self.name}, {keys}"
                raise wrong_argument("success", expected, self.success, BY_FUNCTION % self.success)
            answer = info.get(self.success, False)
        said = np.asarray(answer)
        if said.size == 1 and said.dtype.kind in "biuf" and said.item() in (0, 1):
            return bool(said.item())
        raise ValueError(f"Expected `success` of {self.name} to say True or False, but got {answer!r}.")

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to another process: functions by value, where they can be."""
        sent = {name: pickler().dumps(getattr(self, name)) for name in ("make_env", "success")}
        return {**vars(self), **sent}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update({**state, **{name: pickle.loads(state[name]) for name in ("make_env", "success")}})


def pickler() -> ModuleType:
    """What sends functions: cloudpickle takes lambdas and those of a script, too."""
    try:
        import cloudpickle
    except ImportError:
        return pickle
    return cloudpickle
