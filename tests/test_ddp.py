"""Two processes under DDP learn and measure what one does from the same global batches."""

import json
from pathlib import Path

import pytest
import torch

from tests import processes
from tests.training import TASKS, train

pytestmark = pytest.mark.slow
SIZES = {"rows": 24, "batch_size": 8}  # three full batches an epoch, so that shares are equal; 30 rows to test


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process gives, and what two give."""
    folder = tmp_path_factory.mktemp("ddp")
    train(folder / "one", **SIZES)
    options = json.dumps({**SIZES, "devices": 2, "strategy": "ddp"})
    done = processes.run_ddp(Path(__file__).with_name("training.py"), folder / "two", options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / name / "result.pt", weights_only=True) for name in ("one", "two")]


def test_the_matrix_and_the_baseline_are_the_same(results):
    one, two = (result["matrix"] for result in results)
    assert one["matrix"].shape == (TASKS, TASKS)
    assert two["matrix"].equal(one["matrix"])
    assert two["baseline"].equal(one["baseline"])


def test_the_metrics_are_the_same(results):
    one, two = (result["metrics"] for result in results)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, equal_nan=True)


def test_the_weights_are_the_same_up_to_rounding(results):
    one, two = (result["weights"] for result in results)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
