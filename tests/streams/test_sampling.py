"""What is drawn is pinned: pretrained weights and resumed runs would not survive other numbers."""

import hashlib

import pytest
import torch

from dendrite_zoo.streams.sampling import class_order, epoch_order, hold_out, permutation, rotation_angle


@pytest.mark.parametrize(
    ("num_features", "pinned"),
    [
        (64, "625ff4833b0685122868bceed612de87ca9ff085f64f152d344c614123ac4266"),
        (784, "b61f7146ad632b7e55b26fc6387325006f937ec0af82a3a2acaca8ca7b49f679"),
    ],
)
def test_permutations_0_to_9_are_these_for_ever(num_features, pinned):
    digest = hashlib.sha256()
    for task in range(10):
        order = permutation(0, task, num_features)
        assert order.dtype == torch.int64
        digest.update(order.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == pinned


def test_the_first_permutation_is_the_identity_and_the_others_are_permutations():
    assert permutation(3, 0, 64).equal(torch.arange(64))
    for task in range(1, 20):
        order = permutation(0, task, 64)
        assert order.sort().values.equal(torch.arange(64))
        assert not order.equal(permutation(0, task - 1, 64))
        assert not order.equal(permutation(1, task, 64)), "the seed matters"


def test_angles_are_pinned():
    angles = [rotation_angle(0, task) for task in range(5)]
    assert angles == pytest.approx([0.0, 147.7417, 40.5199, 6.5265, 134.9496], abs=1e-4)
    assert all(0 <= rotation_angle(seed, task) < 180 for seed in range(5) for task in range(20))


def test_classes_come_in_label_order_for_seed_0_and_in_another_fixed_one_for_others():
    assert class_order(0, 10).tolist() == list(range(10))
    assert class_order(1, 10).tolist() == [1, 0, 9, 8, 6, 3, 7, 4, 2, 5]


def test_epochs_and_tasks_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(epoch_order(seed, task, epoch, 50).tolist())
        for seed in range(3)
        for task in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 27
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert epoch_order(0, 0, 0, 6).tolist() == [5, 3, 4, 2, 0, 1], "pinned"


def test_rows_are_held_out_of_each_class_alike():
    labels = torch.tensor([0] * 10 + [1] * 20 + [5] * 30)[torch.randperm(60)]
    mask = hold_out(labels, 0.2, seed=0)
    assert [int(mask[labels == label].sum()) for label in (0, 1, 5)] == [2, 4, 6]
    assert mask.equal(hold_out(labels, 0.2, seed=0))
    assert not mask.equal(hold_out(labels, 0.2, seed=1))


@pytest.mark.parametrize(("share", "of_ten"), [(0.01, 1), (0.2, 2), (0.99, 9)])
def test_of_rare_classes_one_row_is_held_out_and_one_is_learned(share, of_ten):
    """A class of two rows among a hundred others was refused."""
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    mask = hold_out(labels, share, seed=0)
    assert [int(mask[labels == label].sum()) for label in (0, 1, 2)] == [of_ten, 1, 0]
    with pytest.raises(ValueError, match="Expected `val_fraction`.* two rows of each class .* but got one .*Change it"):
        hold_out(torch.arange(10), share, seed=0)
