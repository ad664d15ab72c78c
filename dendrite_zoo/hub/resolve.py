"""What a user calls a model: a zoo name, a repo on the Hub, or a folder; and the files it leads to."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from dendrite_zoo._core.names import nearest, nearest_path
from dendrite_zoo.hub import artifact, registry
from dendrite_zoo.hub.download import Download
from dendrite_zoo.hub.explain import too_large

REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[^@\s]+))?")

logger = logging.getLogger(__name__)

MAX_NAME, MAX_TEXT = 96, 256  # characters of a repo as the Hub has it, and with its revision
EXPECTED = "Expected a folder, a zoo name (dendrite-zoo list), 'org/repo' or 'org/repo@revision'"


def check_repo(repo_id: str) -> None:
    """Raise a ValueError where it is no ``org/name``."""
    if REPO.fullmatch(repo_id) is None or "@" in repo_id or len(repo_id) > MAX_NAME:
        example = f"as 'org/name', such as 'you/permuted-mnist-10', of at most {MAX_NAME} characters"
        raise ValueError(f"expected a repo {example}, but got {repo_id[:200]!r}.")


@dataclass(frozen=True)
class Folder:
    """A place on this machine.

    Attributes:
        folder: with config and weights.
        name: as the user called it.
        pins: file to its sha256, as the registry knows them.
        repo: ``org/name`` of the same model on the Hub, which a model trained from it names as its base; else None.
    """

    folder: Path
    name: str
    pins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repo: str | None = None

    def __str__(self) -> str:
        return self.name

    def path(self, file: str, most: int | None = None) -> Path:
        """Give the path of a file that must be there, of ``most`` bytes."""
        path = self.folder / file
        if not path.is_file():
            remedy = "Save the model there with save_pretrained, or name another folder, a zoo name or 'org/repo'."
            raise FileNotFoundError(f"{self} has no {file}; expected it there, nothing else is opened. {remedy}")
        if most is not None and path.stat().st_size > most:
            raise too_large(str(path), most, path.stat().st_size)
        if file in self.pins and (found := artifact.sha256(path)) != (expected := self.pins[file]["sha256"]):
            raise ValueError(f"{path} has sha256 {found}; expected {expected}. Install the package again.")
        return path

    def find(self, file: str) -> Path | None:
        """Give the path of a file that may be there."""
        return self.path(file) if (self.folder / file).is_file() else None


StrPath: TypeAlias = str | os.PathLike[str]
Place: TypeAlias = Folder | Download
"""Where the files of one model are: ``path(file)`` and ``find(file)`` give them, checked against what is known."""


def resolve(
    x: StrPath,
    *,
    revision: str | None = None,
    cache_dir: StrPath | None = None,
    token: str | bool | None = None,
    force: bool = False,
    local: bool = False,
) -> Place:
    """Find the files of a model; see `HubModel.from_pretrained` for the arguments.

    A string without a slash is a zoo name, else a model's folder of that name; ``./name`` is always a folder. Where
    there are both, the zoo's is found, with a warning; so is a repo where there is a folder of its first name.

    Raises:
        FileNotFoundError: no such folder, or the zoo's entry is not built.
        TypeError: neither a string nor a path.
        ValueError: an unknown zoo name, or something that is neither.
    """
    if not isinstance(x, str | os.PathLike):
        raise TypeError(f"{EXPECTED}, but got {x!r}.")
    text, cache = os.fspath(x), None if cache_dir is None else Path(cache_dir)
    download = partial(Download, cache_dir=cache, token=token, force=force, local=local)
    if isinstance(x, str) and _is_of_zoo(text):
        return _entry(registry.entry(text), revision, download)
    folder, match = expanded(text), REPO.fullmatch(text) if len(text) <= MAX_TEXT else None
    if os.path.isdir(folder):  # of a name that no file can have it is False, where Path.is_dir raises an error
        if revision is not None:
            raise ValueError(f"{text} is a folder; a revision ({revision!r}) belongs to a repo. Leave it out.")
        return Folder(model_folder(folder) or folder, text)
    if match is None:
        raise _missing(folder, text)
    if revision is not None and match["revision"] not in (None, revision):
        raise ValueError(f"{text!r} has a revision besides revision={revision!r}; expected one of the two.")
    if os.path.isdir(folder.parent):
        logger.warning("There is no folder %s, so this is a repo of the Hub.%s", text, nearest_path(folder))
    return download(match["repo"], revision or match["revision"] or "main")


def _is_of_zoo(text: str) -> bool:
    """Whether a name without a slash is meant to be one of the zoo, and no model's folder here."""
    if set(text) & {os.sep, "/", "~"} or text in (".", ".."):
        return False
    is_known, is_here = text in registry.entries(), os.path.isdir(text) and model_folder(Path(text)) is not None
    if is_known and is_here:
        logger.warning("%r is of the zoo, and also a folder here: for the folder write './%s'.", text, text)
    return is_known or not is_here


def expanded(path: StrPath) -> Path:
    """Give a path with the user's own folder for ``~``; where there is no such user it stays as it is."""
    return Path(os.path.expanduser(path))


def _missing(folder: Path, name: str) -> FileNotFoundError:
    if os.path.isfile(folder):
        remedy = f"Give the folder that it is in: {folder.parent}"
        if folder.suffix == ".ckpt":
            remedy = "Load a checkpoint by its module: ContinualClassifier.load_from_checkpoint(path).model"
        return FileNotFoundError(f"{name!r} is a file. {EXPECTED}. {remedy}")
    beside = [place.name for place in folder.parent.iterdir()] if os.path.isdir(folder.parent) else []
    remedy = nearest(folder.name, beside) or " Check the path."
    if found := re.match(r"https?://[^/]+/([\w.-]+/[\w.-]+)(?:/tree/([\w.-]+))?/?$", name):
        remedy = f" Of an address give what names the repo: '{found[1]}{'@' + found[2] if found[2] else ''}'."
    return FileNotFoundError(f"{name[:200]!r} is no folder here. {EXPECTED}.{remedy}")


def model_folder(folder: Path) -> Path | None:
    """Give the folder of the artifact in ``folder``: itself, or ``model/`` of a run; None where there is none."""
    return next((place for place in (folder, folder / "model") if (place / artifact.CONFIG).is_file()), None)


def _entry(entry: registry.Entry, revision: str | None, download: Callable[..., Download]) -> Place:
    pinned = revision in (None, entry.revision)
    if entry.bundled and pinned:
        return Folder(entry.folder, entry.name, entry.files, entry.repo)
    if entry.repo is None or entry.revision is None:
        raise FileNotFoundError(entry.not_built)
    files = entry.files if pinned else {}
    return download(entry.repo, revision or entry.revision, pins=files, zoo_name=entry.name)
