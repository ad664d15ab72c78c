"""What a validation has measured of each task: samples, and what several processes saw together."""

import math

import pytest
import torch

from dendrite_zoo.callbacks.metric_reader import average_over_ranks, batch_size


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
