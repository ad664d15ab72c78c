"""Where one task ends and the next begins, also across a crash."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeAlias

from lightning.pytorch import Trainer

from dendrite_zoo._core.lightning import resume_missed_validation

__all__ = [
    "Task",
    "TaskBoundary",
    "callbacks_task",
    "current_task",
    "has_task",
    "loader_task",
    "resume_missed_validation",
    "trained_before",
    "unknown_task",
]

Task: TypeAlias = int | str | Callable[[Trainer], int]
"""What says the task being trained: its index, a function of the Trainer, or the import path of either, for YAML."""


def current_task(trainer: Trainer, task: Task | None = None) -> int | None:
    """The absolute index of the task being trained.

    It is the ``current_task`` of the datamodule, else of the module, else what another callback was given: a callback
    says so by an attribute ``task_source``, as `ForgettingLogger` does.

    Args:
        trainer: the Trainer at work.
        task: asked instead of them: an index, a function such as ``lambda trainer: trainer.current_epoch // 3``, or the
            import path of one, such as ``"my_module.current_task"``.

    Returns:
        The index, or None where it is not known.

    Raises:
        ValueError: the answer is no index from 0, or there is nothing at the import path.
    """
    answers = [_answer(task, trainer)] if task is not None else _answers(trainer)
    return next((task_index(answer) for answer in answers if answer is not None), None)


def callbacks_task(trainer: Trainer) -> int | None:
    """The task being trained by what a callback was given, such as ``ForgettingLogger(epochs_per_task=3)``; or None."""
    answers = (_answer(source, trainer) for source in _callbacks_sources(trainer))
    return next((task_index(answer) for answer in answers if answer is not None), None)


def loader_task(trainer: Trainer, task: Task | None = None) -> int | None:
    """The task that the one loader of a validation belongs to.

    In a fit it is the task being trained. ``trainer.validate`` may be given any task's loader: its task is what the
    datamodule says, or an index that was given for this run; a function of the Trainer knows nothing of it.

    Args:
        trainer: the Trainer at work.
        task: asked instead of them, as for `current_task`.

    Returns:
        The index, or None where it is not known.
    """
    if trainer.state.fn == "fit":
        return current_task(trainer, task)
    said = (task, getattr(getattr(trainer, "datamodule", None), "current_task", None), *_callbacks_sources(trainer))
    return next(
        (task_index(index) for index in said if not (index is None or isinstance(index, str) or callable(index))), None
    )


def has_task(trainer: Trainer, task: Task | None = None) -> bool:
    """Whether there is a source of the current task: ``task``, a ``current_task``, or another callback's.

    It may not know the task yet, as a module that finds its task in a batch.
    """
    by_owner = any(hasattr(owner, "current_task") for owner in _owners(trainer))
    return task is not None or by_owner or next(_callbacks_sources(trainer), None) is not None


def unknown_task(trainer: Trainer, callback: str) -> ValueError:
    """The error of a callback that needs the current task where nothing gives it, with the remedies.

    Args:
        trainer: the Trainer at work.
        callback: the name of the callback's class.
    """
    owners = [owner for owner in _owners(trainer) if owner is not None]
    silent = [type(owner).__name__ for owner in owners if hasattr(owner, "current_task")]
    names = " or ".join(type(owner).__name__ for owner in owners) or "the datamodule or the module"
    problem = f"neither `task=` nor a `current_task` of {names} gives it"
    if silent:
        problem = f"the `current_task` of {' and '.join(silent)} is None after the first batch was trained on"
    data = _owners(trainer)[0]
    mixed = isinstance(getattr(data, "num_tasks", None), int) and not hasattr(data, "current_task")
    at_once = "Where all tasks are learned at once, as of MixedTasks, pass `task=0`; where one after another, "
    return ValueError(
        f"{callback} needs the index of the task being trained, but {problem}. "
        f"{f'{at_once}p' if mixed else 'P'}ass `task=`, such as "
        f"{callback}(task=lambda trainer: trainer.current_epoch // 3), or ForgettingLogger(epochs_per_task=3), which "
        "serves the other callbacks too. In YAML, use `epochs_per_task: 3`, or `task: my_module.current_task` where "
        "`current_task(trainer)` is a function of yours."
    )


def trained_before(task: int, callback: str, *, say: str) -> str:
    """The message about a fit that starts at a task that an earlier fit has trained.

    Args:
        task: the index.
        callback: the name of the callback's class.
        say: how the user says which task a fit trains, such as ``"log.task = 1"``.
    """
    return (
        f"{callback}: this fit starts at task {task}, which an earlier fit has trained already. With one "
        "`Trainer.fit` for each task, epochs may begin at 0 again, and what counts epochs always says the first task. "
        f"Say which task a fit trains, before it: `{say}`. For another run, make a new {callback}."
    )


def imported(path: str) -> Any:
    """What stands at an import path.

    Raises:
        ValueError: nothing does.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "Expected `task` to be the import path of a function from the Trainer to the task being trained, such as "
            f"'my_module.current_task', but got {path!r} ({error})."
        ) from None


