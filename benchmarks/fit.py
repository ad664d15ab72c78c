"""What `Trainer.fit` costs with the library's module and stream, against a plain LightningModule and a bare loop.

    python benchmarks/fit.py [--rounds 15]

The same small network (64-128-128-10, ReLU, no dendrites), the same batches of the digits, one task, Adam, 30 epochs of
12 steps, no loggers, no checkpoints, no validation: what is left is the overhead of a step. One thread.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from harness import compare, in_turn, rounds_asked
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import SparsityLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.streams import PermutedTasks

NAME, EPOCHS, BATCH = "fit", 30, 128
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "limit_val_batches": 0,
}


def network() -> nn.Sequential:
    """The network of all cases."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


class Plain(LightningModule):
    """What people write."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss, which is logged."""
        x, y = batch
        loss = F.cross_entropy(self.network(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def stream() -> PermutedTasks:
    """One task of the digits."""
    return PermutedTasks("digits", num_tasks=1, epochs_per_task=EPOCHS, batch_size=BATCH)


def main() -> None:
    """Print a line for each comparison."""
    rounds = rounds_asked(__doc__)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    data = stream()
    data.setup()
    batches = list(data.train_dataloader())
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))

    def bare() -> None:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(EPOCHS):
            for rows, labels in data.train_dataloader():
                optimizer.zero_grad()
                F.cross_entropy(model(rows), labels).backward()
                optimizer.step()

    def plain() -> None:
        loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True, drop_last=False)
        Trainer(max_epochs=EPOCHS, **QUIET).fit(Plain(), loader)

    def ours(*callbacks: Any) -> None:
        tasks = stream()
        Trainer(**tasks.trainer_kwargs(), callbacks=list(callbacks), **QUIET).fit(ContinualClassifier(network()), tasks)

    cases = {
        "ContinualClassifier": ours,
        "plain LightningModule": plain,
        "bare loop": bare,
        "with SparsityLogger": lambda: ours(SparsityLogger()),
    }
    seconds = in_turn(cases, rounds)
    compare(NAME, seconds, "ContinualClassifier", "plain LightningModule", "<= 1.2")
    compare(NAME, seconds, "plain LightningModule", "bare loop")
    compare(NAME, seconds, "ContinualClassifier", "bare loop")
    compare(NAME, seconds, "with SparsityLogger", "ContinualClassifier", "<= 1.03")


if __name__ == "__main__":
    main()
