"""The zoo: which pretrained models there are, where they live, and what their files must be.

``model_cards/registry.json`` maps a name to its repo on the Hub, the full commit SHA (null until it is
published), sha256 and size of each file, and a line or two for people.
"""

import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import write_json
from dendrite_zoo._core.names import nearest
from dendrite_zoo.hub import artifact


@dataclass(frozen=True)
class Entry:
    """One pretrained model of the zoo.

    Attributes:
        name: what users say, ``<benchmark>-<recipe>``.
        repo: ``org/name`` on the Hub; None until it is published.
        revision: full commit SHA; None until it is published.
        files: path to ``{"sha256": ..., "size": ...}``; empty where the weights are not built yet.
        trained_on: the stream of tasks, for people.
        headline: the result, for people.
        build: the command that trains it, the recipe's name last.
    """

    name: str
    repo: str | None = None
    revision: str | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trained_on: str = ""
    headline: str = ""
    build: str = ""

    @property
    def folder(self) -> Path:
        """The entry's folder in ``model_cards/``: its card, config and results."""
        return cards_folder() / self.name

    @property
    def bundled(self) -> bool:
        """Whether the weights come with the package, so that no network is needed."""
        return (self.folder / artifact.WEIGHTS).is_file()

    @property
    def not_built(self) -> str:
        """How to get the weights of an entry that is neither bundled nor published; else empty."""
        if self.bundled or (self.repo is not None and self.revision is not None):
            return ""
        return f"The weights of {self.name!r} are not published yet. Train it: `{self.build}`. Then load {self.run!r}."

    @property
    def run(self) -> str:
        """Where the model lies that ``build`` trains."""
        return f"runs/{self.build.split()[-1]}" if self.build else ""

    @property
    def size(self) -> int:
        """Bytes of all its files; 0 where the weights are not built yet."""
        return sum(int(file["size"]) for file in self.files.values())


def cards_folder() -> Path:
    """Give the folder of ``dendrite_zoo.model_cards``."""
    return Path(str(importlib.resources.files("dendrite_zoo.model_cards")))


def entries(folder: Path | None = None) -> dict[str, Entry]:
    """Read the registry.

    Args:
        folder: another ``model_cards`` than the package's.

    Example:
        >>> all(name == entry.name for name, entry in entries().items())
        True
    """
    known = json.loads(((folder or cards_folder()) / "registry.json").read_text(encoding="utf-8"))
    return {name: Entry(name=name, **values) for name, values in known.items()}


def entry(name: str) -> Entry:
    """Give one entry.

    Raises:
        ValueError: there is none of that name.
    """
    known = entries()
    if name not in known:
        meant = nearest(name, known) or f" Expected one of {', '.join(sorted(known))}, 'org/repo', or a folder."
        if name and os.path.isdir(name):
            meant = f" For the folder of that name write './{name}'."
        raise ValueError(f"There is no model {name[:200]!r} in the zoo.{meant} See all: dendrite-zoo list")
    return known[name]


def record(new: Entry, folder: Path | None = None) -> None:
    """Write one entry into the registry, the others as they were; whole or not at all."""
    folder = folder or cards_folder()
    known = {**entries(folder), new.name: new}
    plain = {name: {k: v for k, v in asdict(e).items() if k != "name"} for name, e in sorted(known.items())}
    write_json(folder / "registry.json", plain)


def pins(folder: Path) -> dict[str, dict[str, Any]]:
    """Give sha256 and size of what is in ``folder``, as an entry's ``files``; a card may be edited, and has no hash."""
    paths = [folder / name for name in (artifact.CONFIG, artifact.WEIGHTS, artifact.RESULTS)]
    return {p.name: {"sha256": artifact.sha256(p), "size": p.stat().st_size} for p in paths if p.is_file()}
