"""What all LightningModules of this package share."""

from collections.abc import Mapping
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from dendrite_zoo._core.lightning import attached_trainer, compile_forward_alone
from dendrite_zoo._core.names import refuse_old_names
from dendrite_zoo.lightning_modules.checkpoint_io import VerifiedCheckpointIO, verified
from dendrite_zoo.lightning_modules.finite import check_loss, check_weights
from dendrite_zoo.optim import DendriteAdam, clip_gradients_
from dendrite_zoo.tasks import TaskBoundary

M = TypeVar("M", bound="TaskModule")


class TaskModule(LightningModule):
    """A LightningModule that trains on tasks with `dendrite_zoo.optim.DendriteAdam`.

    It clips gradients that are sparse, returns the segments to ordinary optimizers when a fit ends, remembers in the
    checkpoint which task was trained last, and refuses a checkpoint whose hyperparameters have old names. A loss that
    is not finite stops the fit before the optimizer steps; weights that are not finite are not written to a checkpoint.
    A checkpoint is verified before it is read (`VerifiedCheckpointIO`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.boundary = TaskBoundary()
        self._batch: Any = None  # the last one trained on, for the message of a loss that is not finite
        self._was_done = False  # the Trainer, before this fit
        self._before: list[tuple[nn.Module, dict[str, Tensor]]] = []  # what the task at hand has changed as it began

    @classmethod
    def load_from_checkpoint(cls: type[M], checkpoint_path: Any, *args: Any, **kwargs: Any) -> M:
        """As Lightning's, of a checkpoint that is whole.

        Raises:
            ValueError: it is damaged, and there is no other one to read.
        """
        return super().load_from_checkpoint(verified(checkpoint_path), *args, **kwargs)

    def setup(self, stage: str) -> None:
        """Have the Trainer verify a checkpoint before it is read, unless it reads them in a way of its own."""
        trainer = attached_trainer(self)
        self._before.clear()
        compile_forward_alone(self)
        if trainer is not None and type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = VerifiedCheckpointIO()
        self._was_done = trainer is not None and stage == "fit" and is_done(trainer)

    @property
    def datamodule(self) -> Any:
        """The datamodule; None without one, or without a Trainer."""
        return getattr(attached_trainer(self), "datamodule", None)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the Trainer's arguments, the sparse gradients of segments included."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_val and any(p.grad is not None and p.grad.is_sparse for p in parameters):
            clip_gradients_(parameters, gradient_clip_val, gradient_clip_algorithm or "norm")  # type: ignore[arg-type]
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def scale_learning_rate(self, factor: float) -> None:
        """Set the learning rate to a multiple of the one that the optimizer began with."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def enter_task(self, task: int | None) -> int | None:
        """Take note of the task of a batch; after another one, start with a fresh optimizer, where that is chosen.

        Returns:
            The task if this is its first batch, else None.
        """
        ended, started = self.boundary.update(task)
        if started is None:
            self._before.clear()
        if ended is not None and self.hparams.get("reset_optimizer"):
            for optimizer in self.trainer.optimizers:
                optimizer.begin_anew() if isinstance(optimizer, DendriteAdam) else optimizer.state.clear()
        return started

    def keep_until_trained(self, part: nn.Module, *, recurse: bool = True, but: tuple[str, ...] = ()) -> None:
        """Take note of the buffers of a part, which a task is about to change, until a batch of it was trained on.

        Args:
            part: a module.
            recurse: whether with the buffers of modules in it.
            but: how the names of those begin that a task does not change as it begins.
        """
        if all(part is not known for known, _ in self._before):
            buffers = part.named_buffers(recurse=recurse)
            self._before.append((part, {name: buffer.clone() for name, buffer in buffers if not name.startswith(but)}))

    def undo_start(self) -> None:
        """Where no batch of the task was trained on, as a fit ended with an exception, let it not have begun."""
        self.boundary.undo()
        for part, buffers in reversed(self._before):
            for name, buffer in buffers.items():
                part.get_buffer(name).copy_(buffer)
        self._before.clear()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take note that the task was trained on."""
        self.boundary.confirm()
        self._before.clear()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Take note of the batch."""
        self._batch = batch

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop where the loss is not finite, before the weights are anything else than they were."""
        check_loss(self, loss, self._batch)

    def log_means(self, values: Mapping[str, Tensor], batch_size: int) -> None:
        """Log the means over all batches of an evaluation and over all processes."""
        # Lightning halves the number of rows for two processes, and drops a half where that is an integer.
        rows: Any = float(batch_size)
        self.log_dict(values, batch_size=rows, on_epoch=True, sync_dist=True, add_dataloader_idx=False)

    def on_fit_end(self) -> None:
        """Return the segments, so that any optimizer may train them next."""
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, DendriteAdam):
                optimizer.release()
        self._batch = None
        check_weights(self, "The fit has ended.")
        if self._was_done and self.trainer.ckpt_path is None:
            rank_zero_warn(
                "This fit trained nothing: its Trainer had done all its epochs or steps in a fit before. Make a new "
                "Trainer for each fit."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which task was trained last; refuse weights that are not finite."""
        check_weights(self, "The checkpoint was not written.")
        checkpoint["task_boundary"] = self.boundary.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore which task was trained last.

        Raises:
            ValueError: a hyperparameter has a name of an earlier version.
        """
        saved = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        try:
            refuse_old_names(saved, self.hparams)
        except TypeError as error:  # of a call; here a file is wrong
            raise ValueError(f"The checkpoint is of an earlier version: {error}") from None
        self.boundary.load_state_dict(checkpoint.get("task_boundary", {"task": None}))


def is_done(trainer: Trainer) -> bool:
    """Whether a Trainer has had all its epochs or steps, so that a fit that does not resume trains nothing."""
    return 0 < (trainer.max_epochs or 0) <= trainer.current_epoch or 0 < trainer.max_steps <= trainer.global_step
