"""Environments of one's own as tasks: against a plain loop over the environment itself."""

from __future__ import annotations

import functools
import io
import pickle
import threading
import types
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from dendrite_zoo.rl import TaskEnvironments, TaskSpec, collect_demonstrations, evaluate_policy, task_specs
from dendrite_zoo.rl.collection import collection_config
from dendrite_zoo.streams import DemonstrationMixture
from tests.rl.worlds import Ledge, calm, ledges, spaces, windy

gymnasium = pytest.importorskip("gymnasium")


def several():
    return gymnasium.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")


def actions(steps, rows=4, size=2, seed=0):
    return np.random.default_rng(seed).uniform(-1.2, 1.2, (steps, rows, size))


def by_hand(make, seed, given):
    """One episode after another in the bare environment, as gymnasium's own loop plays them."""
    env, rows = make(), []
    low, high = np.array([-3, 0]), np.array([1, 10])
    observation, _ = env.reset(seed=seed(0))
    episode = 0
    for action in given:
        before = observation
        scaled = (low + (np.clip(action, -1, 1) + 1) / 2 * (high - low)).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(np.clip(scaled, low, high).astype(np.float32))
        rows.append((before, reward, info["near"], terminated, truncated, observation))
        if terminated or truncated:
            episode += 1
            observation, _ = env.reset(seed=seed(episode))
    return rows


def test_running_statistics_of_a_wrapper_are_said():
    from gymnasium.wrappers import NormalizeObservation, NormalizeReward

    def wrapped(fixed=False):
        env = NormalizeReward(NormalizeObservation(gymnasium.make("Pendulum-v1")))
        env.update_running_mean = env.env.update_running_mean = not fixed
        return env

    with pytest.warns(UserWarning, match="swing: Normalize.* of its own in each environment") as said:
        assert TaskSpec("swing", wrapped).observation_size == 3
    words = " ".join(str(one.message) for one in said)
    assert len(said) == 2 and "TaskSpec.normalized()" in words and "normalize_rewards=True" in words
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TaskSpec("swing", lambda: wrapped(fixed=True)).action_size == 1


def test_episodes_of_demonstrations_are_as_long_as_the_environment_has_them():
    swing = TaskSpec("swing", functools.partial(gymnasium.make, "Pendulum-v1", max_episode_steps=310))

    def shown(*tasks, **options):
        alone = {"expert": lambda observation, task: np.zeros((len(task), 1)), "num_processes": 0}
        return collect_demonstrations(tasks, episodes_per_task=1, **alone, **options)

    whole = shown(swing)
    assert len(whole) == 310 and whole.config["max_steps"] == 310 and len(shown(swing, max_steps=7)) == 7
    assert (
        collection_config(tasks=ledges()) == collection_config(tasks=["reach-v3"]) == collection_config(max_steps=300)
    )


def test_a_step_is_that_of_the_environment_itself():
    with TaskEnvironments(ledges(), envs_per_task=2, num_processes=0, seed=3) as envs:
        assert (envs.observation_size, envs.action_size, envs.tasks) == (3, 2, ("calm", "windy"))
        given, before, steps = actions(60), envs.reset(), []
        for action in given:
            steps.append((before, envs.step(action)))
            before = steps[-1][1].observation
        assert any(step.terminated.any() for _, step in steps) and any(step.truncated.any() for _, step in steps)
        for row, make in enumerate([calm, calm, windy, windy]):
            seeds = []
            own = envs._pool.shard._episodes[row].env
            for episode in range(own.resets):
                goal = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([3, row, episode]))).randint(
                    2**31
                )
                seeds.append(int(np.random.SeedSequence([3, 0, goal]).generate_state(1)[0] >> 1))
            for number, expected in enumerate(by_hand(make, seeds.__getitem__, given[:, row])):
                seen, step = steps[number]
                found = seen, step.reward, step.success, step.terminated, step.truncated, step.final_observation
                for mine, theirs in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(mine[row], theirs)
                assert step.ended[row] == (expected[3] or expected[4])
    assert own.closed


def test_processes_change_nothing_and_a_state_goes_on_in_any():
    given, more = np.split(actions(50), [29])
    functions = [TaskSpec("calm", lambda: Ledge(), success=lambda *step: step[1] > 400), TaskSpec("windy", windy)]
    with (
        TaskEnvironments(functions, envs_per_task=2, num_processes=0) as here,
        TaskEnvironments(functions, envs_per_task=2, num_processes=2) as there,
    ):
        np.testing.assert_array_equal(here.reset(), there.reset())
        for action in given:
            for mine, other in zip(here.step(action), there.step(action), strict=True):
                np.testing.assert_array_equal(mine, other)
        file = io.BytesIO()
        torch.save(there.state_dict(), file)
        expected = [there.step(action) for action in more]
        for resumed in (here, there):
            file.seek(0)
            resumed.reset()
            resumed.load_state_dict(torch.load(file, weights_only=True))
            for action, step in zip(more, expected, strict=True):
                for mine, other in zip(resumed.step(action), step, strict=True):
                    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("processes", [0, 1])
