"""What a policy reads of an observation: features computed one by one, and what an artifact holds of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dendrite_zoo
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic

SIZES = {"hidden_features": [8, 8], "num_segments": 2}


def by_hand(o, *, relative):
    """The features of one observation of Meta-World, written out."""
    hand, first, second, goal = o[0:3], o[4:7], o[11:14], o[36:39]
    centre = np.array([0.0, 0.6, 0.2])

    def frame(f):
        places = np.concatenate([f[0:3] - centre, f[4:7] - centre, f[11:14] - centre]) / 0.15
        return [*places, (f[3] - 0.7) / 0.3, *(np.concatenate([f[7:11], f[14:18]]) / 0.5)]

    values = [*frame(o[:18]), *((goal - centre) / 0.15)]
    if not relative:
        return np.array([*values, *frame(o[18:36])])
    before = o[18:36]
    values += [*((hand - before[0:3]) / 0.01), *((first - before[4:7]) / 0.01), *((second - before[11:14]) / 0.01)]
    values += [(o[3] - before[3]) / 0.05]
    return np.array([*values, *(np.concatenate([first - hand, goal - first, goal - hand, second - first]) / 0.1)])


@pytest.mark.parametrize(("name", "count"), [("metaworld", 43), ("metaworld-raw", 39)])
def test_named_features_are_those_written_out(name, count):
    policy = ActiveDendritePolicy(["a"], observation_features=name, **SIZES).double()
    x = np.random.RandomState(0).uniform(-1, 1, (5, 39))
    read = policy.normalized(torch.from_numpy(x))
    assert read.shape == (5, count)
    expected = np.stack([by_hand(row, relative=name == "metaworld") for row in x])
    np.testing.assert_allclose(read, expected, atol=1e-5)


def test_numbers_far_off_are_read_as_the_bound():
    policy = ActiveDendritePolicy(["a"], observation_features="metaworld", observation_clip=10.0, **SIZES)
    free = ActiveDendritePolicy(["a"], observation_features="metaworld", **SIZES)
    x = torch.randn(4, 39)
    assert policy.normalized(x).abs().max() == 10 < free.normalized(x).abs().max()
    assert policy.normalized(x).equal(free.normalized(x).clamp(-10, 10))
    with pytest.raises(ValueError, match="not finite"):
        policy.act(np.full(39, np.inf), "a")
    with pytest.raises(ValueError, match="observation_clip"):
        ActiveDendritePolicy(["a"], observation_clip=0.0, **SIZES)


def policies():
    matrix = [[1, 0, -1], [0, 2, 1]]
    own = {"observation_features": np.array(matrix, float), "observation_size": 2, "action_size": 1}
    whole = {**own, "observation_features": matrix}
    named = {"observation_features": "metaworld", "observation_clip": 10.0}
    return {"own": own, "whole": whole, "named": named}


@pytest.mark.parametrize("kind", ["own", "whole", "named"])
@pytest.mark.parametrize("append_task", [False, True])
def test_act_takes_raw_observations_and_an_artifact_holds_the_matrix(kind, append_task, tmp_path):
    policy = ActiveDendritePolicy(
        ["a", "b"], append_task=append_task, log_std_bound="tanh", **policies()[kind], **SIZES
    )
    size, width = policy.observation_matrix.shape
    x = torch.randn(6, size)
    if kind != "named":
        policy.fit_normalizer(x)
        features = x.double() @ policy.observation_matrix.double()
        torch.testing.assert_close(policy.observation_mean.double(), features.mean(0))
        torch.testing.assert_close(policy.observation_scale.double(), features.std(0, correction=0))
    assert policy.mlp.config["in_features"] == width + 2 * append_task
    policy.save_pretrained(tmp_path)
    again = dendrite_zoo.load(tmp_path)
    assert again.observation_matrix.equal(policy.observation_matrix) and again.has_normalizer
    task = torch.tensor([0, 1, 1, 0, 1, 0])
    means = policy(x, task)[0].tanh().detach().numpy()
    np.testing.assert_allclose(again.act_batch(x, task), means, atol=1e-6)
    for row, name in enumerate("abbaba"):
        np.testing.assert_allclose(again.act(x[row].numpy(), name), means[row], atol=1e-6)
    critic = TwinCritic.like(policy)
    assert critic.critics[0].config["in_features"] == policy.mlp.config["in_features"] + policy.config["action_size"]


def test_autocast_does_not_round_small_differences():
    policy = ActiveDendritePolicy(["a"], observation_features="metaworld", **SIZES)
    x = torch.rand(3, 39)
    x[:, 18:36] = x[:, :18] + 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        assert policy.normalized(x).equal(policy.normalized(x).float())
        torch.testing.assert_close(policy.normalized(x)[:, 21:24], torch.full((3, 3), -0.1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"observation_features": "metaword"},
            "'metaworld' or 'metaworld-raw', or a matrix, but got 'metaword'. Did you",
        ),
        ({"observation_features": "metaworld", "observation_size": 7}, "that of Meta-World is for 39"),
        ({"observation_features": [[1.0], [2.0]]}, r"a matrix of 39 rows, .* but got 2 rows of \[1\] numbers"),
        ({"observation_features": [[1.0], [2.0, 3.0]], "observation_size": 2}, r"but got 2 rows of \[1, 2\] numbers"),
        ({"observation_features": 3}, "observation_features"),
    ],
)
def test_features_that_are_none_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ActiveDendritePolicy(["a"], **arguments, **SIZES)


def test_a_tanh_keeps_the_deviation_within_its_bounds_and_is_set_there():
    policy = ActiveDendritePolicy(["a"], log_std_range=[-4, 2], log_std_bound="tanh", **SIZES)
    log_std = policy._gaussian(torch.tensor([[0.0] * 4 + [-100.0, 0.0, 0.5, 100.0]]))[1]
    assert log_std[0].tolist() == pytest.approx([-4, -1, -1 + 3 * np.tanh(0.5), 2])
    policy.set_std(0.1)
    torch.testing.assert_close(policy(torch.randn(2, 39), 0)[1].exp(), torch.full((2, 4), 0.1))
    with pytest.raises(ValueError, match="`std` to be between 0.018 and 7.4, but got 10"):
        policy.set_std(10.0)
