"""Exactly k units of a row win."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.functional import k_winners
from dendrite_zoo.layers import ActiveDendriteConv2d, KWinners
from tests import reference


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True), st.data())
def test_equals_sorting(values, data):
    x = torch.tensor([values], dtype=torch.float32)
    k = data.draw(st.integers(1, len(values)))
    assert torch.equal(k_winners(x, k), reference.k_winners(x, k))


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 64),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.booleans(),
    st.data(),
)
def test_among_many_units_too(rows, units, dtype, ties, data):
    k = data.draw(st.integers(1, units))
    x = torch.randint(-3, 4, (rows, units)).to(dtype) if ties else torch.randn(rows, units).to(dtype)
    x[x == 0] = 0.5  # so that winners can be counted
    out = k_winners(x, k)
    assert torch.equal(out.sort().values, reference.k_winners(x, k).sort().values)
    assert ((out == x) | (out == 0)).all() and ((out != 0).sum(-1) == k).all()


def test_infinities_and_nan_win_as_they_do_in_topk():
    x = torch.tensor([[1.0, float("nan"), 3.0, float("inf"), -float("inf"), 0.5, 0.25, 2.0] * 2])
    for k, winners in ((2, [1, 9]), (4, [1, 3, 9, 11])):
        assert k_winners(x, k).nonzero()[:, 1].tolist() == winners


def test_exactly_k_win_also_among_equals():
    x = torch.ones(7, 10)
    assert (k_winners(x, 3) != 0).sum(1).tolist() == [3] * 7


def test_negative_winners_pass_and_only_winners_have_gradient():
    x = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    out = k_winners(x, 2)
    assert out.tolist() == [[-1.0, -2.0, 0.0]]
    out.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_density_is_a_share_of_the_layer():
    assert (KWinners(density=0.05)(torch.rand(2, 2048)) != 0).sum(1).tolist() == [102, 102]
    assert (KWinners(k=4)(torch.rand(2, 3, 9)) != 0).sum(-1).unique().tolist() == [4]


@pytest.mark.parametrize("arguments", [{}, {"k": 1, "density": 0.5}, {"k": 0}, {"density": 0.0}, {"density": 1.1}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="came"):
        KWinners(**arguments)


def test_more_winners_than_units():
    with pytest.raises(ValueError, match="k=11 winners were asked of a layer of 10 units; choose 1 <= k <= 10"):
        KWinners(k=11)(torch.rand(2, 10))


@pytest.mark.parametrize("dim", [1, -3])
def test_channels_compete_at_each_position_of_a_convolution(dim):
    layer, winners = ActiveDendriteConv2d(3, 8, 3, context_dim=4, num_segments=2), KWinners(density=0.25, dim=dim)
    images = layer(torch.randn(2, 3, 6, 6), torch.randn(4))
    out = winners(images)
    assert ((out != 0).sum(1) == 2).all() and torch.equal(out, k_winners(images.movedim(1, -1), 2).movedim(-1, 1))
    assert "dim=" in repr(winners) and "dim=" not in repr(KWinners(3))
    with pytest.raises(IndexError):
        KWinners(1, dim=2)(torch.randn(3, 4))
