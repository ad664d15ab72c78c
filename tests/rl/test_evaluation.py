"""One episode on each goal: counted as a naive loop would."""

from __future__ import annotations

import numpy as np
import pytest

from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import record_policy
from dendrite_zoo.rl.evaluation import GoalEvaluation, SuccessReport, evaluate_policy
from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig, Episodes
from tests.rl.worlds import ledges

FIRST = np.array([[3, 0, 8], [0, 0, 2]])


def test_report_by_hand():
    report = SuccessReport(("a-v3", "b-v3"), FIRST, np.array([[True, False, False], [False, False, True]]), "test", 8)
    assert report.per_task == {"a-v3": pytest.approx(2 / 3), "b-v3": pytest.approx(1 / 3)}
    assert report.mean == pytest.approx(0.5) and report.mean_at_last_step == pytest.approx(2 / 6)
    assert report.steps_to_success == {"a-v3": 5.5, "b-v3": 2.0}
    record = report.to_record()
    assert record["task_accuracies"] == list(report.per_task.values()) and record["num_goals"] == 3
    assert record["interval"][0] <= 0.5 <= record["interval"][1]


def test_a_task_that_was_never_solved_took_no_number_of_steps():
    report = SuccessReport(("a-v3",), np.zeros((1, 4), dtype=np.int64), None, "test")
    assert report.steps_to_success == {"a-v3": None} and report.mean == 0 and report.mean_at_last_step is None


def towards_the_goal(observation, task_index):
    """Reach's expert, slowed for every second goal, so that some goals take longer."""
    pull = np.where(task_index[:, None] == 0, 10.0, 0.0) * (observation[:, 36:] - observation[:, :3])
    return np.clip(np.c_[pull, np.zeros(len(pull))], -1, 1)


def naive(task, index, goal, max_steps):
    """One goal after the other, one step after the other."""
    episodes = Episodes(EpisodeConfig(task, split="val", num_goals=3, order="each-once", first=goal, stride=3))
    episodes.begin()
    first, success = 0, False
    for number in range(1, max_steps + 1):
        action = towards_the_goal(episodes.observation[None], np.array([index]))[0]
        success = episodes.step(action).success
        first = first or (number if success else 0)
    return first, success


def test_every_goal_is_played_once_as_in_a_naive_loop():
    pytest.importorskip("metaworld")
    tasks, max_steps = ("reach-v3", "drawer-close-v3"), 45
    expected = np.array([[naive(task, i, goal, max_steps) for goal in range(3)] for i, task in enumerate(tasks)])
    options = {"split": "val", "num_goals": 3, "num_processes": 0, "max_steps": max_steps}
    with GoalEvaluation(tasks, **options) as evaluation:
        for _ in range(2):  # and again
            report = evaluation(towards_the_goal)
            np.testing.assert_array_equal(report.first, expected[..., 0])
            np.testing.assert_array_equal(report.last, expected[..., 1])
    assert 0 < report.per_task["reach-v3"] and report.per_task["drawer-close-v3"] == 0
    short = evaluate_policy(towards_the_goal, tasks, stop_at_success=True, **options)
    np.testing.assert_array_equal(short.first, report.first)
    assert short.last is None and short.mean == report.mean


class TowardsTheGoal:
    """What is good at reach alone, the second of its tasks."""

    tasks = ("drawer-close-v3", "reach-v3")

    def act_batch(self, observation, task_index):
        return towards_the_goal(observation, np.asarray(task_index) - 1)


def test_a_policy_knows_its_tasks_by_name():
    pytest.importorskip("metaworld")
    options = {"num_goals": 2, "num_processes": 0, "max_steps": 80, "stop_at_success": True}
    report = evaluate_policy(TowardsTheGoal(), ["reach-v3"], **options)
    assert report.tasks == ("reach-v3",) and report.mean > 0  # by index it would be the drawer's
    assert evaluate_policy(TowardsTheGoal(), **{**options, "max_steps": 2}).tasks == TowardsTheGoal.tasks
    with pytest.raises(ValueError, match="the policy's, drawer-close-v3, reach-v3, but got push-v3"):
        evaluate_policy(TowardsTheGoal(), ["reach-v3", "push-v3"])


class ByIndex:
    """What acts, and names no tasks."""

    def act_batch(self, observation, task_index):
        return towards_the_goal(observation, task_index)


def test_whatever_acts_is_evaluated_on_named_tasks():
    pytest.importorskip("metaworld")
    options = {"num_goals": 2, "num_processes": 0, "max_steps": 80, "stop_at_success": True}
    report = evaluate_policy(ByIndex(), "reach-v3", **options)
    np.testing.assert_array_equal(report.first, evaluate_policy(towards_the_goal, "reach-v3", **options).first)
    with pytest.raises(ValueError, match="or a function with tasks=..., but got a ByIndex and no tasks"):
        evaluate_policy(ByIndex())


@pytest.mark.parametrize(
    "act, tasks, words",
    [
        (lambda observation, _: np.zeros(4), "reach-v3", r"shape \(2, 4\), a row for each of 2 .* got \(4,\)"),
        (lambda observation, _: np.zeros((len(observation), 3)), "reach-v3", r"but got \(2, 3\)"),
        (lambda observation, _: np.full((len(observation), 4), np.nan), "reach-v3", r"NaN or .* in rows \[0, 1\]"),
        (towards_the_goal, None, "but got a function and no tasks"),
        (towards_the_goal, 3, "Expected `tasks` to be 'mt10'.* but got 3"),
        (None, "reach-v3", "but got a NoneType"),
    ],
)
def test_what_is_no_policy(act, tasks, words):
    pytest.importorskip("metaworld")
    with pytest.raises(ValueError, match=words):
        evaluate_policy(act, tasks, num_goals=2, num_processes=0)


def test_a_policy_of_other_sizes_is_refused_before_it_plays():
    pytest.importorskip("gymnasium")
    policy = ActiveDendritePolicy(["calm", "windy"], observation_size=3, action_size=1, hidden_features=[8, 8])
    words = "with 3 numbers in an observation and 1 in an action, .* but got calm with 3 .* and 2 in an action. Train a"
    for play in (evaluate_policy, record_policy):
        with pytest.raises(ValueError, match=words):
            play(policy, ledges())


def test_a_misspelt_option_is_named():
    with pytest.raises(TypeError, match="evaluate_policy has no argument `goals`. Did you mean 'num_goals'?"):
        evaluate_policy(lambda seen, task: np.zeros((len(seen), 2)), ledges(), goals=2)


def test_act_of_a_policy_stands_for_its_act_batch():
    policy = ActiveDendritePolicy(ledges(), hidden_features=[8, 8])
    one, other = (evaluate_policy(act, ledges(), num_goals=2, num_processes=0) for act in (policy.act, policy))
    assert (one.returns == other.returns).all()
