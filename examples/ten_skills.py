"""One network, ten robot skills, each at a goal that it has never seen; needs the [metaworld] extra."""

import dendrite_zoo
from dendrite_zoo.rl import TaskEnvironments

policy = dendrite_zoo.load("metaworld-mt10")
with TaskEnvironments(policy.tasks, split="test", num_processes=0) as environments:
    observation, solved = environments.reset(), False
    for _ in range(500):
        actions = [policy.act(one, task) for one, task in zip(observation, policy.tasks, strict=True)]
        observation, _, success, *_ = environments.step(actions)
        solved |= success
for task, done in zip(policy.tasks, solved, strict=True):
    print(f"{task:24}", "reached" if done else "missed")
