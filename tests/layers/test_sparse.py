"""Masked weights are zero in the weight itself, whatever happens to the layer."""

from __future__ import annotations

import copy

import pytest
import torch

from dendrite_zoo.layers import ActiveDendriteLinear, SparseLinear

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.1),
}


def train(layer, optimizer, steps=10):
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(8, layer.in_features)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_after_any_optimizer(name):
    layer = SparseLinear(12, 6, density=0.4)
    before = layer.weight.detach().clone()
    train(layer, OPTIMIZERS[name](layer.parameters()))
    assert (layer.weight[~layer.mask] == 0).all()
    assert (layer.weight[layer.mask] != before[layer.mask]).any()
    assert layer.mask.sum(1).unique().tolist() == [5]  # the same fan-in for each unit


def test_zero_after_lbfgs():
    layer = SparseLinear(12, 6, density=0.4)
    optimizer = torch.optim.LBFGS(layer.parameters(), lr=0.1)
    x, y = torch.randn(32, 12), torch.randn(32, 6)

    def closure():
        optimizer.zero_grad()
        loss = (layer(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert (layer.weight[~layer.mask] == 0).all()


def test_zero_after_load_and_deepcopy_and_training_of_the_copy():
    layer = SparseLinear(12, 6, density=0.5)
    clone = copy.deepcopy(layer)
    train(clone, torch.optim.AdamW(clone.parameters(), lr=0.1))
    assert torch.equal(clone.mask, layer.mask) and (clone.weight[~clone.mask] == 0).all()
    state = layer.state_dict()
    state["weight"] = torch.ones_like(state["weight"])
    other = SparseLinear(12, 6, density=0.5)
    other.load_state_dict(state)
    assert torch.equal(other.weight, layer.mask.float())


def test_equals_a_masked_dense_layer():
    layer = SparseLinear(12, 6, density=0.5, bias=False)
    x = torch.randn(3, 12)
    torch.testing.assert_close(layer(x), x @ (layer.weight * layer.mask).T)


def test_density_one_has_no_mask_and_density_rounds_to_at_least_one():
    assert SparseLinear(4, 2, density=1.0).mask is None
    assert SparseLinear(4, 2, density=0.01).mask.sum(1).tolist() == [1, 1]


def test_units_see_different_inputs():
    torch.manual_seed(0)
    layer = ActiveDendriteLinear(100, 50, context_dim=2, num_segments=1, weight_density=0.5)
    assert len({tuple(row.tolist()) for row in layer.mask}) == 50
    assert 0.3 < layer.mask.float().mean(0).min() and layer.mask.float().mean(0).max() < 0.75
