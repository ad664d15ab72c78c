"""Segments that are never trained: drawn from one seed, which a file holds in their place; equal to the bit."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import dendrite_zoo
from dendrite_zoo.hub import artifact
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP, ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.segments import CHUNK, draw_segments

SEGMENTS = ["mlp.hidden.0.segments", "mlp.hidden.1.segments"]


def classifier(**arguments):
    torch.manual_seed(0)
    return ActiveDendriteClassifier(
        50, [40, 30], 3, **{"max_tasks": 4, "num_segments": 6, "winners": "context", **arguments}
    )


def equal_states(a, b):
    assert list(a) == list(b)
    return all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def saved(model, folder):
    model.save_pretrained(folder)
    return load_file(folder / artifact.WEIGHTS), dendrite_zoo.load(folder)


def test_numbers_are_those_of_a_loop_and_of_numpys_guaranteed_stream():
    shape, bound = (3, CHUNK // 2, 1), 0.25
    drawn = draw_segments(5, 1, shape, bound)
    sequence = np.random.SeedSequence([5, 1], spawn_key=(2,))
    uniform = np.random.RandomState(np.random.MT19937(sequence)).random_sample(math.prod(shape))
    expected = [np.float32(u * (2 * bound) - bound) for u in uniform[:: CHUNK // 7]]
    assert drawn.flatten()[:: CHUNK // 7].tolist() == [float(number) for number in expected]
    assert drawn.abs().max() <= bound and drawn.mean().abs() < 1e-3
    assert draw_segments(5, 1, (2,), 0.5).tolist() == [
        -0.021293457597494125,
        0.16748034954071045,
    ]  # as long as there are artifacts


@pytest.mark.parametrize("arguments", [{}, {"context": "one-hot"}, {"segment_density": 0.6}, {"dendrite_layers": [1]}])
def test_a_file_holds_the_seed_and_the_model_is_whole(arguments, tmp_path):
    model = classifier(**arguments)
    layers = [layer for layer in model.mlp.hidden if layer.segments is not None]
    for layer in layers:
        bound = (model.mlp.config["context_density"] * layer.segment_density * layer.context_dim) ** -0.5
        values = layer.segments if layer.segment_mask is None else layer.segments[layer.segment_mask]
        assert 0.9 * bound < values.abs().max() <= bound and values.mean().abs() < 0.1 * bound
        assert not layer.segments.requires_grad
    held, again = saved(model, tmp_path)
    assert not [name for name in held if name.endswith("segments")]
    assert equal_states(model.state_dict(), again.state_dict()) and again.config == model.config
    assert not again.mlp.hidden[1].segments.requires_grad
    numbers = sum(layer.segments.numel() for layer in layers)
    whole = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert (tmp_path / artifact.WEIGHTS).stat().st_size < whole - 4 * numbers + 4096


def test_the_seed_is_drawn_from_torchs_generator():
    first, second = classifier(), classifier()
    assert equal_states(first.state_dict(), second.state_dict())
    other = ActiveDendriteClassifier(50, [40, 30], 3, max_tasks=4, num_segments=6, winners="context")
    assert other.config["segment_seed"] != first.config["segment_seed"]
    assert not torch.equal(other.mlp.hidden[0].segments, first.mlp.hidden[0].segments)
    given = [classifier(segment_seed=3).mlp.hidden[0].segments for _ in range(2)]
    assert torch.equal(*given) and not torch.equal(given[0], first.mlp.hidden[0].segments)
    assert not torch.equal(first.mlp.hidden[0].segments[:30, :, :40], first.mlp.hidden[1].segments[:, :, :40])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_another_precision_too(dtype, tmp_path):
    model = classifier().to(dtype)
    held, again = saved(model, tmp_path)
    assert not set(SEGMENTS) & set(held) and equal_states(model.state_dict(), again.state_dict())
    back = copy.deepcopy(model).float()
    held, again = saved(back, tmp_path)
    assert (set(SEGMENTS) <= set(held)) == (dtype != torch.float64)  # rounded numbers are no longer the seed's
    assert equal_states(back.state_dict(), again.state_dict())


def test_changed_segments_are_stored_as_they_are(tmp_path):
    model = classifier()
    with torch.no_grad():
        model.mlp.hidden[1].segments[3, 2, 1] *= 1 + 2**-23
    held, again = saved(model, tmp_path)
    assert [name for name in SEGMENTS if name in held] == SEGMENTS[1:]
    assert equal_states(model.state_dict(), again.state_dict())
    with torch.no_grad():
        model.mlp.hidden[1].reset_parameters()
    model.load_state_dict({**classifier(segment_seed=1).state_dict(), SEGMENTS[0]: model.mlp.hidden[0].segments})
    held, again = saved(model, tmp_path)  # such as the state of another seed, from a checkpoint
    assert [name for name in SEGMENTS if name in held] == SEGMENTS[1:]
    assert equal_states(model.state_dict(), again.state_dict())


@pytest.mark.parametrize("context", ["prototype", "one-hot"])
def test_room_for_more_tasks_and_another_head(context, tmp_path):
    model = classifier(context=context)
    model.save_pretrained(tmp_path)
    larger = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=9, num_classes=5)
    for name in SEGMENTS:
        assert torch.equal(larger.state_dict()[name][..., : model.context.context_dim], model.state_dict()[name])
    held, again = saved(larger, tmp_path / "larger")
    assert (set(SEGMENTS) <= set(held)) == (context == "one-hot")  # whose new columns no seed gives
    assert equal_states(larger.state_dict(), again.state_dict())


def test_policies_and_critics_too(tmp_path):
    options = {"hidden_features": [20, 24], "winners": "context", "dendrite_layers": None}
    for model in (ActiveDendritePolicy(["a", "b"], **options), TwinCritic(["a", "b"], **options)):
        held, again = saved(model, tmp_path / model.model_type)
        assert not [name for name in held if name.endswith("segments")]
        assert equal_states(model.state_dict(), again.state_dict())
    first, second = model.critics
    assert not torch.equal(first.hidden[0].segments, second.hidden[0].segments)


def test_segments_that_are_trained_are_stored(tmp_path):
    model = classifier(winners="activation")
    held, again = saved(model, tmp_path)
    assert set(SEGMENTS) <= set(held) and model.config["segment_seed"] is None
    assert equal_states(model.state_dict(), again.state_dict())


@pytest.mark.parametrize("changes", [{}, {"num_classes": 5, "max_tasks": 6}])
@pytest.mark.parametrize("segment_density", [1.0, 0.6])
def test_loading_draws_segments_once(segment_density, changes, tmp_path, monkeypatch):
    model = classifier(segment_density=segment_density)
    model.save_pretrained(tmp_path / "seed")
    with torch.no_grad():
        model.mlp.hidden[1].segments *= 0.5
    model.save_pretrained(tmp_path / "changed")
    layers = []
    counted = lambda seed, layer, *args: layers.append(layer) or draw_segments(seed, layer, *args)  # noqa: E731
    monkeypatch.setattr("dendrite_zoo.models.segments.draw_segments", counted)
    ActiveDendriteClassifier.from_pretrained(tmp_path / "seed", **changes)
    assert layers == [0, 1]
    layers.clear()
    again = ActiveDendriteClassifier.from_pretrained(tmp_path / "changed", **changes)
    assert layers == [0], "the file holds the segments of the other layer"
    assert all(torch.equal(again.state_dict()[name], model.state_dict()[name]) for name in SEGMENTS)
    layers.clear()
    classifier()
    assert layers == [0, 1], "a model that is not loaded draws its own"


def test_on_the_meta_device_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr("dendrite_zoo.models.segments.draw_segments", None)
    with torch.device("meta"):
        model = ActiveDendriteMLP(
            2**20, [2**20], 3, context_dim=2**10, num_segments=2**10, winners="context", segment_seed=1
        )
    assert model.hidden[0].segments.is_meta and not model.hidden[0].segments.requires_grad
