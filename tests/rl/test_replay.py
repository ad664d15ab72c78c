import pytest
import torch

from dendrite_zoo.rl.replay import ReplayBuffer


def steps(numbers, task, observation_size=3, action_size=2):
    """Steps that can be told apart: everything in step ``n`` is a number made from ``n``."""
    n = torch.as_tensor(numbers, dtype=torch.float32)
    observation = n[:, None] + torch.zeros(observation_size)
    action = n[:, None] / 1000 + torch.zeros(action_size)
    return observation, action, -n, observation + 0.5, torch.as_tensor(task).expand(len(n))


def buffer(num_tasks=2, capacity=8):
    return ReplayBuffer(num_tasks, capacity, observation_size=3, action_size=2)


def test_of_each_task_the_latest_steps_stay():
    replay, naive = buffer(), {0: [], 1: []}
    draws = torch.Generator().manual_seed(0)
    count = 0
    for _ in range(20):
        size = int(torch.randint(1, 12, (), generator=draws))
        task = torch.randint(2, (size,), generator=draws)
        numbers = torch.arange(count, count + size)
        count += size
        replay.add(*steps(numbers, task))
        for number, j in zip(numbers.tolist(), task.tolist(), strict=True):
            naive[j] = [*naive[j], number][-4:]
        for j in (0, 1):
            assert replay.observations(j, 99)[:, 0].tolist() == naive[j]
            assert replay.observations(j, 2)[:, 0].tolist() == naive[j][-2:]
        assert replay.sizes.tolist() == [len(naive[0]), len(naive[1])]
        assert len(replay) == len(naive[0]) + len(naive[1])


def test_a_sample_is_balanced_and_its_parts_belong_together():
    replay = buffer(capacity=1000)
    replay.add(*steps(range(100), 0))
    replay.add(*steps(range(200, 203), 1))
    batch = replay.sample(64)
    assert batch.task.tolist() == [0] * 64 + [1] * 64
    n = batch.observation[:, 0]
    expected = steps(n, 0)
    for part, wanted in zip(batch[:4], expected[:4], strict=True):
        torch.testing.assert_close(part, wanted)
    assert set(n[64:].tolist()) == {200.0, 201.0, 202.0}
    assert n[:64].max() < 100


