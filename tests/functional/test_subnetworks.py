"""Overlap of sub-networks against its meaning: active units that two random inputs share."""

from __future__ import annotations

import torch

from dendrite_zoo.functional import task_overlap, unit_order


def test_counts_the_units_that_an_input_of_each_task_activate_together():
    torch.manual_seed(0)
    patterns = torch.zeros(3, 6, 20).scatter(2, torch.rand(3, 6, 20).topk(5).indices, 1.0)  # 6 inputs a task, 5 units
    overlap = task_overlap(patterns.mean(1))
    for i in range(3):
        for j in range(3):
            shared = [float((a * b).sum()) / 5 for a in patterns[i] for b in patterns[j]]
            torch.testing.assert_close(overlap[i, j], torch.tensor(shared).mean())


def test_equal_apart_and_unrelated_tasks():
    same = torch.zeros(2, 10)
    same[:, :3] = 1
    torch.testing.assert_close(task_overlap(same), torch.ones(2, 2))
    assert task_overlap(torch.eye(4)).equal(torch.eye(4))
    torch.manual_seed(0)
    chance = torch.zeros(200, 400).scatter(1, torch.rand(200, 400).topk(20).indices, 1.0)
    assert abs(task_overlap(chance)[~torch.eye(200, dtype=torch.bool)].mean() - 20 / 400) < 1e-3


def test_what_was_not_measured_is_undefined():
    rates = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan], [0.0, 0.0]])
    overlap = task_overlap(rates)
    assert overlap[0, 0] == 1 and overlap.isnan().sum() == 8


def test_order_of_units():
    rates = torch.tensor([[0.1, 0.9, 0.0, 0.0, 0.5], [0.6, 0.2, 0.0, 0.8, 0.5], [torch.nan] * 5])
    assert unit_order(rates).tolist() == [1, 4, 3, 0, 2]
