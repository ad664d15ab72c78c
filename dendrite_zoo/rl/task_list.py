"""The tasks that a user names: Meta-World's by their names, others by what makes their environments."""

import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.rl.episodes import ENDLESS, MOST_STEPS, EpisodeConfig
from dendrite_zoo.rl.metaworld.tasks import BENCHMARKS, MT50, NAMES, MetaWorldTask, task_names
from dendrite_zoo.rl.spec import TaskSpec

__all__ = ["Tasks", "task_specs"]

LONG = 1000
"""Steps of an episode without a limit, of which is warned in an evaluation."""

Tasks: TypeAlias = str | Sequence[str] | Sequence[TaskSpec] | Sequence[Callable[[], Any]]
"""``"mt10"``, ``"mt50"``, ``"cw10"`` or names of Meta-World's tasks; or a `TaskSpec` each, or functions that make
environments."""


def task_specs(tasks: Tasks) -> tuple[TaskSpec, ...]:
    """The tasks of a benchmark, of a list of names, or of one's own.

    Args:
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"``, or names of Meta-World's tasks; or `TaskSpec`; or functions that make
            environments, which are called ``task_0``, ``task_1`` and so on.

    Raises:
        ValueError: something else is among them, or a name is unknown or repeated, or there are none.

    Example:
        >>> [task.name for task in task_specs([*task_specs(["reach-v3"]), lambda: None])]
        ['reach-v3', 'task_1']
    """
    if isinstance(tasks, str):
        tasks = task_names(tasks)
    several = list(tasks) if isinstance(tasks, Iterable) else [tasks]
    specs = tuple(_task_spec(task, number) for number, task in enumerate(several))
    names = [spec.name for spec in specs]
    if not names or len(set(names)) < len(names):
        raise wrong_argument("tasks", "one or more tasks of different names", names)
    _warn_of_late_binding(specs)
    return specs


def _warn_of_late_binding(specs: Sequence[TaskSpec]) -> None:
    """Functions that a loop makes all read its variable when they are called, and then make its last environment."""
    alike: dict[Any, list[TaskSpec]] = {}
    for spec in specs:
        if isinstance(code := getattr(spec.make_env, "__code__", None), CodeType):
            function: Any = spec.make_env
            cells = tuple(map(id, function.__closure__ or ()))
            kwargs = tuple((function.__kwdefaults__ or {}).items())
            what = (code, cells, tuple(map(id, function.__defaults__ or ())), str(kwargs), spec.normalizer)
            alike.setdefault(what, []).append(spec)
    for several in alike.values():
        functions, rules = {id(spec.make_env) for spec in several}, {_rule(spec.success) for spec in several}
        if len(functions) > 1 and len(rules) == 1:
            warnings.warn(
                f"{', '.join(spec.name for spec in several)}: their functions `make_env` are the same, so that all "
                "make one and the same environment. In a loop a lambda reads the loop's variable only when it is "
                "called, which is its last value then: give functools.partial(make, value).",
                stacklevel=4,
            )


def _rule(success: Any) -> Any:
    """What tells one `TaskSpec.success` from another."""
    return getattr(success, "__code__", success)


def _task_spec(task: Any, number: int) -> TaskSpec:
    if isinstance(task, TaskSpec):
        return task
    if isinstance(task, str):
        return MetaWorldTask(*task_names([task]))
    if callable(task) or hasattr(task, "reset"):
        return TaskSpec(f"task_{number}", task)
    raise wrong_argument("tasks", f"{NAMES}, or a list of TaskSpec(name, make_env)", task)


def without_success(specs: Sequence[TaskSpec]) -> list[str]:
    """The names of the tasks that do not say what success is."""
    return [spec.name for spec in specs if spec.success is None]


def played_metric(specs: Sequence[TaskSpec]) -> str:
    """What a `dendrite_zoo.callbacks.SuccessLogger` logs that a matrix is made of."""
    return "val/return" if without_success(specs) else "val/success"


def say_success(specs: Sequence[TaskSpec]) -> bool:
    """Whether tasks that are evaluated together say what success is.

    Raises:
        ValueError: some do, and others do not.
    """
    silent = without_success(specs)
    if silent and len(silent) < len(specs):
        raise ValueError(
            f"Expected all tasks or none to say what success is, but {', '.join(silent)} do not. Give "
            "TaskSpec(success=...) for these, too, or evaluate them by themselves."
        )
    return not silent


def benchmark_of(tasks: Sequence[str], *, sequential: bool = False) -> str:
    """What a record calls a list of tasks.

    Example:
        >>> benchmark_of(["push-v3", "reach-v3"], sequential=True), benchmark_of(["moon"])
        ('metaworld-continual-2', 'own-1-tasks')
        >>> benchmark_of(BENCHMARKS["cw10"], sequential=True), benchmark_of(BENCHMARKS["mt10"])
        ('metaworld-cw10', 'metaworld-mt10')
    """
    kind = "metaworld" if set(tasks) <= set(MT50) else "own"
    name = next((name for name, known in BENCHMARKS.items() if known == tuple(tasks)), None)
    if sequential and name != "cw10":
        return f"{kind}-continual-{len(tasks)}"
    return f"metaworld-{name}" if name else f"{kind}-{len(tasks)}-tasks"


