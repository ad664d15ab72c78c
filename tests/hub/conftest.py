"""A loopback hub, and processes that speak to it through the unmodified client."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dendrite_zoo.hub.loopback import Hub
from tests.hub.toy import Toy
from tests.hub.worker import serve
from tests.processes import CONTEXT

ALICE, BOB = "hf_alice_secret", "hf_bob_secret"


@dataclass
class Answer:
    """What came of a snippet."""

    result: object
    error: str | None
    said: str
    trace: str = ""


class Worker:
    """A process; see worker.py."""

    def __init__(self, environment):
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
        self.environment = {**ours, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
        self.line, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(theirs, self.environment))
        self.process.start()
        theirs.close()  # so that a process that has ended is an EOFError here

    def __call__(self, snippet, **values):
        """Run a snippet; ``$name`` in it stands for a value. Its variable ``result`` comes back."""
        self.send(filled(snippet, **values))
        return self.answer()

    def send(self, snippet):
        self.line.send(snippet)

    def answer(self):
        answer = self.line.recv()
        assert "_secret" not in answer, "a token stands in an answer, an error, a trace or a log"
        return Answer(**json.loads(answer))

    def kill(self):
        self.process.kill()
        self.process.join()


def filled(snippet, **values):
    """Put values in the place of ``$name``."""
    for name, value in values.items():
        snippet = snippet.replace(f"${name}", repr(str(value) if isinstance(value, Path) else value))
    return snippet


class World:
    """A hub, and a worker for each setting that was asked for."""

    def __init__(self, hub):
        self.hub, self.workers, self.home = hub, {}, tempfile.mkdtemp()

    def worker(self, token=ALICE, **environment):
        key = (token, *sorted(environment.items()))
        if key not in self.workers:
            settings = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", **environment}
            self.workers[key] = Worker({**self.hub.environment(self.home, token), **settings})
        return self.workers[key]

    def close(self):
        for worker in self.workers.values():
            worker.kill()


@pytest.fixture(scope="session")
def world():
    with Hub(users={ALICE: ["alice", "lab"], BOB: ["bob"]}, part_size=4096) as hub:
        world = World(hub)
        yield world
        world.close()


@pytest.fixture
def hub(world):
    """The hub, empty."""
    world.hub.repos.clear()
    world.hub.objects.clear()
    world.hub.faults.clear()
    world.hub.log.clear()
    return world.hub


@pytest.fixture
def alice(hub, world):
    """A process with a good token."""
    return world.worker()


@pytest.fixture
def reader(hub, world):
    """Another process, without a token."""
    return world.worker(token=None)


@pytest.fixture
def model(tmp_path):
    """A saved toy model, its weights a few parts long."""
    torch.manual_seed(0)
    model = Toy(64, 10, hidden=(32,))
    model.prototypes.normal_()
    model.save_pretrained(tmp_path / "toy", results=[RESULT])
    return tmp_path / "toy"


@pytest.fixture
def plain(tmp_path):
    """A saved toy model without results, and so without a picture that takes time to draw."""
    torch.manual_seed(0)
    Toy(64, 10, hidden=(32,)).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


RESULT = {
    "benchmark": "permuted-digits",
    "method": "ours",
    "context_at_test": "inferred",
    "num_tasks": 3,
    "average_accuracy": 0.8766,
    "average_accuracy_std": 0.0123,
    "seeds": [0, 1, 2],
    "matrix": [[0.90, 0.12, None], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]],
    "command": "dendrite-zoo fit --config configs/permuted-digits.yaml",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "hardware": "a machine, 2 cores",
    "wall_time_s": 700.0,
    "parameters": 4321,
}
