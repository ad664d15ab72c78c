"""The fast k-winners against the equation, and both against sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo import functional
from dendrite_zoo.row_sparse.winners import k_winners
from tests import reference

both = pytest.mark.parametrize("winners_of", [k_winners, functional.k_winners], ids=["fast", "pure"])


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 64),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.booleans(),
    st.data(),
)
def test_equals_sorting(rows, units, dtype, ties, data):
    k = data.draw(st.integers(1, units))
    x = torch.randint(-3, 4, (rows, units)).to(dtype) if ties else torch.randn(rows, units).to(dtype)
    x[x == 0] = 0.5  # so that winners can be counted
    for winners_of in (k_winners, functional.k_winners):
        out = winners_of(x, k)
        assert torch.equal(out.sort().values, reference.k_winners(x, k).sort().values)
        assert ((out == x) | (out == 0)).all() and ((out != 0).sum(-1) == k).all()


@settings(deadline=None)
@given(st.integers(1, 16), st.data())
def test_equals_the_equation_and_so_does_its_gradient(groups, data):
    k = data.draw(st.integers(1, 4 * groups))
    x = torch.randperm(3 * 4 * groups).reshape(3, -1).double().requires_grad_()
    upstream = torch.randn(3, 4 * groups, dtype=torch.float64)
    ours, theirs = k_winners(x, k), functional.k_winners(x, k)
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad((out * upstream).sum(), x)[0] for out in (ours, theirs)]
    assert torch.equal(*gradients) and ((gradients[0] != 0).sum(-1) == k).all()


@both
def test_infinities_and_nan_win_as_they_do_in_topk(winners_of):
    x = torch.tensor([[1.0, float("nan"), 3.0, float("inf"), -float("inf"), 0.5, 0.25, 2.0] * 2])
    for k, winners in ((2, [1, 9]), (4, [1, 3, 9, 11])):
        assert winners_of(x, k).nonzero()[:, 1].tolist() == winners


@both
@pytest.mark.parametrize("units", [10, 12])
def test_exactly_k_win_also_among_equals(winners_of, units):
    assert (winners_of(torch.ones(7, units), 1) != 0).sum(1).tolist() == [1] * 7
    assert (winners_of(torch.ones(7, units), 3) != 0).sum(1).tolist() == [3] * 7


@both
@pytest.mark.parametrize("k", [0, 9])
def test_more_winners_than_units_or_none(winners_of, k):
    with pytest.raises(ValueError, match=f"Expected `k` to be from 1 to 8, but got {k}. Change `k`, or widen"):
        winners_of(torch.rand(2, 8), k)
