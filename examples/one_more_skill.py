"""Way (f): one more skill for a robot that has ten, which stay as they are, to the bit; needs the [metaworld] extra."""

import torch
from lightning.pytorch import Trainer, seed_everything

import dendrite_zoo
from dendrite_zoo.lightning_modules import BehaviorCloning
from dendrite_zoo.rl import evaluate_policy
from dendrite_zoo.streams import DemonstrationMixture

seed_everything(0, verbose=False)
before, skill = dendrite_zoo.load("metaworld-mt10"), "button-press-v3"
policy = dendrite_zoo.load("metaworld-mt10", tasks=[*before.tasks, skill])  # room for one more

# A scripted expert shows the skill. Only what is the new task's own is trained, 7,688 numbers of 163,000.
amount = {"episodes_per_task": 20, "updates_per_epoch": 300, "batch_size_per_task": 256, "val_episodes": 2}
data = DemonstrationMixture([skill], epochs=1, dagger_rounds=0, **amount, num_processes=0, fast=True)
module = BehaviorCloning(policy, learn="new", init_from="nearest", warmup=30)
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
Trainer(**data.trainer_kwargs(), **quiet).fit(module, data)
policy.save_pretrained("eleven-skills")

report = evaluate_policy(policy, [skill], num_goals=10, stop_at_success=True, num_processes=0, fast=True)
observations, change = torch.randn(100, 39), 0.0
for task in before.tasks:
    actions = [one.act_batch(observations, [task] * 100) for one in (before, policy)]
    change = max(change, float(abs(actions[0] - actions[1]).max()))
print(f"{skill}: {report.mean:.0%} of goals that it has never seen")
print(f"largest change of an action in the ten tasks before: {change}")
