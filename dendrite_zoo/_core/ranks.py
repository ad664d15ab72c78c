"""Sums and states over the processes of a distributed run, of which there may be one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def num_ranks() -> int:
    """The number of processes of a distributed run, 1 without one.

    Example:
        >>> num_ranks()
        1
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor, in place, by its sum over all processes.

    Example:
        >>> total = torch.tensor(3)
        >>> sum_over_ranks(total)
        >>> total
        tensor(3)
    """
    if num_ranks() > 1:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def all_gather(value: Any) -> list[Any]:
    """The values of all processes by rank, in every process; anything that pickle takes.

    Example:
        >>> all_gather({"seen": 3})
        [{'seen': 3}]
    """
    values = [value] * num_ranks()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def gather_states(state: Any) -> list[Any]:
    """The states of all processes by rank, in the first process, which writes the checkpoint; elsewhere none.

    Every process calls it.

    Example:
        >>> gather_states({"seen": 3})
        [{'seen': 3}]
    """
    if num_ranks() == 1:
        return [state]
    states = [None] * num_ranks() if torch.distributed.get_rank() == 0 else None
    torch.distributed.gather_object(state, states)
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
