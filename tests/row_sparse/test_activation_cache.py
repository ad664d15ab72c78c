"""Kept activations are exactly what would be computed anew; tests/test_optim.py has them in training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_zoo.row_sparse.activation_cache import dot_rows, stamp


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 900), st.data())
def test_inner_products_do_not_depend_on_the_other_rows(rows, size, data):
    matrix, vector = torch.randn(rows, size), torch.randn(size)
    some = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20)))
    assert torch.equal(dot_rows(matrix[some], vector), dot_rows(matrix, vector)[some])
    torch.testing.assert_close(dot_rows(matrix, vector), matrix @ vector, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows, size", [(5000, 50), (40, 33000), (3, 200_000)])
def test_nor_on_the_number_of_threads(rows, size):
    matrix, vector = torch.randn(rows, size), torch.randn(size)
    expected = dot_rows(matrix, vector)
    try:
        torch.set_num_threads(3)
        assert torch.equal(dot_rows(matrix, vector), expected)
        assert torch.equal(dot_rows(matrix[2:3], vector), expected[2:3])
    finally:
        torch.set_num_threads(1)


def test_a_stamp_changes_with_operations_in_place():
    tensor = torch.zeros(3, 2)
    before = stamp(tensor)
    assert stamp(tensor.view(3, 2)) == before
    tensor += 1
    assert stamp(tensor) != before
