"""The equations of active dendrites against loops over rows, units and segments, and against finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.functional import GATES, apply_gate, segment_activations, select_winners, winning_activations
from dendrite_zoo.functional import k_winners as pure_k_winners
from dendrite_zoo.functional.dendrites import winning_segments
from tests import reference

sizes = {"units": st.integers(1, 5), "num_segments": st.integers(1, 6), "size": st.integers(1, 5)}


def forms(batch, size):
    """Every form of a context, by name."""
    index = torch.randint(0, 3, (batch,))
    return {
        "shared": torch.randn(size),
        "rows": torch.randn(batch, size),
        "codebook": (torch.randn(3, size), index),
        "id": torch.tensor(size - 1),
        "ids": torch.randint(0, size, (batch,)),
    }


@given(**sizes, contexts=st.integers(1, 4), seed=st.integers(0, 9))
def test_an_activation_is_an_inner_product(units, num_segments, size, contexts, seed):
    torch.manual_seed(seed)
    segments, c = torch.randn(units, num_segments, size), torch.randn(contexts, size)
    d = segment_activations(segments, c)
    assert d.shape == (contexts, units, num_segments)
    for k in range(contexts):
        for u in range(units):
            for s in range(num_segments):
                torch.testing.assert_close(d[k, u, s], sum(segments[u, s, i] * c[k, i] for i in range(size)))
    ids = torch.arange(size)
    torch.testing.assert_close(segment_activations(segments, ids), segment_activations(segments, torch.eye(size)))


@given(**sizes, gate=st.sampled_from(GATES), seed=st.integers(0, 9))
def test_the_strongest_segment_wins(units, num_segments, size, gate, seed):
    torch.manual_seed(seed)
    segments, c = torch.randn(units, num_segments, size), torch.randn(size)
    d = segment_activations(segments, c.unsqueeze(0))[0]
    expected = [reference.gate_unit(torch.zeros(()), u, c, gate)[1] for u in segments]
    assert winning_segments(d, gate).tolist() == expected
    strength, winners = select_winners(d, gate)
    assert winners.tolist() == expected
    torch.testing.assert_close(strength, torch.stack([reference.strength(u, c, gate) for u in segments]))


@settings(deadline=None)
@given(
    **sizes,
    batch=st.integers(1, 4),
    form=st.sampled_from(["shared", "rows", "codebook", "id", "ids"]),
    gate=st.sampled_from(GATES),
    masked=st.booleans(),
    seed=st.integers(0, 9),
)
def test_winning_activations_equal_the_loops(units, num_segments, size, batch, form, gate, masked, seed):
    torch.manual_seed(seed)
    segments = torch.randn(units, num_segments, size, requires_grad=True)
    mask = torch.rand_like(segments) < 0.7 if masked else None
    context = forms(batch, size)[form]
    strength = winning_activations(segments, context, gate, mask)
    rows = reference.context_rows(context, batch, segments)
    weight = segments if mask is None else segments * mask
    slow = torch.stack([torch.stack([reference.strength(u, c, gate) for u in weight]) for c in rows])
    torch.testing.assert_close(strength.expand(batch, -1), slow)
    upstream = torch.randn(batch, units)
    ours, theirs = (torch.autograd.grad((s * upstream).sum(), segments)[0] for s in (strength.expand(batch, -1), slow))
    torch.testing.assert_close(ours, theirs)
    assert mask is None or (ours[~mask] == 0).all()


def test_a_gate_is_a_sigmoid_or_is_added():
    drive, strength = torch.tensor([2.0, -1.0]), torch.tensor([0.0, 3.0])
    torch.testing.assert_close(apply_gate(drive, strength), torch.tensor([1.0, -1 / (1 + torch.e**-3)]))
    torch.testing.assert_close(apply_gate(drive, strength, "bias"), torch.tensor([2.0, 2.0]))


def test_an_unknown_gate():
    with pytest.raises(ValueError, match="Expected `gate` to be one of 'abs_max', 'max', .* but got 'min'"):
        select_winners(torch.zeros(1, 2), "min")


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True), st.data())
def test_k_winners_equal_sorting(values, data):
    x = torch.tensor([values], dtype=torch.float32)
    k = data.draw(st.integers(1, len(values)))
    assert torch.equal(pure_k_winners(x, k), reference.k_winners(x, k))


def test_only_winners_have_gradient():
    x = torch.tensor([[-1.0, -2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    assert pure_k_winners(x, 2).tolist() == [[-1.0, -2.0, 0.0]]
    assert torch.autograd.gradcheck(lambda x: pure_k_winners(x, 2), x)
