"""What a run leaves behind: ``runs/<name>/`` with its metrics, matrix, checkpoints and model."""

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dendrite_zoo._core.checkpoints import PREVIOUS, whole_checkpoint
from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.lightning import logging_step
from dendrite_zoo.callbacks import ForgettingLogger, RunRecorder, SparsityLogger
from dendrite_zoo.cli.run_logger import RunLogger

LAST = Path("checkpoints", "last.ckpt")
BEFORE = LAST.with_name(PREVIOUS)
RUN_FILES = ("metrics.csv", "matrix.json", "matrix.png", LAST, BEFORE)
LEFT_OVER = ("metrics.csv.new", "checkpoints/*.part", ".writing-*", "model/.writing-*")
"""What a kill may leave of a file that was being written."""


def folder_of(name: str) -> Path:
    """The folder of a run, in ``runs/``.

    Raises:
        ValueError: it would lie elsewhere.

    Example:
        >>> folder_of("demo").as_posix()
        'runs/demo'
    """
    runs = Path("runs")
    if runs.resolve() not in (runs / name).resolve().parents:
        raise wrong_argument("--name", "the name of a folder in runs/", name)
    return runs / name


def start_run(folder: Path, *, resumed: bool = False, replace: bool = False) -> Path:
    """Make the folder of a run.

    Args:
        folder: such as ``runs/demo``.
        resumed: the run goes on from a checkpoint, and appends to what is there.
        replace: remove what an earlier run left; without it, a run that starts afresh refuses to mix with
            another's.

    Raises:
        FileExistsError: an earlier run is there, neither resumed nor to be replaced.
    """
    earlier = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if earlier and not (resumed or replace):
        resume = f"resume it with --resume {folder}, " if has_checkpoint(folder) else ""
        raise FileExistsError(
            f"{folder} holds an earlier run ({earlier[0].name}). Give --name, {resume}or remove the folder."
        )
    for path in earlier if replace else ():
        path.unlink()
    for path in (path for pattern in LEFT_OVER for path in folder.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can be resumed; a kill between two steps of writing the last checkpoint leaves the one before."""
    return (folder / LAST).is_file() or (folder / BEFORE).is_file()


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint that a run resumes from: the last one, or the one before where the last one is damaged.

    Raises:
        FileNotFoundError: there is none.
        ValueError: both are damaged.
    """
    if has_checkpoint(folder):
        return whole_checkpoint(folder / LAST)
    raise FileNotFoundError(
        f"Expected a checkpoint to resume from, but there is no {folder / LAST}. If it is another run, give --name. "
        "If the run ended before it wrote one, remove the folder, and start again."
    )


def differences(before: Any, now: Any, at: str = "") -> list[str]:
    """Where two configs differ, as ``key: old, now new``; what an earlier version did not know is no difference.

    Args:
        before: nested dictionaries and lists.
        now: the like.
        at: the key that leads here.

    Example:
        >>> differences({"lr": 0.1, "model": {"width": [8, 8]}}, {"lr": 0.1, "model": {"width": [8, 9]}})
        ['model.width.1: 8, now 9']
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{at}: {before}, now {now}"]
    return [text for key, old in before.items() for text in differences(old, now.get(key), f"{at}.{key}".lstrip("."))]


def lengthened(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What of the arguments of data is more in a recipe that would have begun in the same way.

    That is more tasks of a stream, or more epochs of tasks that are played all at once, where each is as long.

    Example:
        >>> lengthened({"num_tasks": 5}, {"num_tasks": 10})
        {'num_tasks': 10}
        >>> lengthened({"epochs": 2, "env_steps": 100}, {"epochs": 3, "env_steps": 150})
        {'epochs': 3, 'env_steps': 150}
        >>> lengthened({"epochs": 2, "env_steps": 100}, {"epochs": 3, "env_steps": 100})
        {}
    """
    longer = {}
    if (before.get("num_tasks") or 0) < (tasks := now.get("num_tasks") or 0):
        longer["num_tasks"] = tasks
    (epochs, steps), (more, further) = ((x.get("epochs"), x.get("env_steps")) for x in (before, now))
    if steps and further and epochs and more and epochs < more and now.get("order") != "sequential":
        if steps * more == further * epochs:
            longer |= {"epochs": more, "env_steps": further}
    return longer


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Let Ctrl-C end a fit as SIGTERM does, after the batch and with a checkpoint; say how to go on, and exit.

    A second Ctrl-C ends it at once, with the checkpoint before.

    Args:
        folder: the run folder.
    """
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not callable(signal.getsignal(signal.SIGTERM)):  # Lightning does not listen yet
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a process in the background ignores it
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        if type(end) is SystemExit and not isinstance(end.__context__, KeyboardInterrupt):  # somebody else's
            raise
        stopped_by = signal.SIGTERM if isinstance(end, SIGTERMException) and not interrupted else signal.SIGINT
        go_on = f"Resume it with: dendrite-zoo fit --resume {folder}"
        go_on = go_on if has_checkpoint(folder) else "It has no checkpoint yet. Start it again."
        print(f"dendrite-zoo fit: stopped by {stopped_by.name}. {go_on}", file=sys.stderr)
        sys.exit(128 + stopped_by)
    finally:
        signal.signal(signal.SIGINT, before)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, to go on from after a crash: from the first batch on, on SIGTERM, and when training ends.

    The one before it is kept as ``previous.ckpt``, for where a disk damages the last one.

    Lightning's ModelCheckpoint would write one an epoch, which may be seconds, or in time with a module of automatic
    optimization only.

    Args:
        folder: where to write it.
        seconds: time between two of them, at first less; 0 for after each batch. Where writing one takes more than a
            twentieth of that, as of a large model on a slow disk, they become rarer: training goes first.

    SIGTERM within a validation leaves the one written before it: half a validation cannot be resumed. Nor can
    gradients that are being accumulated: it is written after the batch that steps. A crash while it is written leaves
    the one before.
    """

    def __init__(self, folder: str | os.PathLike[str], seconds: float = 60.0) -> None:
        self.path, self.seconds = Path(folder) / LAST.name, seconds
        self._written, self._pause, self._cost = -math.inf, 2.5, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have ``metrics.csv`` drop what was logged after the checkpoint that is resumed from."""
        for logger in trainer.loggers if trainer.ckpt_path else ():
            if isinstance(logger, RunLogger):
                logger.resume(logging_step(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it where it is time; the first process decides."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        pause = max(min(self._pause, self.seconds), 20 * self._cost) if self.seconds else 0
        due = time.monotonic() - self._written >= pause
        if trainer.strategy.broadcast(due or trainer.received_sigterm):
            self._write(trainer)
            self._pause *= 2

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it once more."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        begun = time.monotonic()
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            part = self.path.with_suffix(".part")  # the file system of TMPDIR, where fsspec writes, may be another
            trainer.save_checkpoint(part, weights_only=False)  # not said, Lightning prints a line each time
            if trainer.is_global_zero:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                if self.path.exists():
                    os.replace(self.path, self.path.with_name(PREVIOUS))
                os.replace(part, self.path)
        self._written = time.monotonic()
        self._cost = self._written - begun


def run_callbacks(
    folder: Path,
    metric: str | None = "val/acc",
    *,
    method: str | None = None,
    command: str | None = None,
    given: Iterable[Callback] = (),
) -> list[Callback]:
    """The callbacks of every run: what was forgotten, sparsity, a checkpoint to resume from, the result record.

    Args:
        folder: the run folder.
        metric: what a `ForgettingLogger` reads; None where tasks are not learned one after another.
        method: the line of a results table that the run belongs to.
        command: what was typed.
        given: the callbacks of the recipe.

    Raises:
        ValueError: one of the recipe is there already.
    """
    recorder = RunRecorder(method, command=command, folder=folder)
    callbacks = [SparsityLogger(), LastCheckpoint(folder / "checkpoints"), recorder]
    callbacks = callbacks if metric is None else [ForgettingLogger(metric, folder=folder), *callbacks]
    keys = {callback.state_key for callback in callbacks if isinstance(callback, ForgettingLogger | RunRecorder)}
    if twice := [callback.state_key for callback in given if callback.state_key in keys]:
        got = f"{', '.join(twice)}, which every run has. Leave it out"
        raise ValueError(f"Expected `trainer.callbacks` without callbacks that are there already, but got {got}.")
    return callbacks
