"""Real processes for the tests, each forked from one that has imported the library: a start costs no seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.strategies import DDPStrategy

IMPORTED = [
    "lightning.pytorch",
    "matplotlib.pyplot",
    "dendrite_zoo.cli.train",
    "dendrite_zoo.cli.evaluate",
    "tests.training",
]
CONTEXT = multiprocessing.get_context(None if sys.platform == "win32" else "forkserver")
if sys.platform != "win32":
    CONTEXT.set_forkserver_preload(IMPORTED)


class _Forked(DDPStrategy):
    def connect(self, model):
        for tensor in (*model.parameters(), *model.buffers()):  # Lightning parts the memory of "spawn" alone
            tensor.data = tensor.data.clone()
        super().connect(model)


def two_processes():
    """The arguments of a Trainer of two processes: as ``"ddp_spawn"``, but neither imports the library anew."""
    return {"devices": 2, "strategy": _Forked(start_method=CONTEXT.get_start_method())}


def in_two(function, *arguments):
    """Run ``function(rank, *arguments)`` to the end in two processes."""
    torch.multiprocessing.start_processes(function, arguments, nprocs=2, start_method=CONTEXT.get_start_method())


class Done(NamedTuple):
    """What a process left, as `subprocess.CompletedProcess` names it."""

    returncode: int
    stdout: str
    stderr: str


def _become(program: list[str], cwd: str, environment: dict[str, str], said: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = program
    sys.path.insert(0, cwd if program[0] == "dendrite-zoo" else str(Path(program[0]).parent))
    if program[0] == "dendrite-zoo":
        from dendrite_zoo.cli.main import main

        main(program[1:])
    else:
        runpy.run_path(program[0], run_name="__main__")


def start(program, *, cwd, env=None, said=(os.devnull, os.devnull)):
    """Start the command ``["dendrite-zoo", ...]``, or a script, in a process of its own.

    Args:
        program: the command's or the script's arguments, itself the first.
        said: files for what it prints, and for its errors.
    """
    environment = dict(os.environ if env is None else env)
    process = CONTEXT.Process(target=_become, args=([*map(str, program)], str(cwd), environment, [*map(str, said)]))
    process.start()
    return process


def run_ddp(script, *arguments, cwd):
    """Run a script to the end in two processes; each reads from its environment which one it is, as with torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
    world |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    # The rest of a launcher's environment would be taken for a cluster's.
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "PMI", "OMPI"))}
    with ThreadPoolExecutor() as both:
        ranks = ({**own, **world, "RANK": rank, "LOCAL_RANK": rank} for rank in "01")
        done = list(both.map(lambda env: run([script, *arguments], cwd=cwd, env=env), ranks))
    return max(done, key=lambda one: one.returncode != 0)


def run(program, *, cwd, env=None, timeout=600):
    """Run to the end what `start` starts."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        process = start(program, cwd=cwd, env=env, said=said)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
        return Done(process.exitcode, *(path.read_text() if path.exists() else "" for path in said))
