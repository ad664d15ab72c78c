"""Gates on layers: their gradients are those of plain arithmetic, and what is folded computes the same."""

import pytest
import torch
from torch import nn

from dendrite_zoo.layers import ChannelGate, channels_of, fold_gate
from dendrite_zoo.layers.gate import ChannelAffine, FrozenNorm

LAYERS = {
    "linear": (nn.Linear(5, 4), (3, 7, 5)),
    "without a bias": (nn.Linear(5, 4, bias=False), (3, 5)),
    "convolution": (nn.Conv2d(3, 4, 3, groups=1), (2, 3, 6, 6)),
    "one dimension": (nn.Conv1d(3, 4, 3), (2, 3, 9)),
    "transposed convolution": (nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 5, 5)),
    "transposed in groups": (nn.ConvTranspose1d(6, 4, 3, groups=2, bias=False), (2, 6, 9)),
    "transposed by channel": (nn.ConvTranspose3d(4, 4, 2, groups=4), (2, 4, 3, 3, 3)),
    "batch norm": (nn.BatchNorm2d(4), (2, 4, 3, 3)),
    "layer norm": (nn.LayerNorm(4), (2, 6, 4)),
    "RMS norm": (nn.RMSNorm(4), (2, 6, 4)),
    "group norm": (nn.GroupNorm(2, 4), (2, 4, 5)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), (2, 4, 5, 5)),
    "instance norm without weights": (nn.InstanceNorm1d(4), (2, 4, 5)),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), (3, 5)),
}


def gate_of(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    gate = ChannelGate(channels_of(layer).dim)
    gate.factor, gate.shift = torch.rand(4, generator=generator) * 2, torch.randn(4, generator=generator)
    return gate


@pytest.mark.parametrize("name", LAYERS)
def test_a_gate_and_what_it_is_folded_into(name):
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer, gate, x = layer.eval(), gate_of(layer), torch.randn(shape)
    plain = layer(x)
    dim = channels_of(layer).dim % plain.ndim
    assert channels_of(layer).number == 4 == plain.shape[dim]
    expected = plain.movedim(dim, -1) * gate.factor + gate.shift
    got = gate(layer, (x,), plain)
    torch.testing.assert_close(got.movedim(dim, -1), expected, rtol=0, atol=0)
    folded = fold_gate(layer, gate)
    torch.testing.assert_close(folded(x), got, rtol=1e-5, atol=1e-5)
    assert isinstance(folded, ChannelAffine) == (name in ("RMS norm", "weight norm", "instance norm without weights"))
    assert torch.equal(layer(x), plain)


def test_gradients_are_those_of_plain_arithmetic():
    torch.manual_seed(0)
    x = torch.randn(16, 4, 9, 9, requires_grad=True)
    gate = ChannelGate(1)
    gate.factor, gate.shift = torch.rand(4, requires_grad=True), torch.randn(4, requires_grad=True)
    weights = torch.rand(16, 4, 9, 9)
    found = []
    for y in (gate.apply(x), x * gate.factor.view(-1, 1, 1) + gate.shift.view(-1, 1, 1)):
        found.append(torch.autograd.grad((torch.relu_(y) * weights).sum(), [x, gate.factor, gate.shift]))
    (own, of_factor, of_shift), (expected, *others) = found
    assert torch.equal(own, expected), "what goes on to earlier layers is not rounded"
    torch.testing.assert_close(of_factor, others[0], rtol=2e-3, atol=0.1)  # a sum of 1,296 rounded products
    torch.testing.assert_close(of_shift, others[1], rtol=1e-5, atol=1e-4)


def test_a_frozen_norm_keeps_nothing_and_has_the_same_gradient():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).requires_grad_(False).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    norm.weight.normal_()
    x, weights = torch.randn(6, 4, 5, 5, requires_grad=True), torch.rand(6, 4, 5, 5)
    expected = torch.autograd.grad((torch.relu(norm(x)) * weights).sum(), x)[0]
    plain = norm(x).detach()
    hooks = FrozenNorm()
    norm.register_forward_pre_hook(hooks.before)
    norm.register_forward_hook(hooks)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = norm(x)
    assert torch.equal(y, plain) and x.shape not in kept
    own = torch.autograd.grad((torch.relu_(y) * weights).sum(), x)[0]
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)
    norm.train()
    assert norm(x).requires_grad and hooks.input is None
