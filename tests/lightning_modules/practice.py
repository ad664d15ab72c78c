"""A small run of soft actor-critic from start to end."""

import logging
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint

from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.streams import OnlineTasks

TASKS = ("reach-v3", "drawer-close-v3")


def small_policy(**arguments):
    return ActiveDendritePolicy(TASKS, **{"hidden_features": [16, 16], "num_segments": 3, **arguments})


def practice(max_steps=5, **arguments):
    """Four rounds of five steps in two environments, the first without updates, in two epochs."""
    defaults = {
        "env_steps": 40,
        "epochs": 2,
        "steps_per_round": 5,
        "updates_per_round": 3,
        "warmup_steps": 20,
        "capacity": 1000,
        "environments": {"num_processes": 0, "max_steps": max_steps},
    }
    return OnlineTasks(TASKS, **{**defaults, **arguments})


class Crash(Exception):
    """Raised where a crash is to be survived by the test."""


class CrashAfter(Callback):
    """Ends a run before the next round is played."""

    def __init__(self, rounds):
        self.rounds = rounds

    def on_train_batch_start(self, trainer, *_):
        if trainer.datamodule.rounds == self.rounds:
            raise Crash


class EveryRound(Checkpoint):
    """A checkpoint after every round, as ModelCheckpoint writes them, which warns of its own with several steps."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(self.path)


class Result(Callback):
    """Writes what this process ends with, ``result-{rank}.pt``."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        state = trainer.optimizers[0].state_dict()["state"]
        moments = {f"{i}.{name}": torch.as_tensor(value) for i, s in state.items() for name, value in s.items()}
        data = trainer.datamodule
        replay = {f"replay.{name}": tensor for name, tensor in data.replay.state_dict().items()}
        weights = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        counts = {"env_steps": torch.tensor(data.env_steps), "updates": torch.tensor(trainer.global_step)}
        torch.save({**weights, **moments, **replay, **counts}, self.folder / f"result-{trainer.global_rank}.pt")


def train(folder, crash=None, data=None, options=None, policy=None, callbacks=(), **kwargs):
    """Train from the last checkpoint, where there is one."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(folder)
    module = MultiTaskSAC(small_policy(**(policy or {})), batch_size_per_task=8, lr=1e-2, **(options or {}))
    data = practice(max_steps=7, **(data or {}))
    last = folder / "last.ckpt"
    callbacks = [*callbacks, EveryRound(last), Result(folder), *([] if crash is None else [CrashAfter(crash)])]
    defaults = {
        **data.trainer_kwargs(),
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    trainer = Trainer(**{**defaults, **kwargs}, callbacks=callbacks)
    trainer.fit(module, data, ckpt_path=last if last.exists() else None)
    return trainer


def result(folder, rank=0):
    return torch.load(Path(folder) / f"result-{rank}.pt", weights_only=True)
