"""What the campaign is about: each subject with its number of cases, its limits, and the files that errors name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import checkpoints, files, hub_faults, kills, records

GB = 1 << 30


@dataclass(frozen=True)
class Subject:
    """Cases of one kind.

    Attributes:
        title: for the page.
        prepare: from an empty folder to what runs a case by its number.
        cases: how many there are; ``quick`` of them in a short campaign, ``few`` where a check is taken out.
        names: of files, of which an error names one.
        seconds: that a case may take.
        memory: bytes that all cases together may take.
    """

    title: str
    prepare: Callable[[Path], Callable[[int], None]]
    cases: int
    quick: int
    few: int
    names: tuple[str, ...]
    seconds: float = 30.0
    memory: int = 3 * GB


SUBJECTS = {
    "kills": Subject(
        "random kills (`kill -9`) of `dendrite-zoo fit`, then resumed",
        *(kills.fits, 100, 2, 6, ("last.ckpt",)), seconds=600.0, memory=1 << 45,
    ),
    "saves": Subject(
        "random kills of `save_pretrained`", *(kills.saves, 500, 50, 150, ("config.json", "model.safetensors"))
    ),
    "configs": Subject("mutated config.json", *(files.configs, 5000, 300, 600, ("config.json",))),
    "weights": Subject("mutated model.safetensors", *(files.weights, 5000, 300, 300, ("model.safetensors",))),
    "results": Subject("mutated results.json", *(records.results, 500, 40, 120, ("results.json",)), memory=GB),
    "readmes": Subject("mutated README.md", *(records.readmes, 500, 40, 100, ("README.md",))),
    "bits": Subject("flipped bits in checkpoints", *(checkpoints.bits, 200, 50, 50, (".ckpt",))),
    "hub": Subject(
        "faults of the Hub, one to three in a row",
        *(hub_faults.faults, 200, 12, 60, ("me/toy",)), seconds=45.0,
    ),
}  # fmt: skip
