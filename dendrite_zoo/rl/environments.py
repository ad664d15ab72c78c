"""Meta-World's tasks, many at a time: vectorised over a few processes that share memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dendrite_zoo.rl.metaworld.episodes import Order, Recipe
from dendrite_zoo.rl.metaworld.goals import Split, goals
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, MAX_STEPS, metaworld, task_names
from dendrite_zoo.rl.shard import ROW, Shard
from dendrite_zoo.rl.worker import Worker, shared_table

__all__ = ["Step", "TaskEnvironments", "checked_actions"]


class Step(NamedTuple):
    """What a step of all N environments gave.

    Attributes:
        observation: what to act on next, ``(N, 39)``; where an episode ended, the first of the next one.
        reward: ``(N,)``.
        success: ``(N,)``, whether the task is solved at this step.
        truncated: ``(N,)``, whether the episode ended with this step. It is a limit of time and not an end of the
            task: learners bootstrap from ``final_observation``.
        final_observation: what the step really led to, ``(N, 39)``; that of ``observation`` where no episode ended.
        goal: ``(N,)``, number of the goal that the step was played at, -1 where all were played before.
    """

    observation: NDArray[np.float64]
    reward: NDArray[np.float64]
    success: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_observation: NDArray[np.float64]
    goal: NDArray[np.int64]


class TaskEnvironments:
    """Environments of several tasks of Meta-World, for training or for evaluation.

    Observations are those of MT10 and MT50, the goal in sight, as float64 and as the environments give them: they
    lie outside ``observation_space`` and are not clipped to it. An episode ends after ``max_steps`` and never
    with success, unless asked. A context is ``task_index``, or ``one_hot`` for networks that want it so.

    The environments are dealt out to ``num_processes``, which a context manager ends::

        with TaskEnvironments("mt10") as envs:
            observation = envs.reset()
            step = envs.step(policy(observation, envs.task_index))

    Args:
        tasks: ``"mt10"``, ``"mt50"`` or names.
        envs_per_task: environments of each task; those of a task stand side by side.
        first_env: number of the first environment. Each draws its goals by its number, so that learners in several
            processes can share the goals and not their order.
        split: the goals: ``"train"``, ``"validation"`` to choose models on, ``"unseen"`` to report.
        num_goals: how many goals a task has.
        order: ``"random"``: each environment draws a goal for each episode, from generators of its own.
            ``"each-once"``, for evaluation: every goal of a task is played once, in order, shared among its
            environments; then they are ``finished``.
        num_processes: 0 plays in this process.
        seed: of goals and their order. Equal seeds give equal episodes, whatever ``num_processes``.
        fast: faster Python paths, equal to Meta-World's own to 1e-9.
        max_steps: length of an episode, at most 500.
        stop_at_success: end an episode with its first success: for evaluation.
        reward_version: of Meta-World's rewards, ``"v2"`` or ``"v1"``.
        timeout: seconds after which a process that does not answer is given up; making the environments may take
            five times as long.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
        ValueError: an argument is out of range.
        RuntimeError: from any method, when a process crashed, hung or raised; it names the task.

    Source:
        Yu et al. 2019, Meta-World, https://arxiv.org/abs/1910.10897.
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        *,
        envs_per_task: int = 1,
        first_env: int = 0,
        split: Split = "train",
        num_goals: int = 50,
        order: Order = "random",
        num_processes: int = 2,
        seed: int = 0,
        fast: bool = False,
        max_steps: int = MAX_STEPS,
        stop_at_success: bool = False,
        reward_version: str = "v2",
        timeout: float = 60.0,
    ) -> None:
        self.tasks = task_names(tasks)
        self.envs_per_task, self.timeout = envs_per_task, timeout
        goals(self.tasks[0], split, count=num_goals, seed=seed)  # checks them
        _check(envs_per_task, first_env, num_processes, max_steps, order, stop_at_success, reward_version)
        metaworld()
        self.num_envs = len(self.tasks) * envs_per_task
        self.task_index: NDArray[np.int64] = np.repeat(np.arange(len(self.tasks), dtype=np.int64), envs_per_task)
        settings: dict[str, Any] = {
            "split": split,
            "num_goals": num_goals,
            "order": order,
            "seed": seed,
            "max_steps": max_steps,
            "stop_at_success": stop_at_success,
            "reward_version": reward_version,
        }
        self._settings = {"first_env": first_env, **settings}  # which make the episodes what they are
        self._recipes = {
            env: Recipe(
                task=self.tasks[env // envs_per_task],
                env=first_env + env,
                first=env % envs_per_task,
                stride=envs_per_task,
                fast=fast,
                **settings,
            )
            for env in range(self.num_envs)
        }
        self._started = False
        self._workers: list[Worker] = []
        self._close = weakref.finalize(self, _end, self._workers, os.getpid())
        if num_processes == 0:
            self._table = np.zeros(self.num_envs, dtype=ROW)
            self._shard = Shard(self._table, self._recipes)
            return
        memory, self._table = shared_table(self.num_envs)
        processes = min(num_processes, self.num_envs)
        for share in range(processes):
            rows = range(share, self.num_envs, processes)  # dealt out like cards: slow tasks stand side by side
            self._workers.append(Worker(memory, {row: self._recipes[row] for row in rows}))
        self._settle(5 * timeout)

    @property
    def one_hot(self) -> NDArray[np.float64]:
        """The tasks as one-hot contexts, ``(N, tasks)``."""
        return np.eye(len(self.tasks))[self.task_index]

    @property
    def observation(self) -> NDArray[np.float64]:
        """What the next actions answer to, ``(N, 39)``: as `reset`, `step` or `load_state_dict` left it."""
        return self._table["observation"].copy()

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Which environments played all their goals, ``(N,)``; their steps do nothing."""
        return self._table["finished"].copy()

    def reset(self) -> NDArray[np.float64]:
        """Leave all episodes and begin the next ones; with ``order="each-once"`` begin the list anew.

        Shape:
            ``(N, 39)``.
        """
        self._ask("reset")
        self._started = True
        return self._table["observation"].copy()

    def step(self, actions: ArrayLike) -> Step:
        """Play one action in each environment; where an episode ends, the next begins at once.

        Shape:
            ``(N, 4)``, from -1 to 1.

        Raises:
            ValueError: actions of another shape, or not finite; nothing was played.
            RuntimeError: before `reset`.
        """
        actions = checked_actions(actions, self.num_envs)
        self._need_reset()
        self._settle(self.timeout)
        self._table["action"] = actions
        self._ask("step")
        return Step(*(self._table[name].copy() for name in Step._fields))

    def expert_actions(self) -> NDArray[np.float64]:
        """Give what Meta-World's scripted experts would do now.

        Shape:
            ``(N, 4)``, clipped to -1 .. 1.
        """
        self._need_reset()
        self._ask("expert_actions")
        return self._table["expert_action"].copy()

    def state_dict(self) -> dict[str, Any]:
        """Give everything that changes, as tensors and plain values: a checkpoint of it needs no pickle.

        It holds the physics too: what goes on from it is equal to the last bit to what was not interrupted.
        """
        self._need_reset()
        states = {row: state for share in self._ask("state_dict") for row, state in share.items()}
        environments = [_converted(states[row], np.ndarray, torch.from_numpy) for row in range(self.num_envs)]
        return {"tasks": list(self.tasks), "settings": dict(self._settings), "environments": environments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, in place of `reset`; the next actions answer to ``observation``.

        Raises:
            ValueError: it is of other tasks, of another number of environments, or of other episodes: goals, seed,
                length, rewards.
        """
        theirs = [environment["task"] for environment in state["environments"]]
        ours = [recipe.task for recipe in self._recipes.values()]
        if theirs != ours:
            raise ValueError(
                f"the state of {len(theirs)} environments of {state['tasks']} came; expected one of "
                f"{len(ours)} environments of {list(self.tasks)}. Make TaskEnvironments as they were."
            )
        settings = state.get("settings", self._settings)  # earlier versions wrote none
        if other := [name for name, value in self._settings.items() if settings.get(name) != value]:
            came, expected = ({name: of.get(name) for name in other} for of in (settings, self._settings))
            raise ValueError(
                f"the state of environments with {came} came; expected {expected}. Make TaskEnvironments as they were."
            )
        states = dict(enumerate(_converted(state["environments"], torch.Tensor, torch.Tensor.numpy)))
        self._ask("load_state_dict", states)
        self._started = True

    def close(self) -> None:
        """End the processes. What is closed stays closed."""
        self._close()

    def __enter__(self) -> TaskEnvironments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _need_reset(self) -> None:
        if not self._started:
            raise RuntimeError("no episode has begun; expected reset() before anything else. Call it once.")

    def _ask(self, request: str, *arguments: Any) -> list[Any]:
        """Have every shard do something, and wait for all."""
        if not self._close.alive:
            raise RuntimeError("these environments are closed; expected open ones. Make new TaskEnvironments.")
        if not self._workers:
            return [getattr(self._shard, request)(*arguments)]
        self._settle(self.timeout)
        for worker in self._workers:
            with suppress(OSError):  # it ended: the answer that does not come says so
                worker.send(request, *arguments)
        return self._settle(self.timeout)

    def _settle(self, timeout: float) -> list[Any]:
        """Wait for the answers that are due; some were left over if Ctrl-C came between question and answer."""
        return [self._answer(worker, timeout) for worker in self._workers if worker.waiting]

    def _answer(self, worker: Worker, timeout: float) -> Any:
        try:
            return worker.receive(timeout)
        except TimeoutError:
            what, more = f"gave no answer within {timeout:g} s", ""
        except (EOFError, OSError):
            worker.process.join(1)
            what, more = f"ended (exit code {worker.process.exitcode})", ""
        except RuntimeError as error:
            what, more = "raised an exception", f"\n\n{error}"
        busy = [self._recipes[row].task for row in worker.recipes if self._table["busy"][row]]
        at = f"playing {busy[0]}" if busy else f"with {', '.join(sorted({r.task for r in worker.recipes.values()}))}"
        self.close()
        raise RuntimeError(
            f"the process {at} {what}; all of them are closed now. Make new TaskEnvironments; "
            f"num_processes=0 plays in this process, where a debugger can follow.{more}"
        ) from None


def _converted(state: Any, kind: type, convert: Any) -> Any:
    """Convert what is of a kind in nested dicts and lists."""
    if isinstance(state, dict):
        return {key: _converted(value, kind, convert) for key, value in state.items()}
    if isinstance(state, list):
        return [_converted(value, kind, convert) for value in state]
    return convert(state) if isinstance(state, kind) else state


def _end(workers: list[Worker], owner: int) -> None:
    if os.getpid() == owner:  # a forked copy of the owner must not end what it does not own
        for worker in workers:
            worker.close()


def checked_actions(actions: ArrayLike | torch.Tensor, count: int) -> NDArray[np.float64]:
    """Give a policy's actions as an array that can be played.

    Args:
        actions: ``(count, 4)``, of any device and with or without gradient.
        count: of the observations that they answer to.

    Raises:
        ValueError: actions of another shape, or not finite.
    """
    array = np.asarray(actions.detach().cpu() if isinstance(actions, torch.Tensor) else actions, dtype=np.float64)
    if array.shape != (count, ACTION_SIZE):
        raise ValueError(
            f"Actions of shape {array.shape} came for {count} observations; expected {(count, ACTION_SIZE)}, a row for "
            "each. Check the policy's output."
        )
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1)).tolist()
        raise ValueError(
            f"Actions with NaN or infinity came, in rows {rows}; expected numbers from -1 to 1. Nothing was "
            "played. Check the policy."
        )
    return array


def _check(
    envs_per_task: int,
    first_env: int,
    num_processes: int,
    max_steps: int,
    order: str,
    stop_at_success: bool,
    reward_version: str,
) -> None:
    if envs_per_task < 1 or min(first_env, num_processes) < 0 or not 1 <= max_steps <= MAX_STEPS:
        raise ValueError(
            f"envs_per_task={envs_per_task}, first_env={first_env}, num_processes={num_processes}, "
            f"max_steps={max_steps} came; expected 1 or more, 0 or more, 0 or more, and 1 to {MAX_STEPS}. Change what "
            "is out of range."
        )
    if order not in ("random", "each-once"):
        raise ValueError(f"order={order!r} came; expected 'random' or 'each-once'. Choose one.")
    if reward_version not in ("v1", "v2"):
        raise ValueError(f"reward_version={reward_version!r} came; expected 'v1' or 'v2'. Choose one.")
    if stop_at_success and order != "each-once":
        raise ValueError(
            "stop_at_success=True came with order='random'; expected it with order='each-once': learners would "
            "bootstrap wrongly. Leave it out, or evaluate."
        )
