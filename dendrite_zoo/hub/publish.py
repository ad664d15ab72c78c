"""Publishing a model: one function behind the command, the method and the callback.

All files of a release go into one commit on top of the head that was seen, so a reader meets the old model or
the new one, and two writers cannot overwrite each other. Run again after any failure, it goes on where it
stopped: what the Hub has already is not sent twice.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

import dendrite_zoo
from dendrite_zoo.hub import artifact, registry
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.card import Card, merge, own_text
from dendrite_zoo.hub.download import Download
from dendrite_zoo.hub.locate import REPO
from dendrite_zoo.hub.mixin import HubModel, build
from dendrite_zoo.hub.retry import AGAIN, ATTEMPTS, WAIT, explained, is_transport, retried, status_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

SILENCE = 120.0  # seconds without an answer after which a request is given up and tried again


@dataclass(frozen=True)
class Release:
    """What was published, or would be.

    Attributes:
        repo: ``org/name``.
        files: path to size in bytes.
        card: text of the README.md.
        commit: full SHA that holds the release; None after a dry run.
        tag: name of the release; None after a dry run.
        changed: whether the Hub did not have it already.
    """

    repo: str
    files: Mapping[str, int]
    card: str = field(repr=False)
    commit: str | None = None
    tag: str | None = None
    changed: bool = True

    @property
    def url(self) -> str:
        """Where people find it."""
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{endpoint}/{self.repo}" + (f"/tree/{self.commit}" if self.commit else "")


def publish(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str = "main",
    tag: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
) -> Release:
    """Publish a model to the Hub.

    Args:
        source: a run, an artifact's folder, or a Lightning checkpoint of a module with a ``model`` of ours.
        repo_id: ``org/name``; made where missing.
        private: make it a private repo; an existing public one is refused.
        revision: branch; made where missing.
        tag: name of the release; the next of ``v1``, ``v2``, ... by default.
        dry_run: send nothing, ask nobody.
        token: with write access; by default the one of ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        FileNotFoundError: there is no model in ``source``.
        ValueError: the model there does not load, or ``repo_id`` is no name.
        PermissionError: the account may not write there.
        ConnectionError: the Hub could not be reached or kept failing; run it again.
        FileExistsError: somebody else published meanwhile, the tag is taken, or a public repo was to be private.
    """
    if REPO.fullmatch(repo_id) is None or "@" in repo_id:
        raise ValueError(f"repo {repo_id!r}; expected 'org/name', such as 'you/permuted-mnist-10'.")
    with _artifact(Path(source).expanduser()) as folder:
        model = HubModel.from_pretrained(folder)  # what does not load is not published
        origin = model.origin
        base_model = origin.base_model if origin is not None else None
        card = Card(
            configs.read(folder / artifact.CONFIG),
            cast(nn.Module, model).state_dict(),
            results=model.results,
            name=repo_id,
            source=repo_id if revision == "main" else f"{repo_id}@{revision}",
            base_model=base_model if base_model != repo_id else None,
            model_class=type(model),
        )
        with tempfile.TemporaryDirectory() as drawn:
            picture = Path(drawn) / artifact.PICTURE
            text = card.text(picture=card.draw(picture))
            paths = [folder / name for name in (artifact.CONFIG, artifact.WEIGHTS, artifact.RESULTS)]
            files = {path.name: path for path in (*paths, picture) if path.is_file()}
            beside = folder / artifact.CARD
            mine = beside.read_text(encoding="utf-8") if beside.is_file() else None
            if dry_run:
                sizes = {name: path.stat().st_size for name, path in files.items()}
                text = merge(mine, text)
                return Release(repo_id, {**sizes, artifact.CARD: len(text.encode())}, text)
            return _Publisher(repo_id, revision, token).send(files, text, mine, private, tag)


def publish_all(
    namespace: str,
    *,
    private: bool | None = None,
    dry_run: bool = False,
    token: str | None = None,
    folder: Path | None = None,
) -> Iterator[tuple[registry.Entry, Release | None]]:
    """Publish every entry of ``model_cards/``, and write commit and sha256s into the registry after each.

    May be interrupted and run again: an entry that is published with the same content is left as it is.

    Args:
        namespace: the organisation or user.
        private: as for `publish`, like the following.
        dry_run: send nothing, write nothing.
        token: with write access.
        folder: another ``model_cards`` than the package's.

    Yields:
        The entry as it now stands in the registry, and its release; None where its weights are not there, which
        ``entry.build`` makes.
    """
    shelf = folder or registry.cards_folder()
    for entry in registry.entries(shelf).values():
        place = shelf / entry.name
        if not (place / artifact.WEIGHTS).is_file():
            yield entry, None
            continue
        repo = f"{namespace}/{entry.name}"
        release = publish(place, repo, private=private, dry_run=dry_run, token=token)
        kept = entry.repo == repo and entry.revision is not None and not release.changed
        if not dry_run and not kept:
            entry = replace(entry, repo=repo, revision=release.commit, files=registry.pins(place))
            registry.record(entry, shelf)
        yield entry, release


def published(*, author: str | None = None, limit: int = 100, token: str | None = None) -> list[dict[str, Any]]:
    """List models of this library on the Hub, most downloaded first.

    Returns:
        Rows with ``repo``, ``task``, ``benchmarks``, ``downloads``, ``updated`` and ``private``.

    Raises:
        ConnectionError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name=configs.LIBRARY_NAME, library_version=dendrite_zoo.__version__)
    wanted = {"filter": configs.LIBRARY_NAME, "author": author, "limit": limit, "sort": "downloads"}
    try:
        models = retried(lambda: list(api.list_models(**wanted)), "listing models")  # type: ignore[arg-type]
    except Exception as error:
        raise explained(error, "listing models", token) from None
    known = {configs.LIBRARY_NAME, "continual-learning", "active-dendrites", "safetensors"}
    return [
        {
            "repo": model.id,
            "task": model.pipeline_tag,
            "benchmarks": [t for t in model.tags or () if t not in known and ":" not in t and t != model.pipeline_tag],
            "downloads": model.downloads or 0,
            "updated": model.last_modified,
            "private": bool(model.private),
        }
        for model in models
    ]


