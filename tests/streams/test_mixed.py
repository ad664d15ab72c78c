"""All tasks at once: every row of every task once an epoch, with its task, in shares that add up to the whole."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dendrite_zoo.streams import MixedLoader, MixedTasks, PermutedTasks, RotatedTasks, TaskLoader, TaskSequence
from tests.streams.toy import tensors


def rows_of(loader):
    """Every row with its label and task, in order."""
    return [
        (tuple(x), int(y), int(task))
        for batch in loader
        for x, y, task in zip(batch[0].tolist(), *batch[1:], strict=True)
    ]


def make(counts, batch_size, **kwargs):
    x, y = torch.arange(100.0).reshape(50, 2), torch.arange(50)
    parts = {
        3 * task: TaskLoader(x, y, torch.arange(count), lambda x, task=task: x + 1000 * task, batch_size=7)
        for task, count in enumerate(counts)
    }
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(sum(counts)))
    return MixedLoader(parts, batch_size=batch_size, order=order, **kwargs)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 15))
def test_each_row_of_each_task_stands_once_in_an_epoch(counts, batch_size):
    loader = make(counts, batch_size)
    rows = rows_of(loader)
    naive = [
        ((2 * i + 1000.0 * task, 2 * i + 1 + 1000.0 * task), i, 3 * task)
        for task, count in enumerate(counts)
        for i in range(count)
    ]
    assert sorted(rows) == sorted(naive)
    sizes = [len(y) for _, y, _ in loader]
    assert len(loader) == len(sizes) and all(size == batch_size for size in sizes[:-1])


@given(st.lists(st.integers(2, 20), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 3))
def test_shares_add_up_to_the_batches_of_one_process(counts, share, world_size):
    if sum(counts) < world_size:
        return
    whole = make(counts, share * world_size)
    ranks = [make(counts, share * world_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(loader) for loader in ranks}) == 1
    assert sorted(row for loader in ranks for row in rows_of(loader)) == sorted(rows_of(whole))
    if len(ranks[0]) > 1:  # a last batch of fewer rows than processes is joined to the one before it
        united = [row for loader in ranks for row in rows_of([next(iter(loader))])]
        assert sorted(united) == sorted(rows_of([next(iter(whole))]))


@given(st.data())
def test_a_loaded_state_goes_on_with_the_next_batch(data):
    whole = list(make([9, 5, 7], 4, epoch=2))
    done = data.draw(st.integers(0, len(whole)))
    loader = make([9, 5, 7], 4, epoch=2)
    loader.load_state_dict({"epoch": 2, "batch": done})
    rest = list(loader)
    assert len(rest) == len(whole) - done
    for ours, theirs in zip(rest, whole[done:], strict=True):
        assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def test_rows_are_those_of_the_stream():
    stream = RotatedTasks(tensors(rows=20), 3, batch_size=8)
    data = MixedTasks(stream, epochs=4)
    expected = [
        (tuple(row), int(y), task)
        for task in range(3)
        for x, ys in stream.task_loader(task)
        for row, y in zip(x.tolist(), ys, strict=True)
    ]
    assert sorted(rows_of(data.train_dataloader())) == sorted(expected)
    assert data.trainer_kwargs()["max_epochs"] == 4 and data.num_tasks == 3 and data.num_classes == 3
    for task, loader in enumerate(data.test_dataloader()):
        assert rows_of(loader) == [
            (tuple(row), int(y), task)
            for x, ys in stream.task_loader(task, "test")
            for row, y in zip(x.tolist(), ys, strict=True)
        ]


def test_an_epoch_has_an_order_of_its_own_and_a_batch_holds_several_tasks():
    data = MixedTasks(PermutedTasks(tensors(rows=40), 4, batch_size=16))
    first = data.train_dataloader()
    assert rows_of(first) == rows_of(data.train_dataloader()), "whatever was drawn before"
    assert all(len(task.unique()) > 1 for _, _, task in first)
    second = MixedTasks(data.stream)
    second.trainer = SimpleNamespace(
        current_epoch=1, global_rank=0, world_size=1, state=SimpleNamespace(fn=None, stage=None)
    )
    assert sorted(rows_of(second.train_dataloader())) == sorted(rows_of(first))
    assert rows_of(second.train_dataloader()) != rows_of(first)


def test_tasks_before_the_first_are_only_validated():
    data = MixedTasks(PermutedTasks(tensors(), 4, first_task=2, epochs_per_task=3))
    assert data.max_epochs == 3 and len(data.val_dataloader()) == 4
    assert {int(t) for _, _, task in data.train_dataloader() for t in task} == {2, 3}


def test_a_list_is_a_sequence_and_anything_else_is_refused():
    data = MixedTasks([tensors(), tensors(seed=1)], epochs=2)
    assert isinstance(data.stream, TaskSequence) and data.num_tasks == 2
    assert data.benchmark == "mixed-custom+custom"
    with pytest.raises(TypeError, match="Expected `tasks` to be a stream, such as PermutedTasks.*, but got str"):
        MixedTasks("digits")
    with pytest.raises(ValueError, match="Expected `epochs` to be an integer of at least 1, but got 0"):
        MixedTasks([tensors()], epochs=0)
