"""Goals: disjoint, the same for ever, and set as Meta-World sets its own. On every task, with the faster paths too."""

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dendrite_zoo.rl import MT50, Goal, goals
from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig, Episodes
from dendrite_zoo.rl.metaworld.goals import SPLIT_SEEDS

pytest.importorskip("metaworld")


@pytest.fixture(scope="module", params=MT50)
def pair(request: pytest.FixtureRequest) -> tuple[Episodes, Episodes]:
    """The environment of a task, stock and fast."""
    return tuple(Episodes(EpisodeConfig(request.param, fast=fast)) for fast in (False, True))


def random_actions(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.1, 1.1, (steps, 4))


def test_splits_share_no_goal(pair: tuple[Episodes, Episodes]) -> None:
    env = pair[1].env
    task = pair[1].config.task
    every = [goal for split in SPLIT_SEEDS for seed in (0, 1) for goal in goals(task, split, count=2, seed=seed)]
    drawn = [goal.vector(env) for goal in every]
    distances = np.abs(np.array(drawn)[:, None] - np.array(drawn)[None]).max(axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 1e-6


def test_an_episode_begins_as_the_official_way_begins_it(pair: tuple[Episodes, Episodes]) -> None:
    """`set_task` and `reset` of Meta-World, with the same vector, whatever was played before."""
    ours = pair[0]
    ours.begin()
    for action in random_actions(10):
        ours.step(action)
    ours.begin()
    played = [ours.env.step(action)[0] for action in random_actions(5)]

    import metaworld

    theirs = ours.env  # after another goal: what an episode begins with depends on its goal alone
    goal = Goal(ours.config.task, "train", ours.goal)
    begun, vector = ours.observation, goal.vector(theirs)
    data = {"rand_vec": vector, "env_cls": type(theirs), "partially_observable": False}
    theirs.set_task(metaworld.Task(goal.task, pickle.dumps(data)))
    np.testing.assert_array_equal(theirs.reset()[0], begun)
    np.testing.assert_array_equal([theirs.step(action)[0] for action in random_actions(5)], played)
    np.testing.assert_array_equal(played[-1][-3:], begun[-3:])  # the goal is in sight


def test_the_faster_paths_are_equal(pair: tuple[Episodes, Episodes]) -> None:
    """Observation, reward and success, along the expert's way, disturbed so that it goes wrong here and there."""
    stock, fast = pair
    for one in pair:
        one.episode = 0
        one.begin()
    noise = random_actions(70)
    for number in range(70):
        action = stock.expert_action() + 0.1 * noise[number]
        ours, theirs = fast.step(action), stock.step(action)
        np.testing.assert_allclose(ours.observation, theirs.observation, rtol=0, atol=1e-9)
        assert ours.reward == pytest.approx(theirs.reward, rel=0, abs=1e-9)
        assert (ours.success, ours.ended) == (theirs.success, theirs.ended)


def test_a_resumed_episode_is_equal_to_the_last_bit(pair: tuple[Episodes, Episodes]) -> None:
    episodes = pair[1]
    episodes.begin()
    for action in random_actions(20):
        episodes.step(action)
    state = episodes.state_dict()
    expected = [episodes.step(action) for action in random_actions(10)]
    episodes.begin()
    episodes.load_state_dict(state)
    for action, there in zip(random_actions(10), expected, strict=True):
        here = episodes.step(action)
        np.testing.assert_array_equal(here.observation, there.observation)
        assert here[1:] == there[1:]


def fake(low: list[float], high: list[float], refused: int = 0) -> Any:
    """As much of an environment as drawing needs; it refuses some draws."""
    env = SimpleNamespace(_random_reset_space=SimpleNamespace(low=np.array(low), high=np.array(high)))
    env.reset_model = lambda: [env._get_state_rand_vec() for _ in range(refused + 1)]
    return env


def test_goals_are_the_same_for_ever() -> None:
    """From a generator that NumPy has frozen: published scores rest on these numbers."""
    vector = Goal("reach-v3", "test", 0).vector(fake([0, 0, 0], [1, 1, 1]))
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([0, 1, MT50.index("reach-v3"), 0])))
    np.testing.assert_array_equal(vector, generator.uniform(size=3))
    np.testing.assert_allclose(vector, [0.767021440604, 0.642437385721, 0.475197897628], rtol=0, atol=1e-12)


# Written down when the splits were called train, unseen and validation: names changed, goals did not.
EARLIER_DRAWS = {
    "train": [
        [0.089504658096, 0.389123880883, 0.043749156927],
        [0.236821547618, 0.702842074462, 0.82944261031],
    ],
    "test": [
        [0.767021440604, 0.642437385721, 0.475197897628],
        [0.645983321084, 0.335037212642, 0.369445214175],
    ],
    "val": [
        [0.522727426036, 0.030718623558, 0.3269621653],
        [0.607321359395, 0.342075601099, 0.524867467242],
    ],
}
EARLIER_GOALS = {
    ("push-v3", "train"): [0.041704936195, 0.691347099762, 0.02, -0.012462278889, 0.879741396612, 0.016439885947],
    ("push-v3", "test"): [-0.011602881443, 0.658645810879, 0.02, 0.016062542127, 0.85064609681, 0.016011317049],
    ("push-v3", "val"): [0.033308440095, 0.643835121363, 0.02, -0.094324518251, 0.854107553078, 0.013655840431],
    ("drawer-open-v3", "train"): [0.041937471628, 0.9, 0.0],
    ("drawer-open-v3", "test"): [-0.087940844192, 0.9, 0.0],
    ("drawer-open-v3", "val"): [-0.084206744988, 0.9, 0.0],
}


@pytest.mark.parametrize("split", EARLIER_DRAWS)
def test_every_split_has_the_goals_that_it_had_under_its_old_name(split: str) -> None:
    drawn = [goal.vector(fake([0, 0, 0], [1, 1, 1])) for goal in goals("reach-v3", split, count=2)]
    np.testing.assert_allclose(drawn, EARLIER_DRAWS[split], rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", ["push-v3", "drawer-open-v3"])
def test_so_do_the_environments(task: str) -> None:
    env = Episodes(EpisodeConfig(task)).env
    for split in EARLIER_DRAWS:
        [goal] = goals(task, split, count=1)
        np.testing.assert_allclose(goal.vector(env), EARLIER_GOALS[task, split], rtol=0, atol=1e-11)


def test_a_refused_goal_is_drawn_again() -> None:
    goal = Goal("reach-v3", "train", 3)
    first = goal.vector(fake([0] * 6, [1] * 6))
    assert np.abs(goal.vector(fake([0] * 6, [1] * 6, refused=2)) - first).max() > 0.01


def test_a_goal_depends_on_its_own_number_alone() -> None:
    assert goals("push-v3", "train", count=3) == goals("push-v3", "train", count=50)[:3]
    assert pickle.loads(pickle.dumps(goals("push-v3", "train"))) == goals("push-v3", "train")


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="mean 'push-v3'"):
        goals("push", "train")
    with pytest.raises(ValueError, match="`split` to be one of 'train', 'val', 'test', but got 'dev'"):
        goals("push-v3", "dev")
    with pytest.raises(ValueError, match="Expected `count` to be an integer of at least 1, but got 0"):
        goals("push-v3", "train", count=0)