class _Publisher:
    """The conversation with the Hub about one repo."""

    def __init__(self, repo: str, branch: str, token: str | None) -> None:
        from huggingface_hub import HfApi

        self.repo, self.branch, self.token = repo, branch, token
        self.api: HfApi = HfApi(
            token=token, library_name=configs.LIBRARY_NAME, library_version=dendrite_zoo.__version__
        )

    def send(
        self, files: Mapping[str, Path], card: str, mine: str | None, private: bool | None, tag: str | None
    ) -> Release:
        try:
            with _patience():
                self._prepare(private)
                commit, card, changed = self._commit(files, card, mine)
                tag = self._tag(commit, tag)
        except Exception as error:
            if type(error).__module__ == "builtins" and status_of(error) is None and not is_transport(error):
                raise  # ours, said clearly already
            raise explained(error, self.repo, self.token) from None
        sizes = {name: path.stat().st_size for name, path in files.items()}
        return Release(self.repo, {**sizes, artifact.CARD: len(card.encode())}, card, commit, tag, changed)

    def _prepare(self, private: bool | None) -> None:
        """Make the repo and the branch where they are missing."""
        retried(lambda: self.api.create_repo(self.repo, private=private, exist_ok=True), f"{self.repo}: making it")
        if private and not retried(lambda: self.api.model_info(self.repo), self.repo).private:
            raise FileExistsError(
                f"{self.repo} exists and is public; expected a private repo. Make it private in its settings, choose "
                "another name, or publish without --private. Nothing was sent."
            )
        if self.branch != "main":
            retried(lambda: self.api.create_branch(self.repo, branch=self.branch, exist_ok=True), self.repo)

    def _commit(self, files: Mapping[str, Path], card: str, mine: str | None) -> tuple[str, str, bool]:
        """Bring the branch to hold these files; give the commit, the card as sent, and whether anything changed."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        seen: dict[str, str | None] | None = None
        for attempt in range(1, ATTEMPTS + 1):
            head = retried(lambda: self.api.model_info(self.repo, revision=self.branch, files_metadata=True), self.repo)
            there = {s.rfilename: s.lfs.sha256 if s.lfs else s.blob_id for s in head.siblings or []}
            text = self._card(card, mine, str(head.sha), artifact.CARD in there)
            ours: dict[str, Path | bytes] = {**files, artifact.CARD: text.encode()}
            changed = {name: content for name, content in ours.items() if not _is(content, there.get(name))}
            stale = [name for name in (artifact.RESULTS, artifact.PICTURE) if name in there and name not in ours]
            if not changed and not stale:
                return str(head.sha), text, attempt > 1
            model = {name: there.get(name, "") for name in (artifact.CONFIG, artifact.WEIGHTS)}
            if seen not in (None, model):
                raise FileExistsError(
                    f"{self.repo}: somebody else published a model there meanwhile (commit {head.sha}); nothing was "
                    "overwritten. Look at theirs, then publish again to put yours on top."
                )
            seen = model
            operations = [CommitOperationAdd(name, content) for name, content in changed.items()]
            removals = [CommitOperationDelete(name) for name in stale]
            try:
                commit = self.api.create_commit(
                    self.repo,
                    [*operations, *removals],
                    commit_message=f"Publish with {configs.LIBRARY_NAME} {dendrite_zoo.__version__}",
                    revision=self.branch,
                    parent_commit=head.sha,
                )
                return commit.oid, text, True
            except Exception as error:
                # 409 and 412: the head has moved; the next round looks at what was done to it.
                again = status_of(error) in (*AGAIN, 409, 412) or is_transport(error)
                if not again or attempt == ATTEMPTS:
                    raise
                what = f"HTTP {status_of(error)}" if status_of(error) else type(error).__name__
                logger.warning("%s: commit: %s; attempt %d of %d", self.repo, what, attempt + 1, ATTEMPTS)
                time.sleep(WAIT * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _card(self, card: str, mine: str | None, head: str, exists: bool) -> str:
        """Bring the generated card into the one on the Hub, or into that of the folder where a person wrote there."""
        if not exists:
            return merge(mine, card)
        path = Download(self.repo, head, token=self.token).path(artifact.CARD)
        theirs = path.read_text(encoding="utf-8")
        if own_text(mine) and not own_text(theirs):
            return merge(mine, merge(theirs, card))
        if own_text(mine) and own_text(mine) != own_text(theirs):
            logger.warning(
                "%s: both its card and the one in the folder hold text of yours; the one on the Hub stays", self.repo
            )
        return merge(theirs, card)

    def _tag(self, commit: str, tag: str | None) -> str:
        """Name the release."""
        while True:
            refs = retried(lambda: self.api.list_repo_refs(self.repo), self.repo)
            tags = {ref.name: ref.target_commit for ref in refs.tags}
            if tag is not None and tags.get(tag, commit) != commit:
                raise FileExistsError(
                    f"{self.repo}: tag {tag!r} names commit {tags[tag]} already; the model is committed as {commit}. "
                    "Publish again with another tag."
                )
            numbers = {int(name[1:]): name for name in tags if name[:1] == "v" and name[1:].isdigit()}
            mine = [name for name in numbers.values() if tags[name] == commit]
            if tag in tags or (tag is None and mine):
                return tag or mine[-1]
            name = tag or f"v{max(numbers, default=0) + 1}"
            name_it = functools.partial(self.api.create_tag, self.repo, tag=name, revision=commit)
            try:
                retried(name_it, self.repo)
                return name
            except Exception as error:
                if status_of(error) != 409:  # taken by another writer since: look again
                    raise


def _is(content: Path | bytes, known: str | None) -> bool:
    """Say whether the Hub's hash of a file, LFS or git's, is this content's."""
    if known is None:
        return False
    if isinstance(content, Path) and len(known) == 64:
        return artifact.sha256(content) == known
    data = content.read_bytes() if isinstance(content, Path) else content
    return known in (
        hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        hashlib.sha256(data).hexdigest(),
    )


