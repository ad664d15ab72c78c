"""Tasks to be learned by trial and error: rounds, steps and memory. More in the tests of MultiTaskSAC."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from dendrite_zoo.rl import TaskEnvironments, TaskSpec
from dendrite_zoo.streams import OnlineTasks, Round
from tests.rl.worlds import Ledge, calm

TASKS = ["reach-v3", "push-v3"]


def data(**arguments):
    return OnlineTasks(TASKS, **{"env_steps": 1000, "environments": {"num_processes": 0, "max_steps": 6}, **arguments})


@pytest.mark.parametrize(
    ("arguments", "rounds"),
    [
        ({"env_steps": 1000, "epochs": 1, "steps_per_round": 50}, 10),
        ({"env_steps": 1000, "epochs": 2, "steps_per_round": 50}, 5),
        ({"env_steps": 1001, "epochs": 2, "steps_per_round": 50}, 6),  # whole rounds, at least so many steps
        ({"env_steps": 1000, "epochs": 1, "steps_per_round": 50, "envs_per_task": 5}, 2),
        ({"env_steps": 1, "epochs": 3}, 1),
    ],
)
def test_an_epoch_has_its_share_of_the_rounds(arguments, rounds):
    assert len(data(**arguments).train_dataloader()) == rounds


@pytest.mark.parametrize(
    ("order", "steps", "warm"), [("mixed", 20_000, 2000), ("mixed", 400_000, 10_000), ("sequential", 60_000, 2000)]
)
def test_by_default_a_tenth_of_the_steps_are_random_at_most(order, steps, warm):
    assert OnlineTasks(["reach-v3", "push-v3", "pick-place-v3"], order=order, env_steps=steps).warmup_steps == warm


def test_what_is_learned_from_begins_after_the_warmup():
    practice = data(epochs=1, steps_per_round=50, updates_per_round=7, warmup_steps=250)
    rounds = []
    for round_ in practice.train_dataloader():
        rounds.append(round_)
        practice.rounds += 1
        practice.replay.seen += 50
    assert rounds == [Round(50, 0)] * 2 + [Round(50, 7)] * 8
    assert practice.env_steps == 1000


@pytest.mark.parametrize("played", range(6))
def test_the_rounds_of_an_epoch_resume_once(played):
    practice = data(epochs=2, steps_per_round=50, warmup_steps=0)  # five rounds an epoch
    first, second = practice.train_dataloader(), practice.train_dataloader()
    rounds = iter(first)
    for _ in range(played):
        next(rounds)
    second.load_state_dict(first.state_dict())
    assert first.state_dict() == {"epoch": 0, "batch": played}
    assert (len(list(second)), len(list(second))) == (5 - played, 5)


def test_validation_shows_each_task_what_was_seen_last_of_it():
    practice = data()
    assert [list(loader) for loader in practice.val_dataloader()] == [[], []]
    n = torch.arange(3000.0)
    observation = n[:, None].expand(-1, 39)
    practice.replay.add(observation, torch.zeros(3000, 4), n, observation, torch.arange(3000) % 2)
    for j, loader in enumerate(practice.val_dataloader()):
        [(seen, task)] = list(loader)
        assert seen[:, 0].tolist() == [float(i) for i in range(1000 + j, 3000, 2)]
        assert task.tolist() == [j] * 1000


def test_success_is_that_of_whole_episodes_across_rounds():
    pytest.importorskip("metaworld")
    practice = data()
    practice.setup()
    try:
        still = lambda observation, task: torch.zeros(len(task), 4)  # noqa: E731
        assert practice.collect(still, 5) == {}
        practice.practice.player.statistics.solved[:] = [True, False]  # as if task 0 had been solved within these
        figures = practice.collect(still, 1)
        assert (figures["success/reach-v3"], figures["success/push-v3"]) == (1.0, 0.0)
        assert practice.practice.player.statistics.solved.tolist() == [False, False]
    finally:
        practice.teardown()


class Endless(Ledge):
    """No episode ends by itself."""

    def step(self, action):
        seen, reward, _, _, info = super().step(action)
        return seen, reward, False, False, info


@pytest.mark.parametrize(("steps", "rounds"), [(150, 1), (500, 3)])
def test_episodes_that_never_end_are_said_once(steps, rounds):
    still = lambda observation, task: torch.zeros(len(task), 2)  # noqa: E731
    words = "No episode of endless has ended in .* neither train/return nor train/success of it. Give OnlineTasks"
    for max_steps in (None, 50):
        options = {"num_processes": 0, **({} if max_steps is None else {"max_steps": max_steps})}
        practice = OnlineTasks(
            [TaskSpec("endless", Endless), TaskSpec("calm", calm)], env_steps=1000, environments=options
        )
        practice.setup()
        with nullcontext() if max_steps else pytest.warns(UserWarning, match=words) as said:
            for _ in range(rounds):
                played = practice.collect(still, steps)
            practice.teardown()
        assert len(said or [None]) == 1 and ("return/endless" in played) == (max_steps is not None)


def test_a_return_is_the_sum_of_an_episodes_rewards_across_rounds_and_checkpoints():
    pytest.importorskip("metaworld")
    practice, resumed = data(envs_per_task=2), data(envs_per_task=2)
    still = lambda observation, task: torch.zeros(len(task), 4)  # noqa: E731
    practice.setup()
    resumed.setup()
    try:
        assert practice.collect(still, 4) == {}
        resumed.load_state_dict(practice.state_dict())
        figures = practice.collect(still, 3)
        assert resumed.collect(still, 3) == figures
        rewards = practice.replay.rows[:, 43].unflatten(0, (2, -1))[:, : 7 * 2].unflatten(1, (7, 2))[:, :6].sum(1)
        expected = dict(zip(TASKS, rewards.double().mean(1).tolist(), strict=True))
        assert {name: figures[f"return/{name}"] for name in TASKS} == pytest.approx(expected, rel=1e-5)
        assert figures["return/mean"] == pytest.approx(sum(expected.values()) / 2, rel=1e-5) and expected["push-v3"] > 0
    finally:
        practice.teardown()
        resumed.teardown()


class OneOfTwo(OnlineTasks):
    """As it is in one of two processes."""

    rank = 0
    world_size = 2


def test_processes_share_the_goals_in_orders_of_their_own():
    pytest.importorskip("metaworld")
    practice = OneOfTwo(
        ["reach-v3"],
        env_steps=1,
        envs_per_task=2,
        seed=3,
        environments={"num_processes": 0, "max_steps": 1, "num_goals": 3},
    )
    orders, places = [], {}
    for practice.rank in (0, 1):
        practice.setup()
        environments = practice.practice.player.environments
        observation = environments.reset()
        for _ in range(20):
            step = environments.step(torch.zeros(2, 4))
            orders.append(step.goal.tolist())
            for goal, place in zip(step.goal, observation[:, 36:], strict=True):
                places.setdefault(int(goal), set()).add(tuple(place.tolist()))
            observation = step.observation
        practice.teardown()
    with_seed = TaskEnvironments(["reach-v3"], seed=3, num_processes=0, max_steps=1, num_goals=3)
    assert [len(seen) for seen in places.values()] == [1, 1, 1]  # wherever a goal is played, it is the same
    for _ in range(4):
        place = with_seed.reset()[0, 36:]
        assert places[int(with_seed.step(torch.zeros(1, 4)).goal[0])] == {tuple(place.tolist())}
    columns = np.array(orders).reshape(2, 20, 2).transpose(0, 2, 1).reshape(4, 20)
    assert len(np.unique(columns, axis=0)) == 4  # and no two environments take them in one order


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'reach-v3'"):
        OnlineTasks(["reech-v3"], env_steps=10)
    for name in ("env_steps", "epochs", "steps_per_round", "capacity", "envs_per_task"):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be an integer of at least 1, but got 0[.]$"):
            data(**{name: 0})
    for name in ("updates_per_round", "warmup_steps", "seed"):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be an integer of at least 0, but got -1[.]$"):
            data(**{name: -1})
    for name in ("collect_ahead", "normalize_rewards"):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be True or False, but got 'no'[.]$"):
            data(**{name: "no"})
    with pytest.raises(ValueError, match="Expected `fast` to be True or False, but got 'yes'"):
        data(environments={"fast": "yes"})
    for wrong in (5, "fast", ["fast"]):
        with pytest.raises(ValueError, match="Expected `environments` to be arguments of TaskEnvironments by name"):
            data(environments=wrong)
    with pytest.raises(RuntimeError, match="expected setup"):
        data().collect(lambda observation, task: torch.zeros(2, 4), 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("seed", r"without 'seed': give it as OnlineTasks\(seed=...\)"),
        ("envs_per_task", r"without 'envs_per_task': give it as OnlineTasks\(envs_per_task=...\)"),
        ("split", "to hold some of action_repeat, fast, max_steps, num_goals, .* but got 'split'"),
        ("order", "but got 'order'"),
        ("stop_at_success", "but got 'stop_at_success'"),
        ("first_env", "but got 'first_env'"),
        ("num_goal", "Did you mean 'num_goals'"),
        ("max_step", "Did you mean 'max_steps'"),
    ],
)
def test_of_the_environments_only_some_arguments_can_be_chosen(name, words):
    with pytest.raises(ValueError, match=f"Expected `environments` .*{words}"):
        data(environments={"num_processes": 0, name: 1})


def test_what_can_be_chosen_reaches_the_environments():
    pytest.importorskip("metaworld")
    chosen = {"fast": True, "max_steps": 4, "num_goals": 3, "num_processes": 0, "reward_version": "v1", "timeout": 7.0}
    practice = data(environments=chosen)
    practice.setup()
    config = practice.practice.player.environments._pool.configs[0]
    practice.teardown()
    names = ("fast", "max_steps", "num_goals", "reward_version")
    assert {name: getattr(config, name) for name in names} == {name: chosen[name] for name in names}
