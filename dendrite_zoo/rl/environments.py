"""Environments of several tasks, many at a time: vectorised over a few processes that share memory."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo.rl.episodes import Order, Split, Step
from dendrite_zoo.rl.metaworld.tasks import MetaWorldTask, metaworld
from dendrite_zoo.rl.pool import WorkerPool
from dendrite_zoo.rl.spec import TaskSpec
from dendrite_zoo.rl.task_list import Tasks, check_sent, episode_config, equal_sizes, task_specs

__all__ = ["Step", "TaskEnvironments"]

_DECISIVE = ("split", "num_goals", "order", "seed", "max_steps", "stop_at_success", "action_repeat", "reward_version")

Opened = TypeVar("Opened", bound="TaskEnvironments")


class TaskEnvironments:
    """Environments of several tasks, Meta-World's or your own, for training or for evaluation.

    Meta-World's observations are those of MT10 and MT50, with the goal visible, as float64 and as the environments
    return them: they lie outside ``observation_space`` and are not clipped to it. An episode ends after ``max_steps``,
    and with success only if ``stop_at_success``; others also as their environments say. The context of a network is
    ``task_index``, or ``one_hot``.

    The environments are divided among ``num_processes``, which a context manager ends::

        with TaskEnvironments("mt10") as envs:
            observation = envs.reset()
            step = envs.step(policy(observation, envs.task_index))

    Args:
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` or names of Meta-World's tasks, or a list of `TaskSpec` or of
            functions that make environments, all with observations and actions of the same sizes.
        envs_per_task: environments of each task; those of a task stand side by side.
        first_env: number of the first environment. Each draws its goals by its number, so that learners in several
            processes can share the goals and not their order.
        split: the goals: ``"train"``, ``"val"`` to choose models on, ``"test"`` to report. Environments without goals
            have starts: the ``seed`` of a ``reset``.
        num_goals: how many goals a task has; by default 50, and where episodes of other environments than Meta-World's
            are drawn at random, a new start for each.
        order: ``"random"``: each environment draws a goal for each episode, from generators of its own.
            ``"each-once"``, for evaluation: every goal of a task is played once, in order, shared among its
            environments; then they are ``finished``.
        num_processes: 0 runs the environments in this process, which is faster where a step takes microseconds.
        seed: of goals and their order. Equal seeds give equal episodes for any ``num_processes``.
        fast: faster Python paths of Meta-World's tasks, equal to its own to 1e-9.
        max_steps: length of an episode, at most 500 in Meta-World, and 500 there by default; else by default that of
            the environment itself.
        stop_at_success: end an episode with its first success: for evaluation.
        action_repeat: how many steps an action is played for; an episode may end before. Rewards are summed, and
            ``max_steps`` counts steps.
        steps_after_success: with ``stop_at_success``, how many steps later it ends.
        reward_version: of Meta-World's rewards, ``"v2"`` or ``"v1"``.
        timeout: seconds to wait for an answer of a process; five times as many while the environments are made.

    Attributes:
        tasks: names of the tasks.
        specs: the `TaskSpec` of each.
        observation_size: numbers in an observation, O.
        action_size: numbers in an action, A.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
        ValueError: an argument is out of range, or an environment has not the form that `TaskSpec` describes.
        RuntimeError: from any method, when a process crashed, hung or raised an exception; it names the task.

    Source:
        Yu et al. 2019, Meta-World, https://arxiv.org/abs/1910.10897.
    """

    def __init__(
        self,
        tasks: Tasks,
        *,
        envs_per_task: int = 1,
        first_env: int = 0,
        split: Split = "train",
        num_goals: int | None = None,
        order: Order = "random",
        num_processes: int = 2,
        seed: int = 0,
        fast: bool = False,
        max_steps: int | None = None,
        stop_at_success: bool = False,
        action_repeat: int = 1,
        steps_after_success: int = 0,
        reward_version: str = "v2",
        timeout: float = 60.0,
    ) -> None:
        self.specs = task_specs(tasks)
        self.tasks = tuple(spec.name for spec in self.specs)
        check_integers(1, envs_per_task=envs_per_task)
        check_integers(0, first_env=first_env, num_processes=num_processes)
        self.num_envs = len(self.tasks) * envs_per_task
        common: dict[str, Any] = {"split": split, "order": order, "seed": seed, "stop_at_success": stop_at_success}
        common |= {"action_repeat": action_repeat, "reward_version": reward_version}
        common |= {"stride": envs_per_task, "fast": fast}
        common["steps_after_success"] = steps_after_success
        each = [episode_config(spec, num_goals, max_steps, common) for spec in self.specs]
        self.config = replace(each[0], env=first_env)
        own = {name: getattr(self.config, name) for name in _DECISIVE}
        self._settings = {"tasks": list(self.tasks), "num_envs": self.num_envs, "first_env": first_env} | own
        self.task_index: NDArray[np.int64] = np.repeat(np.arange(len(self.tasks), dtype=np.int64), envs_per_task)
        configs = [
            replace(each[task], env=first_env + env, first=env % envs_per_task)
            for env, task in enumerate(self.task_index)
        ]
        if any(isinstance(spec, MetaWorldTask) for spec in self.specs):
            metaworld()  # which fails here, and not in a process, where the extra is missing
        self.observation_size, self.action_size = sizes = equal_sizes(self.specs)
        if num_processes:
            check_sent(self.specs)
        self._started = False
        self._pool = WorkerPool(configs, sizes, num_processes, timeout)
        self._table = self._pool.table

    @property
    def one_hot(self) -> NDArray[np.float64]:
        """The tasks as one-hot contexts, ``(N, tasks)``."""
        return np.eye(len(self.tasks))[self.task_index]

    @property
    def observation(self) -> NDArray[np.float64]:
        """The current observations, ``(N, O)``, after `reset`, `step` or `load_state_dict`."""
        return self._table["observation"].copy()

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Which environments have played all their goals, ``(N,)``; their steps do nothing."""
        return self._table["finished"].copy()

    def reset(self) -> NDArray[np.float64]:
        """Abandon all episodes and begin the next ones; with ``order="each-once"`` begin again with the first goal.

        Shape:
            ``(N, O)``.
        """
        self._pool.request("reset")
        self._started = True
        return self.observation

    def step(self, actions: ArrayLike, resting: NDArray[np.bool_] | None = None) -> Step:
        """Apply one action in each environment; where an episode ends, the next begins at once.

        Args:
            actions: ``(N, A)``, from -1 to 1.
            resting: ``(N,)``, which environments stay where they are, with no step; None for none.

        Raises:
            ValueError: actions of another shape, or not finite; no environment has moved.
            RuntimeError: before `reset`.
        """
        actions = checked_actions(actions, (self.num_envs, self.action_size))
        self._pool.wait()  # an answer left over from an interrupt may still read the table
        self._table["action"], self._table["resting"] = actions, False if resting is None else resting
        self._request("step")
        return Step(*(self._table[name].copy() for name in Step._fields))

    def expert_actions(self) -> NDArray[np.float64]:
        """Return the actions of Meta-World's scripted experts for the current observations.

        Shape:
            ``(N, 4)``, clipped to [-1, 1].

        Raises:
            ValueError: a task is not Meta-World's.
        """
        for spec in self.specs:
            if not isinstance(spec, MetaWorldTask):
                raise ValueError(
                    f"Expected tasks of Meta-World, which have scripted experts, but got {spec.name}. Give a policy "
                    "that shows what to do: collect_demonstrations(..., expert=policy)."
                )
        self._request("expert_actions")
        return self._table["expert_action"].copy()

    def render(self, *, height: int = 240, width: int = 320) -> list[NDArray[np.uint8]]:
        """Return a picture of each environment as it stands, ``(height, width, 3)``.

        Environments of your own draw in the size that they have, and need ``render_mode="rgb_array"``.

        Args:
            height: of pictures of Meta-World, in pixels.
            width: of pictures of Meta-World.

        Raises:
            ValueError: an environment of your own draws none.
            ImportError: there is no OpenGL to draw Meta-World by; the message says what to install.
        """
        shares = self._request("render", height, width)
        pictures = {row: picture for share in shares for row, picture in share.items()}
        return [pictures[row] for row in range(self.num_envs)]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as tensors and plain values: a checkpoint of it needs no pickle.

        It includes the physics, or the actions of the episode, which are then repeated: a run that continues from it is
        equal to the last bit to one without interruption.
        """
        states = {row: state for share in self._request("state_dict") for row, state in share.items()}
        environments = [_converted(states[row], np.ndarray, torch.from_numpy) for row in range(self.num_envs)]
        return {"settings": self._settings, "environments": environments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, in place of `reset`.

        Where an environment, repeating the actions, does not see again what it saw, there is a warning.

        Raises:
            ValueError: it is of other tasks, of another number of environments, or of other episodes: goals, seed,
                length, rewards.
        """
        settings = self._settings, {"action_repeat": 1, **state["settings"]}  # earlier versions do not say it
        if other := [name for name, value in self._settings.items() if settings[1][name] != value]:
            expected, got = ({name: values[name] for name in other} for values in settings)
            raise ValueError(
                f"Expected the state of {self.num_envs} environments with {expected}, but got the state of "
                f"{len(state['environments'])} environments with {got}. Make TaskEnvironments with the same arguments."
            )
        states = dict(enumerate(_converted(state["environments"], torch.Tensor, torch.Tensor.numpy)))
        elsewhere = [row for share in self._pool.request("load_state_dict", states) for row in share]
        self._started = True
        if names := sorted({self.tasks[self.task_index[row]] for row in elsewhere}):
            warnings.warn(
                f"{', '.join(names)}: where the steps of an episode were repeated to resume it, the environment saw "
                "something else than before. The run goes on from there, and differs from one without interruption. "
                "Let the environment draw all random numbers from `self.np_random`, which reset(seed=) seeds.",
                stacklevel=2,
            )

    def close(self) -> None:
        """End the processes, for good."""
        self._pool.close()

    def task_of(self, rows: NDArray[np.int64]) -> Callable[[int], TaskSpec]:
        """Gives the task of the first of some rows, of the second, and so on."""
        return lambda place: self.specs[self.task_index[rows[place]]]

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, name: str, *arguments: Any) -> list[Any]:
        if not self._started:
            raise RuntimeError("No episode has begun: expected reset() before anything else. Call it once.")
        return self._pool.request(name, *arguments)


def _converted(state: Any, kind: type, convert: Any) -> Any:
    """Convert all values of one type in nested dicts and lists."""
    if isinstance(state, dict):
        return {key: _converted(value, kind, convert) for key, value in state.items()}
    if isinstance(state, list):
        return [_converted(value, kind, convert) for value in state]
    return convert(state) if isinstance(state, kind) else state


def checked_actions(
    actions: ArrayLike | torch.Tensor, shape: tuple[int, int], of: Callable[[int], TaskSpec] | None = None
) -> NDArray[np.float64]:
    """Return a policy's actions as an array that can be played.

    Args:
        actions: on any device and with or without gradient.
        shape: what is expected: the number of observations that they were chosen by, and the size of an action.
        of: gives the task of a row, to say so where what is beyond -1 to 1 may be in the units of its environment.

    Raises:
        ValueError: actions of another shape, or not finite.
    """
    expected = f"Expected actions of shape {shape}, a row for each of {shape[0]} observations"
    try:
        array = np.asarray(actions.detach().cpu() if isinstance(actions, torch.Tensor) else actions, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{expected}, but got a {type(actions).__name__}. Return the actions alone.") from None
    if array.shape != shape:
        raise ValueError(f"{expected}, but got {array.shape}. Check the policy's output.")
    if rows := np.flatnonzero(~np.isfinite(array).all(axis=1)).tolist():
        raise ValueError(f"Expected actions from -1 to 1, but got NaN or infinity in rows {rows}. Check the policy.")
    if of is not None:
        for row in np.flatnonzero((np.abs(array) > 1 + 1e-6).any(axis=1)).tolist():
            of(row).warn_of_units()
    return array