@contextlib.contextmanager
def _artifact(source: Path) -> Iterator[Path]:
    """Give the artifact's folder of a run, a folder, or a checkpoint."""
    if source.is_file():
        with tempfile.TemporaryDirectory() as folder:
            _from_checkpoint(source).save_pretrained(folder)
            yield Path(folder)
    elif (source / artifact.CONFIG).is_file():
        yield source
    elif (source / "model" / artifact.CONFIG).is_file():
        yield source / "model"
    else:
        raise FileNotFoundError(
            f"{source} holds no model; expected a run (with model/), a folder with {artifact.CONFIG} and "
            f"{artifact.WEIGHTS}, or a Lightning checkpoint. Save the model with save_pretrained first."
        )


def _from_checkpoint(path: Path) -> HubModel:
    """Build the model of a Lightning checkpoint: its config from the hyperparameters, its state under ``model.``."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        config = checkpoint["hyper_parameters"]["model"]
        state = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
        model = build(config)
    except Exception as error:
        raise ValueError(
            f"{path} is no checkpoint of a model of this library ({type(error).__name__}: {error}); expected one "
            "that holds the model's config. Save the model with save_pretrained and publish that folder."
        ) from None
    cast(nn.Module, model).load_state_dict(state, strict=True)
    return model


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up on a server that does not answer: the client's own sessions wait for ever."""
    from huggingface_hub import get_session

    session = get_session()
    before, session.timeout = session.timeout, SILENCE
    try:
        yield
    finally:
        session.timeout = before
