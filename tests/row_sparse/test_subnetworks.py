"""Units chosen by a context, and the products of their part: against loops and dense products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.functional import GATES
from dendrite_zoo.row_sparse.groups import Part
from dendrite_zoo.row_sparse.subnetworks import active_units
from tests import reference


@settings(deadline=None)
@given(
    gate=st.sampled_from(GATES),
    units=st.integers(1, 9),
    density=st.sampled_from([0.01, 0.3, 1.0]),
    masked=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_strongest_units_are_active(gate, units, density, masked, seed):
    torch.manual_seed(seed)
    segments, context = torch.randn(units, 4, 3), torch.randn(3)
    mask = torch.rand_like(segments) < 0.7 if masked else None
    segments = segments if mask is None else segments * mask
    chosen, strength = active_units(segments, context, density, gate, mask)
    of_units = [reference.strength(u, context, gate) for u in segments]
    best = sorted(range(units), key=lambda u: -of_units[u])[: max(1, round(density * units))]
    assert chosen.tolist() == sorted(best)
    torch.testing.assert_close(strength, torch.stack([of_units[u] for u in sorted(best)]))


def test_contexts_chosen_together_choose_what_each_chooses_alone():
    torch.manual_seed(0)
    segments, contexts = torch.randn(20, 4, 5), torch.randn(7, 5)
    together = active_units(segments, contexts, 0.3)
    ids = active_units(segments, torch.arange(5), 0.3)
    for number, context in enumerate(contexts):
        alone = active_units(segments, context, 0.3)
        assert torch.equal(together.units[number], alone.units)
        torch.testing.assert_close(together.strength[number], alone.strength)
    for number in range(5):
        assert torch.equal(ids.units[number], active_units(segments, torch.tensor(number), 0.3).units)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("with_columns", [True, False])
def test_a_part_is_cut_out_of_the_whole_product(masked, with_rows, with_columns):
    torch.manual_seed(0)
    mask = torch.rand(5, 4) < 0.6 if masked else None
    weight = (torch.randn(5, 4) * (1 if mask is None else mask)).requires_grad_()
    bias = torch.randn(5, requires_grad=True)
    rows, columns = torch.tensor([1, 4]), torch.tensor([0, 2, 3])
    x, upstream = torch.randn(6, 4), torch.randn(6, 5)
    if with_columns:  # the other inputs are zero
        x = x * F.one_hot(columns, 4).sum(0)
    whole = F.linear(x, weight if mask is None else weight * mask, bias)
    units, inputs = rows[None] if with_rows else None, columns[None] if with_columns else None
    layer = Part(weight.shape, units, inputs).of(weight, bias, mask)
    part = layer(x[:, columns] if with_columns else x)
    kept = rows if with_rows else torch.arange(5)
    torch.testing.assert_close(part, whole[:, kept])
    ours = torch.autograd.grad((part * upstream[:, kept]).sum(), (weight, bias))
    theirs = torch.autograd.grad((whole[:, kept] * upstream[:, kept]).sum(), (weight, bias))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)
