"""Weights that no task uses are left out of a file where they are zero; all else is as it was, to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

import dendrite_zoo
from dendrite_zoo.hub import artifact
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.unused import put_used, used_alone
from dendrite_zoo.rl.acting import Acting, Received

TASKS = ["a", "b", "c", "d"]


def make(model_class=ActiveDendritePolicy, **options):
    torch.manual_seed(0)
    sizes = {"observation_size": 4, "action_size": 2, "hidden_features": [40, 48, 40], "dendrite_layers": None}
    defaults = {"winners": "context", "activation_density": 0.25, "overlap": 0.0, "num_segments": 2}
    return model_class(TASKS, **{**sizes, **defaults, **options}).eval()


def used_by_hand(network):
    """Of each weight between chosen units a mask of what some task uses, one task after another."""
    used = {}
    for number in (1, 2):
        mask = torch.zeros(network.hidden[number].weight.shape, dtype=torch.bool)
        for task in range(len(TASKS)):
            units = network.active_units(task)
            for row in units[number]:
                mask[row, units[number - 1]] = True
        used[f"hidden.{number}.weight"] = mask
    return used


@pytest.mark.parametrize("overlap", [0.0, None])
def test_outputs_stay_and_a_file_holds_what_is_used(overlap, tmp_path):
    policy = make(overlap=overlap)
    x, task = torch.randn(9, 4), torch.arange(9) % 4
    before, whole = policy(x, task)[0].clone(), copy.deepcopy(policy)
    policy.clear_unused()
    assert policy(x, task)[0].equal(before)
    for name, mask in used_by_hand(whole.mlp).items():
        weight = whole.mlp.get_parameter(name)
        assert policy.mlp.get_parameter(name).equal(weight * mask) and not (weight * ~mask).equal(weight * 0)
    policy.save_pretrained(tmp_path)
    stored = load_file(tmp_path / artifact.WEIGHTS)
    for name, mask in used_by_hand(whole.mlp).items():
        assert stored[f"mlp.{name}"].shape == (int(mask.sum()),)
    again = dendrite_zoo.load(tmp_path)
    assert all(again.state_dict()[name].equal(tensor) for name, tensor in policy.state_dict().items())
    assert again.act(x[0], "b").tolist() == whole.act(x[0], "b").tolist()


def test_where_others_are_not_zero_all_are_held(tmp_path):
    policy = make()
    policy.save_pretrained(tmp_path)
    assert load_file(tmp_path / artifact.WEIGHTS)["mlp.hidden.1.weight"].shape == (48, 40)
    policy.clear_unused()
    free = (~used_by_hand(policy.mlp)["hidden.1.weight"]).nonzero()[0]
    policy.mlp.hidden[1].weight.data[tuple(free)] = -0.0  # another zero is another bit
    policy.save_pretrained(tmp_path)
    assert load_file(tmp_path / artifact.WEIGHTS)["mlp.hidden.1.weight"].shape == (48, 40)


@pytest.mark.parametrize(
    "options", [{"winners": "activation", "overlap": None}, {"dendrite_layers": [1], "overlap": None}]
)
def test_nothing_is_cleared_where_all_is_used(options):
    policy = make(**options)
    before = copy.deepcopy(policy.state_dict())
    policy.clear_unused()
    assert all(policy.state_dict()[name].equal(tensor) for name, tensor in before.items())


def test_critics_and_policies_with_more_tasks(tmp_path):
    critic = make(TwinCritic)
    critic.clear_unused()
    critic.save_pretrained(tmp_path / "critic")
    again = dendrite_zoo.load(tmp_path / "critic")
    assert all(again.state_dict()[name].equal(tensor) for name, tensor in critic.state_dict().items())
    policy = make(activation_density=0.2, hidden_features=[40, 50, 40])
    policy.clear_unused()
    policy.save_pretrained(tmp_path / "policy")
    x, more = torch.randn(1, 4), dendrite_zoo.load(tmp_path / "policy", tasks=[*TASKS, "e"])
    assert more.act(x[0], "c").tolist() == policy.act(x[0], "c").tolist()
    more.learned_tasks = more.tasks  # as far as is asked here
    more.save_pretrained(tmp_path / "more")
    assert dendrite_zoo.load(tmp_path / "more").act(x[0], "e").tolist() == more.act(x[0], "e").tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update({"mlp.hidden.1.weight": state["mlp.hidden.1.weight"][:-1]}),
        lambda state: state.update({"mlp.hidden.1.bias": state["mlp.hidden.1.bias"][:-1]}),
        lambda state: state.update({"mlp.hidden.0.segments": torch.zeros(40, 2, 4, dtype=torch.long)}),
        lambda state: state.update({"mlp.hidden.1.segments": torch.zeros(3, 2, 9)}),
        lambda state: state.pop("mlp.hidden.0.bias"),
    ],
)
def test_a_file_that_does_not_fit_is_one_error(change, tmp_path):
    policy = make()
    policy.clear_unused()
    policy.save_pretrained(tmp_path)
    state = load_file(tmp_path / artifact.WEIGHTS)
    change(state)
    save_file(state, tmp_path / artifact.WEIGHTS)
    with pytest.raises(ValueError, match=r"The two files do not belong together|saved together"):
        dendrite_zoo.load(tmp_path)


@pytest.mark.parametrize("overlap", [0.0, None])
def test_what_contexts_use_is_enough_to_act(overlap):
    """Sent to another network of the form, whatever the other numbers are: what plays a round knows no more."""
    policy, other = make(overlap=overlap), make(overlap=overlap)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    packed = used_alone(policy.config, policy.state_dict())
    assert sum(t.numel() for t in packed.values()) < 0.8 * sum(t.numel() for t in policy.state_dict().values())
    put_used(other.config, packed, other.state_dict())
    x = torch.randn(20, 4)
    for task in range(len(TASKS)):
        for one, two in zip(policy(x, torch.tensor(task)), other(x, torch.tensor(task)), strict=True):
            assert one.equal(two)
    assert not other.mlp.hidden[1].weight.equal(policy.mlp.hidden[1].weight)


def test_a_policy_in_another_process_is_sent_what_it_uses():
    policy = make()
    sent = Acting(policy, torch.arange(4), 2, seed=0).sent()
    assert len(sent[1]["mlp.hidden.1.weight"]) == 4 * 12 * 10
    x, task = torch.randn(20, 4), torch.arange(20) % 4
    received = Received()
    for change in (0.0, 1.0):
        with torch.no_grad():
            policy.mlp.hidden[1].weight += change
        assert received(*Acting(policy, torch.arange(4), 2, seed=0).sent())(x, task).equal(
            Acting(policy, torch.arange(4), 2, seed=0)(x, task)
        )
