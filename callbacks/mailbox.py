"""The state of a callback: beside a checkpoint, and on its way back from processes that Lightning has started."""

import atexit
import multiprocessing
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from dendrite_zoo._core.files import write_atomically
from dendrite_zoo._core.lightning import launches_copies


class Mailbox:
    """A file through which a copy of a callback gives its state to the original.

    With ``strategy="ddp_spawn"`` and its like, ``trainer.fit`` runs in processes that have copies of the callbacks;
    Lightning brings back weights and metrics only.

    Example:
        >>> Mailbox().receive() is None
        True
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir(), f"dendrite-zoo-{uuid.uuid4().hex}.pt")
        atexit.register(partial(_remove, self._path, self._owner))

    def send(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Hand over primitives and tensors, where this is the first of the processes that another has started."""
        child = multiprocessing.parent_process() is not None and os.getpid() != self._owner
        if child and trainer.is_global_zero and launches_copies(trainer):
            write_atomically(self._path, lambda part: torch.save(state, part))

    def receive(self, *, by_copy: bool = False) -> dict[str, Any] | None:
        """What a copy has sent since, once; None for a copy itself.

        Args:
            by_copy: let a copy that begins a run look, too, for a forked one was not given what lies here.
        """
        is_owner = os.getpid() == self._owner
        if not (is_owner or by_copy) or not self._path.exists():
            return None
        state = torch.load(self._path, weights_only=True)
        if is_owner:
            self._path.unlink()
        return state


class OwnState(Callback, ABC):
    """A callback that keeps its state when ``trainer.validate``, ``test`` or ``predict`` loads a checkpoint.

    Lightning gives callbacks their part of every checkpoint, be it of an earlier task, as ``ckpt_path="best"`` often
    is. Only a fit goes on from there; else it is for a callback that has seen nothing yet, as in a new process.
    """

    @abstractmethod
    def _is_blank(self) -> bool:
        """Whether there is nothing to lose."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the state out of a checkpoint, before `load_state_dict` would be given it."""
        if trainer.state.fn != "fit" and not self._is_blank():
            checkpoint["callbacks"].pop(self.state_key, None)


class Returning(OwnState):
    """A callback whose state comes back from runs in processes of their own.

    What it says of its state calls `receive` first.
    """

    def __init__(self) -> None:
        self._mailbox = Mailbox()

    def receive(self) -> None:
        """Take over what a copy has sent."""
        self._take(self._mailbox.receive())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Go on with what the run before has left."""
        self._take(self._mailbox.receive(by_copy=True))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Send the state to the process that has started this one."""
        self._mailbox.send(trainer, self.state_dict())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Send that of an interrupted run, too."""
        self._mailbox.send(trainer, self.state_dict())

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has: all that is known until now."""
        self.receive()
        return self.__dict__

    def _take(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.load_state_dict(state)


def _remove(file: Path, owner: int) -> None:
    """Leave nothing that nobody has asked for."""
    if os.getpid() == owner:
        file.unlink(missing_ok=True)
