"""A process that runs a share of the environments, and ends in every circumstance."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import runpy
import selectors
import signal
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig
from dendrite_zoo.rl.shard import ROW, Shard

__all__ = ["Worker", "shared_table"]

BOOT = Path(__file__).with_name("boot.py")
CONTEXT = multiprocessing.get_context("spawn")  # forking a process that has threads, as torch's, may hang


def shared_table(rows: int) -> tuple[Any, NDArray[np.void]]:
    """Return memory that processes share, and the table in it; it has no name, so nothing of it can be left behind."""
    memory = CONTEXT.RawArray("b", rows * ROW.itemsize)
    return memory, np.frombuffer(memory, dtype=ROW)


class Worker:
    """A process and the connection to it: one answer to each request.

    Args:
        memory: of the shared table.
        configs: of the environments that it runs, by their rows of the table.

    Attributes:
        rows: of these environments.
        waiting: whether an answer is due.
    """

    def __init__(self, memory: Any, configs: Mapping[int, EpisodeConfig]) -> None:
        self.rows = list(configs)
        self._connection, theirs = CONTEXT.Pipe()
        plain = {row: asdict(config) for row, config in configs.items()}
        boot = (str(BOOT), {"arguments": (theirs, memory, plain, os.getpid())}, "worker")
        self.process = CONTEXT.Process(target=runpy.run_path, args=boot, name="metaworld", daemon=True)
        with _without_main(), _without_interrupts():
            self.process.start()
        self._ready: Callable[[float], Any] = self._connection.poll
        if os.name == "posix":  # `poll` makes a selector each time, which doubles the time that requests take
            selector = selectors.PollSelector()
            selector.register(self._connection, selectors.EVENT_READ)
            self._ready = selector.select
        theirs.close()  # else the end of the process would not close the connection
        self.waiting = True  # for the message that the environments were made

    def send(self, request: str, *arguments: Any) -> None:
        """Request a method of the process's `dendrite_zoo.rl.shard.Shard`.

        Raises:
            OSError: the process ended.
        """
        message = pickle.dumps((request, arguments))
        self.waiting = True  # first, so that Ctrl-C in between leaves no answer that is taken for the next request's
        self._connection.send_bytes(message)

    def receive(self, timeout: float) -> Any:
        """Wait for the answer.

        Raises:
            TimeoutError: no answer within ``timeout`` seconds.
            EOFError: the process ended.
            RuntimeError: it raised an exception, whose traceback is the message.
        """
        if not self._ready(timeout):
            raise TimeoutError
        answer, failure = pickle.loads(self._connection.recv_bytes())
        self.waiting = False
        if failure is not None:
            raise RuntimeError(failure)
        return answer

    def close(self) -> None:
        """End the process; by force where an answer is due, or after two seconds."""
        self._connection.close()
        self.process.join(0 if self.waiting else 2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep a new process from running the user's script again: no ``if __name__ == "__main__"`` is needed there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach, so that its parent alone ends it."""
    mask: Any = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before: Any = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def serve(connection: Connection, memory: Any, configs: Mapping[int, Mapping[str, Any]], parent: int) -> None:
    """Answer requests, in the new process, until the connection is closed.

    Args:
        connection: to the parent.
        memory: of the shared table.
        configs: fields of `EpisodeConfig`, by rows of the table.
        parent: the process that sends the requests.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # of gymnasium and Meta-World, for their own users
    shard: Shard | None = None
    request, arguments, answer = "", (), None
    try:
        while True:
            try:
                if shard is None:
                    made = {row: EpisodeConfig(**fields) for row, fields in configs.items()}
                    shard, answer = Shard(np.frombuffer(memory, dtype=ROW), made), None
                else:
                    answer = getattr(shard, request)(*arguments)
                connection.send_bytes(pickle.dumps((answer, None)))
            except Exception:
                connection.send_bytes(pickle.dumps((None, traceback.format_exc())))
            request, arguments = pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return


def _end_with(parent: int) -> None:
    """End this process when its parent ended: the connection stays open where a fork of the parent has a copy."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
