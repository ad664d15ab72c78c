"""Loaders of one epoch that resume within it, and give the same batches to any number of processes together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl import Demonstrations

__all__ = ["MixedLoader", "TaskLoader"]

ROWS_AT_ONCE = 4096


@dataclass(eq=False, repr=False, kw_only=True)
class ResumableLoader(ABC):
    """A sized iterable over the batches of one epoch, of which Lightning keeps the state in its checkpoints.

    The state is the epoch, and how many of its batches were returned. A loaded state counts once, for the next pass,
    and is ignored in another epoch. Exhausting the iterator does not reset it.

    Args:
        epoch: which epoch this is, absolute.
        rank: the process among those that share each batch.
        world_size: number of these processes.
    """

    epoch: int = 0
    rank: int = 0
    world_size: int = 1
    _start = 0  # the batch that the next pass begins with
    _done = 0  # batches returned

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches in the epoch."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Any]:
        """The batches from number ``start``, or the rows ``[rank::world_size]`` of them for this process."""

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


@dataclass(eq=False, repr=False)
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

    x: Tensor
    y: Tensor
    rows: Tensor
    transform: Callable[[Tensor], Tensor]
    _: KW_ONLY
    batch_size: int

    def __post_init__(self) -> None:
        self.check_share("batch_size", self.batch_size)
        if 0 < (rows := len(self.rows)) < self.world_size:
            raise ValueError(f"Expected a row for each of {self.world_size} processes, but got {rows} rows. Use fewer.")

    def __len__(self) -> int:
        full, rest = divmod(len(self.rows), self.batch_size)
        return full + (rest >= self.world_size or (rest > 0 and full == 0))

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches ``(x, y)``."""
        for batch in range(start, len(self)):
            end = (batch + 1) * self.batch_size if batch + 1 < len(self) else None
            rows = self.rows[batch * self.batch_size : end][self.rank :: self.world_size]
            yield self.transform(self.x[rows]), self.y[rows]


@dataclass(eq=False, repr=False)
class MixedLoader(ResumableLoader):
    """The rows of several tasks together, each row once: a sized iterable of ``(x, y, task)``.

    Under DDP every process takes its share, as in `TaskLoader`. Some thousand rows are made at a time, for each task by
    itself.

    Args:
        loaders: for each task, by its index, whose rows to return; each gives the rows of all processes.
        batch_size: rows of a global batch.
        order: ``(N,)``, the order of all rows of all loaders one after another; None for that order itself.
        epoch: which epoch this is.
        rank: the process whose share is taken.
        world_size: number of processes that share a batch.

    Raises:
        ValueError: as `TaskLoader`.

    Example:
        >>> parts = {}
        >>> for task in (0, 1):
        ...     x, y = torch.full((3, 2), float(task)), torch.arange(3)
        ...     parts[task] = TaskLoader(x, y, torch.arange(3), lambda x: x, batch_size=8)
        >>> [(y.tolist(), task.tolist()) for _, y, task in MixedLoader(parts, batch_size=4)]
        [([0, 1, 2, 0], [0, 0, 0, 1]), ([1, 2], [1, 1])]
    """

    loaders: Mapping[int, TaskLoader]
    _: KW_ONLY
    batch_size: int
    order: Tensor | None = None

    def __post_init__(self) -> None:
        counts = torch.tensor([len(loader.rows) for loader in self.loaders.values()])
        row = torch.cat([torch.arange(int(count)) for count in counts])
        task = torch.tensor([*self.loaders]).repeat_interleave(counts)
        places = torch.stack([task, row])
        places = places if self.order is None else places[:, self.order]
        # a loader of places in the loaders of the tasks
        self._places = TaskLoader(
            *(places[0], places[1], torch.arange(places.shape[1]), lambda x: x),
            **{name: getattr(self, name) for name in ("batch_size", "epoch", "rank", "world_size")},
        )

    def __len__(self) -> int:
        return len(self._places)

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches ``(x, y, task)``."""
        at_once = max(1, ROWS_AT_ONCE // self.batch_size)
        for first in range(start, len(self), at_once):
            batches = [*islice(self._places.batches(first), at_once)]
            task, row = (torch.cat(column) for column in zip(*batches, strict=True))
            by_task = task.argsort(stable=True)
            parts = []
            for one in task.unique().tolist():
                loader = self.loaders[one]
                rows = loader.rows[row[task == one].to(loader.rows.device)]
                parts.append((loader.transform(loader.x[rows]), loader.y[rows]))
            place = by_task.argsort().to(parts[0][1].device)
            x, y = (torch.cat(column)[place] for column in zip(*parts, strict=True))
            sizes = [len(batch) for batch, _ in batches]
            yield from zip(x.split(sizes), y.split(sizes), task.to(y.device).split(sizes), strict=True)


@dataclass(eq=False, repr=False)
class DemonstrationLoader(ResumableLoader):
    """A fixed number of batches ``(observation, action, task)``, sampled with replacement from each task.

    The rows depend on seed and epoch alone. Under DDP every process takes its share of each task's rows.

    Args:
        parts: the demonstrations of each task.
        updates: number of batches.
        batch_size_per_task: for each task its rows in a batch, over all processes.
        seed: of the rows.
        epoch: which epoch this is.
        rank: the process whose share is taken.
        world_size: number of processes that share a batch.

    Raises:
        ValueError: the rows do not divide into equal shares, or a task has no rows.
    """

    parts: Sequence[Demonstrations]
    updates: int
    batch_size_per_task: Sequence[int]
    seed: int = 0

    def __post_init__(self) -> None:
        for number, (part, count) in enumerate(zip(self.parts, self.batch_size_per_task, strict=True)):
            self.check_share("batch_size_per_task", count)
            if len(part) == 0:
                raise ValueError(f"Expected demonstrations of each task, but got no rows in parts[{number}].")

    def __len__(self) -> int:
        return self.updates

    def batches(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        """Batches ``(observation, action, task)``."""
        counts, uniform = list(self.batch_size_per_task), random_state(self.seed, self.epoch, key=(1,)).random_sample
        lengths = np.repeat([len(part) for part in self.parts], counts)
        columns = [[getattr(part, name) for part in self.parts] for name in ("observation", "action", "task")]
        for batch in range(self.updates):
            rows = torch.from_numpy((uniform(len(lengths)) * lengths).astype(np.int64)).split(counts)
            if batch >= start:
                own = [of_task[self.rank :: self.world_size] for of_task in rows]
                yield tuple(torch.cat([x[i] for x, i in zip(column, own, strict=True)]) for column in columns)


@dataclass(eq=False)
class SingleBatch:
    """A loader of one batch, which is made when it is iterated over; of none, if the batch has no rows.

    Args:
        make: returns the batch.
    """

    make: Callable[[], tuple[Tensor, ...]]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        batch = self.make()
        if len(batch[0]):
            yield batch
