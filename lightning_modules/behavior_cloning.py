"""Learning many robot tasks by imitation."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo._core.checks import check_choice, check_flags, check_integers, check_positive, check_share
from dendrite_zoo._core.lightning import attached_trainer
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.contexts.base import measuring
from dendrite_zoo.lightning_modules.new_tasks import Learn
from dendrite_zoo.lightning_modules.policies import PolicyModule
from dendrite_zoo.lightning_modules.schedules import cosine
from dendrite_zoo.lightning_modules.weight_average import WeightAverage, Weights
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.models.loading import as_model, saved_config
from dendrite_zoo.rl.transitions import as_demonstrated
from dendrite_zoo.streams import DemonstrationMixture, OnlineTasks

SATURATED, PULL = 4.0, 1e-2  # a mean before it is squashed, of which tanh is 0.9993; 1 per square of what is beyond

Loss = Literal["l1", "mse"]
Batch = tuple[Tensor, Tensor, Tensor] | Mapping[str, Tensor]


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


@say_new_names
class BehaviorCloning(PolicyModule):
    """Trains a policy to do what experts do, on batches ``(observation, action, task)`` or dictionaries of these.

    The learning rate falls to zero along a cosine, over the whole fit, or over each task where tasks are learned one
    after another. Validation, `act_batch`, the trained model and the model of a checkpoint have the moving average of
    the weights; the weights themselves stand beside it in a checkpoint, for a run that goes on from there.

    Imitation teaches means alone: the standard deviation of the actions, before they are squashed, is set to 0.1; where
    the output layer has no bias that could hold it, to the middle of its range, with a warning.

    Where a task starts as a copy whose means lie far out, tanh has no slope there, and nothing would be learned: with
    ``learn="new"`` and columns of segments the loss has a term, too, that pulls means back to ±4 (tanh: ±0.9993).

    A `dendrite_zoo.streams.DemonstrationMixture` has the observations to normalise by. For a plain loader of such
    batches call ``module.model.fit_normalizer(observations)`` before the fit. A `DemonstrationSequence` has those of
    all its tasks, also of the tasks that are learned later.

    Args:
        model: an `ActiveDendritePolicy`, or what `dendrite_zoo.load` takes, or the config of a registered model.
        loss: ``"l1"`` or ``"mse"``, see `imitation_loss`.
        lr: the learning rate of `dendrite_zoo.optim.DendriteAdam` that the cosine starts with, 1/step; by default 1e-3
            for all of a policy, and for what a new task has for itself with ``learn="new"`` 1e-2 where these are
            columns of segments, 4e-3 where they are subnetworks.
        warmup: updates in which it rises to that.
        ema_decay: decay of the average of the weights at each update; 0 for no average.
        reset_optimizer: start each task with a fresh optimizer.
        learn: ``"all"`` trains all of the policy; ``"new"`` only what no earlier task uses, so that all other tasks'
            actions stay as they are, to the bit: the new task's column of segments, or where winners are chosen by the
            context its subnetwork, but for what is also in another's.
        init_from: with ``learn="new"``, what a new task starts as: the name of a task, of whose column or subnetwork it
            starts with a copy, or ``"nearest"`` for the one that fits the first held-out batches best, or none (a
            column of zeros); by default it starts as it is.

    Logs:
        ``train/loss``, and ``val/task_{j}/loss`` on validation loader ``j``.

    Raises:
        ValueError: a number out of range; at fit, data of other tasks than the model's, or a loss that is not finite.

    Example:
        >>> module = BehaviorCloning(ActiveDendritePolicy(["reach-v3"], hidden_features=[32, 32]))
        >>> module.act_batch(torch.zeros(2, 39), torch.tensor([0, 0])).shape
        (2, 4)
    """

    context_at_test = "given"
    default_lr = 1e-3
    model: ActiveDendritePolicy

    def __init__(
        self,
        model: ActiveDendritePolicy | Mapping[str, Any] | str,
        *,
        loss: Loss = "l1",
        lr: float | None = None,
        warmup: int = 200,
        ema_decay: float = 0.998,
        reset_optimizer: bool = True,
        learn: Learn = "all",
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        check_choice(get_args(Loss), loss=loss)
        check_integers(0, warmup=warmup)
        check_positive(lr=self.default_lr if lr is None else lr)
        check_share(ema_decay=ema_decay)
        check_flags(reset_optimizer=reset_optimizer)
        self.model = as_model(model, ActiveDendritePolicy)
        self.tasks = self.model.tasks
        self.average = WeightAverage(self)
        self._tasks_of_batch = torch.zeros(0, dtype=torch.long)  # that is trained on
        self._resumed: Weights = {}  # the average of a checkpoint, until its weights are loaded
        self.save_hyperparameters({"model": saved_config(self.model), "loss": loss, "lr": lr, "warmup": warmup})
        self.save_hyperparameters({"ema_decay": ema_decay, "reset_optimizer": reset_optimizer})
        self.choose_learning(learn, init_from)

    def forward(self, observation: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the actions, before they are squashed."""
        return self.network(observation, task)

    def act_batch(self, observations: Any, task_index: Any) -> npt.NDArray[Any]:
        """The actions ``(N, 4)`` of the averaged policy for ``(N, 39)`` observations and ``(N,)`` task indices.

        Within a fit, enter `averaged` around many calls: else each moves the averaged weights in and out.
        """
        with self.averaged(), measuring():
            return self.model.act_batch(observations, task_index)

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the model has the averaged weights."""
        return self.average.shown()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Distance to the expert's actions; of columns also how far means lie where tanh has no slope."""
        observation, action, task = as_demonstrated(batch, self.model)
        mean = self._means(observation, task)
        loss = imitation_loss(mean, action, self.hparams["loss"])
        self.log("train/loss", loss, prog_bar=True)
        if self.new is None or self.new.is_whole or not self.new.has_columns:
            return loss
        return loss + PULL * F.relu(mean.abs() - SATURATED).square().mean()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Distance to the expert's actions in task ``dataloader_idx``."""
        observation, action, task = as_demonstrated(batch, self.model)
        self.log_means({f"val/task_{dataloader_idx}/loss": self._loss(observation, action, task)}, len(task))

    def configure_callbacks(self) -> list[Callback]:
        """Return the average, which a callback alone can take out of the model where a validation raises."""
        return [self.average, *super().configure_callbacks()]

    def setup(self, stage: str) -> None:
        """Refuse data of tasks that the policy does not know, or that show nothing; begin a fit without an average."""
        super().setup(stage)
        if stage == "fit":
            if isinstance(self.datamodule, OnlineTasks):
                raise ValueError(
                    "Expected demonstrations, such as DemonstrationMixture(tasks, expert=policy), but got OnlineTasks, "
                    "which show nothing to imitate. Learn them by trial and error: MultiTaskSAC(policy)."
                )
            self.average.show(False)
            self.average.reset()
            self._resumed = {}

    def loss_of(self, batch: Batch) -> Tensor:
        """Distance to the expert's actions."""
        return self._loss(*as_demonstrated(batch, self.model))

    def on_fit_start(self) -> None:
        """Normalise observations by those of the experts, unless the model has a normaliser; set the deviations."""
        super().on_fit_start()
        model, observations = self.model, getattr(self.datamodule, "observations", None)
        if not model.has_normalizer and observations is not None and self.may_change_all:
            model.fit_normalizer(observations.to(self.device))
        if self._resumed:
            self.average.reset({name: weight.to(self.device) for name, weight in self._resumed.items()})
            self._resumed = {}
        if self.may_change_all and model.config["output_bias"]:
            model.set_std(0.1)
        elif self.may_change_all:
            rank_zero_warn(
                "Expected a policy whose output layer has a bias, by which its actions get the deviation 0.1, but got "
                f"output_bias=False: they have {model.level_std():.2g}. Act deterministically, or give "
                "output_bias=True."
            )

    def on_train_start(self) -> None:
        """Warn where the learning rate would still rise at the end."""
        super().on_train_start()
        warmup, (_, total) = self.hparams["warmup"], self._progress(0)
        if warmup > 1 and warmup >= total:
            rank_zero_warn(
                f"Expected `warmup` to be shorter than the {total:.0f} updates learned at one stretch, but got "
                f"{warmup}: the learning rate never reaches `lr`. Lower `warmup`, or train for longer."
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate; start a task with a fresh optimizer."""
        super().on_train_batch_start(batch, batch_idx)
        observation, action, task = as_demonstrated(batch, self.model)
        if not isinstance(self.datamodule, DemonstrationMixture):
            self.check_batch(observation, action, task)
        self.enter_batch(task)
        self._tasks_of_batch = task
        done, total = self._progress(batch_idx)
        self.scale_learning_rate(min(1.0, (done + 1) / max(1, self.hparams["warmup"])) * cosine(done / total))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, and let the average follow: faster at the start, where there is little to be averaged."""
        decay = self.hparams["ema_decay"]
        if decay:
            self.average.start()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.note_learned(self.in_policy(self._tasks_of_batch))
        if decay:
            done, _ = self._progress(batch_idx)
            self.average.update(min(decay, (1 + done) / (10 + done)))

    def on_validation_start(self) -> None:
        """Validate the average."""
        self.average.show()

    def on_validation_end(self) -> None:
        """Go on with the weights that are trained."""
        self.average.show(False)

    def on_train_end(self) -> None:
        """Leave the average in the model."""
        self.average.show()

    def on_fit_end(self) -> None:
        """Forget the trained weights, and return the segments."""
        self.average.show()  # where there was nothing left to train
        self.average.reset()
        super().on_fit_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model, the trained weights beside it, and the task."""
        super().on_save_checkpoint(checkpoint)
        self.average.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the task, and, where a fit goes on, the trained weights."""
        super().on_load_checkpoint(checkpoint)
        if getattr(attached_trainer(self), "training", False):
            average = self.average.load(checkpoint)
            self._resumed = average if self.hparams["ema_decay"] else {}

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights, and forget the average of others."""
        keys = super().load_state_dict(*args, **kwargs)
        self.average.reset()
        return keys

    def start_parts(self, *, is_first: bool) -> None:
        """Have the average of the task that has ended for good."""
        if self.new is not None and not is_first:
            self.average.show()
            self.average.reset()
        super().start_parts(is_first=is_first)

    def _loss(self, observation: Tensor, action: Tensor, task: Tensor) -> Tensor:
        return imitation_loss(self._means(observation, task), action, self.hparams["loss"])

    def _means(self, observation: Tensor, task: Tensor) -> Tensor:
        task = self.in_policy(task)
        if task.device.type == "cpu" and bool((task == task[0]).all()):
            task = task[0]  # one index for all rows is cheaper
        return self(observation, task)[0]

    def _progress(self, batch_idx: int) -> tuple[int, float]:
        """How many updates of what is learned at one stretch are done, and how many there are."""
        trainer, schedule = self.trainer, getattr(self.datamodule, "schedule", None)
        if schedule is None:
            total = trainer.estimated_stepping_batches
            return trainer.global_step, total if total > 0 else math.inf  # without an end: -1, or infinite
        epoch, epochs = schedule(trainer.current_epoch)
        batches = int(trainer.num_training_batches)
        return epoch * batches + batch_idx, max(1, epochs * batches)
