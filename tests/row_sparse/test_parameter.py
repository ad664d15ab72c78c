"""Parameters by rows: ordinary ones to everybody but their owner."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from dendrite_zoo.row_sparse.parameter import RowParameter
from dendrite_zoo.row_sparse.taken_rows import dot_taken_rows, take_rows


@pytest.fixture
def owner():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)])


def taken(parameter, ids):
    parameter.grad = None
    take_rows(parameter, ids, parameter.row_dims).square().sum().backward()
    return parameter.grad


def test_without_an_owner_the_gradient_is_dense():
    parameter = RowParameter(torch.randn(3, 2, 4), row_dims=2)
    assert isinstance(parameter, torch.nn.Parameter) and taken(parameter, torch.tensor([1])).layout == torch.strided


@pytest.mark.parametrize("shape, row_dims", [((3, 2, 4), 2), ((50, 4), 1), ((5, 4), 2), ((60,), 1)])
def test_an_owners_gradient_is_sparse_and_equal(shape, row_dims, owner):
    parameter = RowParameter(torch.randn(shape), row_dims=row_dims)
    ids = torch.tensor([[0, 4], [2, 4]])
    expected = taken(parameter, ids)
    parameter.owner = owner
    sparse = taken(parameter, ids)
    assert sparse.is_sparse and sparse.sparse_dim() == row_dims
    assert sparse._nnz() == (4 if ids.ndim == row_dims else 3)  # what several parts share is summed
    torch.testing.assert_close(sparse.to_dense(), expected)
    take_rows(parameter, ids, row_dims).square().sum().backward()  # accumulates
    torch.testing.assert_close(parameter.grad.to_dense(), 2 * expected)


def test_inner_products_with_vectors_leave_out_rows_without_gradient(owner):
    parameter = RowParameter(torch.randn(16, 2, 3), row_dims=2)
    ids, vectors, weights = torch.tensor([[0, 3, 4], [1, 3, 7]]), torch.randn(2, 3), torch.randn(2, 3)
    weights[0, 2] = weights[1, 0] = 0

    def gradient(vectors):
        parameter.grad = None
        products = dot_taken_rows(parameter, ids, vectors, row_dims=2)
        torch.testing.assert_close(products, (parameter.flatten(0, 1)[ids] * vectors.unsqueeze(1)).sum(-1))
        (products * weights).sum().backward()
        return parameter.grad

    expected = gradient(vectors)
    parameter.owner = owner
    sparse = gradient(vectors).coalesce()
    torch.testing.assert_close(sparse.to_dense(), expected)
    assert sparse.indices().tolist() == [[0, 1, 3], [0, 1, 1]]
    learned = vectors.clone().requires_grad_()
    torch.testing.assert_close(gradient(learned).to_dense(), expected)
    torch.testing.assert_close(learned.grad, (weights.unsqueeze(-1) * parameter.flatten(0, 1)[ids]).sum(1))


def test_with_its_owner_gone_the_gradient_is_dense_again():
    parameter = RowParameter(torch.randn(4, 2))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    parameter.owner = optimizer
    assert taken(parameter, torch.tensor([1])).is_sparse
    del optimizer
    assert parameter.owner is None and not taken(parameter, torch.tensor([1])).is_sparse


def test_copies_have_no_owner(owner):
    parameter = RowParameter(torch.randn(3, 2), requires_grad=False, row_dims=2)
    parameter.owner = owner
    file = io.BytesIO()
    torch.save(parameter, file)
    file.seek(0)
    for clone in (copy.deepcopy([parameter, parameter])[1], torch.load(file, weights_only=False)):
        assert type(clone) is RowParameter and clone.owner is None
        assert torch.equal(clone, parameter) and clone.row_dims == 2 and not clone.requires_grad
