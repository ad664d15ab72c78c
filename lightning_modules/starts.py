"""Whether tasks can start, as others do or at all, before any of them is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor


def shared_units(task: str) -> str:
    """What is wrong with a task that is to start as a copy, and what to do."""
    return (
        f"Expected {task} with a subnetwork of its own, for init_from=, but earlier tasks use some of its units. "
        "Build the network with overlap=0, or load it with tasks=[...] and init_from=, which takes free units."
    )


def words_of_tasks_without_parts(module: Any) -> str:
    """What to do where a task has nothing that could be trained; empty where each has something.

    Args:
        module: with ``new`` parts.
    """
    known = getattr(module.model, "tasks", None)
    found = [str(known[task] if known else task) for task in module.new.without_parts()]
    words = (
        f"Expected tasks with weights of their own, for learn='new', but got {', '.join(found)}: all that they use is "
        "in subnetworks of earlier tasks, and nothing of them is trained. Load the model with a lower overlap=, or "
        "build it with wider layers or a lower activation_density."
    )
    return words if found else ""


def check_starts(module: Any) -> None:
    """Refuse ``init_from`` where a task of the data could not start as a copy; say where columns alone are trained.

    Args:
        module: of policies, with ``new`` parts.

    Raises:
        ValueError: an earlier task uses some of the subnetwork of one of them.
    """
    if module.new.has_columns and not module.new.additive:
        rank_zero_info(
            "learn='new': a task that is not the first trains its columns of segments, which open and shut what others "
            "have trained, and no more. Built or loaded with additive_segments=True, a policy has for each what it "
            "adds of its own."
        )
    start, places, data = module.hparams["init_from"], module.new.active, module.datamodule
    if start is None or module.new.has_columns or getattr(data, "tasks", None) is None:
        return
    in_turn = getattr(data, "current_task", None) is not None
    earlier, trained = _earlier_and_trained(module, in_turn)
    used: dict[str, list[Tensor]] = {}
    for task in [*earlier, *trained]:
        own = dict(places(task))
        if task in trained and module.tasks[task] != start and _meets(own, used):
            raise ValueError(shared_units(module.tasks[task]))
        if in_turn or task in earlier:
            for name, ids in own.items():
                used.setdefault(name, []).append(ids)


def _earlier_and_trained(module: Any, in_turn: bool) -> tuple[list[int], list[int]]:
    """The tasks that have what they use, and those that are to start, by their numbers in the network."""
    data, tasks = module.datamodule, module.tasks
    trained = [tasks.index(name) for name in data.tasks][getattr(data, "first_task", 0) :]
    if not module.knew_tasks:  # then the first one has all of the network
        return trained[:1], trained[1:] if in_turn else []
    return [task for task in range(len(tasks)) if task not in trained], trained


def _meets(own: Mapping[str, Tensor], used: Mapping[str, Sequence[Tensor]]) -> bool:
    return any(bool(torch.isin(ids, torch.cat([*used[name]])).any()) for name, ids in own.items() if name in used)
