"""Names of benchmarks, such as ``permuted-mnist``: a kind of stream and a source."""

from __future__ import annotations

from typing import Any

from dendrite_zoo._core.checks import check_choice
from dendrite_zoo.streams.sources import SourceLike
from dendrite_zoo.streams.stream import SOURCES, TaskStream
from dendrite_zoo.streams.tasks import PermutedTasks, RotatedTasks, SplitTasks

__all__ = ["benchmark_stream"]

STREAMS: dict[str, type[TaskStream]] = {"permuted": PermutedTasks, "rotated": RotatedTasks, "split": SplitTasks}


def benchmark_stream(name: str, num_tasks: int, *, source: SourceLike | None = None, **kwargs: Any) -> TaskStream:
    """The stream of a benchmark.

    Args:
        name: such as ``permuted-digits``.
        num_tasks: number of tasks.
        source: of the data, in place of the one that the name says.
        **kwargs: for the stream.

    Raises:
        ValueError: there is no such benchmark.

    Example:
        >>> benchmark_stream("rotated-digits", 3)
        RotatedTasks('digits', num_tasks=3, first_task=0)
    """
    kind, _, data = name.partition("-")
    if kind not in STREAMS or (data not in SOURCES and source is None):
        check_choice([f"{kind}-{data}" for kind in STREAMS for data in SOURCES], name=name)
    return STREAMS[kind](data if source is None else source, num_tasks, **kwargs)
