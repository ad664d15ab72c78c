"""Scripted experts: our own for soccer, Meta-World's for all else."""

import numpy as np
import pytest

pytest.importorskip("metaworld")

from metaworld.policies import ENV_POLICY_MAP

from dendrite_zoo.rl import collect_demonstrations
from dendrite_zoo.rl.metaworld.experts import SoccerExpert, expert_of
from dendrite_zoo.rl.metaworld.tasks import MT50


def test_all_but_soccer_are_metaworlds():
    for task in MT50:
        assert isinstance(expert_of(task), SoccerExpert if task == "soccer-v3" else ENV_POLICY_MAP[task])


@pytest.mark.parametrize(
    ("hand", "opened", "action"),
    [
        ((0.0, 0.5, 0.2), 1.0, (0, 1, -0.4, -1)),  # to 13 cm over the ball, which lies at (0, 0.65, 0.03)
        ((0.0, 0.645, 0.16), 1.0, (0, 0.05, -1, -1)),  # down to 2 cm over its middle
        ((0.0, 0.65, 0.05), 1.0, (0, 0, 0, 1)),  # grip, without a move
        ((0.0, 0.65, 0.05), 0.5, (0.5, 1, 0, 1)),  # to the goal at (0.05, 0.85), at this height
    ],
)
def test_what_the_expert_for_soccer_does(hand, opened, action):
    observation = np.zeros(39)
    observation[:3], observation[3], observation[4:7], observation[-3:] = hand, opened, (0, 0.65, 0.03), (0.05, 0.85, 0)
    np.testing.assert_allclose(SoccerExpert().get_action(observation), action, atol=1e-12)


def test_it_reaches_its_goals_and_stays():
    shown = collect_demonstrations(
        ["soccer-v3"], episodes_per_task=3, num_processes=0, fast=True, seed=3, steps_after_success=20
    )
    assert shown.solved.all()  # the last step succeeds, too
    assert 3 * 50 < len(shown) < 3 * 110
