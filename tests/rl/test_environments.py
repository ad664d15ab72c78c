"""Many environments at once are single ones in a naive loop; and each trap of Meta-World's own vector."""

import io

import numpy as np
import pytest
import torch

from dendrite_zoo.rl import Step, TaskEnvironments
from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig, Episodes
from tests.rl.conftest import SHORT

pytest.importorskip("metaworld")

TASKS = ["reach-v3", "push-v3"]


def actions(rows: int, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, rows, 4))


def play(envs: TaskEnvironments, given: np.ndarray) -> list[Step]:
    return [envs.step(action) for action in given]


def assert_equal(ours: list[Step], theirs: list[Step]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name in Step._fields:
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), err_msg=name)


def test_tasks_stand_side_by_side(envs: TaskEnvironments) -> None:
    assert envs.num_envs == 4
    assert envs.task_index.dtype == np.int64
    assert envs.task_index.tolist() == [0, 0, 1, 1]


def test_one_hot_is_the_same_context(envs: TaskEnvironments) -> None:
    """Meta-World appends none unless asked; ours stands beside the observation, for whoever wants it so."""
    assert envs.reset().shape == (4, 39)
    assert envs.one_hot.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_a_vector_is_a_naive_loop(envs: TaskEnvironments) -> None:
    """Over two ends of episodes: what a step led to, and the next episode's first observation."""
    first = envs.reset()
    began = [envs._pool.shard._episodes[row].episode for row in range(4)]
    given = actions(4, 2 * SHORT + 3)
    steps = play(envs, given)
    for row, task in enumerate(["reach-v3", "reach-v3", "push-v3", "push-v3"]):
        single = Episodes(EpisodeConfig(task, env=row, max_steps=SHORT))
        single.episode = began[row] - 1
        single.begin()
        np.testing.assert_array_equal(first[row], single.observation)
        for number, step in enumerate(steps, start=1):
            goal, result = single.goal, single.step(given[number - 1, row])
            assert step.goal[row] == goal
            assert step.reward[row] == result.reward
            assert step.success[row] == result.success
            assert step.truncated[row] == (number % SHORT == 0)
            np.testing.assert_array_equal(step.final_observation[row], result.observation)
            if step.truncated[row]:
                single.begin()
                assert np.abs(step.observation[row] - step.final_observation[row]).max() > 0.01
            np.testing.assert_array_equal(step.observation[row], single.observation)


def test_what_a_step_gave_stays(envs: TaskEnvironments) -> None:
    """Arrays of a step are the caller's: the next step does not write into them."""
    envs.reset()
    first, second = actions(4, 2)
    step = envs.step(first)
    kept = [field.copy() for field in step]
    envs.step(second)
    for field, before in zip(step, kept, strict=True):
        np.testing.assert_array_equal(field, before)


def test_observations_are_not_clipped_to_the_space(envs: TaskEnvironments) -> None:
    """`observation_space` has the goal at [0, 0, 0]; the goals that were set lie outside it, and stay there."""
    envs.reset()
    step = envs.step(np.zeros((4, 4)))
    for row, episodes in envs._pool.shard._episodes.items():
        assert episodes.env.observation_space.high[-3:].tolist() == [0, 0, 0]
        assert not episodes.env.observation_space.contains(step.observation[row])
        np.testing.assert_array_equal(step.observation[row, -3:], episodes.env._target_pos)
        assert step.observation[row, -2] > 0.5


def test_seeds_do_what_they_say(envs: TaskEnvironments) -> None:
    """Meta-World gives every environment the same seed, and ignores that of `reset`."""
    goals = np.stack([step.goal for step in play_episodes(envs, 12)])
    assert not (goals[:, 0] == goals[:, 1]).all()  # two environments of a task
    assert len(np.unique(goals[:, 0])) > 5

    def start(**arguments: int) -> np.ndarray:
        with TaskEnvironments("reach-v3", num_processes=0, **arguments) as others:
            return others.reset()

    np.testing.assert_array_equal(start(), start())
    assert np.abs(start() - start(seed=1)).max() > 0.01


def play_episodes(envs: TaskEnvironments, count: int) -> list[Step]:
    """The last steps of some episodes."""
    envs.reset()
    return [step for step in play(envs, np.zeros((count * SHORT, envs.num_envs, 4))) if step.truncated.all()]


def test_num_goals_is_ours_alone() -> None:
    """Meta-World's `num_goals` changes a global of its module for good."""
    import metaworld

    with TaskEnvironments("reach-v3", num_goals=2, max_steps=1, num_processes=0) as envs:
        envs.reset()
        assert {int(step.goal[0]) for step in play(envs, np.zeros((20, 1, 4)))} == {0, 1}
    assert metaworld._N_GOALS == 50


