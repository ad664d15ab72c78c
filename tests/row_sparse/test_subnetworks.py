"""Units chosen by a context, the cache of what was chosen, and rows by context: against loops and dense products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dendrite_zoo.functional import GATES
from dendrite_zoo.row_sparse.subnetworks import ContextCache, active_units, in_groups, linear_part
from tests import reference


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


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("with_columns", [True, False])
def test_a_part_is_cut_out_of_the_whole_product(masked, with_rows, with_columns):
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 4, requires_grad=True), torch.randn(5, requires_grad=True)
    mask = torch.rand(5, 4) < 0.6 if masked else None
    rows, columns = torch.tensor([1, 4]), torch.tensor([0, 2, 3])
    x, upstream = torch.randn(6, 4), torch.randn(6, 5)
    if with_columns:  # the other inputs are zero
        x = x * F.one_hot(columns, 4).sum(0)
    whole = F.linear(x, weight if mask is None else weight * mask, bias)
    part = linear_part(
        x[:, columns] if with_columns else x,
        weight,
        bias,
        rows if with_rows else None,
        columns if with_columns else None,
        mask,
    )
    kept = rows if with_rows else torch.arange(5)
    torch.testing.assert_close(part, whole[:, kept])
    ours = torch.autograd.grad((part * upstream[:, kept]).sum(), (weight, bias))
    theirs = torch.autograd.grad((whole[:, kept] * upstream[:, kept]).sum(), (weight, bias))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)


def test_the_cache_holds_no_more_contexts_than_its_capacity(monkeypatch):
    monkeypatch.setattr(ContextCache, "CAPACITY", 3)
    cache, source, computed = ContextCache(), torch.zeros(1), []

    def value(number):
        return cache(torch.tensor([float(number)]), [source], lambda c: computed.append(number) or 10 * number)

    for number in (0, 1, 2, 0, 1, 2):
        assert value(number) == 10 * number
    assert computed == [0, 1, 2] and len(cache) == 3
    assert value(3) == 30 and len(cache) == 1  # one too many: it begins anew
    assert value(0) == 0 and computed == [0, 1, 2, 3, 0]
    for number in range(50):
        assert value(number) == 10 * number and len(cache) <= 3


def test_the_cache_begins_anew_when_a_source_changes_and_tells_dtypes_apart():
    cache, source = ContextCache(), torch.ones(2)
    context = torch.tensor([2.0, 3.0])
    assert cache(context, [source], lambda c: (c * source).sum().item()) == 5
    source.add_(1)
    assert cache(context, [source], lambda c: (c * source).sum().item()) == 10
    zeros = [torch.zeros(2), torch.zeros(1, dtype=torch.long)]  # the same bytes
    assert [cache(zero, [source], lambda c: c.dtype) for zero in zeros] == [torch.float32, torch.int64]


def test_the_cache_holds_nothing_of_the_context_it_was_given():
    cache, context = ContextCache(), torch.tensor([1.0])
    first = cache(context, [], lambda c: c)
    context.fill_(2.0)
    assert first.item() == 1.0 and cache(torch.tensor([1.0]), [], lambda c: c) is first


@given(batch=st.integers(0, 9), groups=st.integers(1, 4), seed=st.integers(0, 9))
def test_groups_equal_a_loop_over_rows(batch, groups, seed):
    torch.manual_seed(seed)
    x, index, calls = torch.randn(batch, 3), torch.randint(0, groups, (batch,)), []
    result = in_groups(x, index, lambda rows, group: calls.append(group) or rows * (group + 1))
    expected = [row * (group + 1) for row, group in zip(x, index.tolist(), strict=True)]
    torch.testing.assert_close(result, torch.stack(expected) if expected else x)
    assert calls == (index.unique().tolist() or [0])


def test_another_number_of_rows_than_of_groups():
    with pytest.raises(ValueError, match="one context for each of the 3 rows, or one for all, but got 2"):
        in_groups(torch.zeros(3, 1), torch.zeros(2, dtype=torch.long), lambda rows, group: rows)
