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
        terminated, at_end = generator.random(3) < 0.1, success & (generator.random(3) < 0.5)
        counts = np.zeros(3, dtype=np.int64), terminated, at_end, np.ones(3, dtype=np.int64)
        yield Step(nothing, reward, success, truncated, nothing, *counts), generator.random(3) < 0.8


def naive(steps):
    """Success, success at the end and return of the latest 20 episodes that count, by task, in order of their ends."""
    episodes = {name: [] for name in TASKS}
    began = [0, 0, 0]
    for number, (step, counted) in enumerate(steps):
        for env, task in enumerate(TASK_INDEX):
            if step.truncated[env] or step.terminated[env]:
                own = [one for one, _ in steps[began[env] : number + 1]]
                solved, total = any(one.success[env] for one in own), sum(one.reward[env] for one in own)
                if counted[env]:
                    episodes[TASKS[task]].append((solved, step.success_at_end[env], total))
                began[env] = number + 1
    assert all(len(ended) > 20 for ended in episodes.values())
    return {name: np.mean(ended[-20:], axis=0) for name, ended in episodes.items()}


def test_means_are_of_the_latest_whole_episodes_also_after_a_resume():
    steps = list(random_steps(120))
    statistics, resumed = EpisodeStatistics(TASKS, TASK_INDEX), EpisodeStatistics(TASKS, TASK_INDEX)
    assert statistics.compute() == {}
    for step, counted in steps:
        statistics.update(step, counted)
    expected = naive(steps)
    found = statistics.compute()
    for name in TASKS:
        values = [found[f"{what}/{name}"] for what in ("success", "success_at_end", "return")]
        np.testing.assert_allclose(values, expected[name])
    np.testing.assert_allclose(found["return/mean"], np.mean([total for *_, total in expected.values()]))

    resumed.load_state_dict(statistics.state_dict())
    assert resumed.compute() == found
    for step, counted in random_steps(10):
        statistics.update(step, counted)
        resumed.update(step, counted)
    assert statistics.compute() == resumed.compute() != found
    earlier = {name: value for name, value in statistics.state_dict().items() if name != "latest"}
    resumed = EpisodeStatistics(TASKS, TASK_INDEX)
    resumed.load_state_dict(earlier)
    assert resumed.compute() == {} and np.array_equal(resumed.returns, statistics.returns)
