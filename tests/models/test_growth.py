"""New tasks of networks with subnetworks: they get units where none are free, and start as a draw or as a copy."""

from __future__ import annotations

import logging
import os

import pytest
import torch

import dendrite_zoo
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP, ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.growth import copy_subnetwork, start_as

TASKS, NEW = ["lift", "turn", "push"], ["pull", "slide"]
SIZES = {"observation_size": 6, "action_size": 2, "hidden_features": [24, 31]}
FULL = {
    "winners": "context",
    "dendrite_layers": None,
    "overlap": 0.0,
    "activation_density": 0.33,
    "weight_density": 1.0,
    **SIZES,
}
KINDS = {
    "disjoint": {},
    "norms": {"layer_norm": True, "output_bias": False, "num_segments": 1, "gate": "bias"},
    "half in common": {"overlap": 0.5, "activation_density": 0.4, "gate": "max"},
    "sparse": {"weight_density": 0.5, "gate": "abs_max_unsigned"},
    "one layer": {"dendrite_layers": [0]},
    "appended": {"append_task": True},
    "by chance": {"overlap": None, "activation_density": 0.8},
}
X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


def trained(folder, kind="disjoint", cls=ActiveDendritePolicy):
    """A policy whose weights are others than those of a new one."""
    model = cls(TASKS, **{**FULL, **KINDS[kind]})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("segments"):
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return dendrite_zoo.load(folder)


def units(model, tasks):
    return [[set(layer.tolist()) for layer in model.mlp.active_units(model.task_index(task))] for task in tasks]


def outputs(model, task):
    with torch.no_grad():
        return torch.cat(model(X, torch.tensor(model.task_index(task))), dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [[*TASKS, *NEW], [NEW[0], "push", "lift", NEW[1]]], ids=["more", "others"])
def test_known_tasks_are_equal_to_the_bit_and_new_ones_can_learn(kind, tasks, tmp_path):
    before = trained(tmp_path / "a", kind)
    after = dendrite_zoo.load(tmp_path / "a", tasks=tasks)
    after.save_pretrained(tmp_path / "b")
    kept = [task for task in TASKS if task in tasks]
    for model in (after, dendrite_zoo.load(tmp_path / "b")):
        if kind != "appended":
            assert all(outputs(before, task).equal(outputs(model, task)) for task in kept)
        assert units(model, kept) == units(before, kept)
    for task in NEW:
        assert outputs(after, task).std(0).min() > 1e-3, "its weights are a draw, not zeros"
        for name, index in after.mlp.active_parameters(after.task_index(task)).items():
            if name.endswith("weight") and KINDS[kind].get("weight_density", 1.0) == 1:
                assert (after.mlp.get_parameter(name)[index] != 0).all(), name


def test_layers_are_widened_only_as_far_as_new_tasks_need(tmp_path, caplog):
    trained(tmp_path)
    with caplog.at_level(logging.WARNING, "dendrite_zoo"):
        assert dendrite_zoo.load(tmp_path, tasks=["lift", *NEW]).config["hidden_features"] == [24, 31]
        assert not caplog.text.count("Hidden layers are widened")
        more = dendrite_zoo.load(tmp_path, tasks=[*TASKS, *NEW])
    assert "Hidden layers are widened from [24, 31] to [40, 50] units: the subnetworks of 3 tasks" in caplog.text
    assert more.config["hidden_features"] == [40, 50]  # 5 x 8, and 5 x 10
    found = units(more, more.tasks)
    assert [[len(layer) for layer in layers] for layers in found] == [[8, 10]] * 5
    assert all(len(set.union(*layers)) == sum(map(len, layers)) for layers in zip(*found, strict=True))
    shared = dendrite_zoo.load(tmp_path, tasks=[*TASKS, *NEW], overlap=1.0)
    assert shared.config["hidden_features"] == [24, 31]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_task_starts_as_a_copy_with_units_of_its_own(kind, tmp_path):
    before = trained(tmp_path, kind)
    after = dendrite_zoo.load(tmp_path, tasks=[*NEW, *TASKS], init_from="turn")
    for task in NEW:
        torch.testing.assert_close(outputs(after, task), outputs(before, "turn"), rtol=1e-4, atol=1e-5)
        others = [other for other in after.tasks if other != task]
        for layer, of_others in zip(units(after, [task])[0], zip(*units(after, others), strict=True), strict=True):
            assert kind == "one layer" or not layer & set.union(*of_others)
    if kind != "appended":
        assert all(outputs(before, task).equal(outputs(after, task)) for task in TASKS)