@pytest.mark.parametrize(("envs_per_task", "num_goals"), [(1, 3), (2, 5), (3, 2)])
def test_an_evaluation_walks_all_goals_once(envs_per_task: int, num_goals: int) -> None:
    """Meta-World's default visited 30 of 50 goals in 50 resets."""
    arguments = dict(order="each-once", split="test", max_steps=2, num_processes=0)
    with TaskEnvironments("reach-v3", envs_per_task=envs_per_task, num_goals=num_goals, **arguments) as envs:
        for _ in range(2):  # reset() begins the list anew
            envs.reset()
            played = []
            while not envs.finished.all():
                step = envs.step(np.zeros((envs_per_task, 4)))
                played += step.goal[step.truncated].tolist()
            assert sorted(played) == list(range(num_goals))
            step = envs.step(np.ones((envs_per_task, 4)))
            assert (step.goal == -1).all() and not step.truncated.any() and not step.success.any()
            assert not step.reward.any()
            np.testing.assert_array_equal(step.observation, envs.step(np.zeros((envs_per_task, 4))).observation)
            assert not envs.expert_actions().any()


def test_success_ends_no_episode_unless_asked() -> None:
    def lengths(stop: bool) -> tuple[list[int], list[int]]:
        arguments = dict(order="each-once", num_goals=1, max_steps=60, num_processes=0, stop_at_success=stop)
        with TaskEnvironments("reach-v3", **arguments) as envs:
            envs.reset()
            steps = []
            while not envs.finished.all():
                steps.append(envs.step(envs.expert_actions()))
        solved = [number for number, step in enumerate(steps, start=1) if step.success[0]]
        return [len(steps)], solved

    [full], solved = lengths(stop=False)
    assert full == 60 and len(solved) > 1
    [stopped], at = lengths(stop=True)
    assert [stopped] == at == solved[:1]


def test_the_experts_act_on_what_is_seen(envs: TaskEnvironments) -> None:
    from metaworld.policies import ENV_POLICY_MAP

    observation = envs.reset()
    given = envs.expert_actions()
    assert given.shape == (4, 4) and np.abs(given).max() <= 1
    with pytest.warns(UserWarning, match="Environments clip response"):
        naive = [
            ENV_POLICY_MAP[envs.tasks[task]]().get_action(row)
            for task, row in zip(envs.task_index, observation, strict=True)
        ]
    np.testing.assert_array_equal(given, np.clip(naive, -1, 1))


def test_the_reward_has_a_version() -> None:
    def first_reward(**arguments: str) -> float:
        with TaskEnvironments("reach-v3", num_processes=0, **arguments) as envs:
            envs.reset()
            return float(envs.step(np.zeros((1, 4))).reward[0])

    assert first_reward() == first_reward(reward_version="v2") != first_reward(reward_version="v1")


def test_processes_change_nothing() -> None:
    """The same numbers to the last bit, and a state that one takes goes on in the other."""
    arguments = dict(envs_per_task=2, max_steps=SHORT)
    given, more = np.split(actions(4, 3 * SHORT), [SHORT + 3])
    with (
        TaskEnvironments(TASKS, num_processes=0, **arguments) as here,
        TaskEnvironments(TASKS, num_processes=3, **arguments) as there,
    ):
        assert len(there._pool.workers) == 3
        np.testing.assert_array_equal(here.reset(), there.reset())
        assert_equal(play(here, given), play(there, given))
        np.testing.assert_array_equal(here.expert_actions(), there.expert_actions())

        file = io.BytesIO()
        torch.save(there.state_dict(), file)
        expected = play(there, more)
        file.seek(0)
        here.reset()
        here.load_state_dict(torch.load(file, weights_only=True))
        assert_equal(play(here, more), expected)
        file.seek(0)
        there.load_state_dict(torch.load(file, weights_only=True))
        assert_equal(play(there, more), expected)


def test_a_state_goes_on_before_any_reset(envs: TaskEnvironments) -> None:
    envs.reset()
    given = actions(4, 5)
    play(envs, given)
    state, observation = envs.state_dict(), envs.observation
    expected = play(envs, given)
    with TaskEnvironments(TASKS, envs_per_task=2, max_steps=SHORT, num_processes=0) as others:
        others.load_state_dict(state)
        np.testing.assert_array_equal(others.observation, observation)
        assert_equal(play(others, given), expected)


