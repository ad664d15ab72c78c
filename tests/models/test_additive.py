"""Additive segments: what a task adds of its own, and nothing to any other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import dendrite_zoo
from dendrite_zoo.lightning_modules import BehaviorCloning
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP, ActiveDendritePolicy, TwinCritic

SIZES = {"observation_size": 6, "action_size": 2, "hidden_features": [24, 20], "num_segments": 3}


def network(**arguments):
    torch.manual_seed(0)
    options = {"context_dim": 3, "num_segments": 4, "activation": "relu", "additive_segments": True, **arguments}
    model = ActiveDendriteMLP(6, [10, 12], 2, **options)
    for parameter in model.additive.parameters():
        parameter.data.normal_()
    return model


def by_hand(model, x, task):
    for layer, units in zip(model.hidden, model.additive.units, strict=True):
        responses = layer.segments[..., task]
        strongest = responses.gather(1, responses.abs().argmax(1, keepdim=True)).squeeze(1)
        x = F.relu(F.linear(x, layer.masked_weight(), layer.bias) * strongest.sigmoid() + units[:, task])
    weight, bias = (
        model.output.weight + model.additive.weight[..., task],
        model.output.bias + model.additive.bias[:, task],
    )
    return F.linear(x, weight, bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_equations_by_hand_for_contexts_of_every_form(dtype):
    model, x, tasks = network().to(dtype), torch.randn(5, 6, dtype=dtype), torch.tensor([2, 0, 2, 1, 0])
    expected = torch.cat([by_hand(model, x[row : row + 1], task) for row, task in enumerate(tasks)])
    one_hot = torch.eye(3, dtype=dtype)
    for context in (tasks, one_hot[tasks], (one_hot, tasks)):
        torch.testing.assert_close(model(x, context), expected)
    for context in (1, torch.tensor(1), one_hot[1]):
        torch.testing.assert_close(model(x, context), by_hand(model, x, 1))
    assert model(x[:0], tasks[:0]).shape == (0, 2)
    with pytest.raises(TypeError, match="Expected a context"):
        model(x)


def test_mixed_precision_and_a_network_without_a_bias():
    model, x = network(activation="k-winners", output_bias=False), torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x, torch.tensor([0, 1, 2, 0, 1]))
    torch.testing.assert_close(rounded.float(), model(x, torch.tensor([0, 1, 2, 0, 1])), atol=0.1, rtol=0.1)


def test_autocast_flips_no_winner_of_contexts_that_are_floats():
    model, x, contexts = network(activation="k-winners").eval(), torch.randn(400, 6), torch.rand(400, 3)
    winners = []
    model.activations[0].register_forward_hook(lambda module, inputs, output: winners.append(output != 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x, contexts)
    model(x, contexts)
    assert winners[0].equal(winners[1])


def test_they_are_reset_to_nothing():
    model = network()
    model.to_empty(device="cpu").additive.reset_parameters()
    assert not any(parameter.any() for parameter in model.additive.parameters())


def test_a_subnetwork_needs_none():
    with pytest.raises(ValueError, match="Expected `additive_segments` to be False with winners='context'"):
        network(winners="context", activation="k-winners")


def test_a_model_with_more_tasks_gets_them_and_knows_what_it_knew(tmp_path):
    torch.manual_seed(0)
    policy, x = ActiveDendritePolicy(["lift", "turn"], **SIZES), torch.randn(9, 6)
    policy.save_pretrained(tmp_path / "two")
    assert dendrite_zoo.load(tmp_path / "two", tasks=["turn"]).mlp.additive is None, "nothing new to learn"
    three = dendrite_zoo.load(tmp_path / "two", tasks=["push", "turn", "lift"])
    assert three.mlp.additive.weight.shape == (4, 20, 3) and three.config["additive_segments"]
    for parameter in three.mlp.additive.parameters():
        assert not parameter.any()
        parameter.data[..., 0].normal_()
    for task in ("lift", "turn"):
        old, new = (model(x, torch.tensor(model.task_index(task))) for model in (policy, three))
        assert all(one.equal(other) for one, other in zip(old, new, strict=True))
    mixed = torch.tensor([2, 1, 2, 1, 1, 2, 1, 2, 2])
    assert three(x, mixed)[0].equal(policy(x, 2 - mixed)[0])
    three.save_pretrained(tmp_path / "three")
    more = dendrite_zoo.load(tmp_path / "three", tasks=["lift", "pull", "push"], init_from={"pull": "push"})
    for task in (1, 2):  # the copy, and what was copied
        assert more(x, torch.tensor(task))[0].equal(three(x, torch.tensor(0))[0])
    assert more(x, torch.tensor(0))[0].equal(policy(x, torch.tensor(0))[0])
    assert TwinCritic.like(more).critics[0].additive.weight.shape == (1, 20, 3)


def test_the_next_tasks_leave_those_that_have_them_as_they_are_row_by_row(tmp_path):
    """Also where a kernel rounds otherwise for more outputs, as for 4 of 2 and of 3 tasks."""
    torch.manual_seed(0)
    policy, x = ActiveDendritePolicy(["a", "b"], **SIZES, additive_segments=True).eval(), torch.randn(100, 6)
    for parameter in policy.mlp.additive.parameters():
        parameter.data.normal_()
    policy.save_pretrained(tmp_path)
    for more in (["c"], ["c", "d", "e"]):
        larger, tasks = dendrite_zoo.load(tmp_path, tasks=["a", "b", *more]), torch.arange(100) % 2
        assert all(one.equal(other) for one, other in zip(larger(x, tasks), policy(x, tasks), strict=True))


def test_a_network_without_dendrites_has_none_unless_they_are_asked_for(tmp_path):
    policy = ActiveDendritePolicy(["a"], **SIZES, dendrite_layers=[])
    policy.save_pretrained(tmp_path)
    assert dendrite_zoo.load(tmp_path, tasks=["a", "b"]).mlp.additive is None
    own = ActiveDendritePolicy(["a", "b"], **SIZES, dendrite_layers=[], additive_segments=True)
    assert BehaviorCloning(own, learn="new").new.num_parameters == 24 + 20 + 4 * (20 + 1)


def test_a_classifier_with_room_for_more_tasks_and_classes(tmp_path):
    torch.manual_seed(0)
    model, x = ActiveDendriteClassifier(8, [20], 3, max_tasks=2, context="one-hot").eval(), torch.randn(4, 8)
    model.save_pretrained(tmp_path / "two")
    more = ActiveDendriteClassifier.from_pretrained(tmp_path / "two", max_tasks=3, num_classes=5).eval()
    assert more.mlp.additive.weight.shape == (5, 20, 3) and more.mlp.additive.bias.shape == (5, 3)
    torch.testing.assert_close(more(x, task=1)[:, :3], model(x, task=1))
    more.save_pretrained(tmp_path / "three")
    fewer = ActiveDendriteClassifier.from_pretrained(tmp_path / "three", num_classes=2)
    assert fewer.mlp.additive.weight.shape == (2, 20, 3)
    inferred = ActiveDendriteClassifier(8, [20], 3, max_tasks=2)
    inferred.save_pretrained(tmp_path / "inferred")
    more = ActiveDendriteClassifier.from_pretrained(tmp_path / "inferred", max_tasks=3)
    assert more.mlp.additive is None, "contexts that are found have no columns of their own"


@pytest.mark.parametrize(
    "model",
    [
        ActiveDendritePolicy(["lift", "turn"], **SIZES),
        TwinCritic(["lift", "turn"], **SIZES),
        ActiveDendritePolicy(["lift", "turn"], **SIZES | {"num_segments": 0}),
        ActiveDendriteClassifier(6, [20], 3, max_tasks=2, context="one-hot"),
        ActiveDendriteClassifier(6, [20], 3, max_tasks=2),  # contexts are prototypes, of six numbers
    ],
    ids=["policy", "critics", "dense policy", "classifier", "prototypes"],
)
def test_a_model_that_has_none_is_loaded_with_them_and_computes_what_it_did(model, tmp_path):
    model.eval().save_pretrained(tmp_path / "without")
    own = dendrite_zoo.load(tmp_path / "without", additive_segments=True).eval()
    added = [tensor for name, tensor in own.state_dict().items() if ".additive." in name]
    assert own.config["additive_segments"] and added and not any(map(torch.any, added))
    inputs = [torch.randn(5, 6), *([torch.randn(5, 2)] if isinstance(model, TwinCritic) else [])]
    task = 1 if isinstance(model, ActiveDendriteClassifier) else torch.tensor(1)
    old, new = (one(*inputs, task) for one in (model, own))
    assert all(one.equal(other) for one, other in zip(old, new, strict=True))
    own.save_pretrained(tmp_path / "with")
    assert dendrite_zoo.load(tmp_path / "with", additive_segments=True).config == own.config
    with pytest.raises(ValueError, match="to be True for a model that has learned with them, but got False"):
        dendrite_zoo.load(tmp_path / "with", additive_segments=False)


def test_they_are_refused_for_subnetworks_and_by_other_names_than_true_and_false(tmp_path):
    ActiveDendritePolicy(["lift", "turn"], **SIZES, winners="context").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="to be False with winners='context'"):
        dendrite_zoo.load(tmp_path, additive_segments=True)
    with pytest.raises(ValueError, match="to be True or False, but got 'no'"):
        dendrite_zoo.load(tmp_path, additive_segments="no")