def test_every_step_is_drawn_equally_often():
    replay = buffer(1, 10)
    replay.add(*steps(range(10), 0))
    counts = replay.sample(20_000).observation[:, 0].long().bincount(minlength=10)
    assert (counts - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5


def test_the_generator_decides_the_draws():
    replay = buffer()
    replay.add(*steps(range(4), [0, 0, 1, 1]))
    one, two = (replay.sample(50, torch.Generator().manual_seed(3), n_step=2, discount=0.9) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(one, two, strict=True))


def test_a_state_goes_on_as_if_nothing_had_happened(tmp_path):
    replay, again = buffer(), buffer()
    replay.add(*steps(range(7), 0))
    replay.add(*steps(range(10, 12), 1))
    torch.save(replay.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for held in (replay, again):
        held.add(*steps([20, 21, 22], [0, 1, 0]))
    for j in (0, 1):
        assert replay.observations(j, 99).equal(again.observations(j, 99))
    one, two = (held.sample(50, torch.Generator().manual_seed(3), n_step=2, discount=0.9) for held in (replay, again))
    assert all(a.equal(b) for a, b in zip(one, two, strict=True))


def test_a_state_holds_no_more_than_the_steps():
    replay = buffer(capacity=100_000)
    replay.add(*steps(range(7), 0))
    assert replay.state_dict()["rows"].shape == (7, 9)


def test_what_does_not_fit_is_refused():
    replay = buffer()
    with pytest.raises(ValueError, match="but got none of task 0"):
        replay.sample(1)
    with pytest.raises(ValueError, match="with .3, 2, 1, 3. columns"):
        replay.add(*steps([1], 0, observation_size=4))
    with pytest.raises(ValueError, match="Expected tasks from 0 to 1, but got a step of task 5"):
        replay.add(*steps([1], 5))
    for name in ("num_tasks", "capacity", "observation_size", "action_size"):
        sizes = {"num_tasks": 2, "capacity": 8, "observation_size": 3, "action_size": 2, name: 0}
        with pytest.raises(ValueError, match=f"Expected `{name}` to be an integer of at least 1, but got 0"):
            ReplayBuffer(**sizes)
    replay.add(*steps(range(7), 0))
    with pytest.raises(ValueError, match="Use the same tasks and `capacity`"):
        buffer(capacity=4).load_state_dict(replay.state_dict())


def naive_return(episode, start, n_step, discount):
    """Reward, last step and discount of up to ``n_step`` steps of an episode: of (number, reward, terminated)."""
    steps = episode[start : start + n_step]
    total = sum(discount**i * reward for i, (_, reward, _) in enumerate(steps))
    number, _, terminated = steps[-1]
    return total, number, 0.0 if terminated else discount ** len(steps)


@pytest.mark.parametrize("envs_per_task", [1, 3])
@pytest.mark.parametrize("n_step", [1, 3, 5])
def test_returns_of_n_steps_are_sums_over_an_episode(envs_per_task, n_step):
    """Two tasks in a ring that is run through several times, whose size is no multiple of the environments."""
    options = {"observation_size": 1, "action_size": 1, "envs_per_task": envs_per_task}
    replay, again = ReplayBuffer(2, 100, **options), ReplayBuffer(2, 100, **options)
    draws, envs, number = torch.Generator().manual_seed(n_step), 2 * envs_per_task, 0
    task = torch.arange(2).repeat_interleave(envs_per_task)
    episodes, open_ = [], [[] for _ in range(envs)]
    for length in (7, 40, 33, 29):  # of rounds
        rows = []
        for _ in range(length):
            n = torch.arange(number, number + envs, dtype=torch.float32)
            number += envs
            reward = torch.randn(envs, generator=draws)
            ended = torch.rand(envs, generator=draws) < 0.2
            terminated = ended & (torch.rand(envs, generator=draws) < 0.5)
            for env in range(envs):
                open_[env].append((int(n[env]), float(reward[env]), bool(terminated[env])))
                if ended[env]:
                    episodes.append(open_[env])
                    open_[env] = []
            rows.append((n[:, None], n[:, None] / 10, reward, n[:, None] + 0.5, task, terminated, ended))
        replay.add(*(torch.cat(column) for column in zip(*rows, strict=True)))
        again.load_state_dict(replay.state_dict())
        places = {step[0]: (e, i) for e in [*episodes, *open_] for i, step in enumerate(e)}
        for held in (replay, again):
            batch = held.sample(200, torch.Generator().manual_seed(0), n_step=n_step, discount=0.9)
            assert batch.task.tolist() == [0] * 200 + [1] * 200
            found = zip(*(part.flatten().tolist() for part in batch), strict=True)
            for observation, action, total, after, j, terminated, factor in found:
                expected = naive_return(*places[int(observation)], n_step, 0.9)
                assert (total, factor) == (pytest.approx(expected[0], abs=1e-5), pytest.approx(expected[2]))
                assert (action, after) == (pytest.approx(observation / 10), expected[1] + 0.5)
                assert (terminated, j) == (expected[2] == 0, int(observation) % envs // envs_per_task)
    single = replay.sample(200, torch.Generator().manual_seed(0))
    for part, n_steps_part in zip(single[:2], batch[:2], strict=True):
        assert part.equal(n_steps_part), "the same steps are drawn"
    assert single.discount is None


def test_returns_of_states_of_earlier_versions_have_one_reward():
    replay, again = buffer(), buffer()
    replay.add(*steps(range(4), 0))
    earlier = replay.state_dict()
    del earlier["ended"], earlier["terminated"]
    again.load_state_dict(earlier)
    batch = again.sample(50, tasks=[0], n_step=3, discount=0.5)
    assert batch.reward.equal(-batch.observation[:, 0]) and (batch.discount == 0.5).all()
    again.add(*steps(range(4, 7), 0))
    assert (again.sample(50, tasks=[0], n_step=3, discount=0.5).discount < 0.5).any()
    with pytest.raises(ValueError, match="Expected `discount` to be a number from 0 to 1 with n_step above 1, but got"):
        replay.sample(1, tasks=[0], n_step=2)
    with pytest.raises(ValueError, match="Expected `n_step` to be an integer of at least 1, but got 0"):
        replay.sample(1, tasks=[0], n_step=0, discount=0.9)


def test_where_a_task_ended_stays_with_its_step(tmp_path):
    replay, again = buffer(), buffer()
    for first in range(0, 12, 3):  # the oldest are overwritten
        numbers = torch.arange(first, first + 3)
        replay.add(*steps(numbers, 0), numbers % 3 == 1)
    replay.add(*steps(range(20, 22), 1))
    again.load_state_dict(replay.state_dict())
    for held in (replay, again):
        batch = held.sample(60)
        n = batch.observation[:, 0]
        assert (batch.terminated == ((n % 3 == 1) & (n < 20))).all() and batch.terminated.any()
        assert held.rewards(0, 3).tolist() == [-9.0, -10.0, -11.0]
    earlier = replay.state_dict()
    del earlier["terminated"]
    again.load_state_dict(earlier)
    assert len(again.sample(60, tasks=[1]).task.unique()) == 1


def test_returns_are_not_rounded_in_mixed_precision():
    held = buffer(1, 100)
    held.add(*steps(range(1000, 1100), 0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = held.sample(50, torch.Generator().manual_seed(0), n_step=3, discount=0.9)
    batch = held.sample(50, torch.Generator().manual_seed(0), n_step=3, discount=0.9)
    assert mixed.reward.dtype == torch.float32 and torch.equal(mixed.reward, batch.reward)
