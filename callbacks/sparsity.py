"""How sparse a network is while it learns."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from dendrite_zoo.callbacks.layer_selection import weight_layers
from dendrite_zoo.callbacks.layer_watcher import LayerWatcher
from dendrite_zoo.callbacks.trainer import log_metrics
from dendrite_zoo.metrics.functional import dead_units, duty_cycle_entropy, weight_sparsity
from dendrite_zoo.tasks import current_task


class SparsityLogger(LayerWatcher):
    """Logs at each validation how many units of each layer are active, how evenly, and the weights' zeros.

    For every activation module (our ``KWinners``, ``nn.ReLU``, ``nn.GELU``, ...), by its name in
    ``pl_module.named_modules()``:

    - ``sparsity/{layer}/activation_sparsity``: the share of its outputs that are zero,
    - ``sparsity/{layer}/dead_units``: the share of units that were never active in this validation,
    - ``sparsity/{layer}/duty_cycle_entropy``: `dendrite_zoo.metrics.duty_cycle_entropy`, in bits,

    over all validation loaders, and with ``/task_{j}`` behind for each task: loader ``j``, where there are several,
    else the task being trained, where it is known. For every linear layer and convolution
    ``sparsity/{layer}/weight_sparsity``, the share of weights that are zero.

    Only modules can be watched: call ``nn.ReLU()``, not ``F.relu``, or name the module around it in
    ``layers``. A smooth activation such as GELU is hardly ever exactly zero, and its sparsity shows that. A
    compiled network (``torch.compile``) is counted where its first call is in a validation with this callback.

    A module that is used at several places at one width is one layer, its counts added: one ``nn.ReLU()`` behind two
    layers hides units that are dead in one of them. Give each place a module of its own.

    Where the context alone chooses the units (``winners="context"``), those that it chose count as active, and all
    others of the layer as zero, though they are never computed.

    The hooks are there during a validation only. They add up counts where the network runs and wait for
    nothing; the counts are summed over processes at the end.

    Args:
        layers: watch these modules only, and what is in them.
        task: from the Trainer to the task being trained, such as ``lambda trainer: trainer.current_epoch // 3``; by
            default the ``current_task`` of the datamodule or the module.

    Attributes:
        values: layer -> metric (``"activation_sparsity"``, ``"activation_sparsity/task_0"``, ``"weight_sparsity"``,
            ...) -> value, of the last validation; `dendrite_zoo.report.sparsity_table` prints it.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.

    Example:
        >>> SparsityLogger().values
        {}
    """

    def __init__(self, layers: Sequence[str] | None = None, *, task: Callable[[Trainer], int] | None = None) -> None:
        super().__init__(layers, task)
        self.values: dict[str, dict[str, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The values of the last validation."""
        return {"values": {layer: dict(values) for layer, values in self.values.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.values = state_dict["values"]

    def on_counted(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how sparse the activations were, and how sparse the weights are."""
        counts = self._counts
        known = len(trainer.num_val_batches) > 1 or current_task(trainer, self.task) is not None
        self.values = {layer: _activation_values(*counts.of(layer), per_task=known) for layer in counts.layers}
        for layer, module in weight_layers(pl_module, self.layers).items():
            self.values.setdefault(layer, {})["weight_sparsity"] = float(weight_sparsity(cast(Tensor, module.weight)))
        flat = {f"sparsity/{layer}/{name}": x for layer, values in self.values.items() for name, x in values.items()}
        log_metrics(trainer, flat)


def _activation_values(tasks: list[int], active: Tensor, samples: Tensor, *, per_task: bool) -> dict[str, float]:
    """Each metric over all tasks, then for each of them; ``active`` and ``samples`` ``(T, U)``."""
    active, samples = (torch.cat([x.sum(0, keepdim=True), x]) for x in (active, samples))
    metrics = {
        "activation_sparsity": 1 - active.sum(-1) / samples.sum(-1),
        "dead_units": dead_units(active),
        "duty_cycle_entropy": duty_cycle_entropy(active, samples),
    }
    suffixes = ["", *(f"/task_{j}" for j in tasks if per_task)]
    return {
        name + suffix: value
        for name, values in metrics.items()
        for suffix, value in zip(suffixes, values.tolist(), strict=False)
    }
