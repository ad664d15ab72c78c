"""Sparsity and duty cycles by their closed forms."""

import math

import pytest
import torch

from dendrite_zoo.functional import sparsity as F


def test_activation_sparsity_and_dead_units_count_zeros():
    a = torch.tensor([[0.0, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    assert F.activation_sparsity(a) == 5 / 8  # a negative winner is active
    assert F.dead_units((a != 0).sum(0)) == 0.5
    assert F.weight_sparsity(torch.nn.Parameter(a)) == 5 / 8


def test_duty_cycle_entropy_closed_forms():
    total = 1000
    h = -(0.05 * math.log2(0.05) + 0.95 * math.log2(0.95))
    assert F.duty_cycle_entropy(torch.full((40,), 50), total).item() == pytest.approx(h, abs=1e-6)
    half_dead = torch.cat([torch.full((20,), 100), torch.zeros(20, dtype=torch.long)])
    h2 = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert F.duty_cycle_entropy(half_dead, total).item() == pytest.approx(h2 / 2, abs=1e-6)
    assert str(F.duty_cycle_entropy(torch.tensor([0, total]), total).item()) == "0.0", "no minus sign"
    assert F.duty_cycle_entropy(torch.tensor([500]), total).item() == pytest.approx(1, abs=1e-6)
    assert F.duty_cycle_entropy(torch.tensor([0, 0]), 0).isnan()
    mixed = F.duty_cycle_entropy(torch.tensor([5, 50]), torch.tensor([10, 100]))
    assert mixed.item() == pytest.approx(1, abs=1e-6)


def test_duty_cycle_entropy_is_greatest_when_all_units_share_the_work():
    torch.manual_seed(0)
    counts = torch.multinomial(torch.rand(64), 640, replacement=True).bincount(minlength=64)
    even = torch.full((64,), 10)
    assert F.duty_cycle_entropy(counts, 200) < F.duty_cycle_entropy(even, 200)
