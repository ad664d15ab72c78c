"""The state of a callback on its way back from processes that Lightning starts by spawning or forking."""

import multiprocessing
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

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

    def send(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Hand over primitives and tensors, where this is the first of the processes that another has started."""
        child = multiprocessing.parent_process() is not None and os.getpid() != self._owner
        if child and trainer.is_global_zero and launches_copies(trainer):
            write_atomically(self._path, lambda part: torch.save(state, part))

    def receive(self) -> dict[str, Any] | None:
        """What a copy has sent since, once; None for a copy itself."""
        if os.getpid() != self._owner or not self._path.exists():
            return None
        state = torch.load(self._path, weights_only=True)
        self._path.unlink()
        return state
