"""A ridge head: its penalty, and what it is worth for rows that are left out."""

import pytest
import torch

from dendrite_zoo.layers import RidgeHead
from tests.processes import in_two


def noisy(wrong, seed=0):
    """200 rows of two classes in 60 directions, whose labels are wrong for a share of them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(200) % 2
    h = torch.randn(200, 60, generator=generator)
    h[:, 0] += 4.0 * y - 2
    return h, torch.where(torch.rand(200, generator=generator) < wrong, 1 - y, y)


@pytest.mark.parametrize("penalty", [None, 1.0])
def test_rows_are_tried_by_a_head_that_learned_without_them(penalty):
    h, y = noisy(0.4)
    held = torch.arange(200) % 4 == 0
    head, other = (RidgeHead(60, 2, penalty=penalty) for _ in range(2))
    head.learn([(h, y)])
    weight = head.weight.clone()
    other.learn([(h[~held], y[~held])])
    assert head.right_without(h[held], y[held]) == (other(h[held]).argmax(1) == y[held]).sum()
    assert torch.equal(head.weight, weight) and head.counts.tolist() == y.bincount().tolist()


def test_a_penalty_that_is_not_given_grows_with_the_noise():
    lengths = []
    for wrong in (0.0, 0.4):
        for penalty in (None, 0.1):
            head = RidgeHead(60, 2, penalty=penalty)
            head.learn([noisy(wrong)])
            lengths.append(head.weight.norm())
    assert lengths[2] < 0.9 * lengths[3] and lengths[0] / lengths[1] > lengths[2] / lengths[3]


@pytest.mark.parametrize("offset", [1e3, 1e5, -1e6])
@pytest.mark.parametrize("penalty", [None, 0.1])
def test_rows_far_from_zero_are_told_apart(offset, penalty):
    h, y = noisy(0.0)
    head = RidgeHead(60, 2, penalty=penalty)
    head.learn([(h + offset, y)])
    assert (head(h + offset).argmax(1) == y).float().mean() > 0.95


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e8, 1e12])
@pytest.mark.parametrize("penalty", [None, 0.1])
def test_classes_without_any_spread_are_told_apart(size, penalty):
    y = torch.arange(20) % 2
    h = size * (1.0 + y[:, None]).expand(-1, 4)
    head = RidgeHead(4, 2, penalty=penalty)
    head.learn([(h, y), (h[:0], y[:0])])
    assert head(h).argmax(1).equal(y)


def _choose(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(_chosen(slice(rank, None, 2)), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _chosen(own):
    h, y = (part[own] for part in noisy(0.4, seed=3))
    head = RidgeHead(60, 2)
    head.learn([(h, y)])
    return head.right_without(h[: len(h) // 4], y[: len(h) // 4]), head.weight


def test_two_processes_find_what_one_does(tmp_path):
    in_two(_choose, str(tmp_path))
    right, weight = _chosen(slice(None))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found[0] == right
        torch.testing.assert_close(found[1], weight, rtol=1e-4, atol=1e-6)


def test_not_all_rows_are_left_out():
    (h, y), head = noisy(0.0, seed=0), RidgeHead(60, 2)
    head.learn([(h, y)])
    with pytest.raises(ValueError, match="some of the rows that were learned, but got all 200. Leave rows to solve by"):
        head.right_without(h, y)
