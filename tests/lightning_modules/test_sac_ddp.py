"""Two real processes: each plays in environments of its own, both learn the same networks."""

import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from tests.lightning_modules.practice import result, train
from tests.processes import two_processes

pytest.importorskip("metaworld")
pytestmark = pytest.mark.slow
SIZES = {"env_steps": 80, "warmup_steps": 40}  # as many rounds as one process plays


def start(folder, **options):
    learning = {"policy_delay": 2, "n_step": 3}  # processes wait for the gradients of all parameters in all updates
    train(folder, data=SIZES, options=learning, **two_processes(), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    start(folder)
    return folder


def test_two_processes_learn_the_same_from_what_each_has_played(folder):
    one, two = (result(folder, rank) for rank in (0, 1))
    assert one["env_steps"] == two["env_steps"] == 80
    assert one["updates"] == two["updates"] == 9
    for name in one:
        if name.startswith("replay.rows"):
            assert not torch.isclose(one[name], two[name]).all(1).any()
        else:
            assert one[name].equal(two[name]), name


def test_both_shared_in_the_mean_of_observations(folder):
    """The first rounds of both, which were the warm-up."""
    replays = [result(folder, rank)["replay.rows"] for rank in (0, 1)]
    first = torch.cat([rows.unflatten(0, (2, -1))[:, :10, :39].flatten(0, 1) for rows in replays])
    expected = result(folder)["model.observation_mean"]
    torch.testing.assert_close(first.mean(0), expected, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(folder, tmp_path):
    with pytest.raises(ProcessRaisedException, match="Crash"):
        start(tmp_path, crash=2)
    start(tmp_path)
    for rank in (0, 1):
        whole, again = result(folder, rank), result(tmp_path, rank)
        for name in whole:
            assert again[name].equal(whole[name]), (rank, name)
