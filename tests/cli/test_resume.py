"""`kill -9` at any batch, resume, and nothing is lost: weights and matrix as of a run left alone, bit for bit."""

import signal
import sys

import pytest
import torch

from tests.processes import CONTEXT
from tests.training import BATCHES, EPOCHS, STEPS, Crash, train

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
POINTS = {
    "the first batch": (1, "batch"),
    "a batch in the middle": (BATCHES + 2, "batch"),
    "the last batch of an epoch": (BATCHES, "batch"),
    "the last batch of a task": (EPOCHS * BATCHES, "batch"),
    "validation after a task": (EPOCHS * BATCHES, "validation"),
    "the first batch of a task": (EPOCHS * BATCHES + 1, "batch"),
    "the last batch of all": (STEPS, "batch"),
    "the last validation": (STEPS, "validation"),
}


def result(folder):
    return torch.load(folder / "result.pt", weights_only=True)


def assert_equal(one, other):
    """Equal to the last bit; NaN is equal to NaN."""
    for part in one:
        assert one[part].keys() == other[part].keys(), part
        for name, tensor in one[part].items():
            torch.testing.assert_close(
                other[part][name], tensor, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder)
    return result(folder)


def test_something_is_learned_and_every_row_is_measured(uninterrupted):
    matrix = uninterrupted["matrix"]["matrix"]
    assert not matrix.isnan().any()
    assert (matrix.diagonal() > 0.5).all()
    assert not uninterrupted["matrix"]["baseline"].isnan().any()


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is not known on Windows")
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_process_is_resumed_by_another(tmp_path, point, uninterrupted):
    killed = CONTEXT.Process(target=train, args=(tmp_path, (*POINTS[point], True)))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / "result.pt").exists()
    resumed = CONTEXT.Process(target=train, args=(tmp_path,))
    resumed.start()
    resumed.join(60)
    assert resumed.exitcode == 0
    assert_equal(uninterrupted, result(tmp_path))


def crash_and_resume(folder, *crashes):
    for crash in crashes:
        with pytest.raises(Crash):
            train(folder, crash)
    train(folder)
    return result(folder)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_every_step_can_be_the_last_one(tmp_path, step, uninterrupted):
    assert_equal(uninterrupted, crash_and_resume(tmp_path, (step, "batch")))


@pytest.mark.slow
def test_a_run_may_end_after_every_step_and_in_every_validation(tmp_path, uninterrupted):
    crashes = []
    for step in range(1, STEPS + 1):
        crashes.append((step, "batch"))
        if step % BATCHES == 0:
            crashes.append((step, "validation"))
    assert_equal(uninterrupted, crash_and_resume(tmp_path, *crashes))


def test_gradients_that_were_being_accumulated_are_computed_again(tmp_path):
    train(tmp_path / "whole", accumulate_grad_batches=2)
    for batch in (BATCHES + 1, BATCHES + 2, BATCHES + 3):  # of windows of two, the first, the second and the rest
        folder = tmp_path / str(batch)
        with pytest.raises(Crash):
            train(folder, (batch, "any batch"), accumulate_grad_batches=2)
        train(folder, accumulate_grad_batches=2)
        assert_equal(result(tmp_path / "whole"), result(folder))
