"""Processes killed with SIGKILL at a random moment: fits of `dendrite-zoo fit`, then resumed, and saves of a model."""

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.mutate import flipped
from tests.campaign.verdict import ROOT, Wrong

FIT = [
    *(sys.executable, "-m", "dendrite_zoo.cli.main", "fit"),
]
OPTIONS = [
    *("--config", "permuted-digits", "--data.init_args.num_tasks", "2", "--data.init_args.epochs_per_task", "4"),
    *("--model.init_args.model.init_args.hidden_features", "[64,64]", "--trainer.enable_progress_bar", "false"),
]
LAST = Path("checkpoints", "last.ckpt")
DIFFERENT = ("wall_time_s", "command", "hardware")  # in two runs that are equal


def fits(folder: Path) -> Callable[[int], None]:
    """A small run, killed up to three times, in a fifth of the cases with a flipped bit in its last checkpoint,
    where there is one before it."""
    begun = time.monotonic()
    _run(folder, [*OPTIONS, "--name", "whole"])
    seconds = time.monotonic() - begun
    whole = folder / "runs" / "whole"

    def case(number: int) -> None:
        draw = random.Random(number)
        run = folder / "runs" / f"killed-{number}"
        start = [*OPTIONS, "--name", run.name]
        try:
            options = start
            for _ in range(draw.choice([1, 1, 2, 3])):
                _run(folder, options, kill_after=draw.uniform(0.1, 1.0) * seconds)
                options = _resume(run, start)
                before_it = (run / LAST).with_name("previous.ckpt").is_file()
                if options[0] == "--resume" and draw.random() < 0.2 and before_it:
                    data = (run / LAST).read_bytes()
                    (run / LAST).write_bytes(flipped(data, draw.randrange(len(data)), draw))
            _run(folder, options)
            _compare(whole, run)
        finally:
            shutil.rmtree(run, ignore_errors=True)

    return case


def _resume(run: Path, start: list[str]) -> list[str]:
    """How to go on: from the checkpoint, or from the start where there was none yet."""
    if (run / LAST).is_file():
        return ["--resume", f"runs/{run.name}"]
    shutil.rmtree(run, ignore_errors=True)
    return start


def _run(folder: Path, options: list[str], kill_after: float | None = None) -> None:
    """Run a fit; it ends well, or was killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = folder / f"log-{os.getpid()}.txt"
    with log.open("w") as said:
        process = subprocess.Popen([*FIT, *options], cwd=folder, env=environment, stdout=said, stderr=said)
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
    if process.returncode != 0:
        lines = log.read_text(errors="replace").strip().splitlines() or [""]
        if any(line.startswith("Traceback") for line in lines):
            raise RuntimeError("\n".join(lines[-12:]))
        raise Wrong(f"the fit ended with {process.returncode}: {lines[-1]}")


def _compare(whole: Path, run: Path) -> None:
    for name in ("model/model.safetensors", "model/config.json"):
        if (whole / name).read_bytes() != (run / name).read_bytes():
            raise Wrong(f"{name} is another than of the run that was not disturbed")
    if (rows := _rows(run)) != (expected := _rows(whole)):
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(rows, expected, strict=False)))
        raise Wrong(f"metrics.csv has {len(rows)} rows, expected {len(expected)}; the first that differs is {same}")
    for name in ("matrix.json", "results.json"):
        if _plain(run / name) != _plain(whole / name):
            raise Wrong(f"{name} is another than of the run that was not disturbed")


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _plain(path: Path) -> Any:
    value = json.loads(path.read_text())
    for record in value if isinstance(value, list) else [value]:
        for name in DIFFERENT:
            record.pop(name, None)
    return value


def saves(folder: Path) -> Callable[[int], None]:
    """Two models saved in turn into one folder: one of them is there, and its own results or none."""
    import torch

    import dendrite_zoo
    from tests.campaign.models import MODELS, RECORD, originals

    first = originals(folder)[0]
    model_class, arguments = MODELS[0]
    torch.manual_seed(1)
    models = [dendrite_zoo.load(first.folder), model_class(**arguments).eval()]
    records = [[{**RECORD, "method": name}] for name in ("first", "second")]
    states = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    place = folder / "place"

    def save_for_ever() -> None:
        while True:
            for model, record in zip(models, records, strict=True):
                model.save_pretrained(place, results=record)

    def case(number: int) -> None:
        draw = random.Random(number)
        models[0].save_pretrained(place, results=records[0])
        child = os.fork()
        if child == 0:
            try:
                save_for_ever()
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = dendrite_zoo.load(place)
        equal = [
            all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in state.items()) for state in states
        ]
        if True not in equal:
            raise Wrong("neither of the two models is there")
        if found.results not in (None, records[equal.index(True)]):
            raise Wrong("the results there are those of the other model")

    return case