def equal_sizes(specs: Sequence[TaskSpec]) -> tuple[int, int]:
    """The sizes of observations and actions, which one policy has for all tasks."""
    first, *others = specs
    sizes = first.observation_size, first.action_size
    for spec in others:
        if (spec.observation_size, spec.action_size) != sizes:
            both = [
                f"{one.name} with {one.observation_size} numbers in an observation and {one.action_size} in an action"
                for one in (first, spec)
            ]
            raise ValueError(
                f"Expected tasks of equal sizes, as one policy plays them all, but got {both[0]}, and {both[1]}. Wrap "
                "their environments so that they agree, or learn them by policies of their own."
            )
    return sizes


def check_policy(policy: Any, specs: Sequence[TaskSpec]) -> None:
    """Refuse environments of other sizes than a policy says that it is for.

    Raises:
        ValueError: they are.
    """
    config, sizes = getattr(policy, "config", {}), equal_sizes(specs)
    own = config.get("observation_size", sizes[0]), config.get("action_size", sizes[1])
    if own != sizes:
        words = "{} numbers in an observation and {} in an action"
        raise ValueError(
            f"Expected environments with {words.format(*own)}, as the policy has, but got {specs[0].name} with "
            f"{words.format(*sizes)}. Train a policy with observation_size={sizes[0]}, action_size={sizes[1]} for it."
        )


def episode_config(
    spec: TaskSpec, num_goals: int | None, max_steps: int | None, common: dict[str, Any]
) -> EpisodeConfig:
    """How a task's episodes are played where nothing is said about it."""
    if num_goals is None:
        num_goals = spec.num_goals or (50 if common["order"] == "each-once" else ENDLESS)
    limit = max_steps
    if isinstance(spec, MetaWorldTask) and max_steps is None:
        limit = spec.max_steps
    return EpisodeConfig(spec.name, num_goals=num_goals, max_steps=limit, spec=spec, **common)


def environment_arguments(data: Any) -> Mapping[str, Any]:
    """The argument ``environments`` of `OnlineTasks`; of other data there is none."""
    return getattr(data, "hparams", {}).get("environments") or {}


def rules_of(data: Any, specs: Sequence[TaskSpec]) -> dict[str, int]:
    """How long an episode and an action last in environments of one's own, where the data of a fit say it.

    Meta-World's are played for 500 steps, an action each, whatever a policy learned from.
    """
    given = {"max_steps": getattr(data, "max_steps", None), **environment_arguments(data)}
    own = not any(isinstance(spec, MetaWorldTask) for spec in specs)
    return {name: given[name] for name in ("max_steps", "action_repeat") if own and given.get(name) is not None}


def play_options(data: Any) -> dict[str, Any]:
    """How a policy plays test goals in the environments of the data of a fit: arguments of an evaluation."""
    processes = getattr(data, "num_processes", environment_arguments(data).get("num_processes", 2))
    options = {"fast": getattr(data, "fast", False), "num_processes": processes}
    return options | rules_of(data, getattr(data, "specs", ()))


def say_what_is_endless(specs: Sequence[TaskSpec], max_steps: int | None, steps: NDArray[np.int64]) -> bool:
    """Warn where an episode goes on that nothing limits; give whether somebody has to look on.

    Args:
        specs: the tasks.
        max_steps: of an episode; None for the environments' own.
        steps: of each episode so far, ``(T, G)``.
    """
    unlimited = [max_steps is None and spec.max_steps is None for spec in specs]
    long = [spec for spec, free, most in zip(specs, unlimited, steps.max(axis=1), strict=True) if free and most >= LONG]
    for spec in long:
        warnings.warn(
            f"An episode of {spec.name} has not ended in {LONG:,} steps, and its environment has no limit of time: "
            f"it is cut off after {MOST_STEPS['each-once']:,}. Give max_steps= for another length, or wrap it: "
            "gymnasium.wrappers.TimeLimit(env, max_episode_steps=...).",
            stacklevel=4,
        )
    return any(unlimited) and not long


def check_sent(specs: Sequence[TaskSpec]) -> None:
    """Refuse what cannot be sent to another process, before one is started."""
    for spec in specs:
        try:
            pickle.dumps(spec)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Expected `make_env` and `success` of {spec.name} to be what can be sent to another process, but got: "
                f"{error}. Make them functions of a module, use functools.partial(gymnasium.make, ...), or give "
                "num_processes=0, with which all environments run in this process."
            ) from None
