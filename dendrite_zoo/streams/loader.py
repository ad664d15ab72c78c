"""Batches cut from tensors in memory, the same ones however many processes share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

__all__ = ["TaskLoader"]


class TaskLoader:
    """The batches of one task in one epoch: a sized iterable of ``(x, y)``.

    Under DDP every process takes its share of each global batch, every ``world_size``-th row, so that the
    global batches are those of one process. Shares are equal, but for the last batch, where some processes
    have one row less (gradients that DDP averages over processes weigh its rows a little unequally). No share
    is ever empty: a last batch of fewer rows than processes is joined to the one before it.

    In a training loop it is resumable: its state says how many batches were handed out in which epoch. A
    loaded state counts once, for the next pass, and not at all in another epoch.

    Args:
        x: ``(N, F)``, the raw data, already on its device.
        y: ``(N,)``, labels.
        rows: ``(R,)``, which rows of ``x`` to give and in which order; none make a loader of length 0.
        transform: from raw rows ``(B, F)`` to what the model gets, ``(B, F)``.
        batch_size: rows of a global batch.
        epoch: which epoch this is, absolute.
        rank: which share is taken.
        world_size: how many processes share a batch.

    Raises:
        ValueError: the batch does not divide into equal shares, or there are fewer rows than processes.

    Example:
        >>> import torch
        >>> x, y = torch.arange(10.0).reshape(5, 2), torch.arange(5)
        >>> loader = TaskLoader(x, y, torch.tensor([4, 3, 2, 1, 0]), lambda x: x, batch_size=2)
        >>> [labels.tolist() for _, labels in loader]
        [[4, 3], [2, 1], [0]]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        transform: Callable[[Tensor], Tensor],
        *,
        batch_size: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} came for {world_size} processes; expected a multiple of "
                f"{world_size}, for it is the global batch, of which each process takes an equal share. "
                "Change one of them."
            )
        if 0 < len(rows) < world_size:
            raise ValueError(
                f"{len(rows)} rows came for {world_size} processes; expected a row for each. Use fewer processes."
            )
        self.x, self.y, self.rows, self.transform = x, y, rows, transform
        self.batch_size, self.epoch, self.rank, self.world_size = batch_size, epoch, rank, world_size
        self._start = 0  # the batch that the next pass begins with
        self._done = 0  # batches handed out

    def __len__(self) -> int:
        full, rest = divmod(len(self.rows), self.batch_size)
        return full + (rest >= self.world_size or (rest > 0 and full == 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start, self._start = self._start, 0
        for batch in range(start, len(self)):
            end = (batch + 1) * self.batch_size if batch + 1 < len(self) else None
            rows = self.rows[batch * self.batch_size : end][self.rank :: self.world_size]
            self._done = batch + 1
            yield self.transform(self.x[rows]), self.y[rows]

    def state_dict(self) -> dict[str, Any]:
        """How far this epoch got."""
        return {"epoch": self.epoch, "batch": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next pass after the batches that were handed out, if they were of this epoch."""
        if state["epoch"] == self.epoch:
            self._start = self._done = state["batch"]
