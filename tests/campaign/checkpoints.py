"""Flipped bits in the checkpoint of a run: resumed from the one before it, or refused, never trained on."""

import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dendrite_zoo
from dendrite_zoo.hub.publish import upload
from tests.campaign.mutate import flipped
from tests.campaign.verdict import Wrong

TRAIN = """
import sys
from lightning.pytorch import Trainer, seed_everything
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks
seed_everything(0)
stream = PermutedTasks("digits", num_tasks=1, epochs_per_task=1)
model = ActiveDendriteClassifier(64, [32], 10, max_tasks=1)
trainer = Trainer(**stream.trainer_kwargs(), logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(ContinualClassifier(model), stream)
trainer.save_checkpoint(sys.argv[1])
"""


def bits(folder: Path) -> Callable[[int], None]:
    """A bit of ``last.ckpt``, with or without the one before it beside it."""
    from dendrite_zoo._core.checkpoints import whole_checkpoint

    last = folder / "last.ckpt"
    subprocess.run([sys.executable, "-c", TRAIN, last], check=True, capture_output=True)
    whole = last.read_bytes()
    shutil.copy(last, folder / "kept.ckpt")
    expected = torch.load(last, map_location="cpu", weights_only=True)
    with upload.opened(last) as saved:
        published = dendrite_zoo.load(saved).state_dict()

    def case(number: int) -> None:
        draw = random.Random(number)
        place, previous = draw.randrange(len(whole)), folder / "previous.ckpt"
        last.write_bytes(flipped(whole, place, draw))
        previous.unlink(missing_ok=True)
        if draw.random() < 0.5:
            shutil.copy(folder / "kept.ckpt", previous)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if draw.random() < 0.3:
                with upload.opened(last) as saved:
                    if not same(dict(dendrite_zoo.load(saved).state_dict()), dict(published)):
                        raise Wrong(f"bit {place} is published")
                return
            chosen = whole_checkpoint(last)
            if chosen != last and not any(str(last) in str(one.message) for one in said):
                raise Wrong("another checkpoint is read, and no word")
            if not same(torch.load(chosen, map_location="cpu", weights_only=True), expected):
                raise Wrong(f"bit {place} of {chosen.name} is read as it is")

    return case


def same(one: Any, other: Any) -> bool:
    """Whether two nested values are equal, tensors to the bit."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(type(one) is type(other) and (one == other or (one != one and other != other)))
