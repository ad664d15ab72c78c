"""What every LightningDataModule of tasks needs of its Trainer."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.describe import ranges
from dendrite_zoo._core.ranks import num_ranks
from dendrite_zoo.tasks import resume_missed_validation


class TaskDataModule(LightningDataModule):
    """A LightningDataModule of several tasks, with one loader for each of them in every validation.

    It settles the epochs of the Trainer, ``Trainer(**data.trainer_kwargs(), ...)``, and refuses one that was built
    without these arguments. Loaders are made anew for every epoch.

    Attributes:
        num_tasks: number of tasks.
        max_epochs: number of epochs of a fit.
        metric: the validation metric of the tasks, which a ForgettingLogger can read; None if there is none.
        milestones: the tasks after which all tasks seen so far are validated, and after others their own alone; None
            for all tasks each time.
    """

    num_tasks: int
    max_epochs: int
    metric: str | None = None
    milestones: tuple[int, ...] | None = None

    @property
    def trainer(self) -> Trainer | None:
        """The Trainer at work; None without one.

        Raises:
            TypeError: set to one of ``pytorch_lightning``, which knows other classes of the same names.
        """
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        if any(cls.__module__.startswith("pytorch_lightning.") for cls in type(trainer).__mro__):
            raise TypeError(
                f"Expected a Trainer of `lightning.pytorch`, but {type(self).__name__} got one of `pytorch_lightning`. "
                "Import Trainer and LightningModule from `lightning.pytorch`."
            )
        self._trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        """Refuse what takes a datamodule for a loader.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"Expected a loader, but got {type(self).__name__}, a datamodule of `lightning.pytorch`. Give it to a "
            "Trainer from there (one of `pytorch_lightning` takes it for a loader); for the batches alone call "
            "`setup()`, then `train_dataloader()`."
        )

    def trainer_kwargs(self) -> dict[str, Any]:
        """Return the arguments that the Trainer must have."""
        return {"max_epochs": self.max_epochs, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}

    def takes(self, trainer: Trainer) -> bool:
        """Whether it does with the epochs that a Trainer has, though these are not those of `trainer_kwargs`."""
        return False

    def setup(self, stage: str | None = None) -> None:
        """Check the Trainer.

        Raises:
            ValueError: at fit, a Trainer without the arguments of `trainer_kwargs`.
        """
        trainer = self.trainer
        if trainer is None or stage != TrainerFn.FITTING or getattr(trainer, "fast_dev_run", False):
            return  # a fast_dev_run has limits of its own
        expected = self.trainer_kwargs()
        if self.takes(trainer):
            del expected["max_epochs"]
        wrong = [(name, value, found) for name, value in expected.items() if (found := getattr(trainer, name)) != value]
        if wrong:
            words = "; ".join(f"{name}={value!r}, but got {found!r}" for name, value, found in wrong)
            remedy = "Build it as Trainer(**data.trainer_kwargs(), ...)."
            if "max_epochs" in expected and getattr(self, "given_epochs", 0) is None:
                tasks = self.num_tasks - getattr(self, "first_task", 0)
                remedy += f" Of epochs of your own, which tasks share, it takes a multiple of {tasks}."
            raise ValueError(f"Expected the Trainer of {type(self).__name__} to have {words}. {remedy}")

    def teardown(self, stage: str | None = None) -> None:
        """Say which tasks a fit that ended early has left out, where they are learned one after another."""
        trainer, epochs = self.trainer, getattr(self, "epochs_per_task", None)
        if trainer is None or stage != TrainerFn.FITTING or getattr(trainer, "fast_dev_run", False):
            return
        if epochs is None or not hasattr(self, "current_task"):
            return  # each epoch has all tasks
        done = trainer.current_epoch
        if left := [*range(getattr(self, "first_task", 0) - (-done // epochs), self.num_tasks)]:
            rank_zero_warn(
                f"{type(self).__name__}: the fit ended after {done} of {trainer.max_epochs} epochs, and "
                f"task{'s' * (len(left) > 1)} {ranges(left)} had none. One fit trains all tasks: leave out what ends "
                "it early, such as an EarlyStopping, `max_steps` or `max_time`, or go on from its checkpoint without. "
                "To end each task early, make a fit for each."
            )

    def state_dict(self) -> dict[str, Any]:
        """The epochs for each task, where tasks are learned one after another."""
        epochs = getattr(self, "epochs_per_task", None)
        return {} if epochs is None else {"epochs_per_task": epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that a fit that is resumed goes on with the task that it was at.

        Raises:
            ValueError: tasks have another number of epochs now.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        now = self.state_dict().get("epochs_per_task")
        if (before := state.get("epochs_per_task", now)) != now:
            raise ValueError(
                f"Expected a checkpoint of a fit with {now} epochs for each task, but got one with {before}: it would "
                f"go on with another task. Give {type(self).__name__}(..., epochs_per_task={before})."
            )

    @property
    def epoch(self) -> int:
        """The Trainer's epoch; 0 without a Trainer."""
        return 0 if self.trainer is None else self.trainer.current_epoch

    @property
    def rank(self) -> int:
        """The number of this process."""
        own = torch.distributed.get_rank() if num_ranks() > 1 else 0
        return own if self.trainer is None else self.trainer.global_rank

    @property
    def world_size(self) -> int:
        """Number of processes that share each batch."""
        return num_ranks() if self.trainer is None else self.trainer.world_size

    @property
    def fitting_trainer(self) -> Trainer | None:
        """The Trainer while it fits; None in a validation of its own, before and after."""
        trainer = self.trainer
        fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING and trainer.state.stage is not None
        return trainer if fits else None

    def due_tasks(self) -> Iterable[int]:
        """The tasks to validate now."""
        return range(self.num_tasks)

    def due_in_turn(self, task: int, epochs_per_task: int) -> Iterable[int]:
        """The tasks to validate while a task is trained, where they are learned one after another: see ``eval_at``."""
        every, trainer = range(self.num_tasks), self.fitting_trainer
        if trainer is None:
            return every
        if (trainer.current_epoch + 1) % epochs_per_task:
            return (task,)
        if self.milestones is None or task == self.num_tasks - 1:
            return every
        return range(task + 1) if task in self.milestones else (task,)

    def resume_fit(self) -> None:
        """Before loaders are made: have a fit that was resumed repeat a validation that a crash prevented."""
        if self.fitting_trainer is not None:
            resume_missed_validation(self.fitting_trainer)


def refuse_further_epochs(trainer: Trainer, epochs: int) -> None:
    """Refuse a Trainer that was given further epochs after a fit: shared out, they would not begin with the first task.

    Args:
        trainer: about to fit.
        epochs: of a fit, where nobody says for how many.
    """
    most = trainer.max_epochs or 0
    if trainer.ckpt_path is None and 0 < trainer.current_epoch < most and most != epochs:
        raise ValueError(
            f"Expected a new Trainer, whose epochs tasks share, but got one that has done {trainer.current_epoch} of "
            f"its {most} epochs in an earlier fit. Make a new Trainer for each fit."
        )


def milestones_of(eval_at: Iterable[int], trained: range) -> tuple[int, ...]:
    """The argument ``eval_at`` in order, refused where it has a task that is not trained."""
    if isinstance(eval_at, (int, str)):
        raise wrong_argument("eval_at", "a list of tasks, such as [4, 9]", eval_at)
    tasks = set(eval_at)
    for task in tasks.difference(trained):
        those = f"tasks that are trained, {trained[0]} to {trained[-1]}"
        raise ValueError(f"Expected `eval_at` to hold {those}, but got {task!r}. Leave it out.")
    return tuple(sorted(tasks))
