"""Files of a repo on the Hub, through the client's cache, each checked by its hash."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import MAX_BYTES
from dendrite_zoo.hub import artifact
from dendrite_zoo.hub.config import AGENT, MAX_CONFIG
from dendrite_zoo.hub.explain import explained, too_large
from dendrite_zoo.hub.retry import Patience

logger = logging.getLogger(__name__)

SHA = re.compile("[0-9a-f]{40}")
MOST_BYTES = {artifact.CONFIG: MAX_CONFIG, artifact.RESULTS: MAX_BYTES, artifact.CARD: artifact.MAX_CARD}
"""What a file of a stranger may take; of weights the config decides."""


@dataclass(frozen=True)
class Download:
    """A place on the Hub: one commit of one repo.

    All files come from the commit that ``config.json`` was found at, however the branch moves meanwhile. A
    file whose hash is wrong is thrown out of the cache and fetched once more. A full commit SHA makes no
    request once its files are cached. All files together are one conversation with the Hub, see `Patience`.

    Args:
        repo: ``org/name``.
        revision: branch, tag or commit.
        cache_dir: of the client; by default its own.
        token: as the client takes it.
        pins: path to sha256, as the registry knows them.
        zoo_name: what the user asked for, if that was a zoo name.
        force: fetch files that are cached once more.
        local: make no request, as in the client's offline mode.
    """

    repo: str
    revision: str
    cache_dir: str | Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    pins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    zoo_name: str | None = None
    force: bool = False
    local: bool = False
    patience: Patience = field(default_factory=Patience, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.zoo_name or self.repo}@{self.revision}"

    @property
    def offline(self) -> bool:
        """Whether nobody may be asked."""
        from huggingface_hub import is_offline_mode

        return self.local or is_offline_mode()

    @cached_property
    def commit(self) -> str:
        """The full SHA of the commit all files come from."""
        if SHA.fullmatch(self.revision):
            return self.revision
        # The client keeps a file under the commit it resolved the branch or tag to.
        return self._fetch(artifact.CONFIG, self.revision).parent.name

    def path(self, file: str, most: int | None = None) -> Path:
        """Give the path of a file that must be there, of ``most`` bytes.

        Raises:
            FileNotFoundError: no such repo, revision or file.
            PermissionError: the token is refused, or access is gated.
            ConnectionError: the Hub cannot be reached, or offline mode is on and the file is not cached.
            ValueError: what arrives, twice, is not what the Hub or the registry promises; or it is too large.
        """
        for attempt in (1, 2):
            path = self._fetch(file, self.commit, most)
            if self._is_whole(path, file):
                return path
            logger.warning("%s: %s does not have its promised hash (attempt %d of 2)", self, file, attempt)
            _discard(path)
        remedy = "It is not in the cache any more. Try again later; do not use the file from elsewhere."
        raise ValueError(f"{self}: {file} arrived twice with another hash than promised (registry or LFS). {remedy}")

    def find(self, file: str) -> Path | None:
        """Give the path of a file that may be there; its absence is remembered for a commit."""
        from huggingface_hub import try_to_load_from_cache

        known = try_to_load_from_cache(self.repo, file, cache_dir=self.cache_dir, revision=self.commit)
        if known is not None and not isinstance(known, str) and not self.force:  # the client remembers its absence
            return None
        try:
            return self.path(file)
        except FileNotFoundError:
            return None
        except ConnectionError:
            if self.offline:
                return None  # what was cached without it is served without it
            raise

    def _fetch(self, file: str, revision: str, most: int | None = None) -> Path:
        from huggingface_hub import hf_hub_download

        if self.force and self.offline:
            remedy = "Leave force_download= out, or local_files_only= and HF_HUB_OFFLINE."
            raise ConnectionError(f"{self}: {file}: offline mode is on, so it is not fetched once more. {remedy}")
        options: dict[str, Any] = {"revision": revision, "cache_dir": self.cache_dir, "token": self.token, **AGENT}
        options |= {"force_download": self.force, "local_files_only": self.local}
        options |= {"tqdm_class": self._progress_bar(file, most or MOST_BYTES.get(file))}
        try:
            # The client resumes broken downloads by itself, but gives up on some other broken answers at once.
            call = partial(hf_hub_download, self.repo, file, **options)
            return Path(self.patience.ask(call, f"{self}: {file}", broken=2))
        except Exception as error:
            raise explained(error, f"{self}: {file}", self.token) from None

    def _progress_bar(self, file: str, most: int | None) -> type:
        """The client's, which sees how much there is and how much has arrived."""
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

        patience = self.patience

        class Bar(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                if most is not None and (kwargs.get("total") or 0) > most:
                    raise too_large(file, most, kwargs["total"])
                super().__init__(*args, **kwargs)

            def update(self, n: float | None = 1) -> Any:
                patience.num_bytes += int(n or 0)
                return super().update(n)

        return Bar

    def _is_whole(self, path: Path, file: str) -> bool:
        if file in self.pins:
            return artifact.sha256(path) == self.pins[file]["sha256"]
        # The cache names a blob after its ETag: the LFS sha256, or git's hash of a small file.
        etag = Path(os.readlink(path)).name if path.is_symlink() else ""
        return artifact.has_hash(path, etag) if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", etag) else True


def _discard(path: Path) -> None:
    """Take a file out of the client's cache: the blob, and the link that leads to it."""
    if path.is_symlink():
        (path.parent / os.readlink(path)).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
