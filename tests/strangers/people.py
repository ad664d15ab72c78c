"""What the pipelines have in common: three tasks, a small network, and Lightning code as people write it.

Nothing of this library is used here, nor in any function marked `pipeline`.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 2
"""Epochs a task."""
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "log_every_n_steps": 1,
}


def pipeline(function):
    """Mark a pipeline in the form that people write: it gets callbacks, and knows nothing of them."""
    return function


def make_task(seed: int, test: int) -> tuple[TensorDataset, TensorDataset]:
    """Three classes by a teacher of its own: what one task asks for contradicts the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(48 + test, 8, generator=generator)
    y = (x @ torch.randn(8, 3, generator=generator)).argmax(1)
    return TensorDataset(x[:48], y[:48]), TensorDataset(x[48:], y[48:])


# Of unequal size, none a multiple of the batch: a mean of batches is not the mean of samples.
TASKS = [make_task(seed, test) for seed, test in enumerate((40, 33, 29))]


def train_loader(task: int, batch_size: int = 16) -> DataLoader:
    return DataLoader(TASKS[task][0], batch_size=batch_size, shuffle=True)


def val_loader(task: int) -> DataLoader:
    return DataLoader(TASKS[task][1], batch_size=24)


def val_loaders() -> list[DataLoader]:
    return [val_loader(task) for task in range(len(TASKS))]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 3))


class Learner(LightningModule):
    """Somebody's base class."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net or mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.03)


class Plain(Learner):
    """Logs a tensor for each validation loader."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("val/acc", (self(x).argmax(1) == y).float().mean())


class ByEpoch(Plain):
    """One fit for all tasks: the training data change with the epoch."""

    def train_dataloader(self):
        return train_loader(min(self.trainer.current_epoch // EPOCHS, len(TASKS) - 1))

    def val_dataloader(self):
        return val_loaders()


ONE_FIT: dict[str, Any] = {"max_epochs": EPOCHS * len(TASKS), "reload_dataloaders_every_n_epochs": 1, **QUIET}
