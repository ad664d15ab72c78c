"""The training loader of what is learned by trial and error: it gives no data, but says how much to play and learn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dendrite_zoo.streams.loader import ResumableLoader

__all__ = ["Round"]


class Round(NamedTuple):
    """An item of the training loader: not data, but how much to collect, and how often to learn from it.

    Attributes:
        steps: number of steps to collect in every environment.
        updates: number of updates after them.
    """

    steps: int
    updates: int


@dataclass(eq=False, repr=False)
class RoundLoader(ResumableLoader):
    """The rounds of one epoch.

    Args:
        count: number of rounds.
        is_warm: whether the warm-up is over with this round; there are no updates before.
        steps: of every environment in a round.
        updates: after them.
    """

    count: int
    is_warm: Callable[[], bool]
    steps: int
    updates: int

    def __len__(self) -> int:
        return self.count

    def batches(self, start: int) -> Iterator[Round]:
        """A `Round` each."""
        for _ in range(start, self.count):
            yield Round(self.steps, self.updates if self.is_warm() else 0)
