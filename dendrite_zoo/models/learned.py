"""Which of its tasks a policy has learned, and as what it saw them."""

import base64
import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import nearest
from dendrite_zoo._core.torch import version_of
from dendrite_zoo.contexts.base import MEASURING
from dendrite_zoo.models.room import starts_of

LEARNED = "learned_tasks"
"""In the header of a file, where it is known that a policy has not learned all of its tasks: those that it has."""

NORMALIZERS = "task_normalizers"
"""In the header of a file, where tasks of one's own were learned; as the attribute."""

LONGEST, MOST_NUMBERS = 1024, 40_000
"""Numbers of an observation up to which a header has a normaliser as a list, and of all tasks that it has room for."""

FAR, LIKELIER, IN_A_ROW = 20.0, 100.0, 20
"""Observations are those of the plain task where, as normalised ones, some number is farther from its mean than this,
in deviations; where as plain ones they are by so much likelier; and so many times one after the other."""

SHOWN = 10  # names in a message

Normalizer: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


class LearnedTasks:
    """Of a policy, which of its ``tasks`` it has learned; where that is not known, nothing is said.

    In a task that it did not learn it acts by weights that were never trained for it.

    Attributes:
        tasks: names of the tasks.
        task_normalizers: by name, mean and scale by which a task normalised its observations as it was learned (see
            `dendrite_zoo.rl.TaskSpec.normalized`), None where it did not; a task of which it is not known is absent. An
            evaluation shows the policy these tasks as they were then; in a loop of your own, `seen` does.
    """

    tasks: tuple[str, ...]
    config: dict[str, Any]
    task_normalizers: Mapping[str, Normalizer | None] = MappingProxyType({})
    _learned: frozenset[str] | None = None  # not known
    _unlearned: frozenset[str] = frozenset()  # those of which has not been warned
    _as_drawn: tuple[Any, ...] = ()  # what changes with the hidden layers, when they were drawn
    _plain: Mapping[str, int | None] = MappingProxyType({})  # rows in turn that were none as learned; None: warned of

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
        return tuple(task for task in self.tasks if task in (self._learned or ()))

    @learned_tasks.setter
    def learned_tasks(self, tasks: Iterable[str]) -> None:
        for task in (learned := [tasks] if isinstance(tasks, str) else list(tasks)):
            if task not in self.tasks:
                expected = f"some of {', '.join(self.tasks)}"
                raise wrong_argument(LEARNED, expected, task, nearest(str(task), self.tasks).strip())
        self.note(learned or None)

    @property
    def noted_tasks(self) -> tuple[str, ...] | None:
        """The same as ``learned_tasks``; None where it is not known."""
        return None if self._learned is None or self.was_trained_elsewhere() else self.learned_tasks

    def note(self, learned: Iterable[str] | None) -> None:
        """Take note of the tasks learned, which may be none; None where it is not known."""
        self._learned = None if learned is None else frozenset(learned)
        self._unlearned = frozenset() if self._learned is None else frozenset(self.tasks) - self._learned

    def task_index(self, task: str | int) -> int:
        """The index of a task, given by its name or by the index itself."""
        raise NotImplementedError

    def _versions(self) -> tuple[Any, ...]:
        """What changes with the weights of hidden layers; those of the output are also set where nothing is trained."""
        named = [pair for network in getattr(self, "networks", ()) for pair in network.named_parameters()]
        return tuple(version_of(parameter) for name, parameter in named if not name.startswith("output."))

    def note_draw(self) -> None:
        """Take note of the network as it was drawn."""
        self._as_drawn = self._versions()

    def was_trained_elsewhere(self) -> bool:
        """Whether the network is no longer as it was drawn, though no task is known as learned: by your own loop."""
        return not self._learned and self._as_drawn != self._versions()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has, whose weights begin with new versions."""
        return {**vars(self), "_as_drawn": self._as_drawn == self._versions()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._as_drawn = self._versions() if state["_as_drawn"] is True else ()

    def seen(self, observation: ArrayLike | Tensor, task: str | int | Iterable[str | int]) -> NDArray[np.float64]:
        """Observations of plain environments as the policy learned to see them, to be given to ``act``.

        Where a task was learned as `dendrite_zoo.rl.TaskSpec.normalized`, they are normalised as there; else they stay
        as they are.

        Args:
            observation: ``(observation_size,)`` or ``(N, observation_size)``.
            task: name or index; or one for each of N.

        Raises:
            ValueError: there is no such task, or an observation has another size.

        Example:
            >>> from dendrite_zoo.models import ActiveDendritePolicy
            >>> policy = ActiveDendritePolicy(["lift"], observation_size=2, hidden_features=[8, 8])
            >>> policy.task_normalizers = {"lift": ((100.0, 0.0), (10.0, 2.0))}
            >>> policy.seen([110.0, 1.0], "lift")
            array([1. , 0.5])
        """
        x, size = torch.as_tensor(observation, dtype=torch.float64).cpu().numpy(), self.config["observation_size"]
        given: Any = task.tolist() if isinstance(task, np.ndarray | Tensor) else task
        is_one = isinstance(given, str) or not isinstance(given, Iterable)
        names = [given] * (len(x) if x.ndim == 2 else 1) if is_one else list(given)
        if x.shape not in ((len(names), size), (size,) if len(names) == 1 else ()):
            raise wrong_argument("observation", f"of shape {(size,)}, or ({len(names)}, {size})", x.shape)
        seen = x.reshape(-1, size).copy()
        for row, name in zip(seen, names, strict=True):
            if both := self.task_normalizers.get(self.tasks[self.task_index(name)]):
                row[:] = (row - both[0]) / both[1]
        return seen.reshape(x.shape)

    def looked_at(self, observation: Tensor, index: int | Tensor) -> Tensor:
        """Say so, once, where a task that was learned normalised is shown as the plain environment has it.

        Args:
            observation: ``(O,)``, or ``(N, O)``, that the policy acts on.
            index: of the task; or of the tasks, ``(N,)``.

        Returns:
            The observations.
        """
        for name, both in self.task_normalizers.items():
            before, place = self._plain.get(name, 0), self.tasks.index(name)
            if both is None or before is None or isinstance(index, int) and index != place:
                continue
            x = (observation[None] if isinstance(index, int) else observation[index == place]).cpu().double().numpy()
            likelier = np.log1p(x**2).sum(1) - np.log1p(((x - both[0]) / both[1]) ** 2).sum(1) > np.log(LIKELIER)
            others = np.flatnonzero(~(likelier & (abs(x).max(1) > FAR)))
            rows = len(x) - 1 - others[-1] if len(others) else before + len(x)
            self._plain = {**self._plain, name: rows if rows < IN_A_ROW else None}
            if rows >= IN_A_ROW:
                warnings.warn(
                    f"Expected observations of {name} as it was learned, normalised by TaskSpec.normalized(), but got "
                    f"some up to {abs(x[-1]).max():.4g}, as the plain environment has them. Give "
                    f"policy.seen(observation, {name!r}) in their place.",
                    stacklevel=3,
                )
        return observation

    def acted_in(self, task: str | int) -> int:
        """The index of a task that the policy is to act in; once each a warning where it did not learn it."""
        index = self.task_index(task)
        unlearned = self._unlearned and self.tasks[index] in self._unlearned and not MEASURING.get()
        if unlearned and not self.was_trained_elsewhere():
            self._unlearned, learned = self._unlearned - {name := self.tasks[index]}, self.learned_tasks
            shown = ", ".join(learned[:SHOWN]) + f" and {len(learned) - SHOWN} more" * (len(learned) > SHOWN)
            warnings.warn(
                f"Expected a task that was learned ({shown or 'there is none yet'}), but got {name}: the policy acts "
                "by weights that were never trained for it. Train it for this task first; or where a loop of your own "
                "has, set policy.learned_tasks.",
                stacklevel=4,
            )
        return index

    def marks(self) -> dict[str, Any]:
        """What the header of a file says: the tasks learned, where others are among them."""
        learned, known = self.noted_tasks, self.task_normalizers
        sizes = [len(both[0]) for both in known.values() if both]
        if sum(sizes) > MOST_NUMBERS:
            warnings.warn(
                f"Expected normalisers of at most {MOST_NUMBERS:,} numbers of all tasks, but got {sum(sizes):,}, and "
                "the file is without them. Keep the TaskSpecs, and play and evaluate with these.",
                stacklevel=4,
            )
            known = {}
        packed = {task: _packed(both) if both and max(sizes) > LONGEST else both for task, both in known.items()}
        is_said = learned is not None and len(learned) < len(self.tasks)
        return {LEARNED: list(learned or ()) if is_said else None, NORMALIZERS: packed or None}

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
        self.note(task for task in self.tasks if starts.get(task, task) in known)
        self.note_draw()
        self.task_normalizers = self.as_normalizers(marks.get(NORMALIZERS) or {}, starts)

    def as_normalizers(
        self, given: Any, starts: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, Normalizer | None]:
        """Normalisers of some of the tasks as a file or a checkpoint has them; a copy has that of its start.

        Raises:
            ValueError: they are none.
        """
        found: dict[str, Normalizer | None] = {}
        size = self.config["observation_size"]
        try:
            for task in [task for task in self.tasks if starts.get(task, task) in given]:
                numbers = _unpacked(given[starts.get(task, task)])
                if numbers is not None and not (numbers.shape == (2, size) and np.isfinite(numbers).all()):
                    raise ValueError
                found[task] = None if numbers is None else (tuple(numbers[0].tolist()), tuple(numbers[1].tolist()))
        except (TypeError, ValueError, KeyError):
            expected = f"mean and scale of {size} numbers by name of a task"
            raise ValueError(f"Expected `{NORMALIZERS}` to be {expected}, but got {given!r:.200}.") from None
        return found


def _packed(both: Normalizer) -> str:
    return base64.b64encode(np.array(both, "<f8").tobytes()).decode()


def _unpacked(given: Any) -> NDArray[np.float64] | None:
    """Mean and scale ``(2, O)`` as a header has them: nothing, two lists, or packed."""
    if given is None or not isinstance(given, str):
        return None if given is None else np.array(given, np.float64)
    return np.frombuffer(base64.b64decode(given, validate=True), "<f8").astype(np.float64).reshape(2, -1)
