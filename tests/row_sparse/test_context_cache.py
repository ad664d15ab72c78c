"""What follows from a context is computed once, for all contexts that are new together."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.row_sparse.context_cache import ContextCache


class Tenfold:
    """Ten times a context, and which contexts it was computed for."""

    def __init__(self):
        self.asked = []

    def __call__(self, contexts):
        self.asked.append(contexts.flatten().tolist())
        return [10 * contexts.flatten(), contexts.flatten() + 1]


def test_new_contexts_are_computed_together_and_known_ones_never():
    cache, compute = ContextCache(), Tenfold()
    first, second = cache(torch.tensor([[1.0], [2.0], [1.0]]), [], compute)
    assert first.tolist() == [10, 20, 10] and second.tolist() == [2, 3, 2] and compute.asked == [[1, 2]]
    assert cache(torch.tensor([[3.0], [2.0]]), [], compute)[0].tolist() == [30, 20] and compute.asked == [[1, 2], [3]]
    assert len(cache) == 3


def test_of_a_codebook_only_the_used_contexts_are_computed():
    cache, compute, book = ContextCache(), Tenfold(), torch.arange(5.0).unsqueeze(1)
    assert cache(book, [], compute, used=torch.tensor([3, 1]))[0].tolist() == [30, 10]
    assert cache(book, [], compute, used=torch.tensor([1, 4]))[0].tolist() == [10, 40]
    assert compute.asked == [[3, 1], [4]]
    book[1] = 7.0  # in place: another context now
    assert cache(book, [], compute, used=torch.tensor([1]))[0].tolist() == [70]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_it_holds_no_more_contexts_than_its_capacity(monkeypatch, one_by_one):
    monkeypatch.setattr(ContextCache, "CAPACITY", 3)
    cache, compute = ContextCache(), Tenfold()
    for number in [0, 1, 2, 0, 1, 2, 3, 0]:
        assert cache(torch.tensor([[float(number)]]), [], compute)[0].tolist() == [10 * number]
        assert len(cache) <= 3
    assert compute.asked == [[0], [1], [2], [3], [0]]
    book = torch.arange(3.0).unsqueeze(1)
    for used in ([0, 1], [2], [2, 0]) if one_by_one else ([0, 1, 2],):
        assert cache(book, [], compute, used=torch.tensor(used))[0].tolist() == [10 * number for number in used]


def test_it_begins_anew_when_a_source_changes_and_keeps_dtypes_apart():
    cache, source = ContextCache(), torch.ones(2)
    context = torch.tensor([[2.0, 3.0]])
    assert cache(context, [source], lambda c: [c @ source])[0].tolist() == [5]
    source.add_(1)
    assert cache(context, [source], lambda c: [c @ source])[0].tolist() == [10]
    zeros = [torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)]  # the same bytes
    dtypes = [cache(zero, [source], lambda c: [torch.tensor([c.is_floating_point()])])[0].item() for zero in zeros]
    assert dtypes == [True, False]


def test_a_context_that_takes_the_memory_of_another_is_another():
    cache, compute = ContextCache(), Tenfold()
    for number in range(100):  # freed and drawn anew, often at the same address
        assert cache(torch.full((1, 1), float(number)), [], compute)[0].item() == 10 * number


def test_what_is_remembered_in_inference_mode_can_be_trained_with():
    cache, weight = ContextCache(), torch.ones(1, requires_grad=True)
    with torch.inference_mode():
        cache(torch.tensor([[2.0]]), [], lambda c: [c.flatten()])
    (value,) = cache(torch.tensor([[2.0]]), [], lambda c: [c.flatten()])
    (weight * value).sum().backward()
    assert weight.grad.item() == 2
