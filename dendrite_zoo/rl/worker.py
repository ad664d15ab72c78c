"""A process that plays a shard of the environments, and its end in every circumstance."""

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

from dendrite_zoo.rl.metaworld.episodes import Recipe
from dendrite_zoo.rl.shard import ROW, Shard

__all__ = ["Worker", "shared_table"]

BOOT = Path(__file__).with_name("boot.py")
CONTEXT = multiprocessing.get_context("spawn")  # forking a process that has threads, as torch's, may hang


def shared_table(rows: int) -> tuple[Any, NDArray[np.void]]:
    """Give memory that processes share, and the table in it; it has no name, so nothing of it can be left behind."""
    memory = CONTEXT.RawArray("b", rows * ROW.itemsize)
    return memory, np.frombuffer(memory, dtype=ROW)


class Worker:
    """A process and the line to it: one request, one answer.

    Args:
        memory: of the shared table.
        recipes: row to what is played there.
    """

    def __init__(self, memory: Any, recipes: Mapping[int, Recipe]) -> None:
        self.recipes = dict(recipes)
        self._connection, theirs = CONTEXT.Pipe()
        plain = {row: asdict(recipe) for row, recipe in self.recipes.items()}
        boot = (str(BOOT), {"arguments": (theirs, memory, plain, os.getpid())}, "worker")
        self.process = CONTEXT.Process(target=runpy.run_path, args=boot, name="metaworld", daemon=True)
        with _without_main(), _without_interrupts():
            self.process.start()
        self._ready: Callable[[float], Any] = self._connection.poll
        if os.name == "posix":  # there `poll` makes a selector each time, which takes as long as a step's other talk
            selector = selectors.PollSelector()
            selector.register(self._connection, selectors.EVENT_READ)
            self._ready = selector.select
        theirs.close()  # or the end of the process would not be the end of the line
        self.waiting = True  # for the sign that the environments were made

    def send(self, request: str, *arguments: Any) -> None:
        """Ask for something.

        Raises:
            OSError: the process ended.
        """
        message = pickle.dumps((request, arguments))
        self.waiting = True  # before it is sent: an answer that Ctrl-C kept from being noted would be the next one's
        self._connection.send_bytes(message)

    def receive(self, timeout: float) -> Any:
        """Wait for the answer.

        Raises:
            TimeoutError: there is none in time.
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
        """End the process, gently if it is at leisure."""
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
    """Start a process that Ctrl-C does not reach, so that its parent alone decides what becomes of it."""
    mask: Any = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before: Any = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def serve(connection: Connection, memory: Any, recipes: Mapping[int, Mapping[str, Any]], parent: int) -> None:
    """Play, in the new process, until the line is closed.

    Args:
        connection: the line.
        memory: of the shared table.
        recipes: row to the fields of what is played there.
        parent: the process that asks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # gymnasium's and Meta-World's to their own users
    shard: Shard | None = None
    request, arguments, answer = "", (), None
    try:
        while True:
            try:
                if shard is None:
                    made = {row: Recipe(**fields) for row, fields in recipes.items()}
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
    """End this process when its parent did: the line may stay open, where the parent was forked by others."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
