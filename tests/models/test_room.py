"""Room for other tasks: what the model knows stays as it is, to the bit, wherever a task's column comes to stand."""

from __future__ import annotations

import logging

import pytest
import torch

import dendrite_zoo
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.room import put_columns

TASKS = ["reach-v3", "push-v3", "drawer-close-v3"]
OTHERS = ["hammer-v3", "drawer-close-v3", "reach-v3", "door-close-v3", "push-v3"]
KINDS = {
    "all layers": {"dendrite_layers": None},
    "masked": {"segment_density": 0.6, "weight_density": 0.5},
    "by the context": {"winners": "context", "dendrite_layers": None},
    "disjoint": {"winners": "context", "dendrite_layers": None, "overlap": 0.0, "activation_density": 0.2},
    "half": {"dtype": torch.float16},
}


def saved(folder, dtype=torch.float32, **arguments):
    policy = ActiveDendritePolicy(TASKS, **{"hidden_features": [40, 40], "num_segments": 3, **arguments})
    policy.fit_normalizer(torch.randn(100, 39) * 3 + 1)
    policy.to(dtype).save_pretrained(folder)
    return policy.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [OTHERS, ["push-v3", "hammer-v3"], TASKS[::-1]], ids=["more", "fewer", "as many"])
def test_what_is_known_is_equal_to_the_bit_in_any_order(kind, tasks, tmp_path):
    before = saved(tmp_path / "a", **KINDS[kind])
    after = ActiveDendritePolicy.from_pretrained(tmp_path / "a", tasks=tasks)
    after.save_pretrained(tmp_path / "b")
    x = torch.randn(30, 39).to(before.observation_mean.dtype)
    for model in (after, dendrite_zoo.load(tmp_path / "b")):
        assert model.tasks == tuple(tasks) and model.config["tasks"] == tasks
        common = [task for task in TASKS if task in tasks]
        for task in common:
            old, new = before.task_index(task), model.task_index(task)
            for one, other in zip(before(x, torch.tensor(old)), model(x, torch.tensor(new)), strict=True):
                assert one.equal(other)
            assert (before.act(x[0], task) == model.act(x[0], task)).all()
        mixed = [common[row % len(common)] for row in range(30)]
        one, other = before.act_batch(x, mixed), model.act_batch(x, mixed)
        # Subnetworks are computed in the order of their tasks, and where that is another, sums are rounded otherwise.
        assert (one == other).all() if "winners" not in KINDS[kind] else abs(one - other).max() < 1e-6


def test_a_new_task_starts_as_a_draw_or_as_the_task_that_is_named(tmp_path):
    policy = saved(tmp_path, segment_density=0.6, hidden_features=[60, 400])
    drawn = ActiveDendritePolicy.from_pretrained(tmp_path, tasks=[*TASKS, "hammer-v3"])
    layer = drawn.mlp.hidden[1]
    column, mask = layer.segments[..., 3].detach(), layer.segment_mask[..., 3]
    assert not column[~mask].any() and mask.float().mean() == pytest.approx(0.6, abs=0.05)
    assert column.abs().max() <= (0.6 * 3) ** -0.5
    assert column[mask].abs().mean() == pytest.approx((0.6 * 3) ** -0.5 / 2, rel=0.1)  # of numbers uniform in ±bound
    start = {"tasks": ["hammer-v3", *TASKS, "soccer-v3"], "init_from": "push-v3"}
    copied, x = dendrite_zoo.load(tmp_path, **start), torch.randn(5, 39)
    for task in ("hammer-v3", "soccer-v3", "push-v3"):
        assert (copied.act_batch(x, [task] * 5) == policy.act_batch(x, ["push-v3"] * 5)).all()
    assert copied.mlp.hidden[1].segment_mask[..., 0].equal(policy.mlp.hidden[1].segment_mask[..., 1])


def test_a_new_context_chooses_a_subnetwork_of_its_own(tmp_path):
    saved(tmp_path, **KINDS["by the context"])
    larger = ActiveDendritePolicy.from_pretrained(tmp_path, tasks=[*TASKS, "hammer-v3"])
    units = [[set(layer.tolist()) for layer in larger.mlp.active_units(task)] for task in range(4)]
    assert all(units[3] != units[task] for task in range(3))


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_a_network_that_reads_its_task_has_an_input_for_each(density, tmp_path):
    policy = saved(tmp_path, num_segments=0, activation="relu", append_task=True, weight_density=density)
    more = ActiveDendritePolicy.from_pretrained(tmp_path, tasks=OTHERS, init_from="push-v3")
    x = torch.randn(5, 39)
    for task, like in [*zip(TASKS, TASKS, strict=True), ("hammer-v3", "push-v3")]:
        one, other = policy.act_batch(x, [like] * 5), more.act_batch(x, [task] * 5)
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other))
    layer = more.mlp.hidden[0]
    assert layer.in_features == 39 + 5 and (layer.mask is None or not layer.weight[~layer.mask].any())


