"""Loaders of one epoch that resume within it, and give the same batches to any number of processes together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl import Demonstrations

__all__ = ["DemonstrationLoader", "ResumableLoader", "SingleBatch", "TaskLoader"]


class ResumableLoader(ABC):
    """A sized iterable over the batches of one epoch, of which Lightning keeps the state in its checkpoints.

    The state is the epoch, and how many of its batches were returned. A loaded state counts once, for the next pass,
    and is ignored in another epoch. Exhausting the iterator does not reset it.

    Args:
        epoch: which epoch this is, absolute.
        rank: the process among those that share each batch.
        world_size: number of these processes.
    """

    def __init__(self, *, epoch: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.epoch, self.rank, self.world_size = epoch, rank, world_size
        self.share = slice(rank, None, world_size)
        self._start = 0  # the batch that the next pass begins with
        self._done = 0  # batches returned

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches in the epoch."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Any]:
        """The batches from number ``start``, or the ``share`` of them that belongs to this process."""

    def __iter__(self) -> Iterator[Any]:
        start, self._start = self._start, 0
        for done, batch in enumerate(self.batches(start), start + 1):
            self._done = done
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and the number of its batches that were returned."""
        return {"epoch": self.epoch, "batch": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next pass after the batches that were returned, if they were of this epoch."""
        if state.get("epoch") == self.epoch:
            self._start = self._done = state["batch"]

    def check_share(self, name: str, rows: int) -> None:
        """Refuse a number of rows, by the argument's name, that does not divide into equal shares."""
        if rows % self.world_size:
            raise ValueError(
                f"Expected `{name}` to be a multiple of {self.world_size}, the number of processes that take equal "
                f"shares of each batch, but got {rows}. Change one of them."
            )


class TaskLoader(ResumableLoader):
    """The batches of one task in one epoch: a sized iterable of ``(x, y)``.

    Under DDP every process takes its share of each global batch, every ``world_size``-th row, so that the
    global batches are those of one process. Shares are equal, but for the last batch, where some processes
    have one row less (gradients that DDP averages over processes weigh its rows a little unequally). No share
    is ever empty: a last batch of fewer rows than processes is joined to the one before it.

    It resumes within an epoch, as every `ResumableLoader`.

    Args:
        x: ``(N, F)``, the raw data, already on its device.
        y: ``(N,)``, labels.
        rows: ``(R,)``, the rows of ``x`` to return, in order; without rows the loader has length 0.
        transform: from raw rows ``(B, F)`` to the model's input, ``(B, F)``.
        batch_size: rows of a global batch.
        epoch: which epoch this is, absolute.
        rank: the process whose share is taken.
        world_size: number of processes that share a batch.

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
        super().__init__(epoch=epoch, rank=rank, world_size=world_size)
        self.check_share("batch_size", batch_size)
        if 0 < len(rows) < world_size:
            raise ValueError(
                f"Expected a row for each of {world_size} processes, but got {len(rows)} rows. Use fewer processes."
            )
        self.x, self.y, self.rows, self.transform, self.batch_size = x, y, rows, transform, batch_size

    def __len__(self) -> int:
        full, rest = divmod(len(self.rows), self.batch_size)
        return full + (rest >= self.world_size or (rest > 0 and full == 0))

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches ``(x, y)``."""
        for batch in range(start, len(self)):
            end = (batch + 1) * self.batch_size if batch + 1 < len(self) else None
            rows = self.rows[batch * self.batch_size : end][self.share]
            yield self.transform(self.x[rows]), self.y[rows]


class DemonstrationLoader(ResumableLoader):
    """A fixed number of batches ``(observation, action, task)``, sampled with replacement from each task.

    The rows depend on seed and epoch alone. Under DDP every process takes its share of each task's rows.

    Args:
        parts: the demonstrations of each task.
        updates: number of batches.
        batch_size_per_task: rows of each task in a batch, over all processes; one number, or one for each task.
        seed: of the rows.
        epoch: which epoch this is.
        rank: the process whose share is taken.
        world_size: number of processes that share a batch.

    Raises:
        ValueError: the rows do not divide into equal shares, or a task has no rows.
    """

    def __init__(
        self,
        parts: Sequence[Demonstrations],
        *,
        updates: int,
        batch_size_per_task: int | Sequence[int],
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(epoch=epoch, rank=rank, world_size=world_size)
        counts = (
            [batch_size_per_task] * len(parts) if isinstance(batch_size_per_task, int) else list(batch_size_per_task)
        )
        for count in counts:
            self.check_share("batch_size_per_task", count)
        for number, part in enumerate(parts):
            if len(part) == 0:
                raise ValueError(f"Expected demonstrations of each task, but got no rows in parts[{number}].")
        self.parts, self.updates, self.counts, self.seed = list(parts), updates, counts, seed

    def __len__(self) -> int:
        return self.updates

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches ``(observation, action, task)``."""
        uniform = random_state(self.seed, self.epoch, key=(1,)).random_sample
        lengths = np.repeat([len(part) for part in self.parts], self.counts)
        for batch in range(self.updates):
            rows = torch.from_numpy((uniform(len(lengths)) * lengths).astype(np.int64)).split(self.counts)
            if batch >= start:
                own = [(part, of_task[self.share]) for part, of_task in zip(self.parts, rows, strict=True)]
                yield (
                    torch.cat([part.observation[rows] for part, rows in own]),
                    torch.cat([part.action[rows] for part, rows in own]),
                    torch.cat([part.task[rows] for part, rows in own]),
                )


class SingleBatch:
    """A loader of one batch, which is made when it is iterated over; of none, if the batch has no rows.

    Args:
        make: returns the batch.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        batch = self.make()
        if len(batch[0]):
            yield batch