def test_each_task_may_start_from_another_also_one_that_is_known_or_left_out(tmp_path, caplog):
    before = trained(tmp_path)
    starts = {"pull": "lift", "slide": "push", "turn": "lift"}
    after = dendrite_zoo.load(tmp_path, tasks=["slide", "turn", "pull", "push"], init_from=starts)
    assert after.tasks == ("slide", "turn", "pull", "push")
    new = "slide (a copy of push), turn (a copy of lift, in place of what it was), pull (a copy of lift)."
    assert f"New to the model, and to be trained: {new}" in caplog.text
    for task, start in starts.items():
        torch.testing.assert_close(outputs(after, task), outputs(before, start), rtol=1e-4, atol=1e-5)
    assert outputs(after, "push").equal(outputs(before, "push"))
    same = dendrite_zoo.load(tmp_path, init_from={"turn": "lift"})
    assert same.config["hidden_features"] == [24, 31], "the units that it had are free"
    with pytest.raises(
        ValueError, match="Expected `init_from` to be one of the tasks of the model, push, but got 'lift'"
    ):
        dendrite_zoo.load(tmp_path, init_from={"turn": "lift", "lift": "push"})
    with pytest.raises(ValueError, match=r"for tasks that the model is to have, .* but got \['pull'\]. Name it in"):
        dendrite_zoo.load(tmp_path, init_from={"pull": "lift"})


def test_columns_start_from_another_task_each(tmp_path):
    policy = ActiveDendritePolicy(TASKS, **SIZES, num_segments=3)
    policy.save_pretrained(tmp_path)
    after = dendrite_zoo.load(tmp_path, tasks=[*TASKS, "pull"], init_from={"pull": "lift", "turn": "push"})
    for task, start in {"pull": "lift", "turn": "push", "lift": "lift", "push": "push"}.items():
        assert outputs(after, task).equal(outputs(policy.eval(), start))


def test_critics_grow_too(tmp_path):
    before, action = trained(tmp_path, cls=TwinCritic), torch.rand(20, 2)
    after = dendrite_zoo.load(tmp_path, tasks=[*TASKS, "pull"], init_from="lift")
    for task, start in (("pull", "lift"), ("turn", "turn")):
        pairs = zip(before(X, action, TASKS.index(start)), after(X, action, after.tasks.index(task)), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_file_of_a_network_that_grew_holds_what_tasks_use(tmp_path):
    policy = trained(tmp_path)
    policy.clear_unused()
    policy.save_pretrained(tmp_path / "cleared")
    more = dendrite_zoo.load(tmp_path / "cleared", tasks=[*TASKS, "pull"], init_from="turn")
    more.save_pretrained(tmp_path / "more")
    weight = more.mlp.hidden[1].weight
    used = sum(len(layers[0]) * len(layers[1]) for layers in units(more, more.tasks))
    assert (weight != 0).sum() == used < weight.numel() / 2
    assert os.path.getsize(tmp_path / "more/model.safetensors") < 4 * sum(p.numel() for p in more.parameters())
    assert outputs(dendrite_zoo.load(tmp_path / "more"), "pull").equal(outputs(more, "pull"))
    fewer = dendrite_zoo.load(tmp_path / "more", tasks=["lift", "push"], init_from={"push": "lift"})
    used = sum(len(layers[0]) * len(layers[1]) for layers in units(fewer, fewer.tasks))
    assert (fewer.mlp.hidden[1].weight != 0).sum() == used, "of tasks that are left out, or begin anew, nothing is left"


def test_a_classifier_grows_with_its_tasks(tmp_path):
    options = {"winners": "context", "overlap": 0.0, "activation_density": 0.5, "context": "one-hot"}
    model = ActiveDendriteClassifier(6, [20, 20], 3, max_tasks=2, **options).eval()
    model.save_pretrained(tmp_path)
    more = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=4)
    assert more.config["hidden_features"] == [40, 40] and more.max_tasks == 4
    with torch.no_grad():
        for task in range(2):
            assert more(X, task=task).equal(model(X, task=task))
        for task in (2, 3):
            assert more(X, task=task).std(0).min() > 1e-3


def test_what_shares_no_units_is_left_as_it_is():
    options = {"num_segments": 2, "winners": "context", "weight_density": 1.0, "activation_density": 0.3}
    model = ActiveDendriteMLP(6, [30, 30], 2, context_dim=3, **options, overlap=0.0).eval()
    before = [model(X, torch.tensor(task)) for task in range(3)]
    copy_subnetwork(model, start=2, task=0)
    after = [model(X, torch.tensor(task)) for task in range(3)]
    assert after[1].equal(before[1]) and after[2].equal(before[2])
    torch.testing.assert_close(after[0], before[2], rtol=1e-4, atol=1e-5)
    plain = ActiveDendriteMLP(6, [30], 2, context_dim=3, num_segments=2, segment_density=0.5).eval()
    start_as(plain, 0, 1)
    layer = plain.hidden[0]
    assert not layer.segments[..., 1][~layer.segment_mask[..., 1]].any()


def test_masked_segments_are_not_copied(tmp_path):
    policy = ActiveDendritePolicy(TASKS, **{**FULL, "overlap": None}, segment_density=0.6)
    policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Expected segment_density=1 with `init_from` where winners are chosen by the"):
        dendrite_zoo.load(tmp_path, tasks=[*TASKS, "pull"], init_from="lift")
