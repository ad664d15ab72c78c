"""How sparse a network is while it learns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo.callbacks.contexts import Contexts, without_parts
from dendrite_zoo.callbacks.layer_watcher import UnitCounts, activation_layers, weight_layers
from dendrite_zoo.callbacks.log_metrics import send_figures
from dendrite_zoo.metrics import dead_units, duty_cycle_entropy, weight_sparsity
from dendrite_zoo.tasks import current_task

__all__ = ["SparsityLogger"]


class SparsityLogger(Callback):
    """Logs at each validation how many units of each layer are active, how evenly, and the weights' zeros.

    For every activation module (our ``KWinners``, ``nn.ReLU``, ``nn.GELU``, ...), by its name in
    ``pl_module.named_modules()``:

    - ``sparsity/{layer}/activation``: the share of its outputs that are zero,
    - ``sparsity/{layer}/dead_units``: the share of units that were never active in this validation,
    - ``sparsity/{layer}/duty_cycle_entropy``: `dendrite_zoo.metrics.duty_cycle_entropy`, in bits,

    over all validation loaders, and with ``/task_{j}`` behind for each: loader ``j``, where there are several, else the
    task that is trained on, where somebody tells it. For every linear layer and convolution
    ``sparsity/{layer}/weight``, the share of weights that are zero.

    Only modules can be watched: call ``nn.ReLU()``, not ``F.relu``, or name the module around it in
    ``layers``. A smooth activation such as GELU is hardly ever exactly zero, and says so. Within a module
    that was compiled (``torch.compile``) hooks do not run, and nothing is counted.

    A module that is used at several places at one width is one layer, its counts added: one ``nn.ReLU()`` behind two
    layers hides units that are dead in one of them. Give each place a module of its own.

    Where the context alone chooses the units (``winners="context"``), those that it chose count as active, and all
    others of the layer as zero, though they are never computed.

    The hooks are there during a validation only. They add up counts where the network runs and wait for
    nothing; the counts are summed over processes at the end.

    Args:
        layers: watch these modules only, and what is in them.
        task: tells the task that is trained on, such as ``lambda trainer: trainer.current_epoch // 3``; by default the
            ``current_task`` of the datamodule or the module.

    Attributes:
        figures: layer -> figure (``"activation"``, ``"activation/task_0"``, ``"weight"``, ...) -> value, of the last
            validation; `dendrite_zoo.report.sparsity_table` prints it.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.

    Example:
        >>> SparsityLogger().figures
        {}
    """

    def __init__(self, layers: Sequence[str] | None = None, *, task: Callable[[Trainer], int] | None = None) -> None:
        self.layers = None if layers is None else list(layers)
        self.task = task
        self.figures: dict[str, dict[str, float]] = {}
        self._counts = UnitCounts()
        self._contexts = Contexts(self._counts)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that the layers are there."""
        weight_layers(pl_module, self.layers)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        self._stop()
        # in the sanity check too: where torch.compile first meets a network without hooks it never looks again
        self._counts = UnitCounts().watch(without_parts(pl_module, activation_layers(pl_module, self.layers)))
        self._contexts = Contexts(self._counts).watch(pl_module, self.layers)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the task."""
        self._counts.task = dataloader_idx

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count nothing between batches: other callbacks may run the network there."""
        self._counts.task = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was counted."""
        self._stop()
        if trainer.sanity_checking:
            return
        sum_over_ranks(self._counts, trainer)
        if not self._counts.layers and (watched := activation_layers(pl_module, self.layers)):
            rank_zero_warn(
                f"SparsityLogger: none of {list(watched)} ran as a module, so no activations were counted; "
                "expected them to be called, and not to have been compiled by torch.compile before."
            )
        self.figures = self._figures(trainer, pl_module)
        figures = ((layer, *item) for layer, found in self.figures.items() for item in found.items())
        send_figures(trainer, {f"sparsity/{layer}/{figure}": value for layer, figure, value in figures})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hooks."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hooks."""
        self._stop()

    def _stop(self) -> None:
        self._counts.stop()
        self._contexts.stop()

    def _figures(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, dict[str, float]]:
        current = current_task(trainer, self.task)
        figures: dict[str, dict[str, float]] = {}
        for layer in self._counts.layers:
            tasks, active, samples = self._counts.of(layer)
            if len(trainer.num_val_batches) == 1:
                tasks = [] if current is None else [current]
            # all tasks together as the first row
            active, samples = (torch.cat([x.sum(0, keepdim=True), x]) for x in (active, samples))
            found = {
                "activation": 1 - active.sum(-1) / samples.sum(-1),
                "dead_units": dead_units(active),
                "duty_cycle_entropy": duty_cycle_entropy(active, samples),
            }
            suffixes = ["", *(f"/task_{j}" for j in tasks)]
            figures[_plain(layer)] = {
                figure + suffix: value
                for figure, values in found.items()
                for suffix, value in zip(suffixes, values.tolist(), strict=False)
            }
        for layer, module in weight_layers(pl_module, self.layers).items():
            of_weight = {"weight": float(weight_sparsity(cast(Tensor, module.weight)))}
            figures.setdefault(_plain(layer), {}).update(of_weight)
        return figures


def _plain(layer: str) -> str:
    """The name without what ``torch.compile`` puts into it."""
    return layer.replace("_orig_mod.", "")


def sum_over_ranks(counts: UnitCounts, trainer: Trainer) -> None:
    """Add up the processes' counts, and bring them to the CPU, which is the one wait of a validation."""
    keys, device = list(counts.active), trainer.strategy.root_device
    if trainer.world_size > 1:  # a process whose share of a loader is empty has not seen its layers
        of_ranks: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(of_ranks, keys)
        keys = list(dict.fromkeys(itertools.chain.from_iterable(of_ranks)))
    vector = counts.pack(keys, device)
    if trainer.world_size > 1:
        vector = trainer.strategy.reduce(vector, reduce_op="sum")
    counts.unpack(keys, vector.cpu())
