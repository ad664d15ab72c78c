"""A process that answers requests, such as to step a share of the environments, and ends in every circumstance."""

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
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")  # forking a process that has threads, as torch's, may hang


class Worker:
    """A process and the connection to it: one answer to each request.

    Args:
        target: a class, or a function that makes an object, ``"module:name"``, whose methods are requested.
        *arguments: of it, which may be shared memory.

    Attributes:
        waiting: whether an answer is due.
        ready: whether there is one within so many seconds.
    """

    def __init__(self, target: str, *arguments: Any) -> None:
        self.waiting = False
        self._connection, theirs = CONTEXT.Pipe()
        given = {"arguments": (theirs, os.getpid(), target, arguments)}
        boot = (str(Path(__file__).with_name("boot.py")), given, "worker")
        self.process = CONTEXT.Process(target=runpy.run_path, args=boot, name="environments", daemon=True)
        _start(self.process)
        self.ready: Callable[[float], Any] = self._connection.poll
        if os.name == "posix":  # `poll` makes a selector each time, which doubles the time that requests take
            selector = selectors.PollSelector()
            selector.register(self._connection, selectors.EVENT_READ)
            self.ready = selector.select
        theirs.close()  # else the end of the process would not close the connection

    def send(self, request: str, *arguments: Any) -> None:
        """Request a method of what the process has; if it ended, `receive` says so."""
        message = pickle.dumps((request, arguments))
        self.waiting = True  # first, so that Ctrl-C in between leaves no answer that is taken for the next request's
        with suppress(OSError):
            self._connection.send_bytes(message)

    def receive(self, timeout: float) -> Any:
        """Wait for the answer.

        Raises:
            RuntimeError: no answer within ``timeout`` seconds, the process ended, or it raised an exception; the
                message is what it did, and after an empty line the traceback.
            ValueError: an environment is not what was expected; the message says it all.
        """
        try:
            if not self.ready(timeout):
                raise RuntimeError(f"gave no answer within {timeout:g} s")
            answer, failure = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(1)
            raise RuntimeError(f"ended (exit code {self.process.exitcode})") from None
        self.waiting = False
        if isinstance(failure, ValueError):
            raise failure
        if failure is not None:
            raise RuntimeError(f"raised an exception\n\n{failure}")
        return answer

    def close(self) -> None:
        """End the process; by force where an answer is due, or after two seconds."""
        self._connection.close()
        self.process.join(0 if self.waiting else 2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _start(process: BaseProcess) -> None:
    """Start a process that does not run the user's script again, and that Ctrl-C does not reach.

    So the script needs no ``if __name__ == "__main__"``, and the parent alone ends the process.
    """
    main = sys.modules["__main__"]
    mask: Any = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
        if mask:
            mask(signal.SIG_SETMASK, before)


def serve(connection: Connection, parent: int, target: str, arguments: tuple[Any, ...]) -> None:
    """Answer requests, in the new process, until the connection is closed.

    Args:
        connection: to the parent.
        parent: the process that sends the requests.
        target: as for `Worker`.
        arguments: of it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # of gymnasium and Meta-World, for their own users
    module, _, name = target.partition(":")
    served = getattr(import_module(module), name)(*arguments)
    with suppress(EOFError, OSError):
        while True:
            message = connection.recv_bytes()
            answer = failure = None
            try:
                request, given = pickle.loads(message)
                answer = getattr(served, request)(*given)
            except Exception as error:
                said = isinstance(error, ValueError) and str(error).startswith("Expected ")  # of this package
                failure = error if said else traceback.format_exc()
            connection.send_bytes(pickle.dumps((answer, failure)))


def _end_with(parent: int) -> None:
    """End this process when its parent ended: the connection stays open where a fork of the parent has a copy."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
