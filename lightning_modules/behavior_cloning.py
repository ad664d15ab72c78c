"""Learning many robot tasks by imitation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from dendrite_zoo.hub import build, full_config
from dendrite_zoo.models import ActiveDendritePolicy, load
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.tasks import TaskBoundary

__all__ = ["BehaviorCloning", "imitation_loss"]

Loss = Literal["l1", "mse"]
Batch = tuple[Tensor, Tensor, Tensor]


def imitation_loss(mean: Tensor, action: Tensor, kind: Loss = "l1") -> Tensor:
    r"""How far a policy's action is from the expert's: the mean of :math:`|\tanh(\mu) - a|`, or of its square.

    Where an expert switches between two actions, the absolute value makes the policy switch, too, and the square makes
    it hesitate.

    Shape:
        mean (before it is squashed) and action ``(B, A)``; result ``()``.

    Example:
        >>> imitation_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.5]]))
        tensor(0.7500)
    """
    return (F.l1_loss if kind == "l1" else F.mse_loss)(torch.tanh(mean), action)


class BehaviorCloning(LightningModule):
    """Trains a policy to do what experts do, on batches ``(observation, action, task)``.

    The learning rate falls to zero along a cosine, over the whole fit, or over each task where tasks are learned one
    after another. Validation, `act_batch`, the trained model and the model of a checkpoint have the moving average of
    the weights; the weights themselves stand beside it in a checkpoint, for a run that goes on from there.

    Imitation teaches means alone: the standard deviation of the actions, before they are squashed, is set to 0.1.

    A `dendrite_zoo.streams.DemonstrationMixture` brings the observations to normalise by. For a plain loader of such
    batches call ``module.model.fit_normalizer(observations)`` before the fit. A `DemonstrationSequence` brings those of
    all its tasks, also of the tasks that are learned later.

    Args:
        model: an `ActiveDendritePolicy`, or what `dendrite_zoo.load` takes, or the config of a registered model.
        loss: ``"l1"`` or ``"mse"``, see `imitation_loss`.
        lr: the learning rate of `dendrite_zoo.optim.DendriteAdam` that the cosine starts with, 1/step.
        warmup: updates in which it rises to that.
        ema_decay: how much of the averaged weights is kept at each update; 0 for none.
        reset_optimizer: start each task with a fresh optimizer.

    Logs:
        ``train/loss``, and ``val/task_{j}/loss`` on validation loader ``j``.

    Raises:
        ValueError: a number out of range; at fit, data of other tasks than the model's.

    Example:
        >>> module = BehaviorCloning(ActiveDendritePolicy(["reach-v3"], hidden_features=[32, 32]))
        >>> module.act_batch(torch.zeros(2, 39), torch.tensor([0, 0])).shape
        (2, 4)
    """

    def __init__(
        self,
        model: ActiveDendritePolicy | Mapping[str, Any] | str,
        *,
        loss: Loss = "l1",
        lr: float = 1e-3,
        warmup: int = 200,
        ema_decay: float = 0.998,
        reset_optimizer: bool = True,
    ) -> None:
        super().__init__()
        if loss not in get_args(Loss):
            raise ValueError(f"loss={loss!r} came; expected one of {', '.join(get_args(Loss))}.")
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay={ema_decay} came; expected a share in [0, 1), such as 0.998.")
        self.model = _as_policy(model)
        self.tasks = self.model.tasks
        self._average: list[Tensor] = []  # of the parameters, in a fit
        self._averaged = False  # whether they stand in the model just now, and the trained ones here
        self._resumed: list[Tensor] = []  # the average of a checkpoint whose weights are about to be loaded
        self._boundary = TaskBoundary()
        self.save_hyperparameters(
            {
                "model": full_config(self.model),
                "loss": loss,
                "lr": lr,
                "warmup": warmup,
                "ema_decay": ema_decay,
                "reset_optimizer": reset_optimizer,
            }
        )

    def forward(self, observation: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the actions, before they are squashed."""
        return self.model(observation, task)

    def act_batch(self, observations: Any, task_index: Any) -> npt.NDArray[Any]:
        """The actions ``(N, 4)`` of the averaged policy for ``(N, 39)`` observations and ``(N,)`` task indices.

        Within a fit, enter `averaged` around many calls: else each moves the averaged weights in and out.
        """
        with self.averaged():
            return self.model.act_batch(observations, task_index)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Distance to the expert's actions."""
        observation, action, task = batch
        loss = imitation_loss(self(observation, _one_if_equal(task))[0], action, self.hparams["loss"])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Distance to the expert's actions in task ``dataloader_idx``."""
        observation, action, task = batch
        loss = imitation_loss(self(observation, _one_if_equal(task))[0], action, self.hparams["loss"])
        self.log(
            f"val/task_{dataloader_idx}/loss",
            loss,
            batch_size=len(task),
            on_epoch=True,
            sync_dist=True,
            add_dataloader_idx=False,
        )

    def configure_callbacks(self) -> list[Callback]:
        """What takes the average out of the model where a validation breaks off."""
        return [_TrainedAfterException()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one optimizer, made anew."""
        return DendriteAdam(self.parameters(), lr=self.hparams["lr"])

    def setup(self, stage: str) -> None:
        """Refuse data of other tasks; begin a fit without an average."""
        if stage == TrainerFn.FITTING:
            self._show(False)
            self._average = []
        theirs = getattr(getattr(self.trainer, "datamodule", None), "tasks", None)
        if theirs is not None and tuple(theirs) != self.model.tasks:
            raise ValueError(
                f"The data are of the tasks {', '.join(theirs)}; the model is for {', '.join(self.model.tasks)}. "
                "Expected the same, in the same order: build the model with tasks= of the data."
            )

    def on_fit_start(self) -> None:
        """Normalise observations by those of the experts, unless the model brings a normaliser; set the deviations."""
        model, observations = self.model, getattr(self.trainer.datamodule, "observations", None)  # type: ignore[attr-defined]
        if not model.has_normalizer and observations is not None:
            model.fit_normalizer(observations.to(self.device))
        self._average = [average.to(self.device) for average in self._average]
        model.set_std(0.1)
        with self.averaged():
            model.set_std(0.1)  # a checkpoint may be of a time when they were not set

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate; start a task with a fresh optimizer."""
        data = getattr(self.trainer, "datamodule", None)
        ended, _ = self._boundary.update(getattr(data, "current_task", None))
        if ended is not None and self.hparams["reset_optimizer"]:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
        done, total = self._progress(batch_idx)
        factor = min(1.0, (done + 1) / max(1, self.hparams["warmup"])) * 0.5 * (1 + math.cos(math.pi * done / total))
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.hparams["lr"] * factor

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, and let the average follow: faster at the start, where there is little to be averaged."""
        if self.hparams["ema_decay"] and not self._average:
            self._average = [parameter.detach().clone() for parameter in self.model.parameters()]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        done, _ = self._progress(batch_idx)
        kept = min(self.hparams["ema_decay"], (1 + done) / (10 + done))
        with torch.no_grad():
            for average, parameter in zip(self._average, self.model.parameters(), strict=False):
                average.lerp_(parameter, 1 - kept)

    def on_validation_start(self) -> None:
        """Validate the average."""
        self._show(True)

    def on_validation_end(self) -> None:
        """Go on with the weights that are trained."""
        self._show(False)

    def on_train_end(self) -> None:
        """Leave the average in the model."""
        self._show(True)

    def on_fit_end(self) -> None:
        """Forget the other weights, and give the segments back."""
        self._show(True)  # where there was nothing left to train
        self._average, self._averaged = [], False
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, DendriteAdam):
                optimizer.release()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model, the trained weights beside it, and the task."""
        checkpoint["task_boundary"] = self._boundary.state_dict()
        checkpoint["trained"] = dict(zip(self._names(), self._average, strict=False))
        if not self._averaged:
            _exchange(checkpoint["state_dict"], checkpoint["trained"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the task, and, where a fit goes on, the trained weights."""
        self._boundary.load_state_dict(checkpoint["task_boundary"])
        state, trained = checkpoint["state_dict"], dict(checkpoint.get("trained", {}))
        if "average" in checkpoint:  # as saved before: what did not stand in the model stands there
            trained = dict(zip(self._names(), checkpoint["average"]["weights"], strict=False))
            if not checkpoint["average"]["swapped"]:
                _exchange(state, trained)
        if self._trainer is not None and self._trainer.training:
            _exchange(state, trained)
            self._resumed = [average.clone() for average in trained.values()] if self.hparams["ema_decay"] else []

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights; an average of others is forgotten."""
        keys = super().load_state_dict(*args, **kwargs)
        self._average, self._averaged, self._resumed = self._resumed, False, []
        return keys

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averaged weights in the model for a while."""
        before = self._averaged
        self._show(True)
        try:
            yield
        finally:
            self._show(before)

    @torch.no_grad()
    def _show(self, averaged: bool) -> None:
        """Have the averaged weights in the model, or those that are trained."""
        if not self._average or averaged == self._averaged:
            return
        for average, parameter in zip(self._average, self.model.parameters(), strict=True):
            shown = parameter.clone()
            parameter.copy_(average)
            average.copy_(shown)
        self._averaged = averaged

    def _names(self) -> list[str]:
        return [f"model.{name}" for name, _ in self.model.named_parameters()]

    def _progress(self, batch_idx: int) -> tuple[int, float]:
        """How many updates of what is learned at one stretch are done, and how many there are."""
        trainer = self.trainer
        schedule = getattr(getattr(trainer, "datamodule", None), "schedule", None)
        if schedule is None:
            total = trainer.estimated_stepping_batches
            return trainer.global_step, total if total > 0 else math.inf  # without an end: -1, or infinite
        epoch, epochs = schedule(trainer.current_epoch)
        batches = int(trainer.num_training_batches)
        return epoch * batches + batch_idx, max(1, epochs * batches)


class _TrainedAfterException(Callback):
    """Lightning tells callbacks of an exception, but no module."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the trained weights back."""
        cast(BehaviorCloning, pl_module)._show(False)


def _as_policy(model: Any) -> ActiveDendritePolicy:
    if isinstance(model, str):
        model = load(model)
    elif isinstance(model, Mapping):
        model = build(model)
    if not isinstance(model, ActiveDendritePolicy):
        raise TypeError(
            f"BehaviorCloning got a model of type {type(model).__name__}; expected an ActiveDendritePolicy, a name or "
            "folder that dendrite_zoo.load takes, or a config."
        )
    return cast(ActiveDendritePolicy, cast(nn.Module, model).train())


def _exchange(state: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Put weights into a state, and what stood there into their place."""
    for name, weight in weights.items():
        weights[name], state[name] = state[name], weight


def _one_if_equal(task: Tensor) -> Tensor:
    """One index where all rows have the same, which is cheaper."""
    return task[0] if bool((task == task[0]).all()) else task
