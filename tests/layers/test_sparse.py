"""Masked weights are zero in the weight itself, whatever happens to the layer."""

from __future__ import annotations

import copy

import pytest
import torch

from dendrite_zoo.layers import ActiveDendriteLinear, KWinners, SparseLinear

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


def test_zero_at_the_next_use_under_optimizers_that_mix_entries():
    layer = SparseLinear(12, 6, density=0.4, bias=False)
    optimizer = torch.optim.Muon(layer.parameters(), lr=0.1)
    for _ in range(5):
        train(layer, optimizer, steps=1)
        assert (layer.weight[~layer.mask] != 0).any()
        x = torch.randn(3, 12)
        torch.testing.assert_close(layer(x), x @ (layer.weight * layer.mask).T)
        assert (layer.weight[~layer.mask] == 0).all()


def test_whoever_writes_masked_weights_is_undone_at_the_next_use():
    layer = SparseLinear(12, 6, density=0.4)
    torch.nn.init.ones_(layer.weight)
    layer(torch.randn(12))
    assert torch.equal(layer.weight, layer.mask.float())


@pytest.mark.parametrize("shape", [(12,), (3, 12), (2, 3, 12)])
def test_gradients_are_those_of_a_product_with_the_mask(shape):
    layer, x = SparseLinear(12, 6, density=0.4).double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.linear(x, layer.weight * layer.mask, layer.bias)
    parameters = (x, layer.weight, layer.bias)
    loss, same = (out.square().sum() for out in (layer(x), expected))
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters, retain_graph=True),
        torch.autograd.grad(same, parameters, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    again = torch.autograd.grad(loss, layer.weight)[0]  # nothing was spoiled by the first pass
    torch.testing.assert_close(again, torch.autograd.grad(same, layer.weight)[0])


def test_the_masked_weight_may_be_used_by_itself():
    one, other = SparseLinear(6, 4, density=0.5), SparseLinear(6, 4, density=0.5)
    (2 * (one.masked_weight() + other.masked_weight())).sum().backward()
    for layer in (one, other):
        assert torch.equal(layer.weight.grad, 2.0 * layer.mask)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_transforms_and_traces(tmp_path):
    layer, x = SparseLinear(6, 4, density=0.5), torch.randn(3, 6)
    weight = layer.weight.detach()
    assert torch.equal(torch.func.vmap(layer)(x), layer(x))
    torch.testing.assert_close(torch.func.jacrev(layer)(x[0]), weight)
    torch.testing.assert_close(torch.func.jvp(layer, (x,), (x,))[1], x @ weight.T)
    torch.jit.trace(layer, x).save(tmp_path / "traced.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "traced.pt")(x), layer(x))
    dendrites = ActiveDendriteLinear(6, 4, context_dim=2, num_segments=3, weight_density=0.5)
    contexts = torch.randn(3, 2)
    torch.testing.assert_close(torch.func.vmap(dendrites)(x, contexts), dendrites(x, contexts))
    torch.testing.assert_close(torch.func.vmap(KWinners(density=0.5))(x), KWinners(density=0.5)(x))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.winners = ActiveDendriteLinear(6, 4, context_dim=2, num_segments=3), KWinners(density=0.5)

    def forward(self, x, contexts):
        return self.winners(self.layer(x, contexts))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_network_takes_batches_of_another_size():
    network, x, contexts = Network(), torch.randn(5, 6), torch.randn(5, 2)
    traced = torch.jit.trace(network, (x, contexts))
    torch.testing.assert_close(traced(x[:2], contexts[:2]), network(x[:2], contexts[:2]))


def test_second_derivatives():
    layer, x = SparseLinear(4, 3, density=0.5).double(), torch.randn(2, 4, dtype=torch.float64)
    slopes = [
        torch.autograd.grad(out.pow(3).sum(), layer.weight, create_graph=True)[0]
        for out in (layer(x), torch.nn.functional.linear(x, layer.weight * layer.mask, layer.bias))
    ]
    ours, theirs = (torch.autograd.grad(slope.square().sum(), layer.weight)[0] for slope in slopes)
    torch.testing.assert_close(ours, theirs)


def test_weights_put_in_from_outside_are_masked_and_left_as_they_are():
    layer, x = SparseLinear(12, 6, density=0.4), torch.randn(2, 12)
    weight = torch.randn(6, 12, requires_grad=True)
    before = weight.detach().clone()
    out = torch.func.functional_call(layer, {"weight": weight}, x)
    torch.testing.assert_close(out, x @ (weight * layer.mask).T + layer.bias)
    assert torch.equal(weight, before)
    per_sample = torch.func.vmap(
        torch.func.grad(lambda w, x: torch.func.functional_call(layer, {"weight": w}, x).sum()), (None, 0)
    )(weight.detach(), x)
    torch.testing.assert_close(per_sample, x[:, None, :] * layer.mask)


def test_compiled_it_gives_the_same():
    layer, x = SparseLinear(12, 6, density=0.4), torch.randn(2, 12)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    for ours, theirs in zip(
        *(torch.autograd.grad(f(x).sum(), layer.parameters()) for f in (compiled, layer)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_write_through_data_is_undone_at_the_next_use():
    layer = SparseLinear(12, 6, density=0.5)
    layer.weight.data.normal_()
    x = torch.randn(3, 12)
    torch.testing.assert_close(layer(x), x @ (layer.weight * layer.mask).T + layer.bias)
    assert (layer.weight[~layer.mask] == 0).all()


@pytest.mark.parametrize("change", [copy.deepcopy, lambda layer: layer.double(), lambda layer: layer.bfloat16()])
def test_trains_after_it_was_evaluated_in_inference_mode(change):
    layer = change(SparseLinear(12, 6, density=0.5))
    x = torch.randn(3, 12, dtype=layer.weight.dtype)
    with torch.inference_mode():
        layer(x)
    layer(x).square().sum().backward()
    assert (layer.weight.grad[~layer.mask] == 0).all() and (layer.weight.grad[layer.mask] != 0).any()
