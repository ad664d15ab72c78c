"""ActiveDendriteMLP: the paper's network, and its controls."""

from __future__ import annotations

import pytest
import torch

import dendrite_zoo
from dendrite_zoo.models import ActiveDendriteMLP


def test_hidden_layers_have_exactly_k_winners_and_the_papers_initialisation():
    torch.manual_seed(0)
    model = ActiveDendriteMLP(64, [200, 100], 10, context_dim=64, num_segments=3, activation_density=0.05)
    seen = []
    for activation in model.activations:
        activation.register_forward_hook(lambda module, args, out: seen.append((out != 0).sum(1)))
    assert model(torch.randn(4, 64), torch.randn(64)).shape == (4, 10)
    assert [winners.tolist() for winners in seen] == [[10] * 4, [5] * 4]
    for weight, fan_in in ((model.hidden[0].weight, 64 * 0.5), (model.hidden[1].weight, 200 * 0.5 * 0.05)):
        assert 0.98 * fan_in**-0.5 < weight.abs().max() <= fan_in**-0.5
    assert 0.98 * 5**-0.5 < model.output.weight.abs().max() <= 5**-0.5


@pytest.mark.parametrize(
    ("hidden", "density"), [([2048, 256], 0.05), ([128, 512], 0.1), ([64], 0.2), ([32, 64], 0.2), ([16], 0.2)]
)
def test_of_narrow_layers_more_units_win(hidden, density):
    model = ActiveDendriteMLP(8, hidden, 3, context_dim=8, num_segments=2)
    assert model.config["activation_density"] == density == model.activations[0].density
    given = ActiveDendriteMLP(8, hidden, 3, context_dim=8, num_segments=2, activation_density=0.5)
    assert given.config["activation_density"] == 0.5


def test_subnetworks_that_are_to_be_set_apart_are_as_small_as_the_papers():
    options = {"context_dim": 5, "num_segments": 2, "winners": "context", "overlap": 0.0}
    assert ActiveDendriteMLP(8, [64], 3, **options).config["activation_density"] == 0.05


def test_controls_take_parts_away():
    plain = ActiveDendriteMLP(8, [16], 3, context_dim=1, num_segments=0, activation="relu", weight_density=1.0)
    x = torch.randn(2, 8)
    expected = plain.output(torch.relu(torch.nn.functional.linear(x, plain.hidden[0].weight, plain.hidden[0].bias)))
    torch.testing.assert_close(plain(x), expected)
    assert sum(p.numel() for p in plain.parameters()) == 8 * 16 + 16 + 16 * 3 + 3


@pytest.mark.parametrize("given, density", [(None, 1.0), (0.05, 0.05)])
def test_without_k_winners_weights_are_drawn_for_active_inputs_unless_told(given, density):
    model = ActiveDendriteMLP(64, [400], 10, context_dim=4, num_segments=2, activation="relu", input_density=given)
    assert 0.98 * (400 * density) ** -0.5 < model.output.weight.abs().max() <= (400 * density) ** -0.5


def test_only_the_chosen_layers_have_dendrites():
    model = ActiveDendriteMLP(8, [16, 16], 3, context_dim=4, num_segments=2, dendrite_layers=[1])
    assert model.hidden[0].segments is None and model.hidden[1].segments.shape == (16, 2, 4)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"hidden_features": []},
            r"Expected `hidden_features` to be the units of at least one hidden layer, but got \[\]",
        ),
        ({"hidden_features": [8, 0]}, "Expected `hidden_features` to be an integer of at least 1, but got 0"),
        ({"activation": "gelu"}, "Expected `activation` to be one of 'k-winners', 'relu', but got 'gelu'"),
        ({"activation_density": 0.0}, "Expected `activation_density` to be a share .* but got 0.0"),
        ({"input_density": 1.5}, "Expected `input_density` to be a share .* but got 1.5"),
        ({"dendrite_layers": [2]}, r"Expected `dendrite_layers` to be hidden layers from 0 to 0, but got \[2\]"),
        ({"gate": "sum"}, "Expected `gate` to be one of 'abs_max', 'max', 'abs_max_unsigned', 'bias', but got 'sum'"),
    ],
)
def test_bad_arguments(change, words):
    good = {"in_features": 4, "hidden_features": [8], "out_features": 2, "context_dim": 4, "num_segments": 2}
    with pytest.raises(ValueError, match=words):
        ActiveDendriteMLP(**{**good, **change})


def winners_of(model, network, call, dtype=None):
    """Which units are active in each hidden layer, in calls in which a dtype is given in autocast."""
    active = []
    hooks = [a.register_forward_hook(lambda module, args, out: active.append(out != 0)) for a in network.activations]
    with torch.no_grad(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        call(model)
    for hook in hooks:
        hook.remove()
    return active


def test_autocast_flips_no_winner_of_trained_weights():
    torch.manual_seed(0)
    policy = dendrite_zoo.load("metaworld-mt10")
    noise, task = torch.randn(200, 39), torch.arange(200) % 10
    observation = policy.observation_mean + policy.observation_scale * noise
    full, low = (winners_of(policy, policy.mlp, lambda m: m(observation, task), d) for d in (None, torch.bfloat16))
    assert all(map(torch.equal, full, low)) and all(a.sum(1).eq(round(0.25 * 256)).all() for a in full)
    rounded = policy.mlp.hidden[0](policy._inputs(observation, task).bfloat16().float(), task)
    first = policy.mlp.activations[0](rounded.bfloat16().float()) != 0
    assert (first != full[0]).float().mean() > 1e-4  # what rounding alone would flip


def test_autocast_leaves_the_subnetworks_of_trained_weights_as_they_are():
    model = dendrite_zoo.load("permuted-digits")
    for context in model.context.prototypes[: model.num_tasks]:
        full = model.mlp.active_units(context)
        model.mlp._chosen.forget()
        with torch.autocast("cpu", torch.bfloat16):
            assert all(map(torch.equal, full, model.mlp.active_units(context)))