def test_one_environment_cannot_be_two(processes):
    env = Ledge()
    tasks = [TaskSpec("calm", lambda: env)]
    words = "`make_env` of calm to make a new environment each time, but got one that is in use already"
    with pytest.raises((ValueError, RuntimeError), match=words):
        TaskEnvironments(tasks, envs_per_task=2, num_processes=processes).reset()
    with TaskEnvironments(tasks, num_processes=processes) as envs:
        envs.reset()


def test_an_environment_that_counts_what_no_seed_sets_is_said_on_resume():
    with pytest.warns(UserWarning, match=r"reset\(seed=0\) of odd gives another start each time, .* `self.np_random`"):
        envs = TaskEnvironments([TaskSpec("odd", lambda: Ledge(clock=True))], num_processes=0)
    with envs:
        envs.reset()
        envs.step(np.zeros((1, 2)))
        with pytest.warns(UserWarning, match="odd: where the steps .* saw something else than before"):
            envs.load_state_dict(envs.state_dict())


def test_starts_are_equal_in_all_tasks_and_apart_between_splits():
    def starts(split):
        found = np.full((2, 3), np.nan)
        with TaskEnvironments(ledges(), order="each-once", split=split, num_goals=3, num_processes=0) as envs:
            seen = envs.reset()
            while not envs.finished.all():
                busy = np.flatnonzero(~envs.finished)
                step = envs.step(np.zeros((2, 2)))
                unseen = np.isnan(found[busy, step.goal[busy]])
                found[busy[unseen], step.goal[busy][unseen]] = seen[busy[unseen], 0]
                seen = step.observation
        return found

    every = [starts(split) for split in ("train", "val", "test")]
    for calm_starts, windy_starts in every:
        np.testing.assert_array_equal(calm_starts, windy_starts)
    assert len(np.unique(np.concatenate(every, axis=1)[0])) == 9


def test_a_task_may_be_given_by_the_id_of_its_environment():
    spec = pickle.loads(pickle.dumps(TaskSpec("swing", "Pendulum-v1")))
    assert (spec.max_steps, spec.observation_size, spec.action_size) == (200, 3, 1)
    assert spec.make().spec.id == "Pendulum-v1"
    with pytest.raises(RuntimeError, match=r"`make_env` of swing .* NameNotFound: .*Did you mean: `Pendulum`"):
        TaskSpec("swing", "Pendulun-v1").make()


def test_of_two_limits_the_shorter_one_counts():
    pendulum = functools.partial(gymnasium.make, "Pendulum-v1", g=1.6)
    spec = TaskSpec("moon", pendulum)
    assert (spec.max_steps, spec.observation_size, spec.action_size) == (200, 3, 1)
    with TaskEnvironments([spec], num_processes=0, max_steps=7) as envs:
        envs.reset()
        assert [bool(envs.step([[0.5]]).truncated[0]) for _ in range(14)] == ([False] * 6 + [True]) * 2
    naive = pendulum()
    naive.reset(seed=5)
    ours = spec.make()
    ours.reset(seed=5)
    np.testing.assert_array_equal(ours.step(spec.played(np.array([0.5])))[0], naive.step(np.float32([1.0]))[0])


def still(observation, task):
    return np.zeros((len(observation), 2))


def by_task(observation, task):
    """Good at the calm ledge, reckless at the windy one."""
    push = np.where(task == 0, -2 * observation[:, 0] - observation[:, 1], 1.0)
    return np.stack([np.clip(push, -1, 1), np.zeros(len(push))], axis=1)


def test_an_evaluation_is_a_plain_loop_over_the_starts():
    returns, near = np.zeros((2, 4)), np.zeros((2, 4), dtype=bool)
    for task, make in enumerate([calm, windy]):
        for goal in range(4):
            env = make()
            observation, _ = env.reset(seed=int(np.random.SeedSequence([0, 1, goal]).generate_state(1)[0] >> 1))
            ended = False
            while not ended:
                action = by_task(np.float64(observation)[None], np.array([task]))[0]
                observation, reward, fell, late, info = env.step(
                    (np.array([-1, 5]) + action * [2, 5]).astype(np.float32)
                )
                returns[task, goal] += reward
                near[task, goal] |= info["near"]
                ended = fell or late
    report = evaluate_policy(by_task, ledges(), num_goals=4, num_processes=0)
    np.testing.assert_allclose(report.returns, returns)
    np.testing.assert_array_equal(report.reached, near)
    assert report.metric == "success" and report.per_task == dict(zip(report.tasks, near.mean(axis=1), strict=True))
    silent = evaluate_policy(by_task, ledges(success=None), num_goals=4, num_processes=0)
    assert silent.metric == "return" and silent.per_task == report.return_per_task
    assert silent.mean == pytest.approx(returns.mean())
    low, high = silent.interval()
    assert low < silent.mean < high
    record = silent.to_record()
    assert record["task_returns"] == list(silent.per_task.values()) and "task_accuracies" not in record
    assert report.to_record()["benchmark"] == "own-2-tasks" and "reward_version" not in report.to_record()
    with pytest.raises(ValueError, match=r"calm, windy do not. Give TaskSpec\(success=...\)"):
        _ = silent.reached


