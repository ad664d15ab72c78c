"""How much the subnetworks of tasks share, counted one by one; new tasks take what is left."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dendrite_zoo
from dendrite_zoo.functional import GATES
from dendrite_zoo.hub import artifact
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP, ActiveDendritePolicy
from dendrite_zoo.models.overlap import set_apart
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.row_sparse.subnetworks import active_units

TASKS = ["a", "b", "c"]


def make(tasks=6, units=(60, 30), **options):
    arguments = {"activation_density": 0.1, "winners": "context", "overlap": 0.0, "num_segments": 3, **options}
    return ActiveDendriteMLP(5, units, 2, context_dim=tasks, **arguments)


def chosen(model, layer, tasks=None):
    return [set(model.active_units(task)[layer].tolist()) for task in range(tasks or model.config["context_dim"])]


@pytest.mark.parametrize("gate", GATES)
def test_disjoint_subnetworks_share_nothing(gate):
    model = make(tasks=10, gate=gate)
    for layer, size in enumerate((6, 3)):
        parts = chosen(model, layer)
        assert all(len(part) == size for part in parts)
        assert not any(one & other for one, other in itertools.combinations(parts, 2))
        assert set.union(*parts) == set(range(10 * size)), "which is all there are"


@pytest.mark.parametrize("bias", [True, False])
def test_disjoint_subnetworks_learn_apart_where_the_output_has_no_bias(bias):
    model = make(output_bias=bias)
    assert (model.output.bias is not None) == bias
    x, optimizer = torch.randn(8, 5), DendriteAdam(model.parameters(), lr=0.1)
    alone = [copy.deepcopy(model) for _ in range(2)]
    task = torch.tensor([0, 1]).repeat(4)

    def learn(network, optimizer, rows):
        optimizer.zero_grad()
        (network(x[rows], task[rows]) - 3).square().sum().backward()
        optimizer.step()

    together = [slice(0, 8)], [slice(0, 8, 2)], [slice(1, 8, 2)]
    optimizers = optimizer, *(DendriteAdam(each.parameters(), lr=0.1) for each in alone)
    for network, own, batches in zip([model, *alone], optimizers, together, strict=True):
        for _ in range(3):
            learn(network, own, *batches)
    for number, network in enumerate(alone):
        same = torch.allclose(network(x, number), model(x, number), atol=1e-5)
        assert same == (not bias), "with a bias for all, it was moved by the other task, too"


@settings(max_examples=25, deadline=None)
@given(
    overlap=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    gate=st.sampled_from(GATES),
    seed=st.integers(0, 99),
    S=st.integers(1, 4),
)
def test_a_tasks_share_of_used_units_is_the_one_asked_for_and_the_numbers_stay(overlap, gate, seed, S):
    drawn = torch.rand(40, S, 5, generator=torch.Generator().manual_seed(seed)) - 0.5
    apart, used = set_apart(drawn, overlap, 0.2, gate), set()
    for task in range(5):
        response = active_units(drawn, torch.tensor(task), 1.0, gate).strength
        units = active_units(apart, torch.tensor(task), 0.2, gate).units
        shared = [unit for unit in units.tolist() if unit in used]
        assert len(shared) == min(round(8 * overlap), len(used))
        # of the units that were free, and of those that were not, the ones that respond most
        for part in (shared, sorted(set(units.tolist()) - set(shared))):
            others = [u for u in range(40) if (u in used) == (part is shared) and u not in part]
            if part and others:
                assert response[part].min() >= response[others].max()
        used |= set(units.tolist())
        # a column holds the segments that it held, of each unit together
        rows = [sorted(map(tuple, segments[..., task].tolist())) for segments in (drawn, apart)]
        assert rows[0] == rows[1]


def test_none_leaves_segments_as_they_are_drawn():
    torch.manual_seed(0)
    free = make(overlap=None, segment_seed=3)
    apart = make(segment_seed=3)
    assert not free.hidden[0].segments.equal(apart.hidden[0].segments)
    assert free.hidden[0].segments.flatten().sort().values.equal(apart.hidden[0].segments.flatten().sort().values)


def policy(**options):
    sizes = {"observation_size": 4, "action_size": 2, "hidden_features": [40, 40], "dendrite_layers": None}
    return ActiveDendritePolicy(TASKS, winners="context", overlap=0.0, activation_density=0.2, **sizes, **options)


def test_a_file_needs_no_segments_and_the_subnetworks_are_the_same(tmp_path):
    model = policy()
    model.save_pretrained(tmp_path)
    assert not any(name.endswith("segments") for name in artifact.read_weights(tmp_path / artifact.WEIGHTS)[0])
    again = dendrite_zoo.load(tmp_path)
    assert all(chosen(model.mlp, layer) == chosen(again.mlp, layer) for layer in (0, 1))


def test_new_tasks_choose_among_the_free_units_and_known_ones_keep_theirs(tmp_path):
    model = policy()
    model.save_pretrained(tmp_path)
    before = [chosen(model.mlp, layer) for layer in (0, 1)]
    more = dendrite_zoo.load(tmp_path, tasks=["d", *TASKS, "e"])
    more.save_pretrained(tmp_path / "more")
    for loaded in (more, dendrite_zoo.load(tmp_path / "more")):
        for layer in (0, 1):
            parts = chosen(loaded.mlp, layer)
            assert parts[1:4] == before[layer] and set.union(*parts) == set(range(40))
    with pytest.raises(ValueError, match="`overlap` to be a number from 0 to 1, but got 'half'"):
        dendrite_zoo.load(tmp_path, tasks=[*TASKS, "d"], overlap="half")
    shared = dendrite_zoo.load(tmp_path, tasks=[*TASKS, "d", "e", "f"], overlap=0.5)
    assert shared.config["hidden_features"] == [40, 40]
    parts = chosen(shared.mlp, 0)
    assert parts[:3] == before[0] and [len(parts[j] & set.union(*parts[:j])) for j in (3, 4, 5)] == [4, 4, 4]


def test_too_little_room_is_refused_before_and_after():
    sizes = {"tasks": 11, "units": (20, 66), "activation_density": 0.08}
    words = r"at least 22 for 11 tasks with overlap=0.0, but got 20. Give hidden_features=(\d+) and .*density=([\d.]+),"
    with pytest.raises(ValueError, match=words) as refused:
        make(**sizes)
    units, density = re.search(words, str(refused.value)).groups()
    as_said = make(**{**sizes, "units": (int(units), 66), "activation_density": float(density)})
    assert {len(own) for own in chosen(as_said, 0)} == {2}, "as many as were asked for"
    make(**sizes, dendrite_layers=[1])  # all units of the first layer are active in every task
    crowded = torch.rand(10, 2, 3)
    with pytest.raises(ValueError, match="Expected 5 units of a layer to be free for a new task, but got 0 of 10"):
        set_apart(set_apart(crowded, 0.0, 0.5, tasks=[0, 1]), 0.0, 0.5, tasks=[2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"overlap": 1.5}, "overlap"),
        ({"winners": "activation"}, "Expected winners='context' and segment_density=1 with `overlap`"),
        ({"segment_density": 0.5}, "Expected winners='context' and segment_density=1 with `overlap`"),
    ],
)
def test_an_overlap_of_what_has_none_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        make(**arguments)


def test_contexts_that_are_not_one_hot_have_no_columns():
    with pytest.raises(ValueError, match="`overlap` to be None unless context='one-hot', but got 0.0"):
        ActiveDendriteClassifier(8, [40], 2, max_tasks=3, winners="context", overlap=0.0)
