"""The layers equal the paper's equations, written as loops."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.functional import GATES, winning_activations
from dendrite_zoo.layers import ActiveDendriteConv2d, ActiveDendriteLinear
from tests import reference

FORMS = ["shared", "rows", "codebook", "id", "ids"]
B, IN, UNITS, C = 6, 7, 5, 4


def make_context(form: str, batch: int, size: int, dtype=torch.float64):
    return {
        "shared": lambda: torch.randn(size, dtype=dtype),
        "rows": lambda: torch.randn(batch, size, dtype=dtype),
        "codebook": lambda: (torch.randn(3, size, dtype=dtype), torch.randint(0, 3, (batch,))),
        "id": lambda: torch.tensor(size - 1),
        "ids": lambda: torch.randint(0, size, (batch,)),
    }[form]()


def gradients(output, parameters):
    return torch.autograd.grad((output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum(), parameters)


@pytest.mark.parametrize("num_segments", [1, 3])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_linear_equals_loops_in_forward_and_gradient(gate, form, num_segments):
    torch.manual_seed(0)
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=num_segments, gate=gate).double()
    x = torch.randn(B, IN, dtype=torch.float64, requires_grad=True)
    context = make_context(form, B, C)
    parameters = [x, layer.weight, layer.bias, layer.segments]
    fast = layer(x, context)
    slow = reference.active_dendrite_linear(x, layer.weight, layer.bias, layer.segments, context, gate)
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=0)
    for ours, theirs in zip(gradients(fast, parameters), gradients(slow, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 5),
    units=st.integers(1, 6),
    segments=st.integers(1, 4),
    context_dim=st.integers(1, 9),
    gate=st.sampled_from(GATES),
    form=st.sampled_from(FORMS),
    density=st.sampled_from([0.3, 1.0]),
)
def test_linear_equals_loops_for_any_shape(batch, units, segments, context_dim, gate, form, density):
    layer = ActiveDendriteLinear(
        4, units, context_dim=context_dim, num_segments=segments, gate=gate, weight_density=0.5, segment_density=density
    )
    x, context = torch.randn(batch, 4), make_context(form, batch, context_dim, torch.float32)
    slow = reference.active_dendrite_linear(x, layer.weight, layer.bias, layer.segments, context, gate)
    torch.testing.assert_close(layer(x, context), slow, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_only_winning_segments_have_gradient(gate, form):
    torch.manual_seed(1)
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=6, gate=gate)
    x, context = torch.randn(B, IN), make_context(form, B, C, torch.float32)
    layer(x, context).square().sum().backward()
    rows = reference.context_rows(context, B, layer.segments)
    won = torch.zeros(UNITS, 6, dtype=torch.bool)
    for row in rows:
        for u in range(UNITS):
            won[u, reference.gate_unit(torch.zeros(()), layer.segments[u], row, gate)[1]] = True
    assert not won.all()
    assert (layer.segments.grad[~won] == 0).all()
    assert (layer.segments.grad[won].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_gradcheck(gate, form):
    torch.manual_seed(2)
    layer = ActiveDendriteLinear(3, 4, context_dim=C, num_segments=3, gate=gate).double()
    context = make_context(form, 2, C)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def forward(x, weight, segments):
        return torch.func.functional_call(layer, {"weight": weight, "segments": segments}, (x, context))

    assert torch.autograd.gradcheck(forward, (x, layer.weight, layer.segments))


def test_without_segments_it_is_a_linear_layer():
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=0)
    x = torch.randn(B, IN)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x, torch.randn(C)), expected)
    assert "segments" not in layer.state_dict()


def test_more_than_one_leading_dimension():
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=2)
    x, context = torch.randn(B, 3, IN), torch.randn(B, C)
    for t in range(3):
        torch.testing.assert_close(layer(x, context)[:, t], layer(x[:, t], context))
    torch.testing.assert_close(layer(x[0, 0], context[0]), layer(x[0, :1], context[0])[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_conv_is_the_same_gate_on_each_output_channel(gate, form):
    torch.manual_seed(3)
    conv = ActiveDendriteConv2d(2, UNITS, 3, context_dim=C, num_segments=3, gate=gate, padding=1, stride=2).double()
    x, context = torch.randn(B, 2, 5, 6, dtype=torch.float64), make_context(form, B, C)
    drive = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1, stride=2)
    rows = reference.context_rows(context, B, conv.segments)
    slow = torch.stack(
        [
            torch.stack([reference.gate_unit(drive[b, u], conv.segments[u], rows[b], gate)[0] for u in range(UNITS)])
            for b in range(B)
        ]
    )
    torch.testing.assert_close(conv(x, context), slow, atol=1e-12, rtol=0)


def test_initialisation_follows_the_paper():
    torch.manual_seed(4)
    layer = ActiveDendriteLinear(784, 512, context_dim=784, num_segments=10, weight_density=0.5)
    layer.reset_parameters(input_density=0.05, context_density=0.1)
    bound = 1 / (0.05 * 0.5 * 784) ** 0.5
    assert layer.weight.abs().max() <= bound and layer.weight.abs().max() > 0.999 * bound
    assert (layer.weight != 0).sum(1).unique().tolist() == [392]
    bound = 1 / (0.1 * 784) ** 0.5
    assert layer.segments.abs().max() <= bound and layer.segments.abs().max() > 0.999 * bound
    torch.testing.assert_close(layer.segments.std(), torch.tensor(bound / 3**0.5), rtol=0.01, atol=0)


def test_sparse_segments_stay_sparse_through_training():
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=10, num_segments=3, segment_density=0.3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(B, IN), torch.randn(B, 10)).square().sum().backward()
        optimizer.step()
    assert ((layer.segments != 0).sum(-1) <= 3).all()


@pytest.mark.parametrize("assign", [False, True])
def test_segments_put_in_from_outside_are_masked(assign):
    """Half of the context each, of both layers that have dendrites."""
    linear = ActiveDendriteLinear(8, 4, context_dim=6, num_segments=3, segment_density=0.5)
    for layer in (linear, ActiveDendriteConv2d(1, 4, 3, context_dim=6, num_segments=3, segment_density=0.5)):
        state = {name: torch.ones_like(tensor) for name, tensor in layer.state_dict().items() if "mask" not in name}
        layer.load_state_dict({**layer.state_dict(), **state}, assign=assign)
        assert torch.equal(layer.segments, layer.segment_mask.float()) and layer.segments.sum() == 4 * 3 * 3


def test_bf16_autocast_compile_and_deepcopy_agree():
    torch.manual_seed(5)
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=3, weight_density=0.5)
    x, context = torch.randn(B, IN), torch.randn(C)
    expected = layer(x, context)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x, context)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, atol=0.05, rtol=0.05)
    torch.testing.assert_close(copy.deepcopy(layer)(x, context), expected)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, context), expected)
    torch.testing.assert_close(compiled(x, torch.tensor(1)), layer(x, torch.tensor(1)))


@pytest.mark.parametrize(
    "context, error, words",
    [
        (
            torch.randn(C + 1),
            ValueError,
            r"shape \(4,\) or \(batch, 4\), .* but got \(5,\). Give the layer's `context_dim`",
        ),
        (torch.randn(2, 2, C), ValueError, r"but got \(2, 2, 4\)"),
        (
            torch.randn(B + 1, C),
            ValueError,
            "Expected one context for each of the 6 rows, or one of shape .* but got 7",
        ),
        (torch.tensor(C), ValueError, "Expected a one-hot context to be from 0 to 3, but got 4"),
        (torch.tensor(-1), ValueError, "from 0 to 3, but got -1"),
        (
            (torch.randn(2, C), torch.tensor([0, 1, 2, 0, 0, 0])),
            ValueError,
            "Expected a codebook row to be from 0 to 1, but got 2",
        ),
        (
            (torch.randn(2, C), torch.zeros(B)),
            TypeError,
            "id of a codebook row to be an integer, but got torch.float32",
        ),
        (torch.zeros(C, dtype=torch.bool), TypeError, "Expected a context to be floats .* but got torch.bool"),
        ("3", TypeError, r"an int, or integer ids .* but got str"),
        ((torch.randn(2, C),), TypeError, r"a tuple \(codebook \(K, C\), index \(B,\)\), .* but got tuple"),
        ((torch.randn(2, C), 0, 0), TypeError, r"a tuple \(codebook \(K, C\), index \(B,\)\), .* but got tuple"),
        ((0, 1), TypeError, "but got int as a codebook"),
        ((torch.tensor([0, 1]), [0, 1]), TypeError, r"but got torch.int64 \(2,\) as a codebook"),
        ((torch.randn(C), [0, 1]), TypeError, r"but got torch.float32 \(4,\) as a codebook"),
        (torch.randn(B, 2, C), ValueError, r"but got \(6, 2, 4\). Give each position a row: layer\(x.flatten"),
        (None, TypeError, r"Expected a context for .* but got None. Call layer\(x, context\)"),
    ],
)
def test_bad_contexts_are_refused_clearly(context, error, words):
    layer = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=2)
    with pytest.raises(error, match=words):
        layer(torch.randn(B, IN), context)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"gate": "min"}, "Expected `gate` to be one of 'abs_max', .* but got 'min'"),
        ({"weight_density": 0.0}, r"Expected `weight_density` to be a share in \(0, 1\], .* but got 0.0"),
        ({"segment_density": 1.5}, "`segment_density` .* but got 1.5"),
        ({"num_segments": -1}, "`num_segments` to be an integer of at least 0, but got -1"),
        ({"context_dim": 0}, "`context_dim` to be an integer of at least 1, but got 0"),
        ({"out_features": 0}, "`out_features` to be an integer of at least 1, but got 0"),
    ],
)
def test_bad_arguments_are_refused_clearly(arguments, words):
    good = {"in_features": 4, "out_features": 3, "context_dim": 2, "num_segments": 2}
    with pytest.raises(ValueError, match=words):
        ActiveDendriteLinear(**{**good, **arguments})


def test_an_int_is_a_one_hot_context_like_its_tensor():
    layer, x = ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=2), torch.randn(B, IN)
    assert torch.equal(layer(x, 2), layer(x, torch.tensor(2)))
    assert torch.equal(layer(x, 2), layer(x, np.int64(2))), "as numpy.unique gives them"
    assert torch.equal(winning_activations(layer.segments, 2), winning_activations(layer.segments, torch.tensor(2)))
    with pytest.raises(ValueError, match="from 0 to 3, but got 4"):
        layer(x, C)


def test_an_index_may_be_a_list():
    layer, x, codebook = (
        ActiveDendriteLinear(IN, UNITS, context_dim=C, num_segments=2),
        torch.randn(2, IN),
        torch.eye(C),
    )
    assert torch.equal(layer(x, (codebook, [2, 0])), layer(x, (codebook, torch.tensor([2, 0]))))