def test_critics_have_room_too(tmp_path):
    critic = TwinCritic.like(saved(tmp_path / "policy", **KINDS["all layers"])).eval()
    critic.save_pretrained(tmp_path)
    more, x, action = TwinCritic.from_pretrained(tmp_path, tasks=OTHERS), torch.randn(5, 39), torch.rand(5, 4)
    for task in TASKS:
        for one, other in zip(critic(x, action, TASKS.index(task)), more(x, action, OTHERS.index(task)), strict=True):
            assert one.equal(other)


def test_columns_by_hand():
    old, drawn = torch.tensor([[9, 1, 2], [8, 3, 4]]), torch.tensor([[5, 6], [7, 0]])
    assert put_columns(old, drawn, 2, [None, 1, None, 0, 0]).tolist() == [[9, 5, 2, 6, 1, 1], [8, 7, 4, 0, 3, 3]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": "hammer-v3"}, r"Expected `tasks` to be a list of names, .* Write \['hammer-v3'\] for one task"),
        ({"tasks": []}, r"the names of one task or more, each once, but got \[\]"),
        ({"tasks": ["push-v3", "push-v3"]}, "each once"),
        ({"tasks": ["push-v3", 3]}, "the names of one task or more"),
        ({"tasks": 3}, "the names of one task or more, each once, but got 3. Give a list"),
        ({"tasks": ["push-v3", "x"], "init_from": "pusch-v3"}, "Expected `init_from` .* Did you mean 'push-v3'"),
        ({"tasks": ["push-v3", "x"], "init_from": "nearest"}, "'nearest'. Data choose it: BehaviorCloning"),
        ({"init_from": "push-v3"}, r"given with new tasks, .* Name new tasks in tasks="),
        ({"tasks": TASKS, "init_from": "push-v3"}, r"given with new tasks, .* Name new tasks in tasks="),
    ],
)
def test_wrong_names_are_refused(changes, message, tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError, match=message):
        dendrite_zoo.load(tmp_path, **changes)


def test_a_misspelt_name_is_noticed(tmp_path, caplog):
    saved(tmp_path)
    with caplog.at_level(logging.WARNING, "dendrite_zoo"):
        dendrite_zoo.load(tmp_path, tasks=["reach-v3", "push-v2", "drawer-close-v3"])
    assert "'push-v2' is new to the model, and tasks that it knows are left out. Did you mean 'push-v3'" in caplog.text
    assert "Left out, and no longer in the model: push-v3. Name them in tasks=[...] to keep" in caplog.text
    caplog.clear()
    dendrite_zoo.load(tmp_path, tasks=[*TASKS, "buton-press-v3", "door-close-v3"])
    assert "'buton-press-v3' is none of Meta-World's tasks, as those of the model are. Did you mean" in caplog.text
    assert "'door-close-v3' is" not in caplog.text
    with pytest.raises(TypeError, match=r"no argument `task`. Did you mean 'tasks'"):
        dendrite_zoo.load(tmp_path, task=["reach-v3"])


@pytest.mark.parametrize(("unseen", "size"), [(0.01, 0.4), (1.0, 40.0)])  # the first in models of version 0.1
def test_numbers_that_were_always_zero_get_the_scale_of_a_task_that_moves_them(unseen, size):
    """In the tasks before they are still zero: there nothing changes, by not a bit."""
    policy = ActiveDendritePolicy(TASKS, hidden_features=[40, 40], num_segments=3)
    known, new = torch.randn(100, 39), torch.randn(50, 39)
    known[:, 11:14], new[:, 11], new[:, 12:14] = 0.0, 0.3, 0.0
    new[7, 11] = -size
    policy.fit_normalizer(known)
    policy.observation_scale[11:14] = unseen
    before, scale = policy(known, 1), policy.observation_scale.clone()
    assert policy.extend_normalizer(new) == [11]
    assert policy.observation_scale[11] == pytest.approx(size)
    scale[11] = size
    assert policy.observation_scale.equal(scale)
    assert all(one.equal(other) for one, other in zip(before, policy(known, 1), strict=True))
    assert policy.extend_normalizer(new) == []
    with pytest.raises(ValueError, match=r"Expected `observations` to be of shape \(N, 39\)"):
        policy.extend_normalizer(new[:, 1:])
    bare = ActiveDendritePolicy(TASKS, hidden_features=[40, 40], num_segments=3)
    assert bare.extend_normalizer(new) == [], "what was never normalised is not zero"
