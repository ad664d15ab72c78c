"""An action played for several steps, against the same steps taken one by one."""

from __future__ import annotations

import numpy as np
import pytest

from dendrite_zoo.rl import TaskEnvironments
from dendrite_zoo.rl.evaluation import GoalEvaluation
from dendrite_zoo.streams import OnlineTasks
from tests.rl.worlds import Ledge, ledges

pytest.importorskip("gymnasium")


def one_by_one(tasks, actions, repeat, **options):
    """Sums over the steps of each action, up to the end of its episode."""
    with TaskEnvironments(tasks, num_processes=0, **options) as envs:
        observations = [envs.reset()]
        assert envs.num_envs == 1  # else episodes that end within an action would be out of step
        rows = []
        for action in actions:
            taken = []
            while len(taken) < repeat and not (taken and taken[-1].ended[0]):
                taken.append(envs.step(action))
            last = taken[-1]
            rewards, successes = sum(step.reward[0] for step in taken), [step.success[0] for step in taken]
            ends = last.truncated[0], last.terminated[0]
            rows.append((rewards, any(successes), successes[-1], *ends, len(taken), last.final_observation[0]))
            observations.append(last.observation)
    return rows, observations


@pytest.mark.parametrize("task", [0, 1])
def test_it_is_the_same_steps_one_by_one(task):
    tasks, draws = ledges()[task : task + 1], np.random.RandomState(task)
    actions = draws.uniform(-1, 1, (40, 1, 2)) * [0.4, 0.4]
    rows, observations = one_by_one(tasks, actions, 5)
    assert {row[5] for row in rows} >= {5, 2}, "twelve steps of an episode: five, five and two"
    assert any(row[4] and row[5] < 5 for row in rows), "a fall cuts an action short"
    assert any(row[1] and not row[2] for row in rows), "success is that of any step"
    with TaskEnvironments(tasks, num_processes=0, action_repeat=5) as envs:
        assert np.array_equal(envs.reset(), observations[0])
        for number, (action, row) in enumerate(zip(actions, rows, strict=True)):
            if number == 20:
                state = envs.state_dict()
            step = envs.step(action)
            names = ("reward", "success", "success_at_end", "truncated", "terminated", "steps")
            assert tuple(getattr(step, name)[0] for name in names) == row[:6]
            assert np.array_equal(step.final_observation[0], row[6])
            assert np.array_equal(step.observation, observations[number + 1])
    with TaskEnvironments(tasks, num_processes=0, action_repeat=5) as envs:
        envs.load_state_dict(state)
        assert envs.step(actions[20]).reward[0] == rows[20][0]
    with (
        TaskEnvironments(tasks, num_processes=0) as envs,
        pytest.raises(ValueError, match="'action_repeat': 1}, but got .*'action_repeat': 5"),
    ):
        envs.load_state_dict(state)


def test_meta_world_counts_its_steps():
    pytest.importorskip("metaworld")
    options = {"max_steps": 5, "fast": True}
    actions = np.random.RandomState(0).uniform(-1, 1, (6, 1, 4))
    rows, _ = one_by_one(["push-v3"], actions, 2, **options)
    with TaskEnvironments(["push-v3"], num_processes=0, action_repeat=2, **options) as envs:
        envs.reset()
        steps = [envs.step(action) for action in actions]
    assert [int(step.steps[0]) for step in steps] == [2, 2, 1, 2, 2, 1]
    assert [step.reward[0] for step in steps] == [row[0] for row in rows]
    assert all(np.array_equal(step.final_observation[0], row[6]) for step, row in zip(steps, rows, strict=True))


@pytest.mark.filterwarnings("ignore:Expected actions from -1 to 1, which are scaled")
def test_an_evaluation_holds_actions_and_counts_steps():
    def act(observation, task):
        return np.c_[-2 * observation[:, 0] - observation[:, 1], task * 0.1]

    tasks, goals = ledges(), 4
    with GoalEvaluation(tasks, num_goals=goals, num_processes=0, action_repeat=5) as evaluation:
        report = evaluation(act)
    assert report.action_repeat == 5 and report.to_record()["action_repeat"] == 5
    for task, spec in enumerate(tasks):
        with GoalEvaluation([spec], num_goals=goals, num_processes=0) as envs:
            first = np.zeros(goals, int)
            for goal in range(goals):
                episodes = envs._pool.shard._episodes[goal]
                episodes.restart()
                ended, successes, rewards = False, [], []
                while not ended:
                    if len(rewards) % 5 == 0:
                        action = act(episodes.observation[None], np.array([task]))[0]
                    result = episodes.step(action)
                    ended = result.ended
                    successes.append(result.success)
                    rewards.append(result.reward)
                first[goal] = successes.index(True) + 1 if any(successes) else 0
                assert report.returns[task, goal] == pytest.approx(sum(rewards), rel=1e-12)
                assert report.last[task, goal] == successes[-1]
            assert report.first[task].tolist() == first.tolist()
    assert (report.first % 5 != 0).any()


def test_every_step_that_was_simulated_is_counted():
    made: list[Ledge] = []

    def make():
        made.append(Ledge())
        return made[-1]

    environments = {"num_processes": 0, "action_repeat": 5}
    data = OnlineTasks([make], env_steps=700, epochs=2, steps_per_round=20, environments=environments)
    assert (data.action_repeat, data.env_steps_per_round, data.rounds_per_epoch) == (5, 100, 4)
    data.setup()
    try:
        for _ in range(3):
            data.collect(lambda observation, task: observation[:, :2] * 0.3, 20)
            assert data.env_steps == sum(len(env.pushes) for env in made) < data.rounds * 100
        again = OnlineTasks([make], env_steps=700, epochs=2, steps_per_round=20, environments=environments)
        again.setup()
        again.load_state_dict(data.state_dict())
        assert again.env_steps == data.env_steps
        again.teardown()
    finally:
        data.teardown()
    with pytest.raises(ValueError, match="Expected `action_repeat` to be an integer of at least 1, but got 0"):
        OnlineTasks([make], env_steps=10, environments={"action_repeat": 0})