def test_an_episode_is_the_same_whatever_else_is_played():
    """Also where a policy rounds by the number of rows, as networks do."""

    def rounds_by_rows(observation, task):
        return 0.9 * by_task(observation, task) + 1e-3 * len(observation)

    both = evaluate_policy(rounds_by_rows, ledges(), num_goals=4, num_processes=0)
    alone = evaluate_policy(rounds_by_rows, ledges()[:1], num_goals=4, num_processes=0)
    np.testing.assert_array_equal(both.returns[0], alone.returns[0])


def test_a_policys_own_method_finds_its_tasks_by_name():
    """Whoever gives it means the policy: by position, each task would be played as another, without a word."""

    class Known:
        tasks = ("other", "windy", "calm")

        def act_batch(self, observation, task):
            return by_task(observation, 2 - np.asarray(task))

    expected = evaluate_policy(by_task, ledges(), num_goals=3, num_processes=0)
    for policy in (Known(), Known().act_batch):
        report = evaluate_policy(policy, ledges(), num_goals=3, num_processes=0)
        np.testing.assert_array_equal(report.returns, expected.returns)
    elsewhere = [TaskSpec("gusty", windy, success="near")]
    report = evaluate_policy(Known().act_batch, elsewhere, num_goals=1, num_processes=0)  # which it does not know
    assert report.tasks == ("gusty",)


def test_bare_makers_and_one_alone_are_tasks():
    assert [spec.name for spec in task_specs([calm, windy])] == ["task_0", "task_1"]
    assert task_specs(TaskSpec("a", calm)) == (TaskSpec("a", calm),)
    assert evaluate_policy(still, [calm, windy], num_goals=1, num_processes=0).tasks == ("task_0", "task_1")


def test_a_picture_is_what_the_environment_draws():
    with TaskEnvironments(ledges(), num_processes=0) as envs:
        at = envs.reset()[:, 0]
        assert [picture.shape for picture in envs.render()] == [(4, 6, 3)] * 2
        assert [picture[0, 0, 0] for picture in envs.render()] == (100 + (50 * at).astype(int)).tolist()


def broken(**changes):
    env = Ledge()
    for name, value in changes.items():
        setattr(env, name, value)
    return TaskSpec("odd", lambda: env)


box = gymnasium.spaces.Box


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TaskSpec("", calm), "Expected `name` to be the task's name, but got ''"),
        (
            lambda: TaskSpec("a", "Pendulum"),
            "`make_env` of a to be a function .* or gymnasium's id of one, but got 'Pendulum'. Give one such as",
        ),
        (lambda: TaskSpec("a", Ledge()), "`make_env` of a to be a function .* got <tests.rl.worlds.Ledge"),
        (lambda: task_specs([Ledge()]), "`make_env` of task_0 to be a function"),
        (lambda: TaskSpec("a", calm, success=0.5), "`success` to be a key of info, or a function .* but got 0.5"),
        (lambda: TaskSpec("a", lambda: 3).action_size, "`make_env` of a to return a gymnasium.Env, but got int"),
        (
            lambda: TaskSpec("a", several).action_size,
            "`make_env` of a to return a gymnasium.Env, but got SyncVectorEnv",
        ),
        (lambda: TaskSpec("a", lambda: Ledge).action_size, "to return a gymnasium.Env, but got <class"),
        (lambda: broken(observation_space=box(0, 1, (2, 2))).action_size, "FlattenObservation"),
        (lambda: broken(observation_space=gymnasium.spaces.Discrete(3)).action_size, "FlattenObservation"),
        (lambda: broken(observation_space=gymnasium.spaces.Sequence(box(0, 1))).action_size, "write a .*ObservationWr"),
        (lambda: broken(observation_space=None).action_size, "Set it: self.observation_space = "),
        (
            lambda: broken(action_space=gymnasium.spaces.Discrete(3)).action_size,
            r"Box of one .*, but got Discrete\(3\).*TransformAction\(env, lambda action: action.argmax\(\), ",
        ),
        (lambda: broken(action_space=box(-np.inf, 1, (2,))).action_size, "finite bounds, but got Box.*TransformAction"),
        (
            lambda: broken(action_space=box(np.float32([0, 0]), np.float32([0, 1]))).action_size,
            r"lower bounds below the upper ones, but got \[0.0, 0.0\] and \[0.0, 1.0\]",
        ),
        (lambda: task_specs([TaskSpec("a", calm), TaskSpec("a", windy)]), r"different names, but got \['a', 'a'\]"),
        (lambda: task_specs([]), "one or more tasks"),
        (lambda: task_specs([3]), r"or a list of TaskSpec\(name, make_env\), but got 3"),
        (lambda: task_specs(["earth"]), r"give TaskSpec\('earth', make_env\)"),
        (
            lambda: TaskEnvironments([*ledges(), *task_specs(["reach-v3"])]),
            "calm with 3 numbers .* and 2 in an action, and ",
        ),
        (lambda: evaluate_policy(still, [calm, *ledges()]), "task_0 do not. Give TaskSpec"),
    ],
)
def test_what_is_no_task_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_observations_normalised_by_task_are_those_of_the_environment():
    plain = TaskSpec("windy", windy, success=lambda seen, *_: abs(seen[0]) < 0.1)
    spec = plain.normalized(steps=200)
    mean, scale = map(np.array, pickle.loads(pickle.dumps(spec)).normalizer)
    assert scale[2] == 1.0 and mean[2] == pytest.approx(0.3), "the wind never changes"
    given = actions(30, rows=1)
    with TaskEnvironments([plain], num_processes=0) as one, TaskEnvironments([spec], num_processes=0) as other:
        np.testing.assert_allclose(other.reset() * scale + mean, one.reset(), atol=1e-12)
        seen = []
        for action in given:
            step, same = other.step(action), one.step(action)
            np.testing.assert_allclose(step.final_observation * scale + mean, same.final_observation, atol=1e-12)
            np.testing.assert_array_equal(step.success, same.success)
            seen.append(step.observation[0])
    assert np.abs(np.mean(seen, axis=0)).max() < 1 and spec.normalized(steps=200) == spec
    with pytest.raises(ValueError, match="a task of your own to normalise, but got reach-v3"):
        task_specs(["reach-v3"])[0].normalized()


