"""What synaptic intelligence and elastic weight consolidation have in common, for any LightningModule."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from dendrite_zoo._core.lightning import unscale_gradients
from dendrite_zoo.callbacks.mailbox import Returning
from dendrite_zoo.regularizers import QuadraticPenalty, select_parameters
from dendrite_zoo.tasks import Task, TaskBoundary, current_task, trained_before, unknown_task

R = TypeVar("R", bound=QuadraticPenalty)

CONSOLIDATED: weakref.WeakKeyDictionary[LightningModule, dict[str, Any]] = weakref.WeakKeyDictionary()
"""The callbacks that have consolidated a module in a fit, by their state keys."""


class Consolidation(Returning, ABC, Generic[R]):
    """When tasks end, whose gradients are read, and what a checkpoint contains; the base of both callbacks.

    The penalty's gradient is added once before each optimizer step, after the task's gradient was complete
    (accumulated, averaged over processes, unscaled) and before it is clipped: as if the penalty stood in the loss.
    Manual optimization, with one or more optimizers, works likewise (steps of torch's own optimizers, which go past
    callbacks, are refused); to clip by hand there, do it in the module's ``on_before_optimizer_step``, which runs
    after the callbacks'.

    Where a gradient is sparse, the cost of a step follows the rows that it covers, and these alone are pulled: the
    others do not move. (The stored tasks of EWC would move them: its anchor is a mean.)

    The task is that of ``task=``, else the module's ``current_task``, else the datamodule's. It is asked for when a
    batch starts, and again before the step, for a module that finds its task in the batch.

    With one fit for each task, whatever Trainer makes it, the same callback goes on, where the user says each time
    which task comes (``callback.task = 1``); a new one needs the state of the old (``load_state_dict``, or a checkpoint
    of the fit before), and warns without.

    Parameters are those that require a gradient. One that does so only later, or that replaces another, is consolidated
    from that epoch on, as important to no task so far.

    Args:
        include: names of the parameters, in ``pl_module.named_parameters()``, as `fnmatch` patterns.
        exclude: names to leave out.
        task: the task being trained: a function of the Trainer, its import path, or an index.
    """

    def __init__(self, include: str | Sequence[str], exclude: str | Sequence[str], task: Task | None) -> None:
        super().__init__()
        self.include, self.exclude, self.task = include, exclude, task
        self.regularizer: R | None = None
        self._boundary = TaskBoundary()
        self._loaded: dict[str, Any] | None = None
        self._unseen: int | None = None  # what the parameters' versions add up to, until a step is seen in an epoch
        self.make_regularizer({})  # which checks the numbers

    @abstractmethod
    def make_regularizer(self, parameters: Mapping[str, Tensor]) -> R:
        """The regularizer of these parameters."""

    @abstractmethod
    def end_task(self, trainer: Trainer, pl_module: LightningModule, task: int) -> None:
        """Consolidate a task that has ended."""

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state."""
        return self._generate_state_key(include=self.include, exclude=self.exclude)

    def state_dict(self) -> dict[str, Any]:
        """The importance of weights, and the task trained on."""
        self.receive()
        state = self._loaded if self.regularizer is None else self.regularizer.state_dict()
        return {"boundary": self._boundary.state_dict(), "regularizer": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._boundary.load_state_dict(state_dict["boundary"])
        self._loaded, self.regularizer = state_dict["regularizer"], None

    def _is_blank(self) -> bool:
        self.receive()
        return self._boundary.task is None and self.regularizer is None and self._loaded is None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse two callbacks that would read each other's gradients, and a module that changes nothing learned."""
        hparams = getattr(pl_module, "hparams", None)
        if getattr(pl_module, "untrained", None) is not None:
            raise ValueError(
                f"Expected a network that is trained for {type(self).__name__}, but got RidgeClassifier, which is "
                "solved for and forgets nothing. Leave the callback out."
            )
        if isinstance(hparams, Mapping) and hparams.get("learn") == "new":
            raise ValueError(
                f"Expected a module without learn='new' for {type(self).__name__}, but got {type(pl_module).__name__}: "
                "what earlier tasks use does not change there, and there is nothing to consolidate. Leave the callback "
                "out, or use learn='all'."
            )
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        for other in (x for x in callbacks if isinstance(x, Consolidation) and x is not self):
            if shared := self._parameters(pl_module).keys() & other._parameters(pl_module).keys():
                raise ValueError(
                    f"Expected each parameter to be consolidated by one callback, but {type(other).__name__} and "
                    f"{type(self).__name__} both consolidate {min(shared)!r}. Separate them by `include=` and "
                    "`exclude=`."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the parameters, and with their importance from a checkpoint or an earlier fit."""
        self._boundary.start_fit()
        chosen, parameters = self._parameters(pl_module), dict(pl_module.named_parameters())
        if self.regularizer is not None:
            known, self._loaded = self.regularizer.parameters, self.regularizer.state_dict()
            parameters = {name: p for name, p in parameters.items() if known.get(name) is p}
            if not parameters:
                raise ValueError(
                    f"Expected a new {type(self).__name__} for each model, but this one has the importance of another "
                    "model's parameters. Make a new one; `new.load_state_dict(old.state_dict())` keeps the importance."
                )
        if self._loaded is None:
            self.regularizer = self.make_regularizer(chosen)
            return
        known = self._loaded["importance"]
        parameters = {name: p for name, p in parameters.items() if name in known}
        if not parameters:
            raise ValueError(
                f"Expected a checkpoint of {type(pl_module).__name__}, but got the importance of {min(known)!r}, which "
                "is no parameter of this model. Resume with the model that the checkpoint was saved from."
            )
        self.regularizer = self.make_regularizer(parameters)
        self.regularizer.load_state_dict(self._loaded)
        self.regularizer.hold(chosen)
        self._loaded = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the weights, which are to change by steps that are seen."""
        self._unseen = self._versions(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse optimizers whose steps go past the callbacks.

        Raises:
            ValueError: weights changed in this epoch, and no step was seen.
        """
        if self._unseen is not None and self._versions(pl_module) > self._unseen:
            name, module = type(self).__name__, type(pl_module).__name__
            raise ValueError(
                f"Expected optimizers whose steps {name} sees, but in an epoch the weights of {module} changed by none "
                "that it saw, so that it protects nothing: torch's own optimizers, from "
                "`self.optimizers(use_pl_optimizer=False)` or `optimizer.optimizer`, go past all callbacks. Step those "
                "that `self.optimizers()` gives."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether a task has ended, and in a new epoch whether other parameters learn."""
        self._look_for_boundary(trainer, pl_module)
        if batch_idx == 0:
            self._started.hold(self._parameters(pl_module))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the penalty's gradient to the task's."""
        self._unseen = None
        self._look_for_boundary(trainer, pl_module)
        if self._boundary.task is None:
            raise unknown_task(trainer, type(self).__name__)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if unscale_gradients(trainer, optimizer) and not _all_finite(parameters):
            return  # the scaler skips this step
        self.before_step(parameters)

    def before_step(self, parameters: Sequence[Tensor]) -> None:
        """Work on the gradients of the parameters that a step is about to move."""
        self._started.add_gradient(parameters)

    @property
    def _started(self) -> R:
        """The regularizer, in training."""
        assert self.regularizer is not None
        return self.regularizer

    def _parameters(self, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        return select_parameters(pl_module, self.include, self.exclude)

    def _versions(self, pl_module: LightningModule) -> int:
        return sum(parameter._version for parameter in self._parameters(pl_module).values())

    def _look_for_boundary(self, trainer: Trainer, pl_module: Any) -> None:
        of_module = self.task is None and hasattr(pl_module, "current_task")  # None until it finds the task in a batch
        task = current_task(trainer, (lambda _: pl_module.current_task) if of_module else self.task)
        if self._boundary.starts(task) and task in self._boundary.earlier:
            self._say_that_nothing_ends(trainer, task)
        ended, started = self._boundary.update(task)
        if ended is not None:
            self.end_task(trainer, pl_module, ended)
        elif started is not None:
            self._say_that_nothing_is_protected(pl_module, started)

    def _say_that_nothing_is_protected(self, pl_module: LightningModule, task: int) -> None:
        """A new callback begins with a module that has learned before."""
        earlier = CONSOLIDATED.get(pl_module, {}).get(self.state_key)
        if task > 0 or (earlier is not None and earlier() is not self):
            name = type(self).__name__
            rank_zero_warn(
                f"{name}: it begins with task {task} and has the importance of no earlier task, so that nothing "
                "protects what the module learned before. Use one callback in all fits, or give the new one what the "
                f"old one knows: `new.load_state_dict(old.state_dict())`, or `fit(ckpt_path=...)`."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of whose module it is."""
        CONSOLIDATED.setdefault(pl_module, {})[self.state_key] = weakref.ref(self)

    def _say_that_nothing_ends(self, trainer: Trainer, task: int) -> None:
        """A new Trainer starts at a task that an earlier one has trained; a `ForgettingLogger` looks to it itself."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if trainer.global_step == 0 and not any(hasattr(callback, "task_source") for callback in callbacks):
            name = type(self).__name__
            rank_zero_warn(trained_before(task, name, say=f"ForgettingLogger.task = {task + 1}, or {name}.task"))


def _all_finite(parameters: Iterable[Tensor]) -> bool:
    gradients = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    return not gradients or bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())
