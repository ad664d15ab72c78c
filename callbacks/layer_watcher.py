"""What the layers of a network do in each validation: the base of callbacks that watch them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.hooks import RemovableHandle

from dendrite_zoo.callbacks.activation_counts import ActivationCounts
from dendrite_zoo.callbacks.context_watcher import ContextWatcher, networks_by_context
from dendrite_zoo.callbacks.layer_selection import activation_layers, is_within
from dendrite_zoo.tasks import current_task


class LayerWatcher(Callback, ABC):
    """Counts in each validation how often every unit is active, for each task, and calls `on_counted` at its end.

    Validation loader ``j`` is task ``j``; a single one is the current task's, task 0's where nothing says which that
    is. The hooks are there during a validation only, the sanity check included: ``torch.compile`` takes hooks into a
    network when it first compiles it, and never looks again. Layers have the names of ``pl_module.named_modules()``
    without the ``_orig_mod`` of compiled networks.

    Args:
        layers: watch these modules only, and what is in them.
        task: from the Trainer to the task being trained; by default the ``current_task`` of the datamodule or the
            module.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.
    """

    def __init__(self, layers: Sequence[str] | None, task: Callable[[Trainer], int] | None) -> None:
        self.layers = None if layers is None else list(layers)
        self.task = task
        self._hooks: list[RemovableHandle] = []

    @abstractmethod
    def on_counted(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in what a validation has counted, summed over processes: ``_counts`` and ``_contexts``."""

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state."""
        return self._generate_state_key(layers=self.layers)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that the layers are there."""
        activation_layers(pl_module, self.layers)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        self.teardown()
        self._counts = ActivationCounts()
        self._contexts = ContextWatcher(self._counts)
        by_context = [f"{name}.activations".lstrip(".") for name in networks_by_context(pl_module)]
        watched = activation_layers(pl_module, self.layers)
        watched = {name: layer for name, layer in watched.items() if not is_within(name, by_context)}
        self._hooks = [*self._counts.watch(watched), *self._contexts.watch(pl_module, self.layers)]

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the task."""
        several = len(trainer.num_val_batches) > 1
        self._counts.task = dataloader_idx if several else current_task(trainer, self.task) or 0

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count nothing between batches: other callbacks may run the network there."""
        self._counts.task = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up what was counted."""
        self.teardown()
        if trainer.sanity_checking:
            return
        self._counts.sum_over_ranks(trainer.strategy.root_device)
        if not self._counts.layers and (watched := activation_layers(pl_module, self.layers)):
            rank_zero_warn(
                f"{type(self).__name__}: Expected the modules {list(watched)} to be called, but none of them ran in "
                "this validation, so no activations were counted. Call the modules themselves, and start the Trainer "
                "before a compiled network runs for the first time."
            )
        self.on_counted(trainer, pl_module)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Leave no hooks."""
        while self._hooks:
            self._hooks.pop().remove()

    on_exception = teardown
