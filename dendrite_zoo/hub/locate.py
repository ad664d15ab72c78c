"""What a user calls a model: a zoo name, a repo on the Hub, or a folder; and the files it leads to."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dendrite_zoo.hub import artifact, registry
from dendrite_zoo.hub import config as configs

REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class Place:
    """The files of one model.

    Attributes:
        folder: where they lie; for a repo None.
        pins: path to sha256 and size, where the registry knows them.
        base: ``org/repo`` that models trained from this one name as their base.
    """

    name: str
    folder: Path
    pins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    base: str | None = None

    def __str__(self) -> str:
        return self.name

    def path(self, file: str) -> Path:
        """Give the path of a file that must be there."""
        path = self.folder / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{self} has no {file}; expected an artifact: {artifact.CONFIG} and {artifact.WEIGHTS}. "
                "Save the model there with save_pretrained, or name another folder, zoo name or 'org/repo'."
            )
        return path

    def pin(self, file: str) -> str | None:
        """Give the sha256 that a file must have, where it is known."""
        return self.pins[file]["sha256"] if file in self.pins else None

    def results(self) -> Any:
        """Give the result records beside the weights, or None."""
        path = self.folder / artifact.RESULTS
        return configs.parse_json(path.read_bytes(), str(path)) if path.is_file() else None

    def base_model(self) -> str | None:
        """Give the repo that a model trained from this one descends from."""
        return self.base


def locate(
    x: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Place:
    """Find the files of a model; see `HubModel.from_pretrained` for the arguments.

    A string without a slash is a zoo name; write ``./name`` for a folder of that name.

    Raises:
        FileNotFoundError: no such folder, or the zoo's entry is not published yet.
        ValueError: an unknown zoo name, or something that is neither.
    """
    text = os.fspath(x)
    if (
        isinstance(x, str)
        and not any(sign in text for sign in (os.sep, "/", "~"))
        and text not in (".", "..")
    ):
        return _zoo(text, revision)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"{text} is a folder; a revision ({revision!r}) belongs to a repo. Leave it out."
            )
        run = folder / "model"
        return Place(text, run if not (folder / artifact.CONFIG).is_file() and run.is_dir() else folder)
    match = REPO.fullmatch(text)
    if match is None:
        raise FileNotFoundError(
            f"{text!r} is no folder here; expected a folder, a zoo name (dendrite-zoo list), 'org/repo' or "
            "'org/repo@revision'. Check the path."
        )
    raise FileNotFoundError(f"{text}: loading from the Hub comes with the next change.")


def _zoo(name: str, revision: str | None) -> Place:
    entry = registry.entry(name)
    if entry.bundled and revision in (None, entry.revision):
        return Place(name, entry.folder, entry.files, entry.repo)
    raise FileNotFoundError(
        f"{name!r} is not published yet and does not come with the package; its weights are made by: "
        f"{entry.build}"
    )
