"""State that each process has for itself, in the one checkpoint that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import distributed

__all__ = ["gather_states", "state_of_rank"]


def gather_states(state: Any) -> list[Any]:
    """The states of all processes by rank, in the first process, which writes the checkpoint; elsewhere none.

    All processes call it. Without a process group there is one state.

    Example:
        >>> gather_states({"seen": 3})
        [{'seen': 3}]
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [state]
    states = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(state, states)
    return states or []


def state_of_rank(states: Sequence[Any], rank: int, world_size: int, what: str) -> Any:
    """The state of one process.

    Args:
        states: as they were gathered.
        rank: of the process.
        world_size: how many processes there are now.
        what: each process has of its own, for the message.

    Raises:
        ValueError: there were more processes, or fewer.

    Example:
        >>> state_of_rank(["first", "second"], 1, 2, "a replay buffer")
        'second'
    """
    if len(states) != world_size:
        raise ValueError(
            f"Expected a checkpoint of as many processes as there are now, {world_size}, for each has {what} of its "
            f"own, but got one of {len(states)}. Resume with {len(states)} processes."
        )
    return states[rank]
