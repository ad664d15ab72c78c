"""What Lightning costs soft actor-critic: updates a second of MultiTaskSAC under the Trainer / of a plain loop.

    python benchmarks/sac.py [--rounds 12]

The plain loop is the usual one, with the same networks and batches and an optimizer for each of policy, critics and
entropy coefficients. Both learn from the same remembered steps in turn, so nothing is played.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings

import torch
import torch.nn.functional as F
from harness import compare, rounds_asked
from lightning.pytorch import Callback, Trainer
from torch import nn

from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import MT10
from dendrite_zoo.streams import OnlineTasks

NAME = "soft actor-critic"
PLAIN = {"num_segments": 0, "activation": "relu", "weight_density": 1.0, "append_task": True}


class Remembered(OnlineTasks):
    """Steps drawn at random instead of played."""

    def setup(self, stage=None):
        """Fill the memory."""
        n = 1000 * self.num_tasks
        task = torch.arange(n) % self.num_tasks
        self.replay.add(torch.randn(n, 39), torch.rand(n, 4) * 2 - 1, torch.rand(n), torch.randn(n, 39), task)

    def collect(self, act, steps):
        """Play nothing."""
        self.rounds += 1
        return {}


class PlainLoop:
    """Soft actor-critic as it is usually written."""

    def __init__(self, policy, critic, batch_size_per_task, lr=3e-4):
        self.policy, self.critic, self.slow = policy, critic, copy.deepcopy(critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(len(policy.tasks)))
        self.batch_size_per_task = batch_size_per_task
        groups = policy.parameters(), critic.parameters(), [self.log_alpha]
        self.of_policy, self.of_critic, self.of_alpha = (torch.optim.Adam(g, lr=lr, fused=True) for g in groups)

    def sample(self, observation, task):
        mean, log_std = self.policy(observation, task)
        noise = torch.randn_like(mean)
        before = mean + log_std.exp() * noise
        log_prob = -0.5 * noise**2 - log_std - 0.919 - 2 * (0.693 - before - F.softplus(-2 * before))
        return before.tanh(), log_prob.sum(1)

    def update(self, replay):
        observation, action, reward, next_observation, task, _ = replay.sample(self.batch_size_per_task)
        alpha = self.log_alpha.detach().exp()[task]
        with torch.no_grad():
            next_action, next_log_prob = self.sample(next_observation, task)
            next_q = torch.min(*self.slow(next_observation, next_action, task))
            target = reward + 0.99 * (next_q - alpha * next_log_prob)
        q1, q2 = self.critic(observation, action, task)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        self.of_critic.zero_grad()
        loss.backward()
        self.of_critic.step()

        own, log_prob = self.sample(observation, task)
        loss = (alpha * log_prob - torch.min(*self.critic(observation, own, task))).mean()
        self.of_policy.zero_grad()
        loss.backward()
        self.of_policy.step()

        loss = -(self.log_alpha.exp()[task] * (log_prob.detach() - 4)).mean()
        self.of_alpha.zero_grad()
        loss.backward()
        self.of_alpha.step()
        with torch.no_grad():
            for slow, fast in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
                slow.mul_(0.995).add_(0.005 * fast)


class InTurn(Callback):
    """Times each round under the Trainer, logging included, and then as many updates of the plain loop."""

    def __init__(self, plain):
        self.plain, self.seconds = plain, {"Trainer": [], "plain loop": []}
        self.ended = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.ended is not None:  # from the end of a round to that of the next: all that Lightning does
            self.seconds["Trainer"].append(time.perf_counter() - self.ended)
            start = time.perf_counter()
            for _ in range(batch.updates):
                self.plain.update(trainer.datamodule.replay)
            self.seconds["plain loop"].append(time.perf_counter() - start)
        self.ended = time.perf_counter()


def measure(name: str, tasks: tuple[str, ...], batch_size_per_task: int, updates: int, rounds: int, **network: object):
    """Print one comparison."""
    torch.manual_seed(0)
    policy = ActiveDendritePolicy(tasks, **network)
    module = MultiTaskSAC(policy, batch_size_per_task=batch_size_per_task)
    watch = InTurn(PlainLoop(copy.deepcopy(policy), copy.deepcopy(module.critic), batch_size_per_task))
    steps = len(tasks) * (rounds + 2)
    data = Remembered(tasks, env_steps=steps, epochs=1, steps_per_round=1, updates_per_round=updates, warmup_steps=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        **data.trainer_kwargs(), **quiet, accelerator="cpu", enable_checkpointing=False, limit_val_batches=0,
        callbacks=[watch],
    )  # fmt: skip
    trainer.fit(module, data)
    seconds = {case: values[1:] for case, values in watch.seconds.items()}
    rate = {case: round(updates / sorted(values)[len(values) // 2], 1) for case, values in seconds.items()}
    compare(NAME, seconds, "plain loop", "Trainer", ">= 0.9", network=name, tasks=len(tasks),
            batch=batch_size_per_task * len(tasks), updates_a_round=updates, updates_a_second=rate)  # fmt: skip


def main() -> None:
    """Print a line for each network."""
    rounds = rounds_asked(__doc__, 12)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`isinstance|.*does not have many workers")
    three = ("reach-v3", "drawer-close-v3", "window-close-v3")
    measure("MLP 128-128", three, 64, 50, rounds, hidden_features=[128, 128], **PLAIN)
    measure("active dendrites 256-256", three, 64, 25, rounds, hidden_features=[256, 256])
    measure("MLP 400-400-400", MT10, 128, 5, rounds, hidden_features=[400, 400, 400], **PLAIN)


if __name__ == "__main__":
    main()
