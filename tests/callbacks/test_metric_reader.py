"""What a validation has measured of each task: names, samples, and what several processes saw together."""

import math

import pytest
import torch

from dendrite_zoo.callbacks.metric_reader import MetricReader, average_over_ranks, batch_size, by_task


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        ({"val/task_0/acc": 0.1, "val/acc/dataloader_idx_0": 0.2, "val/acc": 0.3}, {0: 0.1}),
        ({"val/task_11/acc": 0.1, "val/task_x/acc": 0.2, "xval/task_0/acc": 0.3}, {11: 0.1}),
        ({"val/acc/dataloader_idx_3": 0.2, "val/acc": 0.3}, {3: 0.2}),
        ({"val/acc": 0.3, "val/loss": 0.4}, {7: 0.3}),
        ({"val/loss": 0.4}, {}),
    ],
)
def test_names(logged, expected):
    assert by_task(logged, "val/acc", current=7) == expected


def test_a_dot_in_a_name_is_a_dot():
    assert by_task({"val/task_0/axc": 0.1}, "val/a.c", current=None) == {}


def test_the_message_suggests_the_nearest():
    logged = {"val/task_0/accuracy": 0, "val/task_1/accuracy": 0, "val/loss/dataloader_idx_0": 0}
    message = MetricReader("val/acc").not_logged(logged, loaders=2)
    assert "only ['val/accuracy', 'val/loss'] were logged. Did you mean 'val/accuracy'? Call" in message
    assert "Did you mean" not in MetricReader("val/acc").not_logged({"zzz": 0}, loaders=2)


def test_batches_of_any_make():
    x = torch.zeros(7, 2)
    for batch in (x, (x, x), [{"ids": [1, 2], "x": x}], {"text": ["a"], "x": {"y": x}}):
        assert batch_size(batch) == 7
    assert batch_size([x, torch.zeros(7, dtype=torch.long)]) == 7  # as the default collation gives it
    assert batch_size(["text"]) is None
    images = [torch.zeros(3, 8, 8)] * 5
    assert batch_size((images, [{}] * 5)) is None, "a list of samples, or of fields"
    assert batch_size((images, torch.zeros(5))) == batch_size({"images": images, "y": torch.zeros(5)}) == 5
    assert batch_size(torch.tensor(3.0)) == 1


def test_processes_weigh_as_much_as_their_samples():
    """By hand: task 0 is (2 * .5 + 6 * .9) / 8; of task 1 a count is unknown, so both weigh alike; one saw task 2."""
    ranks = [{0: (0.5, 2), 1: (0.2, None)}, {0: (0.9, 6), 1: (0.4, 50), 2: (0.7, 3)}]
    found = average_over_ranks(ranks)
    assert {j: value for j, (value, _) in found.items()} == pytest.approx({0: 0.8, 1: 0.3, 2: 0.7})
    assert [count for _, count in found.values()] == [8, None, 3]


def test_processes_without_counts_weigh_alike():
    assert average_over_ranks([{0: (0.5, 0)}, {0: (0.9, 0)}, {}]) == {0: (pytest.approx(0.7), None)}
    value, count = average_over_ranks([{0: (math.nan, 5)}, {0: (0.9, 5)}])[0]
    assert math.isnan(value) and count == 10, "a value that is undefined in one process is not hidden"
