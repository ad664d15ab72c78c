"""How sparse a network is while it learns."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.activation_counts import LayerCounts
from dendrite_zoo.callbacks.layer_selection import Layers, weight_layers
from dendrite_zoo.callbacks.layer_watcher import LayerWatcher
from dendrite_zoo.callbacks.trainer import log_metrics
from dendrite_zoo.metrics.functional import dead_units, duty_cycle_entropy, weight_sparsity
from dendrite_zoo.tasks import Task


@say_new_names
class SparsityLogger(LayerWatcher):
    """Logs at each validation and test how many units of each layer are active, how evenly, and the weights' zeros.

    For every activation (`nn.ReLU` and all modules of its kind, our ``KWinners``, and functions such as ``F.relu``,
    ``torch.relu`` or ``x.gelu()`` that are called in a forward, those inside transformer blocks among them):

    - ``sparsity/{layer}/activation_sparsity``: the share of its outputs that are exactly zero,
    - ``sparsity/{layer}/dead_units``: the share of units that were never active (not zero) in this validation,
    - ``sparsity/{layer}/duty_cycle_entropy``: `dendrite_zoo.metrics.duty_cycle_entropy`, in bits,

    over all loaders, and with ``/task_{j}`` behind for each task: loader ``j``, where there are several,
    else the task being trained. One loader of `trainer.validate` has a task where the datamodule says its
    ``current_task``, or an index was given (``task=``, ``ForgettingLogger.task``). For every module with a weight
    (linear layers, convolutions, ``in_proj_weight`` of attention, recurrent layers)
    ``sparsity/{layer}/weight_sparsity``, the share of its weights that are exactly zero: pruned and parametrized ones
    as they are used; of an LSTM, all its matrices.

    A layer has its name in ``pl_module.named_modules()``, a function that of the module that calls it with its own:
    ``net.relu``. What is used at several places is several layers, in the order in which they run first: ``net.relu``,
    ``net.relu#2``; a module that runs as a whole more than once, as a cell does in a loop, is one. A unit is a
    feature after a linear layer, a channel after a convolution; every other dimension is samples, padding among them.

    A smooth activation (GELU, SiLU, sigmoid) is close to zero and hardly ever zero: its sparsity is 0 by this
    definition, and its units are never dead.

    Not seen are activations that are written as arithmetic (``x * (x > 0)``), in a module of ``torch.jit``, inside the
    kernel of a recurrent layer, or in copies in other threads (``nn.DataParallel``); name the module around one in
    ``layers`` to watch what it gives. Where nothing is seen, there is a warning.

    The network is watched while a batch is validated: nothing in it is touched, its outputs are the same to the bit,
    and nothing stays behind. What is compiled by ``torch.compile`` runs uncompiled meanwhile, and equal up to rounding.
    Counts are added up where the network runs and summed over processes at the end. Of a network whose context chooses
    the units (``winners="context"``), those that it chose count as active, all others of the layer as zero.

    Args:
        layers: watch these only, and what is in them: names of modules or of functions as they are logged, patterns
            (``"encoder.*"``), or classes of modules. One that has neither an activation module nor a weight in it is
            watched itself.
        task: the task being trained, as for `dendrite_zoo.callbacks.ForgettingLogger`; by default what the datamodule,
            the module or such a callback says.

    Attributes:
        values: layer -> metric (``"activation_sparsity"``, ``"activation_sparsity/task_0"``, ``"weight_sparsity"``,
            ...) -> value, of the last validation or test; `dendrite_zoo.report.sparsity_table` prints it.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.

    Example:
        >>> SparsityLogger().values
        {}
    """

    def __init__(self, layers: Layers | None = None, *, task: Task | None = None) -> None:
        super().__init__(layers, task)
        self._values: dict[str, dict[str, float]] = {}

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """Layer to the metrics of the last validation or test."""
        self.receive()
        return self._values

    def state_dict(self) -> dict[str, Any]:
        """The values of the last validation or test."""
        return {"values": {layer: dict(values) for layer, values in self.values.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._values = state_dict["values"]

    def _is_blank(self) -> bool:
        return not self.values

    def on_counted(self, trainer: Trainer, pl_module: LightningModule, counts: dict[str, LayerCounts]) -> None:
        """Log how sparse the activations were, and how sparse the weights are."""
        by_task = self.task_known
        self._values = {layer: _activation_values(*count, per_task=by_task) for layer, count in counts.items()}
        for layer, weights in weight_layers(pl_module, self.layers).items():
            if packed := [w.dtype for w in weights if not (w.is_floating_point() or w.is_complex())]:
                self._warn_once(f"The weights of {layer!r} are packed as {packed[0]}, so their zeros are not counted.")
            elif size := sum(weight.numel() for weight in weights):
                zeros = sum(float(weight_sparsity(weight)) * weight.numel() for weight in weights)
                self._values.setdefault(layer, {})["weight_sparsity"] = zeros / size
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
