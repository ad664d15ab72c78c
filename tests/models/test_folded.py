"""Folded networks compute the same without dendrites, and can be exported."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.contexts.base import measuring
from dendrite_zoo.functional import GATES
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP

C = 4


def make(**arguments):
    return ActiveDendriteMLP(
        6, [20, 24], 3, **{"context_dim": C, "num_segments": 3, "activation_density": 0.25, **arguments}
    )


@settings(max_examples=40, deadline=None)
@given(
    winners=st.sampled_from(["activation", "context"]),
    gate=st.sampled_from(GATES),
    activation=st.sampled_from(["k-winners", "relu"]),
    dendrite_layers=st.sampled_from([None, [0], [1], []]),
    one_hot=st.booleans(),
    density=st.sampled_from([0.5, 1.0]),
    layer_norm=st.booleans(),
    output_bias=st.booleans(),
    additive=st.booleans(),
)
def test_folded_networks_compute_the_same(winners, activation, one_hot, density, additive, **options):
    activation = "k-winners" if winners == "context" else activation
    options["additive_segments"] = additive and winners == "activation"
    model = make(winners=winners, activation=activation, segment_density=density, **options)
    model.double()
    for parameter in model.additive.parameters() if model.additive is not None else ():
        parameter.data.normal_()
    x, index = torch.randn(8, 6).double(), torch.randint(0, 3, (8,))
    codebook = torch.tensor([2, 0, 3]) if one_hot else torch.randn(3, C).double()
    context = codebook[index] if one_hot else (codebook, index)
    torch.testing.assert_close(model.fold(codebook[1])(x), model(x, codebook[1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.fold(codebook)(x, index), model(x, context), atol=1e-6, rtol=0)


@pytest.mark.parametrize("winners", ["activation", "context"])
def test_masked_weights_that_were_written_to_are_not_folded(winners):
    model, x, index = make(winners=winners, segment_density=0.5), torch.randn(8, 6), torch.randint(0, 3, (8,))
    codebook = torch.randn(3, C)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    folded = model.fold(codebook[1])(x), model.fold(codebook)(x, index)
    torch.testing.assert_close(folded, (model(x, codebook[1]), model(x, (codebook, index))), atol=1e-5, rtol=0)


def test_only_active_units_are_left():
    model = make(winners="context")
    shapes = [tuple(p.shape) for p in model.fold(torch.randn(C)).parameters()]
    assert shapes == [(5, 6), (5,), (6, 5), (6,), (3, 6), (3,)]


def test_a_folded_network_shares_nothing_with_the_model():
    model, x = make(), torch.randn(4, 6)
    plain = model.fold(torch.tensor(0))
    expected = plain(x)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(plain(x), expected)
    assert type(plain[0]) is torch.nn.Linear and type(plain[0].weight) is torch.nn.Parameter


def classifier(context="prototype", **arguments):
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(8, [32, 32], 3, max_tasks=4, num_segments=2, context=context, **arguments)
    for task in range(2):
        model.context.start_task(task, [torch.randn(20, 8) + 4 * task])
    return model.eval()


@pytest.mark.parametrize("winners", ["activation", "context"])
def test_a_folded_classifier_finds_its_contexts(winners):
    model, x = classifier(winners=winners), torch.cat([torch.randn(4, 2, 4), torch.randn(4, 2, 4) + 4])
    assert model.context.infer(x.flatten(1)).unique().tolist() == [0, 1]
    torch.testing.assert_close(model.fold()(x), model(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.fold(task=1)(x), model(x, task=1), atol=1e-6, rtol=0)


def test_a_one_hot_classifier_is_folded_by_task():
    model, x = classifier("one-hot"), torch.randn(4, 8)
    torch.testing.assert_close(model.fold(task=1)(x), model(x, task=1), atol=1e-6, rtol=0)
    tasks = torch.tensor([0, 1, 1, 3])
    with measuring():
        expected = model(x, task=tasks)
    torch.testing.assert_close(model.mlp.fold(torch.arange(4))(x, tasks), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"cannot be inferred .* fold\(task=...\)"):
        model.fold()


CASES = [(winners, task) for winners in ("activation", "context") for task in (None, 1)]


@pytest.mark.parametrize("winners, task", CASES)
def test_exports_with_torch(winners, task):
    model, x = classifier(winners=winners), torch.randn(5, 8)
    plain = model.fold(task)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(plain, (x,), dynamic_shapes=({0: batch},))
    for rows in (x, torch.randn(9, 8) + 2):
        torch.testing.assert_close(exported.module()(rows), plain(rows))


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")), reason="needs the [export] extra"
)
@pytest.mark.filterwarnings("ignore")  # onnxscript's own
@pytest.mark.parametrize("winners, task", CASES)
def test_exports_to_onnx(winners, task):
    from onnx.reference import ReferenceEvaluator

    plain, x = classifier(winners=winners).fold(task), torch.randn(5, 8)
    program = torch.onnx.export(plain, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    network = ReferenceEvaluator(program.model_proto)
    for rows in (x, torch.randn(9, 8) + 2):
        (logits,) = network.run(None, {network.input_names[0]: rows.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), plain(rows).detach(), atol=1e-5, rtol=0)