def test_what_cannot_be_sent_to_a_process_is_refused_before_there_is_one():
    lock = threading.Lock()
    with pytest.raises(ValueError, match="`make_env` and `success` of a to be what can be sent .* num_processes=0"):
        TaskEnvironments([TaskSpec("a", lambda: lock and Ledge())], num_processes=1)
    with TaskEnvironments([TaskSpec("a", lambda: lock and Ledge())], num_processes=0) as envs:
        assert envs.reset().shape == (1, 3)


@pytest.mark.slow
def test_a_maker_may_use_all_of_this_library_in_a_process():
    def make():
        import dendrite_zoo
        from dendrite_zoo.models import ActiveDendriteMLP  # which asks for the package's version
        from dendrite_zoo.rl import MT10

        assert ActiveDendriteMLP

        return Ledge(wind=len(MT10) + float(dendrite_zoo.functional.k_winners is None))

    with TaskEnvironments([make], num_processes=1) as envs:
        assert envs.reset()[0, 2] == 10


def test_a_copy_that_was_sent_is_the_same_task():
    near = 0.25
    spec = TaskSpec("a", lambda: Ledge(wind=near), success=lambda seen, *_: abs(seen[0]) < near)
    sent = pickle.loads(pickle.dumps(spec))
    assert sent.name == "a" and sent.make().wind == near
    assert [sent.succeeded(np.array([at]), 0.0, False, False, {}) for at in (0.2, 0.3)] == [True, False]


def test_success_must_be_said():
    spec = TaskSpec("a", calm, success="is_success")
    assert spec.succeeded(None, 0.0, False, False, {}) is False, "some say it at the end alone"
    assert spec.succeeded(None, 0.0, True, False, {"is_success": np.float32(1)}) is True
    words = "`success` to be a key of the info of a, one of 'near', but got 'is_success'"
    with pytest.raises(ValueError, match=words) as refused:
        spec.succeeded(None, 0.0, False, True, {"near": True})
    function = str(refused.value).split("give a function: ")[1].removesuffix(".")
    said = TaskSpec("a", calm, success=eval(function))  # what the message offers
    assert not said.succeeded(None, 0.0, False, True, {"near": True})
    assert said.succeeded(None, 0.0, False, True, {"is_success": True})
    with pytest.raises(ValueError, match="`success` of a to say True or False, but got None"):
        TaskSpec("a", calm, success=lambda *_: None).succeeded(None, 0.0, False, False, {})


def test_a_process_says_what_is_wrong_with_an_environment_in_one_sentence():
    with TaskEnvironments([TaskSpec("a", calm, success="won")], num_processes=1) as envs:
        envs.reset()
        with pytest.raises(
            ValueError, match=r"a key of the info of a, one of 'near', but got 'won'\. Where an end may lack it, give"
        ):
            for _ in range(12):
                envs.step([[-0.0, 0.0]])


