"""Products of the parts that groups of rows use equal a loop over rows, whichever way they are computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.row_sparse import groups as module
from dendrite_zoo.row_sparse.groups import Groups, Part, check_one_each


def naive(x, weight, bias, units, inputs, index):
    rows = []
    for row, group in zip(x, index.tolist(), strict=True):
        part = weight if units is None else weight[units[group]]
        part = part if inputs is None else part[:, inputs[group]]
        rows.append(part @ row + (bias if units is None else bias[units[group]]))
    return torch.stack(rows)


@settings(max_examples=60, deadline=None)
@given(
    index=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    some_units=st.booleans(),
    some_inputs=st.booleans(),
    masked=st.booleans(),
    whole=st.booleans(),
    relu=st.booleans(),
    seed=st.integers(0, 5),
)
def test_equals_a_loop_over_rows(index, some_units, some_inputs, masked, whole, relu, seed):
    torch.manual_seed(seed)
    used, index, sizes = torch.tensor(index).unique(return_inverse=True, return_counts=True)
    count, size, width = len(used), 7, 9
    mask = torch.rand(width, size) < 0.6 if masked else None
    weight = (torch.randn(width, size).double() * (1 if mask is None else mask)).requires_grad_()
    bias = torch.randn(width).double().requires_grad_()
    units = torch.stack([torch.randperm(width)[:4].sort().values for _ in range(count)]) if some_units else None
    inputs = torch.stack([torch.randperm(size)[:3].sort().values for _ in range(count)]) if some_inputs else None
    x = torch.randn(len(index), 3 if some_inputs else size).double().requires_grad_()
    groups = Groups(index, sizes)
    chosen = module._whole_is_cheaper
    try:
        module._whole_is_cheaper = lambda *_: whole
        in_order = [None if table is None else table[groups.groups] for table in (units, inputs)]
        ours = groups.unsort(Part(weight.shape, *in_order, groups).of(weight, bias, mask)(groups.sort(x), relu=relu))
    finally:
        module._whole_is_cheaper = chosen
    theirs = naive(x, weight, bias, units, inputs, index)
    theirs = theirs.relu() if relu else theirs
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    got = torch.autograd.grad((ours * upstream).sum(), (x, weight, bias))
    expected = list(torch.autograd.grad((theirs * upstream).sum(), (x, weight, bias)))
    if mask is not None:
        expected[1] = expected[1] * mask
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_of_gradients_equal_finite_differences(relu):
    torch.manual_seed(0)
    groups = Groups(torch.arange(12) % 2, torch.tensor([6, 6]))
    units = torch.tensor([[0, 2], [1, 2]])
    x, weight, bias = (torch.randn(*shape).double().requires_grad_() for shape in ((12, 2), (12, 2), (12,)))
    chosen = Part(weight.shape, units, None, groups)
    assert not chosen.whole
    torch.autograd.gradgradcheck(lambda x, *parameters: chosen.of(*parameters)(x, relu=relu).tanh(), (x, weight, bias))


@settings(deadline=None)
@given(index=st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_padding_is_never_more_than_the_rows(index):
    _, index, sizes = torch.tensor(index).unique(return_inverse=True, return_counts=True)
    groups = Groups(index, sizes)
    padded = sum((b.groups.stop - b.groups.start) * b.size for b in groups.buckets)
    assert len(index) <= padded == len(groups.order) == groups.buckets[-1].rows.stop <= 2 * len(index)
    assert torch.equal(groups.unsort(groups.sort(index)), index)
    assert torch.equal(groups.sort(index), index[groups.order])
    assert torch.equal(groups.groups[groups.index], index[groups.order])


def test_a_few_small_parts_are_multiplied_alone_and_many_as_a_whole():
    def whole(count, inputs, *shape):
        groups = Groups(torch.arange(256) % count, torch.bincount(torch.arange(256) % count))
        some = None if inputs is None else torch.empty(count, inputs)
        return module._whole_is_cheaper(torch.Size(shape), torch.empty(count, 26), some, groups)

    assert not whole(10, None, 512, 784)
    assert whole(256, None, 512, 784)
    assert not whole(256, 26, 512, 512)


def test_another_number_of_contexts_than_of_rows():
    with pytest.raises(ValueError, match="one context for each of the 3 rows, or one for all, but got 2"):
        check_one_each(torch.zeros(2, dtype=torch.long), torch.zeros(3, 1))
