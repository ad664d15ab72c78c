"""What the layers of a network do in each validation and test: the base of callbacks that watch them."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from dendrite_zoo.callbacks.activation_counts import ActivationCounts, LayerCounts
from dendrite_zoo.callbacks.call_watcher import CallWatcher
from dendrite_zoo.callbacks.context_watcher import ContextWatcher
from dendrite_zoo.callbacks.layer_selection import Layers, layer_filter, named_layers, watched_outputs, weight_layers
from dendrite_zoo.callbacks.mailbox import Returning
from dendrite_zoo.callbacks.trainer import num_loaders
from dendrite_zoo.tasks import Task, loader_task


class LayerWatcher(Returning, ABC):
    """Counts in each validation or test how often every unit is active, for each task, and calls `on_counted` then.

    Loader ``j`` is task ``j``; the task of a single one is that of `dendrite_zoo.tasks.loader_task`. The
    network is watched while a batch is evaluated, and only then; the sanity check counts for nothing. Layers have the
    names of ``pl_module.named_modules()`` without the ``_orig_mod`` of compiled networks.

    Args:
        layers: watch these only, and what is in them: names of modules, patterns (``"encoder.*"``), or classes.
        task: the task being trained, as for `dendrite_zoo.tasks.current_task`; by default what the datamodule, the
            module or another callback says.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.
    """

    def __init__(self, layers: Layers | None, task: Task | None) -> None:
        super().__init__()
        self.layers = [layers] if isinstance(layers, (str, type)) else None if layers is None else list(layers)
        self.task = task
        self.task_known = False
        self._watching = ExitStack()
        self._warned: set[str] = set()

    @abstractmethod
    def on_counted(self, trainer: Trainer, pl_module: LightningModule, counts: dict[str, LayerCounts]) -> None:
        """Take in what a validation has counted, summed over processes; and ``_contexts``.

        Where ``task_known`` is False, all is counted for task 0.
        """

    @cached_property
    def state_key(self) -> str:  # Lightning asks before and after each hook
        """The name under which a checkpoint keeps the state."""
        layers = self.layers and [layer if isinstance(layer, str) else layer.__qualname__ for layer in self.layers]
        return self._generate_state_key(layers=layers)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that the layers are there."""
        layer_filter(pl_module, self.layers)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._counts = ActivationCounts()
        self._contexts = ContextWatcher(self._counts, pl_module, self.layers)
        self._calls = CallWatcher(
            pl_module, self.layers, skip=self._contexts.counts_for, on_call=self._contexts.on_call
        )
        self._calls.redirected = trainer.strategy.model is not pl_module

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int | None = None
    ) -> None:
        """Watch the network."""
        self._watching.close()
        self._contexts.task = self._task(trainer, dataloader_idx)
        self._watching.enter_context(self._calls)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """Count what was active."""
        self._watching.close()
        task = self._task(trainer, dataloader_idx)  # a step that takes its batches itself has only now said whose
        for seen in self._calls.seen:
            self._counts.add(seen, task)
        self._calls.seen.clear()

    def _task(self, trainer: Trainer, loader: int | None) -> int:
        """The task of a batch; Lightning gives no index to one loader, nor to a batch of several at once."""
        alone = loader is None and num_loaders(trainer) == 1
        task = loader_task(trainer, self.task) if alone else loader
        self.task_known = task is not None
        return task or 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up what was counted."""
        self._watching.close()
        counts = self._counts.by_layer(trainer.strategy.root_device)
        if not trainer.sanity_checking:
            self._say_what_is_not_seen(pl_module, counts)
            self.on_counted(trainer, pl_module, counts)

    on_test_start, on_test_epoch_end = on_validation_start, on_validation_epoch_end
    on_test_batch_start, on_test_batch_end = on_validation_batch_start, on_validation_batch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook and no mode."""
        self._watching.close()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook and no mode."""
        self._watching.close()
        super().on_exception(trainer, pl_module, exception)

    def _say_what_is_not_seen(self, pl_module: LightningModule, counts: dict[str, LayerCounts]) -> None:
        watched = layer_filter(pl_module, self.layers)
        scripts = [
            n for n, p in named_layers(pl_module).items() if isinstance(p, torch.jit.ScriptModule) and watched(n)
        ]
        if scripts:
            self._warn_once(f"What runs inside {scripts[0]!r} is not seen, for it is compiled by torch.jit.")
        if self._calls.uncountable:
            self._warn_once(
                f"The outputs of {sorted(self._calls.uncountable)} were not counted, for they are no plain tensors, or "
                "were used within torch.func."
            )
        if counts or scripts or self._calls.uncountable:
            return
        outside = f" {sorted(self._calls.outside)} were called outside of all forwards." * bool(self._calls.outside)
        if modules := watched_outputs(pl_module, self.layers):
            self._warn_once(
                f"Expected the modules {list(modules)} to be called, but none of them ran in this evaluation, so no "
                f"activations were counted.{outside} Call the modules themselves, in the thread of the Trainer."
            )
        elif self.layers is None and len(weight_layers(pl_module)) > 1:
            self._warn_once(
                f"Expected activation modules or functions in the forwards of {type(pl_module).__name__}, but none "
                f"ran in this evaluation, so no activations were counted.{outside} One that is written as arithmetic, "
                "or inside a recurrent layer, is not seen: name the module around it in `layers`."
            )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            rank_zero_warn(f"{type(self).__name__}: {message}")
