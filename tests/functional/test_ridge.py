"""The discriminant from running sums: the same as from all rows, computed naively."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.functional import ridge_discriminant
from dendrite_zoo.functional.ridge import (
    PENALTIES,
    WORTH,
    add_products,
    block_rows,
    factor,
    few_rows,
    solve,
    triangle_size,
)


def summed(h, y, classes, parts=1):
    triangle, onehot = torch.zeros(triangle_size(h.shape[1]), dtype=torch.float64), torch.eye(classes).double()[y]
    for chunk in h.chunk(parts):
        add_products(triangle, chunk)
    return triangle, onehot.T @ h, onehot.sum(0)


def naive(h, y, classes, penalty):
    """Logits of the discriminant from the rows themselves, one class at a time."""
    means = torch.stack([h[y == k].mean(0) for k in range(classes)])
    within = (h - means[y]).T @ (h - means[y]) / len(h)
    within += penalty / len(h) * within.trace() * torch.eye(h.shape[1]).double()
    inverse, mean = torch.linalg.inv(within), h.mean(0)
    far = torch.stack([((h - m) @ inverse * (h - m)).sum(1) for m in means], 1)
    return -(far - ((h - mean) @ inverse * (h - mean)).sum(1, keepdim=True)) / 2


def lower(triangle, size):
    """The lower triangle as a matrix."""
    matrix = torch.zeros(size, size, dtype=triangle.dtype)
    for rows, block in block_rows(triangle, size):
        matrix[rows, : rows.stop] = block
    return matrix.tril()


@pytest.mark.parametrize("size", [3, 7, 515, 1100])
def test_a_triangle_is_the_lower_half_of_the_products_and_is_factored_in_its_place(size):
    torch.manual_seed(0)
    h = torch.randn(20, size, dtype=torch.float64)
    triangle, _, _ = summed(h, torch.zeros(20, dtype=torch.long), 1, parts=3)
    torch.testing.assert_close(lower(triangle, size), (h.T @ h).tril())
    for rows, block in block_rows(triangle, size):
        block[:, rows].diagonal().add_(1.0)
    assert factor(triangle, size)
    matrix, x = h.T @ h + torch.eye(size), torch.randn(size, 4, dtype=torch.float64)
    torch.testing.assert_close(lower(triangle, size), torch.linalg.cholesky(matrix))
    torch.testing.assert_close(solve(triangle, x.clone()), torch.linalg.solve(matrix, x))
    for _, block in block_rows(triangle, size):
        block.neg_()
    assert not factor(triangle, size)


@pytest.mark.parametrize(("size", "penalty"), [(5, 0.1), (60, 3.0)])
def test_logits_are_half_the_distances_from_the_means(size, penalty):
    torch.manual_seed(0)
    y = torch.arange(40) % 3
    h = torch.randn(40, size, dtype=torch.float64) + 3 + y[:, None]
    weight, bias = ridge_discriminant(*summed(h, y, 3, parts=4), penalty)
    torch.testing.assert_close(h @ weight.T + bias, naive(h, y, 3, penalty))


def test_few_rows_are_solved_in_their_span_and_none_is_left_out():
    """40 rows of 600 features; and as many of which each stands for a tenth, so that more directions have something."""
    torch.manual_seed(0)
    y = torch.arange(40) % 4
    h = torch.randn(40, 600, dtype=torch.float64) + 3 + y[:, None]
    sums = summed(h, y, 4, parts=4)
    assert few_rows(sums[0], sums[1] / 10**0.5, 40.0)
    weight, bias = ridge_discriminant(*sums, 0.1)
    torch.testing.assert_close(h @ weight.T + bias, naive(h, y, 4, 0.1))
    tenths = [each / 10 for each in sums]
    assert few_rows(tenths[0], tenths[1] / 1.0, 4.0) is None
    weight, bias = ridge_discriminant(*tenths, 0.01)
    torch.testing.assert_close(h @ weight.T + bias, naive(h, y, 4, 0.1))


def test_classes_that_lie_in_a_row_are_all_found():
    """Where least squares on one-hot labels hides the middle ones."""
    torch.manual_seed(0)
    y = torch.arange(600) % 6
    h = torch.randn(600, 2, dtype=torch.float64) * 0.1 + y[:, None]
    weight, bias = ridge_discriminant(*summed(h, y, 6), 0.1)
    assert torch.equal((h @ weight.T + bias).argmax(1), y)
    offset = torch.cat([h, torch.ones(600, 1)], 1)
    squares = torch.linalg.lstsq(offset, torch.eye(6).double()[y]).solution
    assert ((offset @ squares).argmax(1) == y).double().mean() < 0.7


def test_a_class_without_rows_never_wins_and_equal_rows_are_no_trouble():
    h, y = torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]]).double(), torch.tensor([0, 0, 2])
    weight, bias = ridge_discriminant(*summed(h, y, 4), 0.1)
    assert (h @ weight.T + bias).argmax(1).tolist() == [0, 0, 2] and bias[[1, 3]].tolist() == [-1e6, -1e6]


def test_sums_that_are_not_finite_are_refused():
    h = torch.tensor([[1.0, torch.inf], [2.0, 0.0]]).double()
    with pytest.raises(ValueError, match="Expected finite sums for a discriminant"):
        ridge_discriminant(*summed(h, torch.tensor([0, 1]), 2), 0.1)


def test_a_row_may_stand_for_a_part_of_one():
    """Counts below one have the means and the covariance of the same rows counted whole."""
    torch.manual_seed(0)
    y = torch.arange(40) % 3
    sums = summed(torch.randn(40, 5, dtype=torch.float64) + y[:, None], y, 3)
    whole, part = ridge_discriminant(*sums, 1.0), ridge_discriminant(*(x / 100 for x in sums), 0.01)
    torch.testing.assert_close(part, whole)


def rows_of(size, number, noise, seed=0):
    """Rows of four classes, whose labels are wrong for a share of them."""
    torch.manual_seed(seed)
    y = torch.arange(number) % 4
    h = torch.randn(number, size, dtype=torch.float64) + 0.5 + 2 * torch.randn(4, size).double()[y] / size**0.5
    return h, y.where(torch.rand(number) > noise, torch.randint(4, (number,)))


def cross_validated(h, y, penalty):
    """Generalised cross-validation (Golub et al. 1979) of ridge regression on one-hot labels, from the rows."""
    target, h = torch.eye(4).double()[y], h - h.mean(0)
    target = target - target.mean(0)
    within = h - torch.stack([h[y == k].mean(0) for k in range(4)])[y]
    more = penalty / len(h) * within.square().sum() * torch.eye(h.shape[1]).double()
    hat = h @ torch.linalg.solve(h.T @ h + more, h.T)
    unexplained = (target - hat @ target).square().sum() / len(h)
    return unexplained / (1 - (1 + hat.trace()) / len(h)) ** 2


@pytest.mark.parametrize(("size", "number", "noise"), [(20, 400, 0.0), (60, 100, 0.0), (200, 100, 0.0), (60, 400, 0.6)])
def test_a_penalty_that_is_not_given_is_chosen_by_cross_validation(size, number, noise):
    h, y = rows_of(size, number, noise)
    errors = {penalty: cross_validated(h, y, penalty) for penalty in PENALTIES}
    expected = next(p for p, error in errors.items() if error <= min(errors.values()) * (1 + WORTH))
    sums = summed(h, y, 4)
    torch.testing.assert_close(ridge_discriminant(*sums), ridge_discriminant(*sums, expected))
    assert (expected > 0.1) is (size > 20), "the fewer and the noisier the rows, the larger"


def test_a_chosen_penalty_is_right_more_often_where_rows_are_few_and_noisy():
    h, y = rows_of(60, 600, 0.4)
    sums = summed(h[:100], y[:100], 4)
    chosen, small = (
        ((h[100:] @ weight.T + bias).argmax(1) == y[100:]).double().mean()
        for weight, bias in (ridge_discriminant(*sums), ridge_discriminant(*sums, 0.1))
    )
    assert chosen > small + 0.01


def test_a_penalty_is_chosen_where_there_is_nothing_to_choose_by():
    """One class alone; rows of a class that are all equal; one row a class."""
    for h, y in (([[1.0, 2.0], [3.0, 2.0]], [0, 0]), ([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]], [0, 0, 2])):
        rows, labels = torch.tensor(h).double(), torch.tensor(y)
        weight, bias = ridge_discriminant(*summed(rows, labels, 4))
        assert (rows @ weight.T + bias).argmax(1).tolist() == y
