"""Each private corner of torch, and what holds in a version that lacks it: the same numbers, or nothing cached."""

import pytest
import torch
from torch.nn.modules import module as modules
from torch.overrides import TorchFunctionMode

from dendrite_zoo._core import torch as corners
from dendrite_zoo._core.torch import (
    for_each,
    hook_all_modules,
    in_backward,
    insert_mode,
    remove_mode,
    sparse_indices,
    sparse_values,
    transforms_active,
    version_of,
)


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


class Names(TorchFunctionMode):
    """Notes what is called."""

    def __init__(self):
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_mode_is_taken_out_and_put_back_where_it_was():
    below, mode, above = Names(), Names(), Names()
    x = torch.ones(2)
    with below, mode, above:
        depth = remove_mode(mode)
        x.sin()
        insert_mode(mode, depth)
        x.cos()
        assert remove_mode(mode) == depth
        insert_mode(mode, depth)
    assert (below.seen, mode.seen, above.seen) == (["sin", "cos"], ["cos"], ["sin", "cos"])
    x.tan()
    assert "tan" not in mode.seen


def test_the_mode_entered_last_is_taken_out_without_access_to_the_others(monkeypatch):
    mode, x = Names(), torch.ones(2)
    stack = torch._C._len_torch_function_stack()
    mode.__enter__()
    pop = torch.overrides._pop_mode
    monkeypatch.setattr(TorchFunctionMode, "__exit__", lambda *args: pop())
    monkeypatch.delattr(torch.overrides, "_pop_mode")
    depth = remove_mode(mode)
    x.sin()
    insert_mode(mode, depth)
    x.cos()
    remove_mode(mode)
    assert mode.seen == ["cos"] and torch._C._len_torch_function_stack() == stack


def test_autograd_is_at_work_within_a_backward_pass_only(monkeypatch):
    seen = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(in_backward())
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(in_backward())
            return gradient

    Look.apply(torch.ones(2, requires_grad=True)).sum().backward()
    assert seen == [False, True] and not in_backward()
    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    assert not in_backward()


@pytest.mark.parametrize("lacks", ["", "_global_forward_hooks_with_kwargs"])
def test_hooks_of_all_modules_leave_nothing(lacks, monkeypatch):
    class Adds(torch.nn.Module):
        def forward(self, x, *, by):
            return x + by

    calls, module = [], Adds()
    tables = [table for name, table in vars(modules).items() if name.startswith("_global_forward")]
    remove = hook_all_modules(lambda *args: calls.append(args), lambda *args: calls.append(args))
    assert module(1, by=2) == 3
    with pytest.raises(TypeError):
        module("x", by=2)
    if lacks:
        table = getattr(modules, lacks)
        monkeypatch.delattr(modules, lacks)
    remove()
    assert calls == [(module, (1,)), (module, (1,), {"by": 2}, 3), (module, ("x",)), (module, ("x",), None)]
    if lacks:
        table.clear()
    assert not any(tables)
