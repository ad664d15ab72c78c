"""Scripted experts: our own for four tasks, Meta-World's for all else."""

import numpy as np
import pytest

pytest.importorskip("metaworld")

from metaworld.policies import ENV_POLICY_MAP

from dendrite_zoo.rl import collect_demonstrations
from dendrite_zoo.rl.metaworld.experts import OWN, DragExpert, PressExpert, expert_of
from dendrite_zoo.rl.metaworld.tasks import MT50


def test_all_but_four_are_metaworlds():
    assert len(OWN) == 4
    for task in set(MT50) - set(OWN):
        assert type(expert_of(task)) is ENV_POLICY_MAP[task]


@pytest.mark.parametrize(
    ("hand", "opened", "action"),
    [
        ((0.0, 0.5, 0.2), 1.0, (0, 1, -0.4, -1)),  # to 13 cm over the ball, which lies at (0, 0.65, 0.03)
        ((0.0, 0.645, 0.16), 1.0, (0, 0.05, -1, -1)),  # down to 2 cm over its middle
        ((0.0, 0.65, 0.05), 1.0, (0, 0, 0, 1)),  # grip, without a move
        ((0.0, 0.65, 0.05), 0.5, (0.5, 1, 0, 1)),  # to the goal at (0.05, 0.85), at this height
    ],
)
def test_what_the_expert_for_balls_does(hand, opened, action):
    observation = np.zeros(39)
    observation[:3], observation[3], observation[4:7], observation[-3:] = hand, opened, (0, 0.65, 0.03), (0.05, 0.85, 0)
    np.testing.assert_allclose(DragExpert().get_action(observation), action, atol=1e-12)


@pytest.mark.parametrize(
    ("hand", "before", "action"),
    [
        ((0.0, 0.6, 0.1), 0.1, (0, 1, 1, -1)),  # to 20 cm over the handle, at (0, 0.68, 0.1)
        ((0.0, 0.675, 0.24), 0.1, (0, 0.125, -1, -1)),  # down to it
        ((0.0, 0.68, 0.16), 0.1, (0, 0, -0.5, -1)),  # the goal is 2 cm lower
        ((0.0, 0.68, 0.16), 0.104, (0, 0, -0.3, -1)),  # the handle moves down by 4 mm a step
    ],
)
def test_what_the_expert_for_handles_does(hand, before, action):
    observation = np.zeros(39)
    observation[:3], observation[4:7], observation[-3:] = hand, (0, 0.7, 0.1), (0, 0.7, 0.08)
    observation[22:25] = 0, 0.7, before
    np.testing.assert_allclose(PressExpert(beside=0.02).get_action(observation), action, atol=1e-9)


def test_they_reach_their_goals_and_stay():
    options = {"num_processes": 0, "fast": True, "seed": 3, "steps_after_success": 40}
    shown = collect_demonstrations(list(OWN), episodes_per_task=2, **options)
    assert shown.solved.all()  # the last step succeeds, too
    assert 8 * 65 < len(shown) < 8 * 140
