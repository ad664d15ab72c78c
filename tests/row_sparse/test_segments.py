"""The fast way to the winning segments: what it costs, and that all ways agree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dendrite_zoo import functional
from dendrite_zoo.functional import GATES
from dendrite_zoo.row_sparse import segments as segments_module
from dendrite_zoo.row_sparse.parameter import RowParameter
from dendrite_zoo.row_sparse.segments import winning_activations
from tests import reference


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation, forward or backward, gives."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor))])
        return result


def gradient(segments, context, gate, mask=None, function=winning_activations):
    strength = function(segments, context, gate, mask)
    return strength, *torch.autograd.grad((strength * torch.linspace(-1, 1, strength.shape[-1])).sum(), segments)


@pytest.mark.parametrize(
    "context",
    [
        torch.randn(12),
        (torch.randn(3, 12), torch.randint(0, 3, (500,))),
        (torch.randn(400, 12), torch.randint(7, 10, (500,))),  # of a large codebook few are in use
        torch.tensor(5),
        torch.randint(0, 6, (500,)),
    ],
    ids=["shared", "codebook", "large codebook", "id", "ids"],
)
def test_nothing_of_the_size_of_batch_times_all_segments_exists(context):
    segments = torch.randn(20, 8, 12, requires_grad=True)
    with Largest() as largest:
        gradient(segments, context, "abs_max")
    assert largest.numel <= max(500 * 20, segments.numel()) < 500 * 20 * 8


def test_contexts_of_each_row_are_gone_through_in_chunks(monkeypatch):
    segments, context = torch.randn(20, 8, 3, requires_grad=True), torch.randn(50, 3)
    whole = gradient(segments, context, "abs_max")
    monkeypatch.setattr(segments_module, "CHUNK", 50 * 8 * 4)
    with Largest() as largest:
        chunks = gradient(segments, context, "abs_max")
    assert largest.numel <= 50 * 8 * 4
    for ours, theirs in zip(chunks, whole, strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 7),
    units=st.integers(1, 5),
    segments=st.integers(1, 6),
    context_dim=st.integers(1, 5),
    codebook=st.integers(1, 4),
    gate=st.sampled_from(GATES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    masked=st.booleans(),
    seed=st.integers(0, 10),
)
def test_all_forms_of_a_context_agree(batch, units, segments, context_dim, codebook, gate, dtype, masked, seed):
    torch.manual_seed(seed)
    weight = torch.randn(units, segments, context_dim, dtype=dtype, requires_grad=True)
    mask = torch.rand_like(weight) < 0.7 if masked else None
    with torch.no_grad():
        weight *= 1 if mask is None else mask
    book, index = torch.randn(codebook, context_dim, dtype=dtype), torch.randint(0, codebook, (batch,))
    ids = torch.randint(0, context_dim, (batch,))
    one_hot = torch.nn.functional.one_hot(ids, context_dim).to(dtype)
    for forms in (((book, index), book[index]), (ids, one_hot)):
        results = [gradient(weight, form, gate, mask) for form in forms]
        rows = reference.context_rows(forms[1], batch, weight)
        slow = torch.stack([torch.stack([reference.strength(u, c, gate) for u in weight]) for c in rows])
        results += [
            gradient(weight, form, gate, mask, functional.winning_activations) for form in forms
        ]  # the equation
        for strength, grad in results:
            torch.testing.assert_close(strength, slow)
            torch.testing.assert_close(grad, results[0][1])
            assert mask is None or (grad[~mask] == 0).all()
    shared = winning_activations(weight, book[0], gate, mask)
    torch.testing.assert_close(shared, winning_activations(weight, book[:1], gate, mask)[0])


def test_gradient_reaches_a_learned_context():
    torch.manual_seed(0)
    segments, book = torch.randn(4, 5, 3).double(), torch.randn(2, 3, requires_grad=True, dtype=torch.float64)
    index = torch.tensor([0, 1, 1])
    assert torch.autograd.gradcheck(lambda c: winning_activations(segments, (c, index)), book)
    assert torch.autograd.gradcheck(lambda c: winning_activations(segments, c), book[0])


@pytest.mark.parametrize("floats", [True, False])
def test_per_sample_gradients_by_vmap(floats):
    torch.manual_seed(0)
    segments = torch.randn(4, 5, 3)
    contexts = torch.randn(6, 3) if floats else torch.tensor([0, 1, 2, 1, 0, 2])
    one = torch.func.grad(lambda s, c: winning_activations(s, c).sum())
    torch.testing.assert_close(
        torch.func.vmap(one, (None, 0))(segments, contexts), torch.stack([one(segments, c) for c in contexts])
    )


def test_compiled_it_gives_the_same_with_a_dense_gradient():
    torch.manual_seed(0)
    segments = RowParameter(torch.randn(4, 5, 3), row_dims=2)
    compiled = torch.compile(winning_activations, backend="aot_eager", fullgraph=True)
    for context in (
        torch.randn(3),
        torch.tensor(2),
        torch.tensor([0, 2]),
        (torch.randn(2, 3), torch.tensor([1, 1, 0])),
    ):
        expected = winning_activations(segments, context)
        torch.testing.assert_close(compiled(segments, context), expected)
        ours, theirs = (torch.autograd.grad(s.sum(), segments)[0] for s in (compiled(segments, context), expected))
        torch.testing.assert_close(ours, theirs)