class Still(Ledge):
    """Nothing ends its episodes."""

    def step(self, action):
        self.at = self.speed = 0.0
        return self._see(), 0.0, False, False, {}


class StillFor30(Still):
    spec = types.SimpleNamespace(max_episode_steps=30)  # as gymnasium.make has it

    def step(self, action):
        self.steps += 1
        return *super().step(action)[:3], self.steps >= 30, {}


@pytest.mark.parametrize("order", ["each-once", "random"])
def test_an_episode_without_end_is_cut_off(monkeypatch, order):
    monkeypatch.setattr("dendrite_zoo.rl.episodes.MOST_STEPS", {order: 20})
    tasks = [TaskSpec("a", Still), TaskSpec("limited", StillFor30)]
    with TaskEnvironments(tasks, num_processes=0, order=order, num_goals=1) as envs:
        envs.reset()
        cut = [envs.step([[-0.0, 0.0]] * 2) for _ in range(30)]
    assert [int(np.flatnonzero([step.truncated[task] for step in cut])[0]) + 1 for task in (0, 1)] == [20, 30]
    assert not any(step.terminated.any() for step in cut)


def test_a_limit_of_time_counts_for_an_environment_without_an_id():
    class Own(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def limited(*limits):
        return functools.reduce(gymnasium.wrappers.TimeLimit, limits, Own())

    shorter = lambda: gymnasium.wrappers.FlattenObservation(limited(40, 30, 50))  # noqa: E731
    assert [TaskSpec("a", make).max_steps for make in (Own, functools.partial(limited, 20), shorter)] == [None, 20, 30]


def test_an_evaluation_of_episodes_without_end_ends(monkeypatch):
    monkeypatch.setattr("dendrite_zoo.rl.episodes.MOST_STEPS", {"each-once": 1100})
    rest = lambda observation, task: np.zeros((len(task), 2))  # noqa: E731
    with pytest.warns(UserWarning, match="has no limit of time: it is cut off after .* Give max_steps= for another"):
        evaluate_policy(rest, [TaskSpec("a", Still)], num_goals=2, num_processes=0)
    report = evaluate_policy(rest, [TaskSpec("a", Still)], num_goals=2, num_processes=0, max_steps=1200)
    assert report.max_steps == 1200  # as long as one likes


def test_another_observation_than_the_space_says_is_refused():
    env = Ledge()
    env._see = lambda: np.zeros(1, np.float32)
    with TaskEnvironments([TaskSpec("a", lambda: env)], num_processes=0) as envs:
        with pytest.raises(ValueError, match=r"observations of a of shape \(3,\), as its space says, but got \(1,\)"):
            envs.reset()


class Whole(Ledge):
    """Takes a whole number from 0 to 4."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces().Box(0, 4, (1,), np.int64)


def test_whole_numbers_are_played_equally_often():
    spec = TaskSpec("a", Whole)
    played = np.array([spec.played(np.array([action])) for action in np.linspace(-1, 1, 1001)])
    assert played.dtype == np.int64 and np.bincount(played[:, 0]).tolist() == [200, 200, 200, 200, 201]


def test_actions_that_cannot_be_played_are_refused():
    spec = TaskSpec("a", Whole)
    assert spec.played(torch.tensor([1.0])).tolist() == spec.played([1.0]).tolist() == [4]
    assert spec.played([[-1.0], [1.0]]).tolist() == [[0], [4]]
    for action in ([float("nan")], [0.5, 0.5], 0.5):
        with pytest.raises(ValueError, match=r"Expected finite actions of shape \(1,\) for a, but got"):
            spec.played(action)


class Odd(Ledge):
    """Returns what is given."""

    def __init__(self, result):
        super().__init__()
        self.result = result

    def step(self, action):
        return self.result


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ((np.zeros(3), 0.0, False, {}), "`step` of a to return observation, .*, but got 4 values"),
        ((np.zeros(3), None, False, False, {}), "the reward of a to be a finite number, but got None"),
        ((np.zeros(3), "x", False, False, {}), "the reward of a to be a finite number, but got 'x'"),
        ((np.zeros(3), np.nan, False, False, {}), "the reward of a to be a finite number, but got nan"),
        ((np.full(3, np.inf), 0.0, False, False, {}), r"observations of a to be finite, but got \[inf, inf, inf\]"),
        (({"at": np.zeros(3)}, 0.0, False, False, {}), r"of shape \(3,\), .* got dict. .*FlattenObservation\(env\)"),
        ((np.zeros(3), 0.0, False, False, None), "the info that `step` of a returns to be a dictionary, but got None"),
        (None, "`step` of a to return observation, .*, but got NoneType"),
    ],
)
def test_what_a_step_returns_is_checked(result, words):
    spec = TaskSpec("a", lambda: Odd(result))
    with TaskEnvironments([spec], num_processes=0) as envs:
        envs.reset()
        with pytest.raises(ValueError, match=words):
            envs.step(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=words):
        spec.normalized(steps=3)


class Plain(Ledge):
    """Actions are from -1 to 1."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces().Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize("reward", [torch.tensor(-0.5), torch.tensor([-0.5]), np.array([-0.5]), np.float32(-0.5)])
def test_a_reward_is_one_number_of_any_kind(reward):
    with TaskEnvironments(
        [TaskSpec("a", lambda: Odd((np.zeros(3), reward, False, False, {})))], num_processes=0
    ) as envs:
        envs.reset()
        assert envs.step(np.zeros((1, 2))).reward.tolist() == [-0.5]


@pytest.mark.parametrize(
    "use",
    [
        lambda act, tasks, few: evaluate_policy(act, tasks, num_goals=1, **few),
        lambda act, tasks, few: collect_demonstrations(tasks, expert=act, episodes_per_task=1, **few),
        lambda act, tasks, few: collect_demonstrations(tasks, expert=still, policy=act, episodes_per_task=1, **few),
    ],
)
def test_actions_beyond_those_of_a_policy_may_be_in_the_units_of_an_environment(use):
    calm, windy = ledges()
    few = {"num_processes": 0, "max_steps": 3}
    beyond = lambda observation, task: np.full((len(observation), 2), 7.0)  # noqa: E731
    with pytest.warns(UserWarning, match="bounds of windy"):
        with pytest.warns(UserWarning, match=r"bounds of calm, \[-3.0, 0.0\] to \[1.0, 10.0\], but got some beyond"):
            use(beyond, [calm, windy], few)
    use(still, [calm, windy], few)
    use(beyond, [TaskSpec("plain", Plain)], few)  # no other units: clipped


def test_a_function_of_observations_alone_is_no_policy():
    with pytest.raises(ValueError, match="a function of observations and task indices, but got .* lambda observations"):
        evaluate_policy(lambda observation: observation[:2], ledges(), num_processes=0)


class OfTasks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(2, 2, dtype=torch.float64)

    def forward(self, x, tasks=None):
        return self.table(tasks).tanh() + 0 * x[:, :2]


class Sure(torch.nn.Sequential):
    def forward(self, x, sure=True):
        assert sure is True  # not a task
        return super().forward(x)


@pytest.mark.parametrize("network", [torch.nn.Linear(3, 2), torch.nn.Linear(3, 2).double(), OfTasks(), Sure()])
def test_a_network_of_ones_own_acts_on_tensors(network):
    if isinstance(network, Sure):
        network.extend([torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)])
    torch.manual_seed(0)
    for parameter in network.parameters():  # so small that no action is clipped
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    kind = next(network.parameters()).dtype

    def by_hand(observations, tasks):
        seen, args = torch.tensor(observations, dtype=kind), (torch.tensor(tasks),) * isinstance(network, OfTasks)
        return (network[0] if isinstance(network, Sure) else network)(seen, *args).detach()

    few = {"num_processes": 0, "episodes_per_task": 2}
    shown, expected = (collect_demonstrations(ledges(), expert=one, **few) for one in (network, by_hand))
    assert torch.equal(shown.action, expected.action) and network.training
    assert shown.config["expert"] == type(network).__name__


