"""All environments behind one table, wherever they run: in this process, or divided among several."""

import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from dendrite_zoo.rl.episodes import EpisodeConfig
from dendrite_zoo.rl.shard import Shard, table_row
from dendrite_zoo.rl.worker import CONTEXT, Worker


class WorkerPool:
    """Processes that each run a share of the environments, and answer requests together.

    Args:
        configs: of the environments, one a row of the table.
        sizes: of an observation and an action.
        num_processes: 0 runs them in this process.
        timeout: seconds to wait for an answer; five times as many while the environments are made.

    Attributes:
        table: ``(N,)`` of `dendrite_zoo.rl.shard.table_row`.

    Raises:
        RuntimeError: when a process crashed, hung or raised an exception; it names the task, and ends all of them.
    """

    def __init__(
        self, configs: Sequence[EpisodeConfig], sizes: tuple[int, int], num_processes: int, timeout: float
    ) -> None:
        self.configs, self.timeout, row = configs, timeout, table_row(*sizes)
        self.workers: list[Worker] = []
        own: list[Worker | Shard] = []
        self.close = weakref.finalize(self, _close, own, os.getpid())  # ends the processes, for good
        if num_processes == 0:
            self.table = np.zeros(len(configs), dtype=row)
            self.shard = Shard(self.table)
            own.append(self.shard)
            self.shard.make(dict(enumerate(configs)))
            return
        memory = CONTEXT.RawArray("b", len(configs) * row.itemsize)  # without a name, so that none is left behind
        self.table = np.frombuffer(memory, dtype=row)
        processes = min(num_processes, len(configs))
        for share in range(processes):  # in turn, since slow tasks stand side by side
            self.workers.append(Worker("dendrite_zoo.rl.shard:shared", memory, sizes))
            own.append(self.workers[-1])
            self.workers[-1].send("make", dict(list(enumerate(configs))[share::processes]))
        self.wait(5 * timeout)

    def request(self, name: str, *arguments: Any) -> list[Any]:
        """Call a method of every `dendrite_zoo.rl.shard.Shard`, and wait for all results."""
        if not self.close.alive:
            raise RuntimeError("These environments are closed. Make new TaskEnvironments.")
        if not self.workers:
            return [getattr(self.shard, name)(*arguments)]
        self.wait()
        for worker in self.workers:
            worker.send(name, *arguments)
        return self.wait()

    def wait(self, timeout: float | None = None) -> list[Any]:
        """Wait for all answers that are due, also those left over where Ctrl-C interrupted a request."""
        return [self._receive(worker, timeout or self.timeout) for worker in self.workers if worker.waiting]

    def _receive(self, worker: Worker, timeout: float) -> Any:
        try:
            return worker.receive(timeout)
        except RuntimeError as error:
            what, *traceback = str(error).partition("\n\n")
        rows = range(self.workers.index(worker), len(self.configs), len(self.workers))
        busy = [self.configs[row].task for row in rows if self.table["busy"][row]]
        tasks = sorted({self.configs[row].task for row in rows})
        at = f"playing {busy[0]}" if busy else f"with {', '.join(tasks)}"
        self.close()
        raise RuntimeError(
            f"The process {at} {what}; all of them are closed now. Make new TaskEnvironments; with num_processes=0 "
            f"they run in this process, where a debugger can follow.{''.join(traceback)}"
        ) from None


def _close(own: list[Worker | Shard], owner: int) -> None:
    if os.getpid() == owner:  # a forked copy of the owner must not end processes that are not its own
        for one in own:
            one.close()
