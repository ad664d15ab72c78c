"""One network swings up a pendulum under two gravities, learned by trial and error; needs dendrite-zoo[rl]."""

import sys
from functools import partial

import gymnasium
from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import TaskSpec, evaluate_policy
from dendrite_zoo.streams import OnlineTasks


def upright(observation, reward, terminated, truncated, info):
    return observation[0] > 0.95  # the cosine of the angle


seed_everything(0, verbose=False)
tasks = [TaskSpec(f"g={g}", partial(gymnasium.make, "Pendulum-v1", g=g), success=upright) for g in (5.0, 10.0)]
steps, starts = map(int, sys.argv[1:] or (30_000, 50))  # steps of both together
play = {"steps_per_round": 100, "updates_per_round": 100, "warmup_steps": 2000, "environments": {"num_processes": 0}}
data = OnlineTasks(tasks, env_steps=steps, epochs=1, **play)
policy = ActiveDendritePolicy(tasks, hidden_features=[128, 128])
quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
Trainer(**data.trainer_kwargs(), **quiet).fit(MultiTaskSAC(policy, lr=1e-3, batch_size_per_task=128), data)
report = evaluate_policy(policy, tasks, num_goals=starts, num_processes=0)
for task, total in report.return_per_task.items():
    print(f"{task:8} mean return {total:7.1f}, upright at some step in {report.per_task[task]:.0%} of {starts} starts")
print(f"upright at the last step: {report.mean_at_last_step:.0%}")
