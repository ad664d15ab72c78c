"""Statistics of episodes against sums over the steps of each episode by itself."""

import numpy as np

from dendrite_zoo.rl.environments import Step
from dendrite_zoo.rl.statistics import EpisodeStatistics

TASKS = ("a", "b")
TASK_INDEX = [0, 0, 1]


def random_steps(count):
    generator = np.random.default_rng(0)
    nothing = np.zeros((3, 39))
    for _ in range(count):
        reward, success, truncated = generator.normal(size=3), generator.random(3) < 0.2, generator.random(3) < 0.3
        terminated = generator.random(3) < 0.1
        counts = np.zeros(3, dtype=np.int64), terminated, success, np.ones(3, dtype=np.int64)
        yield Step(nothing, reward, success, truncated, nothing, *counts)


def naive(steps):
    """Success and return of every episode that ended, by task, one environment after the other."""
    episodes = {name: [] for name in TASKS}
    for env, task in enumerate(TASK_INDEX):
        rewards, successes = [], []
        for step in steps:
            rewards.append(step.reward[env])
            successes.append(step.success[env])
            if step.truncated[env] or step.terminated[env]:
                episodes[TASKS[task]].append((any(successes), sum(rewards)))
                rewards, successes = [], []
    return {name: np.mean(ended, axis=0) for name, ended in episodes.items()}


def test_means_are_of_whole_episodes_also_after_a_resume():
    steps = list(random_steps(40))
    statistics, resumed = EpisodeStatistics(TASKS, TASK_INDEX), EpisodeStatistics(TASKS, TASK_INDEX)
    for step in steps:
        statistics.update(step)
    expected = naive(steps)
    found = statistics.compute()
    for name in TASKS:
        np.testing.assert_allclose([found[f"success/{name}"], found[f"return/{name}"]], expected[name])
    np.testing.assert_allclose(found["return/mean"], np.mean([total for _, total in expected.values()]))
    assert statistics.compute() == {}, "each episode counts once"

    resumed.load_state_dict(statistics.state_dict())
    for step in random_steps(10):
        statistics.update(step)
        resumed.update(step)
    assert statistics.compute() == resumed.compute() != {}
