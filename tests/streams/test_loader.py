"""The loader against plain slicing; resuming at any batch; shares that add up to the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.utilities.types import _Stateful

from dendrite_zoo.streams import TaskLoader

sizes = st.integers(1, 40)


def make(rows=11, batch_size=4, epoch=0, **kwargs):
    x = torch.arange(100.0).reshape(50, 2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(rows))[:rows]
    return TaskLoader(x, torch.arange(50), order, lambda x: -x, batch_size=batch_size, epoch=epoch, **kwargs)


def labels(loader):
    return [y.tolist() for _, y in loader]


@given(sizes, sizes)
def test_batches_are_slices_of_the_rows_in_order(rows, batch_size):
    loader = make(rows, batch_size)
    naive = [loader.rows[start : start + batch_size].tolist() for start in range(0, len(loader.rows), batch_size)]
    assert labels(loader) == naive
    assert len(loader) == len(naive)
    for x, y in loader:
        assert x.equal(-loader.x[y]), "row y of x is labelled y here"


def test_no_rows_are_no_batches():
    assert len(make(0)) == 0
    assert list(make(0)) == []


@given(sizes, sizes, st.data())
def test_a_loaded_state_goes_on_with_the_next_batch(rows, batch_size, data):
    whole = labels(make(rows, batch_size, epoch=7))
    handed_out = data.draw(st.integers(0, len(whole)))
    first, second = make(rows, batch_size, epoch=7), make(rows, batch_size, epoch=7)
    batches = iter(first)
    begun = [next(batches)[1].tolist() for _ in range(handed_out)]
    assert first.state_dict() == {"epoch": 7, "batch": handed_out}

    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict(), "also before the first batch"
    assert len(second) == len(whole), "the length is the epoch's"
    iter(second), iter(second)  # Lightning does so, without taking a batch
    assert begun + labels(second) == whole
    assert labels(second) == whole, "a state counts once"


def test_a_state_of_another_epoch_is_ignored():
    loader = make(epoch=3)
    loader.load_state_dict({"epoch": 2, "batch": 2})
    assert loader.state_dict() == {"epoch": 3, "batch": 0}
    assert labels(loader) == labels(make())


def test_exhausting_the_iterator_does_not_reset_the_state():
    loader = make(epoch=1)
    list(loader)
    assert loader.state_dict() == {"epoch": 1, "batch": 3}
    done = make(epoch=1)
    done.load_state_dict(loader.state_dict())
    assert list(done) == [], "the epoch is over"
    assert done.state_dict() == {"epoch": 1, "batch": 3}


def test_lightning_takes_it_for_resumable():
    assert isinstance(make(), _Stateful)


@given(sizes, st.integers(1, 10), st.integers(1, 4))
def test_shares_add_up_to_the_batches_of_one_process(rows, shares_a_batch, world_size):
    batch_size = shares_a_batch * world_size
    if rows < world_size:
        with pytest.raises(ValueError, match=f"a row for each of {world_size} processes, but got {rows} rows"):
            make(rows, batch_size, world_size=world_size)
        return
    whole = labels(make(rows, batch_size))
    ranks = [labels(make(rows, batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(share) for share in ranks}) == 1, "as many batches for each process"
    united = [sorted(sum(batch, [])) for batch in zip(*ranks, strict=True)]
    if len(united) < len(whole):  # the last batch had fewer rows than processes
        assert len(whole[-1]) < world_size
        whole[-2:] = [whole[-2] + whole[-1]]
    assert united == [sorted(batch) for batch in whole], "no row is left out, none comes twice"
    for batch in zip(*ranks, strict=True):
        lengths = [len(share) for share in batch]
        assert min(lengths) > 0
        assert max(lengths) - min(lengths) <= 1
    for share in ranks:
        assert all(len(batch) == shares_a_batch for batch in share[:-1]), "even, but for the last batch"


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="Expected `batch_size` to be a multiple of 2, .* but got 5.*Change"):
        make(batch_size=5, world_size=2)
