"""Environments of one's own, learned one after another: a small run for processes of their own."""

import logging
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from dendrite_zoo.callbacks import ForgettingLogger, SuccessLogger
from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.streams import OnlineTasks
from tests.rl.worlds import ledges


class Cut(Callback):
    """Counts the steps that the two processes did not simulate, as an episode ended within an action."""

    steps = 0

    def on_train_batch_end(self, trainer, *_):
        self.steps += 5 * 2 * 2 - trainer.datamodule.practice.simulated


def train(folder):
    """Four rounds of each of two tasks, in two processes."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_features": [16, 16], "num_segments": 2, "observation_size": 3, "action_size": 2}
    module = MultiTaskSAC(ActiveDendritePolicy(("calm", "windy"), **sizes), batch_size_per_task=8, lr=1e-2, n_step=2)
    amounts = {"env_steps": 160, "epochs": 4, "steps_per_round": 5, "updates_per_round": 2, "warmup_steps": 40}
    environments = {"num_processes": 0, "action_repeat": 2}
    data = OnlineTasks(ledges(), order="sequential", environments=environments, capacity=100, **amounts)
    log, cut = ForgettingLogger("val/success", folder=folder / "matrix", pictures=False, verbose=False), Cut()
    callbacks = [SuccessLogger(num_goals=2, num_processes=0), log, cut]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    two = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "enable_checkpointing": False}
    trainer = Trainer(**data.trainer_kwargs(), **quiet, **two, callbacks=callbacks)
    trainer.fit(module, data)
    counts = {"rounds": data.rounds, "env_steps": data.env_steps, "cut": cut.steps, "matrix": log.matrix}
    played = {"rows": data.replay.state_dict()["rows"], "task": data.sample(4).task.unique().tolist()}
    weights = {name: weight.clone() for name, weight in module.state_dict().items()}
    torch.save({**counts, **played, "weights": weights}, folder / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    train(Path(sys.argv[1]))
