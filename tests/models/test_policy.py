"""ActiveDendritePolicy: one network, the task its context; act is the folded network, to the bit of a rounding."""

from __future__ import annotations

import copy
import inspect
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dendrite_zoo
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.policy import PolicyArguments
from dendrite_zoo.rl import TaskSpec

TASKS = ["reach-v3", "push-v3", "drawer-close-v3"]
MLP = {"num_segments": 0, "activation": "relu", "weight_density": 1.0, "append_task": True}


def make(**arguments):
    policy = ActiveDendritePolicy(TASKS, **{"hidden_features": [20, 24], **arguments})
    policy.fit_normalizer(torch.randn(100, 39) * 3 + 1)
    return policy.eval()


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(
        [
            {},
            {"dendrite_layers": None, "winners": "context", "output_bias": False},
            {"gate": "bias", "weight_density": 0.5},
            MLP,
        ]
    ),
    task=st.integers(0, 2),
)
def test_one_action_many_actions_and_the_forward_pass_agree(kind, task):
    policy = make(**kind)
    observations = np.random.default_rng(0).normal(size=(6, 39)) * 3 + 1
    index = np.array([0, 1, 2, 2, 1, task])
    mean, log_std = policy(torch.tensor(observations).float(), torch.tensor(index))
    assert mean.shape == log_std.shape == (6, 4)
    batch = policy.act_batch(observations, index)
    np.testing.assert_allclose(batch, mean.detach().tanh().numpy(), atol=1e-6)
    one = policy.act(observations[5], task)
    assert one.dtype == np.float32 and one.shape == (4,)
    np.testing.assert_allclose(one, batch[5], atol=1e-6)
    np.testing.assert_array_equal(one, policy.act(torch.tensor(observations[5]), TASKS[task]))


def test_the_plain_control_is_a_plain_mlp_that_reads_its_task():
    policy = make(**MLP)
    x, scale = torch.randn(2, 39), policy.observation_scale
    inputs = torch.cat([(x - policy.observation_mean) / scale, torch.tensor([[0.0, 1, 0], [0, 1, 0]])], dim=1)
    hidden = inputs
    for layer in policy.mlp.hidden:
        hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
    expected = (hidden @ policy.mlp.output.weight.T + policy.mlp.output.bias)[:, :4]
    torch.testing.assert_close(policy(x, torch.tensor(1))[0], expected)


def test_normaliser_is_mean_and_spread_of_what_was_seen():
    policy = ActiveDendritePolicy(TASKS, hidden_features=[8, 8], observation_size=3, action_size=1)
    policy.fit_normalizer(torch.tensor([[1.0, 5.0, 0.0], [7.0, 5.0, 0.002]]), smallest=1e-2)
    assert policy.observation_mean.tolist() == pytest.approx([4.0, 5.0, 0.001])
    # what hardly moves is divided by the least, and what never does by 1, that it drowns nothing where it moves later
    assert policy.observation_scale.tolist() == pytest.approx([3.0, 1.0, 1e-2])


