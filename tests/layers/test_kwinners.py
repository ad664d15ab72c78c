"""Exactly k units of a row win."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.functional import k_winners
from dendrite_zoo.layers import ActiveDendriteConv2d, KWinners


def test_negative_winners_pass_and_only_winners_have_gradient():
    x = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    out = KWinners(2)(x)
    assert out.tolist() == [[-1.0, -2.0, 0.0]]
    out.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_density_is_a_share_of_the_layer():
    assert (KWinners(density=0.05)(torch.rand(2, 2048)) != 0).sum(1).tolist() == [102, 102]
    assert (KWinners(k=4)(torch.rand(2, 3, 9)) != 0).sum(-1).unique().tolist() == [4]


@pytest.mark.parametrize("arguments", [{}, {"k": 1, "density": 0.5}, {"k": 0}, {"density": 0.0}, {"density": 1.1}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Expected either `k` or|Expected `k` to be|Expected `density` to be"):
        KWinners(**arguments)


def test_more_winners_than_units():
    with pytest.raises(ValueError, match="Expected `k` to be from 1 to 10, but got 11. Change `k`, or widen the layer"):
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
