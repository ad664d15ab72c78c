"""The penalty of a ridge head: what rows that are left out say of it."""

import pytest
import torch

from dendrite_zoo.layers import RidgeHead
from tests.processes import in_two

PENALTIES = (0.01, 1.0, 100.0)


def noisy(wrong, seed=0):
    """200 rows of two classes in 60 directions, whose labels are wrong for a share of them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(200) % 2
    h = torch.randn(200, 60, generator=generator)
    h[:, 0] += 4.0 * y - 2
    return h, torch.where(torch.rand(200, generator=generator) < wrong, 1 - y, y)


def by_hand(h, y, held):
    """Right answers on some rows of heads that learned the others alone, by penalty."""
    found = []
    for penalty in PENALTIES:
        head = RidgeHead(h.shape[1], 2, penalty=penalty)
        head.learn([(h[~held], y[~held])])
        found.append(int((head(h[held]).argmax(1) == y[held]).sum()))
    return found


@pytest.mark.parametrize("wrong", [0.0, 0.4])
def test_the_penalty_is_that_of_heads_that_learned_without_the_rows(wrong):
    chosen = set()
    for seed in range(6):
        h, y = noisy(wrong, seed)
        held = torch.arange(200) % 4 == 0
        right = by_hand(h, y, held)
        expected = 0
        while expected < 2 and right[expected + 1] > right[expected]:
            expected += 1
        head = RidgeHead(60, 2)
        head.learn([(h, y)])
        assert head.choose_penalty(h[held], y[held], PENALTIES) == right[expected]
        head.solve()
        again = RidgeHead(60, 2, penalty=PENALTIES[expected])
        again.learn([(h, y)])
        assert head.penalty == PENALTIES[expected]
        torch.testing.assert_close(head.weight, again.weight)
        chosen.add(head.penalty)
    assert 0.01 in chosen if wrong == 0 else max(chosen) == 100.0


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
    head.choose_penalty(h[: len(h) // 4], y[: len(h) // 4], PENALTIES)
    head.solve()
    return head.penalty, head.weight


def test_two_processes_choose_as_one_does(tmp_path):
    in_two(_choose, str(tmp_path))
    penalty, weight = _chosen(slice(None))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found[0] == penalty
        torch.testing.assert_close(found[1], weight, rtol=1e-4, atol=1e-6)


def test_a_penalty_is_not_chosen_by_all_rows():
    (h, y), head = noisy(0.0, seed=0), RidgeHead(60, 2)
    head.learn([(h, y)])
    with pytest.raises(ValueError, match="some of the rows that were learned, but got all 200. Leave rows to solve by"):
        head.choose_penalty(h, y, PENALTIES)
    assert head.penalty == 0.1
