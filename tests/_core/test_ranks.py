"""States of several processes in one checkpoint."""

import pytest
import torch
from torch import distributed

from dendrite_zoo._core.ranks import gather_states, state_of_rank
from tests.processes import in_two


def gather(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    states = gather_states({"rank": rank, "rows": torch.full((2,), rank)})
    assert [state["rank"] for state in states] == ([0, 1] if rank == 0 else [])
    if rank == 0:
        assert state_of_rank(states, 1, 2, "rows")["rows"].tolist() == [1, 1]
    distributed.destroy_process_group()


@pytest.mark.slow
def test_the_first_process_gets_the_states_of_all_by_rank(tmp_path):
    in_two(gather, tmp_path)


def test_one_process_has_one_state():
    assert state_of_rank(gather_states("own"), 0, 1, "rows") == "own"


@pytest.mark.parametrize("states, now", [([1, 2], 1), ([1], 2), ([], 1)])
def test_another_number_of_processes_is_refused(states, now):
    with pytest.raises(ValueError, match=rf"now, {now}, for each has rows of its own, but got one of {len(states)}\."):
        state_of_rank(states, 0, now, "rows")
