"""The sub-networks that tasks find in a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from dendrite_zoo.callbacks.contexts import Contexts, answering_segments, without_parts
from dendrite_zoo.callbacks.layer_watcher import UnitCounts, activation_layers
from dendrite_zoo.callbacks.log_metrics import send_figures
from dendrite_zoo.callbacks.sparsity import sum_over_ranks
from dendrite_zoo.metrics import task_overlap
from dendrite_zoo.report import plot_subnetworks, subnetwork_record, write_record
from dendrite_zoo.tasks import current_task

__all__ = ["SubnetworkLogger"]


class SubnetworkLogger(Callback):
    """Sees at each validation which units are active for which task, and which segments answer its context.

    Validation loader ``j`` is task ``j``; a single one is the current task's, task 0's where nobody tells which that
    is. For every activation module (our ``KWinners``, ``nn.ReLU``, ...), by its name in ``pl_module.named_modules()``,
    over the tasks learned so far:

    - ``subnetworks/{layer}/overlap``: the mean share of active units that two tasks have in common
      (`dendrite_zoo.metrics.subnetworks.task_overlap`),
    - ``subnetworks/{layer}/within``: the same for two inputs of one task.

    Where the context alone chooses the units (``winners="context"``), those that it chose count as active. And for
    every layer with ``segments`` ``(U, S, C)`` that is called with a context:

    - ``subnetworks/{layer}/segments``: how many of its segments a unit uses for these tasks, on average.

    When a fit or a validation ends, the first process writes ``subnetworks.json`` and, with the ``[report]`` extra,
    ``subnetworks.png``: units by tasks, and the overlap of tasks (Iyer et al. 2022, figure on sub-networks).

    As for `SparsityLogger`, only modules can be watched, the hooks are there during a validation only, and what a
    compiled network does is not seen.

    Args:
        layers: watch these modules only, and what is in them.
        task: tells the task that is trained on, such as ``lambda trainer: trainer.current_epoch // 3``; by default the
            ``current_task`` of the datamodule or the module.
        num_units: so many units of each layer are in the picture and the record.
        folder: where to write; by default where the Trainer's logger writes, else its ``default_root_dir``.

    Attributes:
        win_rates: layer -> ``(T, U)`` float32 on the CPU, the share of a task's inputs for which a unit was active, in
            the task's latest validation; NaN where not measured.
        segments: layer -> ``(T, U)`` integers, the segment that answers the context of most of a task's first batch; -1
            where not measured.

    Raises:
        ValueError: a layer that the module does not have; names the nearest. Or a task that is no index.

    Example:
        >>> SubnetworkLogger(layers=["model.mlp.activations"]).win_rates
        {}
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        task: Callable[[Trainer], int] | None = None,
        num_units: int = 64,
        folder: str | Path | None = None,
    ) -> None:
        self.layers = None if layers is None else list(layers)
        self.task = task
        self.num_units = num_units
        self.folder = None if folder is None else Path(folder)
        self.win_rates: dict[str, Tensor] = {}
        self.segments: dict[str, Tensor] = {}
        self._counts = UnitCounts()
        self._contexts = Contexts(self._counts)
        self._run_folder: Path | None = None

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state."""
        return self._generate_state_key(layers=self.layers)

    def state_dict(self) -> dict[str, Any]:
        """What was seen last of each task."""
        return {"win_rates": dict(self.win_rates), "segments": dict(self.segments)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.win_rates, self.segments = dict(state_dict["win_rates"]), dict(state_dict["segments"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that the layers are there."""
        activation_layers(pl_module, self.layers)
        self._run_folder = self._find_folder(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        self._stop()
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._run_folder = self._find_folder(trainer)
        # in the sanity check too, as SparsityLogger does
        activations = activation_layers(pl_module, self.layers)
        self._counts = UnitCounts().watch(without_parts(pl_module, activations))
        self._contexts = Contexts(self._counts).watch(pl_module, self.layers)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the task."""
        several = len(trainer.num_val_batches) > 1
        self._counts.task = dataloader_idx if several else current_task(trainer, self.task) or 0

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
        """Take in what was seen, and log what follows from it."""
        self._stop()
        if trainer.sanity_checking:
            return
        sum_over_ranks(self._counts, trainer)
        for layer in self._counts.layers:
            tasks, active, samples = self._counts.of(layer)
            rates = _grown(self.win_rates.get(layer), max(tasks) + 1, active.shape[1], blank=torch.nan)
            rates[tasks] = (active / samples.clamp(min=1)).float()
            self.win_rates[layer] = rates
        for (layer, task), (module, context) in self._contexts.seen.items():
            answers = answering_segments(module, context)
            self.segments[layer] = _grown(self.segments.get(layer), task + 1, len(answers), blank=-1)
            self.segments[layer][task] = answers
        send_figures(trainer, trainer.strategy.broadcast(self._figures(trainer)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what ``trainer.validate`` has seen."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record and draw the picture."""
        self._write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hooks."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hooks."""
        self._stop()

    def _stop(self) -> None:
        self._counts.stop()
        self._contexts.stop()

    def _figures(self, trainer: Trainer) -> dict[str, float]:
        task = current_task(trainer, self.task)
        learned = slice(None if task is None or trainer.state.fn == TrainerFn.VALIDATING else task + 1)
        figures = {}
        for layer, rates in self.win_rates.items():
            overlap = task_overlap(rates[learned])
            apart = ~torch.eye(len(overlap), dtype=torch.bool)
            figures[f"subnetworks/{layer}/overlap"] = float(overlap[apart].nanmean())
            figures[f"subnetworks/{layer}/within"] = float(overlap.diagonal().nanmean())
        for layer, answers in self.segments.items():
            answers = answers[learned]
            answers = answers[(answers >= 0).all(1)].sort(0).values
            used = (answers.diff(dim=0) != 0).sum(0) + 1.0
            figures[f"subnetworks/{layer}/segments"] = float(used.mean())
        return figures

    def _find_folder(self, trainer: Trainer) -> Path | None:
        log_dir = trainer.log_dir  # asks all processes
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        return self.folder or Path(log_dir or trainer.default_root_dir)

    def _write(self) -> None:
        if self._run_folder is None or not self.win_rates:
            return
        record = subnetwork_record(self.win_rates, self.segments, num_units=self.num_units)
        write_record(record, self._run_folder / "subnetworks.json")
        try:
            plot_subnetworks(record, self._run_folder / "subnetworks.png")
        except ImportError as missing:
            rank_zero_info(str(missing))


def _grown(table: Tensor | None, tasks: int, units: int, blank: float) -> Tensor:
    """A copy of ``(T, U)`` with room for so many tasks."""
    dtype = torch.long if blank == -1 else torch.float32
    grown = torch.full((max(tasks, 0 if table is None else len(table)), units), blank, dtype=dtype)
    if table is not None and table.shape[1] == units:
        grown[: len(table)] = table
    return grown
