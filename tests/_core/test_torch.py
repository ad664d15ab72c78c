"""Each private corner of torch, and what holds in a version that lacks it: the same numbers, or nothing cached."""

import pytest
import torch

from dendrite_zoo._core import torch as corners
from dendrite_zoo._core.torch import for_each, sparse_indices, sparse_values, transforms_active, version_of


@pytest.fixture(params=["", "without"])
def version(request, monkeypatch):
    if request.param:
        for name in [name for name in dir(torch) if name.startswith("_foreach")]:
            monkeypatch.delattr(torch, name)


def lists(count):
    torch.manual_seed(0)
    return [[torch.randn(size) for size in (2, 3)] for _ in range(count)]


def test_many_tensors_at_once(version):
    first, second = lists(2)
    for result, x, y in zip(for_each("sub", first, second), first, second, strict=True):
        assert torch.equal(result, x - y)
    for result, x in zip(for_each("norm", first), first, strict=True):
        torch.testing.assert_close(result, x.norm())


def test_in_place(version):
    target, source, factor = lists(3)
    expected = [x + 2 * y * z for x, y, z in zip(target, source, factor, strict=True)]
    assert for_each("addcmul_", target, source, factor, value=2) is None
    torch.testing.assert_close(target, expected)
    expected = [x + 0.1 * (y - x) for x, y in zip(target, source, strict=True)]
    for_each("lerp_", target, source, 0.1)
    torch.testing.assert_close(target, expected)
    for_each("copy_", target, source)
    assert all(map(torch.equal, target, source))


class Plain:
    """A sparse tensor with public methods only."""

    def __init__(self, tensor):
        self.coalesce = tensor.coalesce


def test_indices_and_values_belong_together():
    ids, values = torch.tensor([[2, 0, 2]]), torch.tensor([1.0, 2.0, 3.0])
    sparse = torch.sparse_coo_tensor(ids, values, (4,), check_invariants=True)
    assert sparse_indices(sparse).equal(ids) and sparse_values(sparse).equal(values)
    for tensor in (sparse, Plain(sparse)):
        dense = torch.zeros(4).index_add(0, sparse_indices(tensor)[0], sparse_values(tensor))
        assert dense.tolist() == [2, 0, 4, 0]


def test_a_version_changes_with_each_operation_in_place():
    tensor = torch.zeros(2)
    before = version_of(tensor)
    assert version_of(tensor) == before
    tensor += 1
    assert version_of(tensor) != before
    with torch.inference_mode():
        assert version_of(torch.zeros(2)) == 0, "where none is counted"


def test_without_versions_nothing_is_unchanged():
    class Unversioned:
        def is_inference(self):
            return False

    assert version_of(Unversioned()) != version_of(Unversioned())


def test_transforms_are_seen(monkeypatch):
    seen = []
    torch.func.vmap(lambda x: seen.append(transforms_active()) or x)(torch.zeros(2))
    assert seen == [True] and not transforms_active()
    monkeypatch.delattr(corners.torch._C, "_are_functorch_transforms_active")
    assert transforms_active()
