"""Three bodies of MuJoCo's walker, learned one after another by trial and error: what is left of the first.

    python benchmarks/walkers.py --steps 2500 --out results/own-environments/walkers.json

Returns on twenty starts never seen in training, of every body after each was learned, for a network with
``learn="new"``, whose columns start as drawn or from the first body's, and for the same one with all of its weights.
With so few steps nobody walks far: the question is what is left of a return, not how high it is.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo._core.environment import hardware, versions
from dendrite_zoo.callbacks import SuccessLogger
from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.report import write_record
from dendrite_zoo.rl import TaskSpec
from dendrite_zoo.streams import OnlineTasks

HOW = {
    'learn="new"': {"learn": "new"},
    'learn="new", init_from="as it is"': {"learn": "new", "init_from": "as it is"},
    'learn="all"': {"learn": "all"},
}
BODIES = {"as it is": 1.0, "legs of half the mass": 0.5, "legs of twice the mass": 2.0}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}


def walker(legs: float) -> gymnasium.Env:
    """The walker with legs of another mass."""
    env = gymnasium.make("Walker2d-v5")
    env.unwrapped.model.body_mass[2:] *= legs  # after the world and the torso
    return env


class Matrix(SuccessLogger):
    """Notes the returns of every body, and the actions of every task for the same observations, at each validation."""

    def __init__(self) -> None:
        super().__init__(num_goals=20, num_processes=0)
        self.returns: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []

    def on_validation_epoch_end(self, trainer, pl_module):
        super().on_validation_epoch_end(trainer, pl_module)
        seen = np.random.default_rng(0).normal(size=(1000, trainer.datamodule.observation_size))
        tasks = range(len(BODIES))
        self.returns.append(self.report.returns)
        self.actions.append(np.stack([pl_module.act_batch(seen, np.full(len(seen), task)) for task in tasks]))


def learn(how: str, steps: int) -> dict[str, object]:
    """Learn the bodies in turn, and say what was measured after each."""
    seed_everything(0, verbose=False)
    tasks = [TaskSpec(name, partial(walker, legs)) for name, legs in BODIES.items()]
    amount = {"env_steps": steps * len(tasks), "steps_per_round": 100, "updates_per_round": 50, "warmup_steps": 1000}
    options = {"epochs": len(tasks), "environments": {"num_processes": 0}}
    data = OnlineTasks(tasks, order="sequential", **amount, **options)
    sizes = {"observation_size": data.observation_size, "action_size": data.action_size}
    policy = ActiveDendritePolicy(data.tasks, hidden_features=[128, 128], dendrite_layers=None, **sizes)
    module, log, begun = MultiTaskSAC(policy, lr=1e-3, batch_size_per_task=128, **HOW[how]), Matrix(), time.time()
    Trainer(**data.trainer_kwargs(), **QUIET, accelerator="cpu", callbacks=[log]).fit(module, data)
    earlier = [(after, task) for after in range(len(tasks)) for task in range(after)]
    moved = [float(np.abs(log.actions[after][task] - log.actions[task][task]).max()) for after, task in earlier]
    return {
        "learn": how,
        "returns_after_each": [returns.mean(axis=1).round(1).tolist() for returns in log.returns],
        "equal_returns_of_earlier": all((log.returns[a][t] == log.returns[t][t]).all() for a, t in earlier),
        "largest_change_of_earlier_actions": max(moved),
        "parameters": sum(p.numel() for p in policy.parameters()),
        "wall_time_s": round(time.time() - begun),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000, help="of each body")
    parser.add_argument("--learn", nargs="+", choices=list(HOW), default=list(HOW))
    parser.add_argument("--out")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    command = f"python benchmarks/walkers.py --steps {arguments.steps}"
    about = {"command": command, "seeds": [0], "env_steps_per_body": arguments.steps, "bodies": list(BODIES)}
    about |= {"versions": versions("gymnasium", "mujoco"), "hardware": hardware()}
    runs = []
    for how in arguments.learn:
        runs.append(learn(how, arguments.steps))
        print(runs[-1], flush=True)
        if arguments.out:
            write_record({**about, "runs": runs}, Path(arguments.out))


if __name__ == "__main__":
    main()