@pytest.mark.parametrize("name", ["metaworld-mt10", "metaworld-mt10-scratch"])
def test_a_policy_folds_into_a_network_that_is_exported(name):
    policy, seen = dendrite_zoo.load(name), torch.randn(5, 39, generator=torch.manual_seed(0))
    network = policy.fold("push-v3")
    expected = torch.from_numpy(policy.act_batch(seen, ["push-v3"] * 5))
    torch.testing.assert_close(network(seen), expected, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    program = torch.export.export(network, (seen,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    torch.testing.assert_close(program.module()(seen[:3]), expected[:3], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="Did you mean 'push-v3'"):
        policy.fold("push")


def test_a_folded_policy_reads_as_the_policy_does():
    options = {"observation_features": [[1, -1], [0, 1]], "observation_clip": 1.5, "append_task": True}
    policy = ActiveDendritePolicy(["a", "b"], observation_size=2, action_size=3, hidden_features=[8, 8], **options)
    seen = np.random.RandomState(0).randn(6, 2) * [1, 9] + 5
    policy.fit_normalizer(seen)
    copied = policy.fold(1)
    expected, policy.observation_scale[:] = policy.act_batch(seen, [1] * 6), 7
    np.testing.assert_allclose(copied(torch.tensor(seen).float()), expected, atol=1e-6)


def test_arrays_are_normalised_by_as_tensors_are():
    one, other = (ActiveDendritePolicy(["a"], observation_size=3, hidden_features=[8, 8]) for _ in range(2))
    seen = np.random.RandomState(0).randint(9, size=(20, 3))
    one.fit_normalizer(seen)
    other.fit_normalizer(torch.tensor(seen).float())
    assert torch.equal(one.observation_scale, other.observation_scale) and one.extend_normalizer(seen) == []


def test_observations_may_be_of_small_units():
    policy = ActiveDendritePolicy(["a"], observation_size=4, hidden_features=[8, 8])
    units = torch.tensor([1e-4, 0.0, 100.0, 1e-5])  # the last beside 1,000 is no more than rounding
    seen = torch.randn(50, 4, generator=torch.manual_seed(0)) * units + torch.tensor([0.0, 0.0, 0.0, 1000.0])
    policy.fit_normalizer(seen)
    expected = seen.double().std(0, correction=0)
    expected[1], expected[3] = 1.0, expected[3].clamp(min=1e-3)
    torch.testing.assert_close(policy.observation_scale.double(), expected)
    policy.fit_normalizer(seen, smallest=0.01)
    assert policy.observation_scale[0] == pytest.approx(0.01)


def test_samples_scatter_around_the_mean_by_the_spread():
    policy = make()
    with torch.no_grad():
        policy.mlp.output.weight.zero_()
        policy.mlp.output.bias.copy_(torch.tensor([0.3] * 4 + [-1.0, -30.0, -1.0, -1.0]))
    samples = np.stack([policy.act(np.zeros(39), 0, deterministic=False) for _ in range(2000)])
    raw = np.arctanh(samples[:, 0].astype(np.float64))
    assert raw.mean() == pytest.approx(0.3, abs=0.03) and raw.std() == pytest.approx(np.exp(-1.0), rel=0.06)
    np.testing.assert_allclose(samples[:, 1], np.tanh(0.3), atol=1e-6)  # the bounds keep it from nothing at all
    assert policy(torch.zeros(1, 39), torch.tensor(0))[1][0, 1] == -20.0


@pytest.mark.parametrize(
    "change", ["train", "in place", "load", "fused", "fused in eval", "data", "noise", "parameter", "layer"]
)
def test_what_was_folded_is_dropped_when_weights_change(change):
    policy = make()
    before = policy.act(np.ones(39), 0)
    other = make()
    if change == "train":
        policy.train()
        for mine, theirs in zip(policy.parameters(), other.parameters(), strict=True):
            mine.data.copy_(theirs.data)
        policy.eval()
    elif change == "in place":
        with torch.no_grad():
            for mine, theirs in zip(policy.parameters(), other.parameters(), strict=True):
                mine.copy_(theirs)
    elif change == "load":
        policy.load_state_dict(other.state_dict())
    elif change == "parameter":
        policy.mlp.output.bias = torch.nn.Parameter(policy.mlp.output.bias.detach() + 0.1)
    elif change == "layer":
        policy.mlp.output = other.mlp.output
    elif change == "data":
        for parameter in policy.parameters():
            parameter.data.mul_(0.9)
    elif change == "noise":  # on masked weights, too, which are zeroed at the next use
        for parameter in policy.parameters():
            parameter.data.add_(torch.randn_like(parameter))
    else:
        policy.train(change == "fused")
        policy.act(np.ones(39), 0)
        optimizer = torch.optim.Adam(policy.parameters(), fused=True)
        policy(torch.ones(1, 39), torch.tensor([0]))[0].sum().backward()
        optimizer.step()
    after = policy.act(np.ones(39), 0)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, policy.act_batch(np.ones((1, 39)), [0])[0], atol=1e-6)


def test_saved_copied_and_loaded_it_acts_alike(tmp_path):
    policy = make(append_task=True)
    policy.save_pretrained(tmp_path)
    again = dendrite_zoo.load(tmp_path)
    assert again.tasks == tuple(TASKS) and again.num_tasks == 3
    for other in (again, copy.deepcopy(policy)):
        np.testing.assert_array_equal(policy.act(np.ones(39), 2), other.act(np.ones(39), 2))


def test_the_papers_network_is_the_default():
    config = {name: p.default for name, p in inspect.signature(ActiveDendritePolicy).parameters.items()}
    assert config["dendrite_layers"] == (1,) and config["num_segments"] == 10
    assert PolicyArguments(TASKS).hidden_features == [2800, 2800]
    moon = TaskSpec("moon", partial(gymnasium.make, "Pendulum-v1"))
    assert PolicyArguments([moon]).hidden_features == [256, 256], "an update of 2800 takes seconds"
    assert config["activation_density"] == 0.25 and config["weight_density"] == 0.9
    policy = make()
    assert policy.mlp.hidden[0].segments is None and policy.mlp.hidden[1].segments.shape == (24, 10, 3)


@pytest.mark.parametrize(
    "observation, task, words",
    [
        (np.zeros(38), 0, r"Expected `observation` to be of shape \(39,\), but got \(38,\)"),
        (np.zeros((1, 39)), 0, "act_batch"),
        (np.full(39, np.nan), 0, r"not finite \(at \[\[0\], \[1\], \[2\]\]\)"),
        (np.r_[np.zeros(38), np.inf], 0, r"not finite \(at \[\[38\]\]\)"),
        (np.zeros(39), "reach", "Did you mean 'reach-v3'"),
        (np.zeros(39), 3, "Expected `task` to be one of reach-v3, .*, or an index from 0 to 2, but got"),
        (np.zeros(39), -1, "Expected `task` to be one of reach-v3, .*, or an index from 0 to 2, but got"),
        (np.zeros(39), None, "Expected `task` to be one of reach-v3, .*, or an index from 0 to 2, but got"),
        (np.zeros(39), 1.0, "Expected `task` to be one of reach-v3, .*, or an index from 0 to 2, but got"),
        (
            np.zeros(39),
            np.array([0, 1, 0]),
            "Expected `task` to be one of reach-v3, .*, or an index from 0 to 2, but got",
        ),
        ((np.zeros(39), {}), 0, "Of what gymnasium's reset gives, take the first"),
    ],
)
def test_no_action_for_what_is_no_observation_or_no_task(observation, task, words):
    with pytest.raises(ValueError, match=words):
        make().act(observation, task)


def test_one_bad_observation_of_many_is_refused():
    observations = np.zeros((3, 39))
    observations[1, 4] = np.nan
    with pytest.raises(ValueError, match=r"at \[\[1, 4\]\]"):
        make().act_batch(observations, [0, 1, 2])
    with pytest.raises(ValueError, match=r"of shape \(2, 39\), but got \(3, 39\)"):
        make().act_batch(observations, [0, 1])
    with pytest.raises(ValueError, match="or an index from 0 to 2, but got 0.5"):
        make().act_batch(observations[2:], np.array([0.5]))
    with pytest.raises(ValueError, match=r"of shape \(1, 39\), but got \(39,\)"):
        make().act_batch(observations[0], "reach-v3")
    with pytest.raises(ValueError, match="or an index from 0 to 2, but got 1.5"):
        make().act_batch(observations[2:], 1.5)


def test_no_observations_have_no_actions():
    for none in ([], np.zeros(0, dtype=int), torch.zeros(0)):
        assert make().act_batch(np.zeros((0, 39)), none).shape == (0, 4)


def test_tasks_given_as_the_environments_lists_have_them(tmp_path):
    """By name, or as what has a name; the file has names."""
    made = TaskSpec("moon", partial(gymnasium.make, "Pendulum-v1"))
    policy = ActiveDendritePolicy(["reach-v3", made], hidden_features=[8, 8])
    assert policy.tasks == ("reach-v3", "moon") and policy.config["tasks"] == ["reach-v3", "moon"]
    policy.save_pretrained(tmp_path)
    more = dendrite_zoo.load(tmp_path, tasks=[made, TaskSpec("mars", lambda: None), "reach-v3"])
    assert more.tasks == ("moon", "mars", "reach-v3")
    with pytest.raises(ValueError, match=r"each once, but got \['moon', 'moon'\]"):
        ActiveDendritePolicy(["reach-v3", made, made], hidden_features=[8, 8])
    with pytest.raises(ValueError, match=r"dendrite_zoo.rl.task_names\('mt10'\) for those of a benchmark"):
        ActiveDendritePolicy("mt10", hidden_features=[8, 8])


def test_tasks_by_name_or_index():
    policy, observations = make().eval(), np.random.default_rng(0).normal(size=(3, 39))
    by_index = policy.act_batch(observations, np.array([2, 0, 2]))
    np.testing.assert_array_equal(policy.act_batch(observations, [policy.tasks[2], 0, policy.tasks[2]]), by_index)
    for one in (2, np.int64(2), torch.tensor(2), policy.tasks[2]):  # for all
        assert np.array_equal(policy.act_batch(observations, one), policy.act_batch(observations, [2, 2, 2]))
    assert policy.task_index(torch.tensor(1)) == policy.task_index(np.int64(1)) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        ({"tasks": []}, "Expected `tasks` to be the names of one task or more"),
        ({"tasks": ["a", "a"]}, "each once"),
        ({"tasks": "reach-v3"}, r"Expected `tasks` to be a list of names, but got 'reach-v3'. Write \['reach-v3'\]"),
        ({"log_std_range": [1.0, 0.0]}, "the lower and the upper bound"),
        ({"dendrite_layers": [2]}, "Expected `dendrite_layers` to be hidden layers from 0 to 1"),
        ({"action_size": 0}, "Expected `action_size` to be an integer of at least 1, but got 0"),
    ],
)
def test_bad_arguments(change, words):
    with pytest.raises(ValueError, match=words):
        ActiveDendritePolicy(**{"tasks": TASKS, "hidden_features": [8, 8], **change})


