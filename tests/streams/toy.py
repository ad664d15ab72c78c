"""A stream of a few rows, and a module that remembers what it was given."""

import copy
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

CLASSES = 3


def tensors(rows=11, features=4, test_rows=5, seed=0):
    """Random rows, float; every class is there."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(rows + test_rows, features, generator=draws)
    y = torch.arange(rows + test_rows) % CLASSES
    return x[:rows], y[:rows], x[rows:], y[rows:]


class Memory(LightningModule):
    """A linear classifier under Adam; ``batches`` and ``validations`` are part of its checkpoints."""

    def __init__(self, features=4):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(features, CLASSES)
        self.batches: list = []  # (epoch, task, x)
        self.validations: list = []  # [epoch, step that is logged, weights, rows of each loader]

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.batches.append((self.trainer.current_epoch, self.trainer.datamodule.current_task, x.tolist()))
        return F.cross_entropy(self.linear(x), y)

    def on_validation_epoch_start(self):
        step = self.trainer.fit_loop.epoch_loop._batches_that_stepped
        self.validations.append([self.trainer.current_epoch, step, self.linear.weight.flatten().tolist(), {}])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        rows = self.validations[-1][-1]
        rows[dataloader_idx] = rows.get(dataloader_idx, 0) + len(batch[1])

    test_step = validation_step

    def on_test_epoch_start(self):
        self.on_validation_epoch_start()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["memory"] = copy.deepcopy((self.batches, self.validations))

    def on_load_checkpoint(self, checkpoint):
        self.batches, self.validations = copy.deepcopy(checkpoint["memory"])

    def due(self):
        """The loaders of each validation that had rows."""
        return [sorted(rows) for _, _, _, rows in self.validations]


class Crash(Exception):
    pass


class CrashAt(Callback):
    """Ends a run at a step: after its batch (and the checkpoint of it), or in the validation that follows."""

    def __init__(self, step, where="batch"):
        self.step, self.where = step, where

    def on_train_batch_end(self, trainer, *args):
        if self.where == "batch" and trainer.global_step == self.step:
            raise Crash

    def on_validation_batch_end(self, trainer, *args):
        if self.where == "validation" and trainer.global_step == self.step:
            raise Crash


def trainer(tmp_path, **kwargs):
    """A quiet Trainer on the CPU."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": bool(kwargs.get("callbacks")),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    with warnings.catch_warnings():
        return Trainer(**{**defaults, **kwargs})
