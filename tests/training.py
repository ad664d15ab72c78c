"""One small run from start to end, for a process of its own: test_resume.py kills it, test_ddp.py spreads it."""

import json
import logging
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.cli.run_folder import LastCheckpoint
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks

TASKS, EPOCHS, BATCHES = 3, 2, 3
STEPS = TASKS * EPOCHS * BATCHES


def data(rows, test_rows=30, features=8, classes=3):
    """Points around the centres of their classes: a task that is learned, though not perfectly."""
    draws = torch.Generator().manual_seed(1)
    centres = torch.randn(classes, features, generator=draws)
    y = torch.randint(classes, (rows + test_rows,), generator=draws)
    x = centres[y] + 0.8 * torch.randn(rows + test_rows, features, generator=draws)
    return x[:rows], y[:rows], x[rows:], y[rows:]


class Crash(Exception):
    """Raised where a crash is to be survived by the test."""


class CrashAt(Checkpoint):
    """Ends a run after the checkpoint of a step (checkpoints come last, in order), or in the validation after it."""

    def __init__(self, step, where="batch", kill=False):
        self.step, self.where, self.kill = step, where, kill

    def crash(self, trainer, where):
        if (trainer.global_step, where) == (self.step, self.where) and not trainer.sanity_checking:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Crash

    def on_train_batch_end(self, trainer, *args):
        self.crash(trainer, "batch")
        if (trainer.fit_loop.total_batch_idx + 1, "any batch") == (self.step, self.where):
            raise Crash

    def on_validation_batch_end(self, trainer, *args):
        self.crash(trainer, "validation")


def train(folder, crash=None, *, rows=11, batch_size=4, **kwargs):
    """Train on three tasks, from the last checkpoint where there is one, and write ``result.pt``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(folder)
    model = ActiveDendriteClassifier(8, [24, 24], 3, max_tasks=TASKS, activation_density=0.25)
    module = ContinualClassifier(model, lr=0.02)
    stream = PermutedTasks(data(rows), TASKS, epochs_per_task=EPOCHS, batch_size=batch_size)
    log = ForgettingLogger("val/acc", folder=folder, verbose=False, pictures=False)
    callbacks = [log, LastCheckpoint(folder / "checkpoints", seconds=0)]
    defaults = {
        **stream.trainer_kwargs(),
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(**{**defaults, **kwargs}, callbacks=[*callbacks, *([CrashAt(*crash)] if crash else [])])
    last = folder / "checkpoints" / "last.ckpt"
    if not last.exists():
        trainer.validate(module, stream, verbose=False)
    trainer.fit(module, stream, ckpt_path=last if last.exists() else None)
    if trainer.is_global_zero:
        state = trainer.optimizers[0].state_dict()["state"]
        result = {
            "weights": {name: tensor.clone() for name, tensor in module.state_dict().items()},
            "optimizer": {(i, name): torch.as_tensor(v) for i, s in state.items() for name, v in s.items()},
            "matrix": {"matrix": log.matrix, "baseline": log.baseline},
            "metrics": {name: value for name, value in trainer.callback_metrics.items() if name != "train/loss"},
        }
        torch.save(result, folder / "result.pt")


if __name__ == "__main__":
    train(sys.argv[1], **json.loads(sys.argv[2]))
