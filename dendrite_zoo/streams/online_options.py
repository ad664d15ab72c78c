"""The arguments of `OnlineTasks` that depend on each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from dendrite_zoo._core.checks import check_flags, check_integers, wrong_argument
from dendrite_zoo._core.names import nearest
from dendrite_zoo.rl import Exploration, TaskSpec
from dendrite_zoo.rl.task_list import without_success

# The arguments of TaskEnvironments that a user may choose; the others follow from those of OnlineTasks.
OPTIONS = ("action_repeat", "fast", "max_steps", "num_goals", "num_processes", "reward_version", "timeout")


def check_rests(specs: Sequence[TaskSpec], solved_every: int) -> None:
    """Refuse to let tasks rest of which none can be solved; those of them all that cannot never rest."""
    check_integers(1, solved_every=solved_every)
    if solved_every > 1 and len(without_success(specs)) == len(specs):
        raise wrong_argument("solved_every", "1 where no task says what success is", solved_every)


def environment_options(given: Any, collect_ahead: bool, exploration: Exploration | None) -> dict[str, Any]:
    """The arguments of the environments that a user has chosen; none of those that follow from `OnlineTasks`.

    Raises:
        ValueError: it names one of those, or one that there is not, or is no mapping.
    """
    if not isinstance(exploration, Exploration | None):
        raise wrong_argument("exploration", "an Exploration, such as Exploration(burst_share=0.35)", exploration)
    if not isinstance(given, Mapping | None):
        expected = "arguments of TaskEnvironments by name, such as {'fast': True}"
        raise wrong_argument("environments", expected, given, "Leave it out for none.")
    options = dict(given or {})
    if collect_ahead and options.get("num_processes") == 0:
        del options["num_processes"]  # the process that collects ahead plays in it, too
    check_flags(fast=options.get("fast", False))
    check_integers(1, action_repeat=options.get("action_repeat", 1))
    for name in options:
        if name in ("seed", "envs_per_task"):
            raise ValueError(f"Expected `environments` without {name!r}: give it as OnlineTasks({name}=...).")
        if name == "num_processes" and collect_ahead:
            raise ValueError(
                "Expected `environments` with no 'num_processes' but 0 with collect_ahead=True: one process plays in "
                "all environments. Leave it out."
            )
        if name not in OPTIONS:
            known = f"some of {', '.join(OPTIONS)}"
            raise ValueError(f"Expected `environments` to hold {known}, but got {name!r}.{nearest(name, OPTIONS)}")
    return options


def check_replay(replay_per_task: int, order: str, save_replay: bool) -> None:
    """Refuse to keep steps of earlier tasks where there are none, or where a resumed run would lack them."""
    check_integers(0, replay_per_task=replay_per_task)
    if replay_per_task and order == "mixed":
        raise wrong_argument("replay_per_task", "0 with order='mixed', which has no earlier tasks", replay_per_task)
    if replay_per_task and not save_replay:
        raise wrong_argument("save_replay", "True with a replay_per_task, whose steps checkpoints hold", save_replay)