def test_a_standard_deviation_for_all_actions():
    policy, observations = make().eval(), torch.randn(3, 39)
    before = policy(observations, torch.tensor([0, 1, 2]))[0]
    policy.set_std(0.25)
    mean, log_std = policy(observations, torch.tensor([0, 1, 2]))
    assert torch.equal(mean, before)
    torch.testing.assert_close(log_std.exp(), torch.full_like(mean, 0.25))
    with pytest.raises(ValueError, match="Expected `std` to be between 0.05 and 1, but got 2.0"):
        make(log_std_range=(-3, 0)).set_std(2.0)
    with pytest.raises(ValueError, match="Expected `output_bias` to be True, where all deviations are set, but got F"):
        make(output_bias=False).set_std(0.25)


def test_whether_it_was_normalised():
    policy = ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8])
    assert not policy.has_normalizer
    for wrong in (torch.zeros(0, 39), torch.zeros(10, 38), torch.zeros(39)):
        with pytest.raises(ValueError, match=r"Expected `observations` to be of shape \(N, 39\) with one row or more"):
            policy.fit_normalizer(wrong)
    assert not policy.has_normalizer
    policy.fit_normalizer(torch.randn(10, 39))
    assert policy.has_normalizer


@pytest.mark.parametrize("winners", ["activation", "context"])
@pytest.mark.parametrize("append_task", [False, True])
def test_a_task_may_be_an_int(winners, append_task):
    sizes = {"hidden_features": [16, 16], "winners": winners, "append_task": append_task}
    policy, x = ActiveDendritePolicy(["a", "b", "c"], **sizes).eval(), torch.randn(5, 39)
    critic = TwinCritic(["a", "b", "c"], **sizes)
    one, each = torch.tensor(2), torch.tensor([2] * 5)
    for got, expected, by_row in zip(policy(x, 2), policy(x, one), policy(x, each), strict=True):
        assert torch.equal(got, expected)
        torch.testing.assert_close(got, by_row)
    for got, expected in zip(critic(x, x[:, :4], 2), critic(x, x[:, :4], one), strict=True):
        assert torch.equal(got, expected)
    inputs = policy._inputs(x, 2)
    torch.testing.assert_close(policy.mlp.fold(2)(inputs), policy.mlp(inputs, 2))


def test_a_policy_for_tasks_of_ones_own_has_their_sizes():
    tasks = [TaskSpec(name, partial(gymnasium.make, "Pendulum-v1")) for name in ("light", "heavy")]
    policy = ActiveDendritePolicy(tasks, hidden_features=[8, 8])
    assert policy.tasks == ("light", "heavy") and policy.act(np.zeros(3), "heavy").shape == (1,)
    assert policy.config["observation_size"] == 3 and TwinCritic(tasks, hidden_features=[8, 8]).config == {
        **TwinCritic(["light", "heavy"], hidden_features=[8, 8], observation_size=3, action_size=1).config
    }
    assert ActiveDendritePolicy(tasks, hidden_features=[8, 8], observation_size=5).config["observation_size"] == 5
    assert make().config["observation_size"] == 39 and make().config["action_size"] == 4