def test_each_task_may_have_a_policy_of_its_own():
    ahead = lambda observation, task: torch.ones(len(task), 2, requires_grad=True)  # noqa: E731
    of_both = lambda observation, task: np.where(np.asarray(task)[:, None] == 0, 1.0, -0.0) * np.ones(2)  # noqa: E731
    few = {"num_processes": 0, "num_goals": 3}
    expected = evaluate_policy(of_both, ledges(), **few).return_per_task
    rest = lambda observation, task: np.zeros((len(task), 2)) * task[:, None]  # noqa: E731
    each = {"windy": rest, "calm": ahead}
    assert evaluate_policy(each, ledges(), **few).return_per_task == expected
    shown = collect_demonstrations(ledges(), expert=each, num_processes=0, episodes_per_task=1)
    assert [shown.action[shown.task == task].unique().tolist() for task in (0, 1)] == [[1.0], [0.0]]
    with pytest.raises(ValueError, match=r"`policy` to be a policy of calm, but got \['windy'\]\. Give one for each"):
        evaluate_policy({"windy": rest}, ledges(), **few)
    with pytest.raises(ValueError, match=r"`expert` to be a policy of calm, but got \['windy'\]\. Give one for each"):
        collect_demonstrations(ledges(), expert={"windy": rest}, num_processes=0)
    for wrong, words in ((5, "a policy with `tasks`, .* got a int"), (len, "one with act_batch, .* function len")):
        with pytest.raises(ValueError, match=f"Expected `expert` to be {words}"):
            DemonstrationMixture(ledges(), expert=wrong)
    with pytest.raises(ValueError, match=r"a row for each of 3 observations, but got \(3, 1\)"):
        evaluate_policy({**each, "calm": lambda observation, task: np.zeros((len(task), 1))}, ledges(), **few)


