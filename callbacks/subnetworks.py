"""The sub-networks that tasks find in a network."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.activation_counts import LayerCounts
from dendrite_zoo.callbacks.context_watcher import winning_segments
from dendrite_zoo.callbacks.layer_selection import Layers
from dendrite_zoo.callbacks.layer_watcher import LayerWatcher
from dendrite_zoo.callbacks.trainer import log_metrics, num_loaders, output_folder
from dendrite_zoo.functional import task_overlap
from dendrite_zoo.report import plot_subnetworks, subnetwork_record, write_record
from dendrite_zoo.tasks import Task, current_task, has_task


@say_new_names
class SubnetworkLogger(LayerWatcher):
    """Logs at each validation and test which units are active for which task, and which segments win in its context.

    Loader ``j`` is task ``j``; a single one is the current task's, task 0's where nothing says tasks. For
    every activation (our ``KWinners``, ``nn.ReLU``, ``F.relu``, ...), over the tasks learned so far:

    - ``subnetworks/{layer}/overlap``: the mean share of active units that two tasks have in common
      (`dendrite_zoo.metrics.task_overlap`),
    - ``subnetworks/{layer}/within``: the same for two inputs of one task.

    Where the context alone chooses the units (``winners="context"``), those that it chose count as active. And for
    every layer with ``segments`` ``(U, S, C)`` that is called with a context:

    - ``subnetworks/{layer}/segments``: how many of its segments a unit uses for these tasks, on average.

    When a fit, ``trainer.validate`` or ``trainer.test`` ends, the first process writes ``subnetworks.json``; after a
    fit also, with the ``[report]`` extra, ``subnetworks.png``: units by tasks, and the overlap of tasks (Iyer et al.
    2022, figure on sub-networks). `plot` draws it at any time.

    Layers, their names and what is not seen are those of `SparsityLogger`.

    Args:
        layers: watch these only, and what is in them, as for `SparsityLogger`.
        task: the task being trained, as for `dendrite_zoo.callbacks.ForgettingLogger`; by default what the datamodule,
            the module or such a callback says.
        num_units: number of units of each layer in the picture and the record.
        folder: where to write; by default where the Trainer's logger writes, else its ``default_root_dir``.

    Attributes:
        win_rates: layer -> ``(T, U)`` float32 on the CPU, the share of a task's inputs for which a unit was active, in
            the task's latest validation or test; NaN where not measured.
        segments: layer -> ``(T, U)`` integers, the segment that wins in the context of most of a task's first batch; -1
            where not measured.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.

    Example:
        >>> SubnetworkLogger(layers=["model.mlp.activations"]).win_rates
        {}
    """

    def __init__(
        self,
        layers: Layers | None = None,
        *,
        task: Task | None = None,
        num_units: int = 64,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(layers, task)
        self.num_units, self.folder = num_units, folder
        self._win_rates: dict[str, Tensor] = {}
        self._segments: dict[str, Tensor] = {}
        self._output: Path | None = None

    @property
    def win_rates(self) -> dict[str, Tensor]:
        """Layer to how often each unit was active, ``(T, U)``."""
        self.receive()
        return self._win_rates

    @property
    def segments(self) -> dict[str, Tensor]:
        """Layer to the segment that won, ``(T, U)``."""
        self.receive()
        return self._segments

    def state_dict(self) -> dict[str, Any]:
        """What was seen last of each task."""
        return {"win_rates": dict(self._win_rates), "segments": dict(self._segments)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._win_rates, self._segments = dict(state_dict["win_rates"]), dict(state_dict["segments"])

    def _is_blank(self) -> bool:
        return not (self.win_rates or self.segments)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder to write to."""
        super().setup(trainer, pl_module, stage)
        self._output = output_folder(trainer, self.folder)

    def on_counted(self, trainer: Trainer, pl_module: LightningModule, counts: dict[str, LayerCounts]) -> None:
        """Take in what was seen, and log what follows from it."""
        if not self.task_known and (num_loaders(trainer) > 1 or has_task(trainer, self.task)):
            self._warn_once(
                "Expected a validation loader for each task, but the task of this validation's batches is unknown, so "
                "nothing was taken in. Pass the loaders of all tasks, in their order; or set `task=` to the index."
            )
            return
        for layer, (tasks, active, samples) in counts.items():
            rates = _resized(self._win_rates.get(layer), max(tasks) + 1, active.shape[1], blank=torch.nan)
            rates[tasks] = (active / samples.clamp(min=1)).float()
            self._win_rates[layer] = rates
        for (layer, task), (module, context) in self._contexts.contexts.items():
            winners = winning_segments(module, context)
            self._segments[layer] = _resized(self._segments.get(layer), task + 1, len(winners), blank=-1)
            self._segments[layer][task] = winners
        log_metrics(trainer, trainer.strategy.broadcast(self._values(trainer)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what ``trainer.validate`` or ``trainer.test`` has seen."""
        if trainer.state.fn != "fit" and self._output is not None and self._win_rates:
            write_record(self.record(), self._output / "subnetworks.json")

    on_test_end = on_validation_end

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record and draw the picture."""
        if self._output is None or not self._win_rates:
            return
        write_record(self.record(), self._output / "subnetworks.json")
        try:
            self.plot(self._output / "subnetworks.png")
        except ImportError as missing:
            rank_zero_info(str(missing))

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw what was seen last of each task, at any time: `dendrite_zoo.report.plot_subnetworks`.

        Args:
            path: where to save a PNG (or what the suffix says); None saves nothing.
            **options: ``title``; ``tasks``, their names in order; ``max_layers``, 8 by default.

        Returns:
            The ``matplotlib.figure.Figure``.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: nothing was seen yet.
        """
        return plot_subnetworks(self.record(), path, **options)

    def record(self) -> dict[str, Any]:
        """What was seen last of each task, ready for JSON: `dendrite_zoo.report.subnetwork_record`."""
        return subnetwork_record(self.win_rates, self.segments, num_units=self.num_units)

    def _values(self, trainer: Trainer) -> dict[str, float]:
        task = current_task(trainer, self.task)
        learned = slice(None if task is None or trainer.state.fn != "fit" else task + 1)
        values = {}
        for layer, rates in self._win_rates.items():
            overlap = task_overlap(rates[learned])
            apart = ~torch.eye(len(overlap), dtype=torch.bool)
            values[f"subnetworks/{layer}/overlap"] = float(overlap[apart].nanmean())
            values[f"subnetworks/{layer}/within"] = float(overlap.diagonal().nanmean())
        for layer, winners in self._segments.items():
            winners = winners[learned]
            winners = winners[(winners >= 0).all(1)].sort(0).values
            used = (winners.diff(dim=0) != 0).sum(0) + 1.0
            values[f"subnetworks/{layer}/segments"] = float(used.mean())
        return values


def _resized(table: Tensor | None, tasks: int, units: int, blank: float) -> Tensor:
    """A copy of ``(T, U)`` with room for more tasks."""
    dtype = torch.long if blank == -1 else torch.float32
    resized = torch.full((max(tasks, 0 if table is None else len(table)), units), blank, dtype=dtype)
    if table is not None and table.shape[1] == units:
        resized[: len(table)] = table
    return resized