def test_a_state_of_other_environments_is_refused(envs: TaskEnvironments) -> None:
    envs.reset()
    state = envs.state_dict()
    with (
        TaskEnvironments("reach-v3", num_processes=0) as others,
        pytest.raises(ValueError, match="the state of 4 env"),
    ):
        others.load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "other", "came"),
    [
        ("seed", 5, 0),
        ("split", "test", "train"),
        ("num_goals", 1, 50),
        ("order", "each-once", "random"),
        ("max_steps", 3, SHORT),
        ("reward_version", "v1", "v2"),
        ("first_env", 4, 0),
    ],
)
def test_a_state_of_other_episodes_is_refused(envs: TaskEnvironments, name: str, other: object, came: object) -> None:
    """It would go on at goals, or for rewards, that are not those of the state."""
    envs.reset()
    state = envs.state_dict()
    arguments = {"envs_per_task": 2, "max_steps": SHORT, "num_processes": 0, name: other}
    with TaskEnvironments(TASKS, **arguments) as others:
        with pytest.raises(ValueError) as error:
            others.load_state_dict(state)
        assert str({name: came}) in str(error.value) and str({name: other}) in str(error.value)


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((3, 4)), np.zeros((4, 3)), np.zeros((4, 4, 1))])
def test_actions_of_a_wrong_shape(envs: TaskEnvironments, wrong: np.ndarray) -> None:
    envs.reset()
    with pytest.raises(ValueError, match=r"Expected actions of shape \(4, 4\)"):
        envs.step(wrong)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_actions_that_are_no_numbers_are_not_played(envs: TaskEnvironments, number: float) -> None:
    envs.reset()
    given = np.zeros((4, 4))
    given[2, 1] = number
    before = envs.state_dict()
    with pytest.raises(ValueError, match=r"NaN or infinity in rows \[2\]"):
        envs.step(given)
    after = envs.state_dict()
    for one, other in zip(before["environments"], after["environments"], strict=True):
        assert torch.equal(one["physics"], other["physics"])


@pytest.mark.parametrize("number_type", [torch.float32, np.float32])
def test_actions_as_policies_give_them(envs: TaskEnvironments, number_type: object) -> None:
    envs.reset()
    given = torch.zeros(4, 4) if number_type is torch.float32 else np.zeros((4, 4), np.float32)
    assert envs.step(given).observation.dtype == np.float64


def test_order_of_calls() -> None:
    with TaskEnvironments("reach-v3", num_processes=0) as envs:
        for call in (lambda: envs.step(np.zeros((1, 4))), envs.expert_actions, envs.state_dict):
            with pytest.raises(RuntimeError, match="expected reset"):
                call()
        envs.reset()
    for call in (lambda: envs.step(np.zeros((1, 4))), envs.reset, envs.expert_actions):
        with pytest.raises(RuntimeError, match="are closed"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"envs_per_task": 0}, "Expected `envs_per_task` to be an integer of at least 1, but got 0[.]"),
        ({"first_env": -1}, "Expected `first_env` to be an integer of at least 0, but got -1[.]"),
        ({"num_processes": -1}, "Expected `num_processes` to be an integer of at least 0, but got -1[.]"),
        ({"max_steps": 501}, "Expected `max_steps` to be an integer from 1 to 500, but got 501[.]"),
        ({"num_goals": 0}, "Expected `num_goals` to be an integer of at least 1, but got 0[.]"),
        ({"seed": -1}, "Expected `seed` to be an integer of at least 0, but got -1[.]"),
        ({"split": "unseen"}, "one of 'train', 'val', 'test', but got 'unseen'. `unseen` is now `test`[.]"),
        ({"split": "validation"}, "one of 'train', 'val', 'test', but got 'validation'. `validation` is now `val`[.]"),
        ({"order": "shuffled"}, "Expected `order` to be one of 'random', 'each-once', but got 'shuffled'"),
        ({"reward_version": "v3"}, "Expected `reward_version` to be one of 'v1', 'v2', but got 'v3'"),
        ({"stop_at_success": True}, "Expected `order` to be 'each-once' with stop_at_success=True"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskEnvironments("reach-v3", **arguments)


def test_a_goal_is_drawn_for_each_episode_by_number(envs: TaskEnvironments) -> None:
    """Which goal an episode has follows from seed, environment and episode alone, so that a resume needs no more."""
    from dendrite_zoo.rl.metaworld.goals import random_state

    envs.reset()
    episodes = envs._pool.shard._episodes[1]
    for _ in range(3):
        assert episodes.goal == random_state(0, 1, episodes.episode).randint(50)
        play(envs, np.zeros((SHORT, 4, 4)))