def _owners(trainer: Trainer) -> tuple[Any, Any]:
    return getattr(trainer, "datamodule", None), getattr(trainer, "lightning_module", None)


def _callbacks_sources(trainer: Trainer) -> Iterator[Task]:
    sources = (getattr(callback, "task_source", None) for callback in getattr(trainer, "callbacks", ()))
    return (source for source in sources if source is not None)


def _answers(trainer: Trainer) -> Iterator[Any]:
    """Of everybody who may know the task; the first that is not None counts."""
    for owner in _owners(trainer):
        answer = getattr(owner, "current_task", None)
        if inspect.isroutine(answer):
            raise ValueError(
                f"Expected `current_task` of {type(owner).__name__} to be an index from 0, but it is a method. Make it "
                "a property."
            )
        yield answer
    yield from (_answer(source, trainer) for source in _callbacks_sources(trainer))


def _answer(task: Task, trainer: Trainer) -> Any:
    source = imported(task) if isinstance(task, str) else task
    return source(trainer) if callable(source) else source


def task_index(task: Any) -> int | None:
    """A task as an int; None stays None.

    Raises:
        ValueError: it is no index from 0.
    """
    if task is None:
        return None
    try:
        index = int(task)
    except (TypeError, ValueError, OverflowError):
        index = -1
    if index < 0 or index != task:
        raise ValueError(
            f"Expected the current task to be an index from 0, but got {reprlib.repr(task)}. Check `task=`, or the "
            "`current_task` of the datamodule or the module."
        )
    return index


class TaskBoundary:
    """Turns the current task, asked for at every batch, into "this one ended" and "this one started".

    It rests on no epoch hook, for a run resumed within an epoch never sees ``on_train_epoch_start``. Its
    owner, a module or a callback, keeps its state in the checkpoint.

    Attributes:
        task: the last task trained on, None before the first batch.
        trained: the tasks trained on, by this object and since its state was last loaded.
        earlier: those of earlier fits.

    Example:
        >>> boundary = TaskBoundary()
        >>> [boundary.update(task) for task in (0, 0, 1)]
        [(None, 0), (None, None), (0, 1)]
    """

    def __init__(self) -> None:
        self.task: int | None = None
        self.trained: set[int] = set()
        self.earlier: set[int] = set()
        self._starting = False
        self._before: tuple[int | None, set[int]] | None = None  # this task, until a batch of it was trained on

    def start_fit(self) -> None:
        """Count what was trained on until now as that of earlier fits; call it in ``on_train_start``."""
        trained = self.trained if self._before is None else self._before[1]  # for the last fit may have trained nothing
        self.earlier, self._starting = set(trained), True

    def starts(self, task: int | None) -> bool:
        """Whether this is the first task of a fit; asked before each `update`, it is so once."""
        starting, self._starting = self._starting, self._starting and task is None
        return starting and task is not None

    def update(self, task: int | None) -> tuple[int | None, int | None]:
        """Compare with the last call.

        Args:
            task: the task of the batch about to be trained on; None changes nothing.

        Returns:
            ``(ended, started)``: ``ended`` is None for the very first task, both are where nothing changed.

        Raises:
            ValueError: the task is no index from 0.
        """
        task = task_index(task)
        if task == self.task:
            self.confirm()
        if task is None or task == self.task:
            return None, None
        self._before = self.task, set(self.trained)
        ended, self.task = self.task, task
        self.trained.add(task)
        return ended, self.task

    def confirm(self) -> None:
        """A batch of the task was trained on; call it behind each."""
        self._before = None

    def undo(self) -> None:
        """Where a fit ended before any batch of its task was trained on, count the task as not started."""
        if self._before is not None:
            (self.task, self.trained), self._before = self._before, None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: primitives only."""
        return {"task": self.task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.task = state["task"]
        self.earlier, self.trained, self._before = set(), set(), None
