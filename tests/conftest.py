"""What every test has: one thread, no display and a fixed seed."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: children inherit it, and two workers share two cores
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest
import torch

ROOT = Path(__file__).parents[1]
# For `from tests import reference`, in spawned processes too. At the end: an installed wheel wins over the tree.
sys.path.append(str(ROOT))

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Tests write into folders of their own: what a Trainer leaves in the working folder would be committed."""
    places = [ROOT / name for name in ("checkpoints", "demonstrations", "lightning_logs")]
    before = [place for place in places if place.exists()]
    yield
    left = [str(place) for place in places if place.exists() and place not in before]
    assert not left, f"Expected tests to write into tmp_path, but got {left}."


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # of a test before, which processes of this one would inherit
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: so no worker ends with a long one while the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection() -> None:
    """What is imported and collected stays to the end: the garbage collector need not go through it time and again."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on there is garbage."""
    gc.freeze()
    gc.enable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print each failure as it happens, also from workers; pytest's own reports stand at the end."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when})\n{report.longreprtext}\n", flush=True)
