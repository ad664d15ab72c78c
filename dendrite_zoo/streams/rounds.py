"""Loaders that give no data, but say how much to play: of what is learned by trial and error, and of a test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dendrite_zoo.streams.datamodule import TaskDataModule
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


class Goals(NamedTuple):
    """The one item of a test loader: how many goals a policy is to play.

    Attributes:
        per_task: number of test goals, or starts, of each task.
    """

    per_task: int


@dataclass(eq=False, repr=False)
class GoalLoader:
    """A loader of `Goals`.

    Args:
        per_task: see there.
    """

    per_task: int

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Goals]:
        yield Goals(self.per_task)


class PlayedTasks(TaskDataModule):
    """A datamodule of tasks that have environments, in which a policy can play.

    Attributes:
        test_goals: goals, or starts, of each task that are played in ``trainer.test(module, data)``.
    """

    test_goals: int = 50

    def test_dataloader(self) -> GoalLoader:
        """Return a loader that has the policy play test goals of each task, see ``test_goals``."""
        return GoalLoader(self.test_goals)