def test_a_policy_of_another_library_is_refused_with_what_to_give():
    model = types.SimpleNamespace(predict=lambda observations: (np.full((len(observations), 2), 0.0), None))
    with pytest.raises(ValueError, match="a SimpleNamespace. Of one with `predict`, .* by the bounds") as refused:
        evaluate_policy(model, ledges(), num_processes=0)
    said = str(refused.value).partition("give ")[2].removesuffix(", by the bounds of actions.")
    act = eval(said, {"model": model, "low": np.array([-3.0, 0.0]), "high": np.array([1.0, 10.0])})
    played = ledges()[0].played(act(np.zeros((1, 3)), np.zeros(1))[0])
    assert played.tolist() == [0.0, 0.0]


def test_actions_with_something_beside_them_are_refused():
    with pytest.raises(ValueError, match=r"actions of shape .*, but got a tuple. Return the actions alone"):
        evaluate_policy(lambda observation, task: (still(observation, task), None), ledges(), num_processes=0)


class Old(Ledge):
    """Returns no info from reset."""

    def reset(self, *, seed=None):
        return super().reset(seed=seed)[0]


class Deaf(Ledge):
    """Takes no seed."""

    def reset(self):
        return super().reset()


class Broken(Ledge):
    """Breaks at the first step."""

    def step(self, action):
        raise KeyError("hinge")


def test_what_a_reset_returns_is_checked():
    with TaskEnvironments([TaskSpec("a", Old)], num_processes=0) as envs:
        with pytest.raises(ValueError, match="`reset` of a to return an observation and info, .* but got ndarray"):
            envs.reset()


def test_an_exception_of_an_environment_names_its_task():
    specs = [TaskSpec("calm", calm), TaskSpec("broken", Broken)]
    with TaskEnvironments(specs, num_processes=0) as envs:
        envs.reset()
        with pytest.raises(RuntimeError, match="`step` of broken to return .* it raised KeyError: 'hinge'"):
            envs.step(np.zeros((2, 2)))


def test_an_exception_of_what_a_user_wrote_names_its_task():
    with pytest.raises(RuntimeError, match="`make_env` of a to return without .* it raised ZeroDivisionError"):
        _ = TaskSpec("a", lambda: 1 / 0).observation_size
    with pytest.raises(RuntimeError, match="`reset` of a to return .* it raised TypeError: .*'seed'"):
        TaskSpec("a", Deaf).begin(Deaf(), 0)
    with pytest.raises(RuntimeError, match="`success` of a to return .* it raised IndexError"):
        TaskSpec("a", calm, success=lambda seen, *_: seen[9] > 0).succeeded(np.zeros(3), 0.0, False, False, {})


@pytest.mark.parametrize("success", [lambda observation: True, lambda a, b, c, d, e, f: True])
def test_success_takes_what_a_step_returned(success):
    with pytest.raises(ValueError, match=r"`success` to be a key of info, or a function \(observation, reward, .*five"):
        TaskSpec("a", calm, success=success)


def test_a_dictionary_of_observations_is_to_be_flattened():
    class Split(Ledge):
        observation_space = gymnasium.spaces.Dict({"at": gymnasium.spaces.Box(-1, 1, (3,))})

        def __init__(self):
            self.action_space = gymnasium.spaces.Box(-1, 1, (1,))

    with pytest.raises(ValueError, match=r"Box of one dimension, but got Dict.*FlattenObservation\(env\)"):
        _ = TaskSpec("a", Split).observation_size


@pytest.mark.parametrize("answer", [float("nan"), -0.3, 2])
def test_a_distance_is_no_success(answer):
    with pytest.raises(ValueError, match="`success` of a to say True or False, but got"):
        TaskSpec("a", calm, success=lambda *_: answer).succeeded(None, 0.0, False, False, {})


@pytest.mark.parametrize(
    ("normalizer", "words"),
    [
        (((0.0, 0.0, 0.0), (1.0, 0.0, 1.0)), "deviations above 0"),
        (((0.0, float("nan"), 0.0), (1.0, 1.0, 1.0)), "as many finite means as deviations"),
        (((0.0, 0.0), (1.0, 1.0, 1.0)), "as many finite means as deviations"),
    ],
)
def test_a_normalizer_is_one(normalizer, words):
    with pytest.raises(ValueError, match=f"Expected `normalizer` to be {words}, but got"):
        TaskSpec("a", calm, normalizer=normalizer)
    with pytest.raises(ValueError, match="`steps` to be"):
        TaskSpec("a", calm).normalized(steps=0)


