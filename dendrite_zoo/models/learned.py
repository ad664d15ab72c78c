"""Which of its tasks a policy has learned, and as what it saw them."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import nearest
from dendrite_zoo.contexts.base import MEASURING
from dendrite_zoo.models.room import starts_of

LEARNED = "learned_tasks"
"""In the header of a file, where a policy has learned some of its tasks; absent where it is all of them, or unknown."""

NORMALIZERS = "task_normalizers"
"""In the header of a file, where tasks of one's own were learned; as the attribute."""

MOST_NUMBERS, LONGEST = 20_000, 1024
"""Of all normalisers that a header has room for, and of one; where they have more, it says nothing of them."""

SHOWN = 10  # names in a message

Normalizer: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


class LearnedTasks:
    """Of a policy, which of its ``tasks`` it has learned; where that is not known, nothing is said.

    In a task that it did not learn it acts by weights that were never trained for it.

    Attributes:
        tasks: names of the tasks.
        task_normalizers: by name, mean and scale by which a task normalised its observations as it was learned (see
            `dendrite_zoo.rl.TaskSpec.normalized`), None where it did not; a task of which it is not known is absent. An
            evaluation shows the policy these tasks as they were then. A loop of your own shows them so by itself.
    """

    tasks: tuple[str, ...]
    config: dict[str, Any]
    task_normalizers: Mapping[str, Normalizer | None] = MappingProxyType({})
    _learned: frozenset[str] = frozenset()
    _unlearned: frozenset[str] = frozenset()  # those of which has not been warned

    @property
    def learned_tasks(self) -> tuple[str, ...]:
        """The tasks that were learned, in the order of ``tasks``; none where it is not known.

        The LightningModules of this library note it, and files and checkpoints have it. Set it where a loop of your own
        has trained the policy on some of its tasks.

        Raises:
            ValueError: set to other names than those of the tasks.

        Example:
            >>> from dendrite_zoo.models import ActiveDendritePolicy
            >>> policy = ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[8, 8])
            >>> policy.learned_tasks = ["push-v3"]
            >>> policy.learned_tasks
            ('push-v3',)
        """
        return tuple(task for task in self.tasks if task in self._learned)

    @learned_tasks.setter
    def learned_tasks(self, tasks: Iterable[str]) -> None:
        for task in (learned := [tasks] if isinstance(tasks, str) else list(tasks)):
            if task not in self.tasks:
                expected = f"some of {', '.join(self.tasks)}"
                raise wrong_argument(LEARNED, expected, task, nearest(str(task), self.tasks).strip())
        self._learned = frozenset(learned)
        self._unlearned = frozenset(self.tasks) - self._learned if learned else frozenset()

    def task_index(self, task: str | int) -> int:
        """The index of a task, given by its name or by the index itself."""
        raise NotImplementedError

    def acted_in(self, task: str | int) -> int:
        """The index of a task that the policy is to act in; once each a warning where it did not learn it."""
        index = self.task_index(task)
        if self._unlearned and (name := self.tasks[index]) in self._unlearned and not MEASURING.get():
            self._unlearned, learned = self._unlearned - {name}, self.learned_tasks
            shown = ", ".join(learned[:SHOWN]) + f" and {len(learned) - SHOWN} more" * (len(learned) > SHOWN)
            warnings.warn(
                f"Expected a task that was learned ({shown}), but got {name}: the policy acts "
                "by weights that were never trained for it. Train it for this task first.",
                stacklevel=4,
            )
        return index

    def marks(self) -> dict[str, Any]:
        """What the header of a file says: the tasks learned, where others are among them."""
        learned, known = self.learned_tasks, self.task_normalizers
        sizes = [len(both[0]) for both in known.values() if both]
        if sum(sizes) > MOST_NUMBERS or max(sizes, default=0) > LONGEST:
            known = {}
        return {LEARNED: list(learned) if 0 < len(learned) < len(self.tasks) else [], NORMALIZERS: dict(known)}

    def recall(self, marks: Mapping[str, Any], saved: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Take the tasks learned from the header of a file; a copy of a task that was learned acts as that does.

        Args:
            marks: of the header.
            saved: the arguments in the file, with its ``tasks``.
            changes: how the policy is to differ.
        """
        learned = marks.get(LEARNED)
        starts = starts_of(changes.get("init_from"), saved["tasks"], self.tasks)
        known = [task for task in saved["tasks"] if not isinstance(learned, list) or task in learned]
        self.learned_tasks = [task for task in self.tasks if starts.get(task, task) in known]
        self.task_normalizers = self.as_normalizers(marks.get(NORMALIZERS) or {}, but=starts)

    def as_normalizers(self, given: Any, but: Collection[str] = ()) -> dict[str, Normalizer | None]:
        """Normalisers of some of the tasks as a file or a checkpoint has them.

        Raises:
            ValueError: they are none.
        """
        found: dict[str, Normalizer | None] = {}
        size = self.config["observation_size"]
        try:
            for task in set(given) & set(self.tasks) - set(but):
                numbers = None if given[task] is None else np.array(given[task], np.float64)
                if numbers is not None and not (numbers.shape == (2, size) and np.isfinite(numbers).all()):
                    raise ValueError
                found[task] = None if numbers is None else (tuple(numbers[0].tolist()), tuple(numbers[1].tolist()))
        except (TypeError, ValueError, KeyError):
            expected = f"mean and scale of {size} numbers by name of a task"
            raise ValueError(f"Expected `{NORMALIZERS}` to be {expected}, but got {given!r:.200}.") from None
        return found
