"""What is explored, against a loop over single environments, and what it does to what is learned from and logged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dendrite_zoo.rl import Exploration
from dendrite_zoo.rl.exploration import Explorer
from dendrite_zoo.streams import OnlineTasks
from tests.rl.worlds import ledges

pytest.importorskip("gymnasium")


def lengths(rows):
    """Of runs of equal rows."""
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    return np.diff([0, *changes, len(rows)])


def test_random_actions_are_held_in_the_warmup():
    explorer, draws = Explorer(Exploration(new_action=0.2), (4, 3), (1, 2)), np.random.RandomState(0)
    given, played = draws.uniform(-1, 1, (5000, 4, 3)), []
    for round_ in range(50):
        explorer.begin_round(round_)
        for action in given[100 * round_ : 100 * (round_ + 1)]:
            played.append(explorer(action, at_random=True))
            explorer.end_episodes(draws.uniform(size=4) < 0.1, at_random=True)
    played = np.array(played)
    for env in range(4):
        runs = lengths(played[:, env])
        assert len(runs) == pytest.approx(1000, abs=5 * (5000 * 0.2 * 0.8) ** 0.5)
        starts = np.cumsum([0, *runs[:-1]])[1:]
        assert np.array_equal(played[starts, env], given[starts, env]), "a new action is the uniform one of its step"
    assert not explorer.has_bursts.any()
    every = Explorer(Exploration(new_action=1.0), (4, 3), (1, 2))
    assert np.array_equal(every(given[0], at_random=True), given[0])


def test_bursts_are_one_action_three_to_ten_times_in_a_share_of_the_episodes():
    explorer, draws = Explorer(Exploration(burst_share=0.35), (5, 2), (0,)), np.random.RandomState(1)
    share, pushed, idle, runs = [], 0, 0, []
    for round_ in range(400):
        explorer.begin_round(round_)
        begin = explorer.has_bursts.copy()
        rows = []
        for step in range(50):  # an episode
            action = draws.uniform(-1, 1, (5, 2))
            rows.append((explorer(action, at_random=False), action))
            explorer.end_episodes(np.full(5, step == 49), at_random=False)
        played, own = (np.array(part) for part in zip(*rows, strict=True))
        other = (played != own).any(axis=2)
        share += begin.tolist()
        for env in range(5):
            if not begin[env]:
                assert not other[:, env].any()
                continue
            runs += lengths(played[other[:, env], env])[:-1].tolist()  # the last may be cut off
            idle += int((~other[:, env]).sum())
            pushed += len(lengths(played[other[:, env], env])) if other[:, env].any() else 0
    assert np.mean(share) == pytest.approx(0.35, abs=5 * (0.35 * 0.65 / 2000) ** 0.5)
    assert set(runs) == set(range(3, 11))
    assert pushed / (idle + pushed) == pytest.approx(0.04, abs=5 * (0.04 / (idle + pushed)) ** 0.5)


def test_what_is_out_of_range_is_refused():
    for name, value in (("new_action", 0), ("new_action", 1.5), ("burst_share", -0.1), ("burst_start", 2)):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be a number .* but got {value}"):
            Exploration(**{name: value})


def practice(**arguments):
    options = {"env_steps": 1000, "steps_per_round": 30, "environments": {"num_processes": 0}, **arguments}
    stream = OnlineTasks(ledges(), exploration=Exploration(burst_share=0.5, burst_start=0.3), **options)
    stream.setup()
    return stream


def still(observation, task):
    return torch.zeros(len(task), 2)


def test_it_is_what_was_played_that_is_learned_from_also_after_a_resume():
    stream, again = practice(), practice()
    uniform = torch.Generator().manual_seed(0)
    try:
        stream.collect(lambda o, task: torch.rand(len(task), 2, generator=uniform) * 2 - 1, 30, at_random=True)
        stream.collect(still, 30)
        again.load_state_dict(stream.state_dict())
        figures = [held.collect(still, 30) for held in (stream, again)]
        assert figures[0] == figures[1] and stream.replay.rows[:90].equal(again.replay.rows[:90])
        action = stream.replay.rows[:90, 3:5]
        for env in stream.practice.player.environments._pool.shard._episodes.values():
            raw = np.array(env.env.pushes) / [2, 5] - [-0.5, 1.0]  # from the engines' bounds to [-1, 1]
            task = 0 if env.config.task == "calm" else 1
            rows = stream.replay.rows[task * stream.replay.capacity :][:90, 3:5]
            np.testing.assert_allclose(rows.numpy(), raw, atol=1e-6)
        burst = (action[30:] != 0).any(1)
        assert 0.1 < burst.float().mean() < 0.9
    finally:
        stream.teardown()
        again.teardown()


def test_statistics_leave_episodes_with_bursts_out():
    """Bursts in every episode after the first of each environment: nothing but the first is counted."""
    options = {"env_steps": 1000, "steps_per_round": 30, "environments": {"num_processes": 0, "max_steps": 10}}
    stream = OnlineTasks(ledges(), exploration=Exploration(burst_share=1.0), **options)
    stream.setup()
    try:
        first = stream.collect(still, 10)
        assert set(first) >= {"success/calm", "success_at_end/calm", "return/windy"}
        assert stream.collect(still, 200) == first
    finally:
        stream.teardown()