def test_one_of_n_choices_is_the_largest_of_n_numbers():
    """As the error says: a pole that is followed stands for a while, one that is pushed on falls at once."""

    def cart():
        choices = gymnasium.spaces.Box(-1, 1, (2,))
        return gymnasium.wrappers.TransformAction(gymnasium.make("CartPole-v1"), lambda a: a.argmax(), choices)

    def follow(observations, tasks, sign=1):
        right = sign * observations[:, 2:3]  # the angle
        return np.concatenate([-right, right], axis=1).clip(-1, 1)

    tasks = [TaskSpec("cart", cart)]
    steps = evaluate_policy(follow, tasks, num_goals=4, num_processes=0).return_per_task["cart"]
    fallen = evaluate_policy(functools.partial(follow, sign=-1), tasks, num_goals=4, num_processes=0)
    assert steps > 25 > 12 > fallen.return_per_task["cart"]


def test_functions_of_a_loop_that_make_its_last_environment_are_said():
    def tasks(make, **more):
        return [TaskSpec(f"wind={wind}", make(wind), **more) for wind in (0.0, 0.3)]

    late = [TaskSpec(f"wind={wind}", lambda: Ledge(wind=wind)) for wind in (0.0, 0.3)]  # noqa: B023
    with pytest.warns(UserWarning, match="wind=0.0, wind=0.3: their functions `make_env` are the same.*partial"):
        task_specs(late)
    task_specs(tasks(lambda wind: lambda: Ledge(wind=wind)))
    task_specs(tasks(lambda wind: lambda wind=wind: Ledge(wind=wind)))
    task_specs(tasks(lambda wind: functools.partial(Ledge, wind=wind)))
    task_specs(tasks(lambda wind: calm))
    task_specs([TaskSpec(key, lambda: Ledge(), success=key) for key in ("near", "far")])


def test_an_episode_that_goes_on_without_a_limit_is_said():
    class Endless(Ledge):
        def step(self, action):
            seen, reward, _, _, info = super().step(action)
            self.at = self.speed = 0.0
            return seen, reward, False, self.steps >= 1100, info

    rest = lambda observation, task: np.zeros((len(task), 2))  # noqa: E731
    rules = {"num_goals": 2, "num_processes": 0}
    with pytest.warns(UserWarning, match="of b has not ended in 1,000 steps, .* cut off after 10,000") as said:
        evaluate_policy(rest, [TaskSpec("a", calm), TaskSpec("b", Endless)], **rules)
    assert len(said) == 1
    evaluate_policy(rest, [TaskSpec("b", Endless)], max_steps=1050, **rules)


@pytest.mark.parametrize(
    "space",
    [
        *("Discrete(3, start=2)", "MultiDiscrete([2, 3])", "MultiBinary(3)", "Box(-1, 1, (2, 3))", "Box(-1, 1, ())"),
        *("MultiDiscrete([2, 3], start=[1, -1])", "Box(-2, 1, (2, 3))", "Box(-np.inf, 1, (2, 1))"),
        *("Box(-np.inf, np.inf, (2,))", "Box(np.float32([0, -np.inf]), np.float32([np.inf, 1]))"),
    ],
)
def test_actions_of_other_kinds_are_translated_as_the_error_says(space):
    """What the error says is run, and its actions are of the space."""

    class Other(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = eval(f"gymnasium.spaces.{space}")

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            assert action in self.action_space, action
            return np.zeros(2, np.float32), 0.0, False, True, {}

    with pytest.raises(ValueError, match="to (be a Box of one dimension|have finite bounds), but got") as refused:
        _ = TaskSpec("other", Other).action_size
    said = "gymnasium.wrappers" + str(refused.value).partition(": gymnasium.wrappers")[2].removesuffix(".")
    task = TaskSpec("other", lambda: eval(said, {"env": Other(), "gymnasium": gymnasium, "numpy": np}))
    env = task.make()
    for action in np.random.RandomState(0).uniform(-1, 1, (20, task.action_size)):
        task.begin(env, 0)
        task.play(env, action)
    low, high = (getattr(Other.action_space, name, None) for name in ("low", "high"))
    if low is not None and np.isfinite(low).all() and np.isfinite(high).all():
        ends = [env.action(task.played(np.full(task.action_size, end))) for end in (-1, 1)]
        np.testing.assert_array_equal(ends, [low, high])


@pytest.mark.filterwarnings("error:late.*TimeLimit")
@pytest.mark.parametrize(
    ("terminated", "truncated", "said"), [(True, False, True), (False, True, False), (True, True, False)]
)
def test_an_end_of_time_that_is_called_an_end_of_the_task_is_said(terminated, truncated, said):
    class Late(Ledge):
        def step(self, action):
            seen, reward, *_ = super().step(action)
            return seen, reward, terminated, truncated, {"TimeLimit.truncated": True, "near": False}

    task = TaskSpec("late", Late)
    task.begin(env := task.make(), 0)
    expected = (
        pytest.warns(UserWarning, match="late: the info of a step says TimeLimit.truncated") if said else nullcontext()
    )
    with expected:
        task.play(env, np.zeros(2))
