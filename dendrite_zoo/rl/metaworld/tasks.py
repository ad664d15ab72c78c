"""Meta-World's tasks by name, and the one place that imports Meta-World."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.metaworld import METAWORLD
from dendrite_zoo._core.names import nearest
from dendrite_zoo.rl.spec import TaskSpec

__all__ = ["ACTION_SIZE", "CW10", "MAX_STEPS", "MT10", "MT50", "MetaWorldTask", "OBSERVATION_SIZE", "task_names"]

OBSERVATION_SIZE = 39
"""Hand, gripper and objects now (18 numbers), the same one step ago (18), and the goal (3), in metres."""

ACTION_SIZE = 4
"""The hand's move along x, y and z, and the gripper's force, each from -1 to 1."""

MAX_STEPS = 500
"""Steps of an episode."""

MT10: tuple[str, ...] = tuple(
    """
    reach-v3 push-v3 pick-place-v3 door-open-v3 drawer-open-v3 drawer-close-v3 button-press-topdown-v3
    peg-insert-side-v3 window-open-v3 window-close-v3
    """.split()
)
"""The ten tasks of MT10, in the order of ``metaworld.MT10().train_classes``."""

MT50: tuple[str, ...] = METAWORLD
"""The fifty tasks of MT50, in the order of ``metaworld.MT50().train_classes``."""

CW10: tuple[str, ...] = tuple(
    """
    hammer-v3 push-wall-v3 faucet-close-v3 push-back-v3 stick-pull-v3 handle-press-side-v3 push-v3 shelf-place-v3
    window-close-v3 peg-unplug-side-v3
    """.split()
)
"""The ten tasks of Continual World in their order (Wołczyk et al. 2021, https://arxiv.org/abs/2105.10919), which had
them in version 1."""

BENCHMARKS: dict[str, tuple[str, ...]] = {"mt10": MT10, "mt50": MT50, "cw10": CW10}
"""Lists of tasks that have a name."""

NAMES = f"{', '.join(map(repr, BENCHMARKS))} or names of MT50's tasks"
"""What is expected of names, for a message."""

LEAVING = frozenset(
    """
    box-close-v3 coffee-button-v3 coffee-push-v3 door-open-v3 faucet-close-v3 lever-pull-v3 pick-out-of-hole-v3
    plate-slide-side-v3 plate-slide-back-v3 plate-slide-back-side-v3 peg-unplug-side-v3 stick-push-v3 stick-pull-v3
    push-v3 shelf-place-v3
    """.split()
)
"""The tasks whose scripted experts leave a goal that they have reached, as seen on goals of training; the others stay,
or come back by themselves more often than they would hold it."""


def task_names(tasks: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of a benchmark's tasks, or check a list of names.

    Args:
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` (Continual World's), the name of one task, or several names.

    Raises:
        ValueError: a name is unknown or repeated, or there are no names.

    Example:
        >>> len(task_names("mt50")), task_names("reach-v3"), task_names(["push-v3", "reach-v3"])
        (50, ('reach-v3',), ('push-v3', 'reach-v3'))
    """
    if isinstance(tasks, str):
        tasks = BENCHMARKS.get(tasks.lower(), (tasks,))
    names = tuple(tasks) if isinstance(tasks, Iterable) else (tasks,)
    for name in names:
        if name not in MT50:
            meant = nearest(str(name), [*MT50, *BENCHMARKS], cutoff=0.7).strip()
            own = f"For an environment of your own, give TaskSpec({name!r}, make_env)."
            raise wrong_argument("tasks", NAMES, name, meant or own)
    if not names or len(set(names)) < len(names):
        raise wrong_argument("tasks", "one or more different names", list(names))
    return names


def metaworld() -> ModuleType:
    """Import Meta-World, or say how to install it.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing, or what the variable ``MUJOCO_GL`` names.
    """
    try:
        import metaworld
    except Exception as error:
        if (renderer := os.environ.get("MUJOCO_GL")) and not isinstance(error, ModuleNotFoundError):
            raise ImportError(
                f"MuJoCo cannot be imported with MUJOCO_GL={renderer}: {type(error).__name__}: {error}. Unset it, for "
                "pictures alone need it; or install what it names (for osmesa: apt-get install libosmesa6)."
            ) from error
        if not isinstance(error, ImportError):
            raise
        install = "of the [metaworld] extra: pip install 'dendrite-zoo[metaworld]'"
        raise ImportError(f"Meta-World's tasks need {error.name}, {install}") from error
    return metaworld


class MetaWorldTask(TaskSpec):
    """One of Meta-World's tasks as a `TaskSpec`, played with goals of its own and by the paths made for it.

    Args:
        name: of one of MT50's tasks.

    Example:
        >>> MetaWorldTask("reach-v3").observation_size
        39
    """

    num_goals: ClassVar[int | None] = 50
    most_steps: ClassVar[float] = MAX_STEPS

    def __init__(self, name: str) -> None:
        super().__init__(name, partial(_environment, name), success="success")

    def normalized(self, **_: Any) -> "TaskSpec":
        """Meta-World's tasks see the same kinds of numbers: a policy normalises them for all.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"Expected a task of your own to normalise, but got {self.name}. A policy does it for all tasks."
        )

    def warn_of_units(self) -> None:
        """Meta-World's bounds are -1 and 1."""

    observation_size = OBSERVATION_SIZE
    action_size = ACTION_SIZE
    max_steps = MAX_STEPS


def _environment(name: str) -> Any:
    """Meta-World's own environment of a task."""
    import gymnasium

    metaworld()
    return gymnasium.make("Meta-World/MT1", env_name=name, disable_env_checker=True)
