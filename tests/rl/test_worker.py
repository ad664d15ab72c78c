"""The end of a worker process in every circumstance: real processes, really killed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dendrite_zoo.rl import TaskEnvironments

pytest.importorskip("metaworld")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TASKS = ["reach-v3", "window-open-v3"]


@pytest.fixture
def pair() -> Iterator[TaskEnvironments]:
    """Two tasks, a process for each."""
    with TaskEnvironments(TASKS, num_processes=2, max_steps=50) as envs:
        envs.reset()
        yield envs


def state(pid: int) -> str:
    """The letter of a process's state; none where there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return state(pid) not in ("", "Z")


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def pids(envs: TaskEnvironments) -> list[int]:
    return [worker.process.pid for worker in envs._pool.workers]


def test_it_needs_no_torch(pair: TaskEnvironments) -> None:
    for pid in pids(pair):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libmujoco" in maps and "libtorch" not in maps


def test_a_crash_has_the_tasks_name(pair: TaskEnvironments) -> None:
    running = pids(pair)
    os.kill(running[1], signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"window-open-v3 ended \(exit code -9\).*num_processes=0"):
        pair.step(np.zeros((2, 4)))
    assert not any(map(runs, running))
    with pytest.raises(RuntimeError, match="are closed"):
        pair.reset()


def test_a_hang_has_the_tasks_name(pair: TaskEnvironments) -> None:
    """Stopped in the middle of a step: the environment that was busy is the one that is named."""
    running = pids(pair)

    def stopped_in_a_step() -> bool:
        pair._pool.workers[0].send("reset")
        end = time.monotonic() + 0.1
        while not pair._table["busy"][0] and time.monotonic() < end:
            pass
        os.kill(running[0], signal.SIGSTOP)
        assert wait_until(lambda: state(running[0]) == "T")
        if pair._table["busy"][0]:
            return True
        os.kill(running[0], signal.SIGCONT)  # it was through already
        pair._pool.workers[0].receive(300)
        return False

    assert wait_until(stopped_in_a_step)
    pair._pool.timeout = 0.5
    with pytest.raises(RuntimeError, match="The process playing reach-v3 gave no answer within 0.5 s"):
        pair.step(np.zeros((2, 4)))
    assert not any(map(runs, running))


def test_an_exception_has_the_tasks_name(pair: TaskEnvironments) -> None:
    running = pids(pair)
    with pytest.raises(RuntimeError, match=r"(?s)playing reach-v3 raised an exception.*Traceback.*KeyError: 0"):
        pair._pool.request("load_state_dict", {})
    assert not any(map(runs, running))


def test_a_task_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrite_zoo.rl.task_list.task_names", lambda tasks: ("no-such-task-v3",))
    with pytest.raises(RuntimeError, match="(?s)playing no-such-task-v3 raised an exception.*KeyError"):
        TaskEnvironments("no-such-task-v3", num_processes=1)


def test_ctrl_c_between_question_and_answer(pair: TaskEnvironments) -> None:
    """The interrupt is the caller's alone; what was asked before is answered before what is asked next."""

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    pair._pool.workers[0].send("reset")
    os.kill(pids(pair)[0], signal.SIGSTOP)  # so that the interrupt surely comes while waiting
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            pair.step(np.zeros((2, 4)))
    finally:
        signal.signal(signal.SIGALRM, before)
    os.kill(pids(pair)[0], signal.SIGCONT)
    state = pair.state_dict()  # as a checkpoint on the way out would
    assert [environment["steps"] for environment in state["environments"]] == [0, 0]
    assert pair.step(np.zeros((2, 4))).observation.shape == (2, 39)


class PressedOnceSent:
    """A line on which Ctrl-C comes when the question is out, and nobody noted it yet."""

    def __init__(self, connection: object) -> None:
        self.connection = connection

    def send_bytes(self, message: bytes) -> None:
        self.connection.send_bytes(message)
        raise KeyboardInterrupt


def test_ctrl_c_right_after_the_question_gives_no_answer_to_another(pair: TaskEnvironments) -> None:
    given = np.random.default_rng(0).uniform(-1, 1, (3, 2, 4))
    worker = pair._pool.workers[0]
    connection, worker._connection = worker._connection, PressedOnceSent(worker._connection)
    with pytest.raises(KeyboardInterrupt):
        pair.step(given[0])
    worker._connection = connection
    assert wait_until(lambda: connection.poll())  # the answer to the question that was cut off
    with TaskEnvironments(TASKS, num_processes=0, max_steps=50) as here:
        here.reset()
        here.step(given[0])
        os.kill(pids(pair)[0], signal.SIGSTOP)  # so that the next answer surely comes later
        threading.Timer(1.0, os.kill, (pids(pair)[0], signal.SIGCONT)).start()
        for action in given[1:]:  # the interrupted step was played, the other environment lacks it
            np.testing.assert_array_equal(pair.step(action).observation[0], here.step(action).observation[0])


SCRIPT = """
import signal, sys, time
import numpy as np
from dendrite_zoo.rl import TaskEnvironments

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job lacks
envs = TaskEnvironments(["reach-v3", "window-open-v3"], num_processes=2)  # no guard, no `with`: as in a notebook
envs.reset()
print(*(worker.process.pid for worker in envs._pool.workers), flush=True)
while True:
    envs.step(np.zeros((2, 4)))
"""


def start_script(code: str, folder: Path) -> tuple[subprocess.Popen, list[int]]:
    """A user's script, in a group of processes of its own, as a terminal starts it; and its workers."""
    (folder / "script.py").write_text(code)
    script = subprocess.Popen(
        [sys.executable, str(folder / "script.py")],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return script, [int(pid) for pid in script.stdout.readline().split()]


def group(leader: int) -> list[int]:
    """All processes of a group, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_no_process_outlives_its_parent(how: str, tmp_path: Path) -> None:
    script, workers = start_script(SCRIPT, tmp_path)
    assert len(workers) == 2 and all(map(runs, workers))
    assert set(workers) < set(group(script.pid))
    if how == "Ctrl-C":
        os.killpg(script.pid, signal.SIGINT)  # a terminal sends it to all
    else:
        script.kill()
    try:
        _, errors = script.communicate(timeout=300)
        assert wait_until(lambda: not group(script.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
    if how == "Ctrl-C":
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
    else:
        assert errors == ""


def test_a_fork_that_holds_the_line_open_keeps_no_worker(tmp_path: Path) -> None:
    """A data loader forks the parent and so holds a copy of the line: its end cannot be what a worker waits for."""
    fork = "import os\nfork = os.fork()\nif fork == 0: time.sleep(600)\nprint(fork, flush=True)\nwhile"
    script, workers = start_script(SCRIPT.replace("while", fork), tmp_path)
    forked = int(script.stdout.readline())
    script.kill()
    try:
        assert wait_until(lambda: not any(map(runs, workers)))
        assert runs(forked), "the fork is to be there still"
    finally:
        os.killpg(script.pid, signal.SIGKILL)
        script.communicate(timeout=300)


def test_closing_is_quick_and_leaves_nothing() -> None:
    with TaskEnvironments("reach-v3", num_processes=1) as envs:
        [pid] = pids(envs)
        assert runs(pid)
    assert not runs(pid)
    envs.close()  # twice is fine
