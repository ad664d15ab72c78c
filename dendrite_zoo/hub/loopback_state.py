"""What a Hub on one's own machine knows: users, repos with their commits, and the objects that they share."""

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dendrite_zoo.hub.artifact import git_hash

LARGE = (".safetensors", ".png", ".parquet")  # what is kept as LFS objects
IDENTITY = "loopback_identity"  # of a CI job that every repo has as its trusted publisher
Files = dict[str, bytes]


def entry(path: str, data: bytes) -> dict[str, Any]:
    """Describe a file as the Hub's listings do; ``oid`` is git's hash, of a large file's pointer."""
    sha, size = hashlib.sha256(data).hexdigest(), len(data)
    lfs = {"lfs": {"oid": sha, "sha256": sha, "size": size, "pointerSize": 130}} if path.endswith(LARGE) else {}
    oid = git_hash(repr(lfs).encode() if lfs else data)
    return {"type": "file", "path": path, "rfilename": path, "oid": oid, "blobId": oid, "size": size, **lfs}


class Fault(NamedTuple):
    """How a request fails."""

    how: int | str | None = None
    retry_after: int | None = None


@dataclass
class Repo:
    """Commits, each a whole set of files, and the branches and tags that lead to them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, files: Files, title: str, branch: str = "main") -> str:
        """Commit on a branch, and give the commit's SHA."""
        names = sorted((path, entry(path, data)["oid"]) for path, data in files.items())
        sha = hashlib.sha1(repr((self.branches.get(branch), title, names)).encode()).hexdigest()
        self.commits[sha], self.titles[sha], self.branches[branch] = files, title, sha
        return sha


class State:
    """All that a loopback Hub holds in memory, and the faults it was asked for.

    Args:
        users: token to the namespaces it may write to, the user's own first.
        mirrors: by kind, ``"datasets"`` or ``"models"``, a folder laid out as ``<org>/<name>/<path>`` to serve.
        part_size: larger uploads have several parts.
    """

    url = storage_url = ""  # of the two servers

    def __init__(self, users: Mapping[str, Iterable[str]], mirrors: Mapping[str, Path | None], part_size: int) -> None:
        self.users = {token: tuple(names) for token, names in users.items()}
        self.part_size = part_size
        self.repos: dict[str, Repo] = {}  # "models/org/name"
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[tuple[str, Fault]] = []
        self.lock = threading.RLock()
        for kind, mirror in mirrors.items():
            for folder in sorted(path for path in mirror.glob("*/*") if path.is_dir()) if mirror else []:
                self.add_mirror(kind, folder)

    def add_mirror(self, kind: str, folder: Path) -> None:
        """Serve the files of a folder ``<org>/<name>`` as a repo of a kind, ``"datasets"`` or ``"models"``."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.objects |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        self.repos[f"{kind}/{folder.parent.name}/{folder.name}"] = repo = Repo()
        repo.add(files, "mirror")

    def fail(self, where: str, how: int | str, times: int = 1, *, retry_after: int | None = None) -> None:
        """Fail the next requests of one kind.

        Args:
            where: a request of `dendrite_zoo.hub.loopback_routes`, such as ``"commit"``, ``"resolve"``, ``"storage"``
                or ``"upload"``.
            how: a status; ``"drop"`` the connection; ``"cut"`` it in the middle of the answer; ``"lose"`` the
                answer after doing what was asked; ``"corrupt"`` a byte of it; ``"hang"``; or send it byte by byte, all
                of it (``"slow"``) or what follows the headers (``"slow body"``).
            times: how many requests fail.
            retry_after: seconds that an answer with a status asks to wait.
        """
        self.faults += [(where, Fault(how, retry_after))] * times

    def next_fault(self, where: str) -> Fault:
        """Take the next fault that was asked for of one kind of request."""
        with self.lock:
            fault = next((fault for place, fault in self.faults if place == where), None)
            if fault is not None:
                self.faults.remove((where, fault))
        return fault or Fault()
