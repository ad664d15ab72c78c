"""Sums over the processes of a distributed run, which are the sums themselves where there is one process."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["num_ranks", "sum_over_ranks"]


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
