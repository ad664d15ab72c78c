"""A release: all files of a model in one commit on top of the head that was seen, and a tag.

A reader meets the old model or the new one, and two writers cannot overwrite each other. Sent again after any
failure, it goes on where it stopped: what the Hub has already is not sent twice.
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dendrite_zoo
from dendrite_zoo.hub import artifact
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.download import Download
from dendrite_zoo.hub.explain import AGAIN, explained, is_transport, status_of
from dendrite_zoo.hub.publish.merge import merge, own_text, read_card
from dendrite_zoo.hub.retry import Patience

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)


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

    @classmethod
    def of(cls, repo: str, files: Mapping[str, Path], card: str, **known: Any) -> "Release":
        """Describe the release of local files and a card; ``known`` are the attributes that follow."""
        sizes = {name: path.stat().st_size for name, path in files.items()}
        return cls(repo, {**sizes, artifact.CARD: len(card.encode())}, card, **known)

    @property
    def url(self) -> str:
        """Where people find it."""
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{endpoint}/{self.repo}" + (f"/tree/{self.commit}" if self.commit else "")


class RepoWriter:
    """The conversation with the Hub about a branch of one repo.

    Args:
        repo: ``org/name``.
        branch: made where missing.
        token: with write access; None for the client's own.
        title: of the commit; None for our own.
    """

    def __init__(self, repo: str, branch: str, token: str | None, title: str | None = None) -> None:
        self.repo, self.branch, self.token = repo, branch, token
        self.api, self.patience = client(token), Patience()
        self.title = title or f"Publish with {configs.LIBRARY_NAME} {dendrite_zoo.__version__}"

    def send(
        self, files: Mapping[str, Path], card: str, mine: str | None, private: bool | None, tag: str | None
    ) -> Release:
        """Bring a model to the repo, in one commit and with a tag.

        Args:
            files: path in the repo to the local file.
            card: the generated card.
            mine: the card in the model's folder, which a person may have edited.
            private: make it a private repo.
            tag: name of the release, or None for the next number.

        Raises:
            PermissionError: as `dendrite_zoo.hub.publish.upload.publish`, like the following.
            ConnectionError: the Hub could not be reached or kept failing.
            FileExistsError: somebody else published meanwhile, the tag is taken, or the repo is public.
        """
        self.patience = Patience(sum(path.stat().st_size for path in files.values()))
        what = self.repo
        try:
            self._prepare(private)
            commit, card, changed = self._commit(files, card, mine)
            what = f"{self.repo}: the model is committed as {commit}, but it has no tag"
            tag = self._tag(commit, tag)
        except Exception as error:
            if type(error).__module__ == "builtins" and status_of(error) is None and not is_transport(error):
                raise  # ours, said clearly already
            raise explained(error, what, self.token) from None
        return Release.of(self.repo, files, card, commit=commit, tag=tag, changed=changed)

    def _prepare(self, private: bool | None) -> None:
        """Make the repo and the branch where they are missing."""
        ask = partial(self.patience.ask, what=self.repo)
        ask(lambda: self.api.create_repo(self.repo, private=private, exist_ok=True))
        if private and not ask(lambda: self.api.model_info(self.repo)).private:
            remedy = "Nothing was sent. Make it private in its settings, choose another name, or leave --private out."
            raise FileExistsError(f"{self.repo} exists and is public; expected a private repo. {remedy}")
        if self.branch != "main":
            ask(lambda: self.api.create_branch(self.repo, branch=self.branch, exist_ok=True))

    def _commit(self, files: Mapping[str, Path], card: str, mine: str | None) -> tuple[str, str, bool]:
        """Bring the branch to hold these files; give the commit, the card as sent, and whether anything changed."""
        seen: list[dict[str, str | None]] = []  # the model on the Hub, as each attempt met it

        def attempt() -> tuple[str, str, bool]:
            head = self.api.model_info(self.repo, revision=self.branch, files_metadata=True)
            there = {s.rfilename: s.lfs.sha256 if s.lfs else s.blob_id for s in head.siblings or []}
            text = self._card(card, mine, str(head.sha), artifact.CARD in there)
            operations = _operations({**files, artifact.CARD: text.encode()}, there)
            if not operations:
                return str(head.sha), text, bool(seen)
            seen.append({name: there.get(name) for name in (artifact.CONFIG, artifact.WEIGHTS)})
            if seen[-1] != seen[0]:
                remedy = "nothing was overwritten. Look at theirs, then publish again to put yours on top."
                meanwhile = f"somebody else published a model there meanwhile (commit {head.sha})"
                raise FileExistsError(f"{self.repo}: {meanwhile}; {remedy}")
            commit = self.api.create_commit(
                self.repo, operations, commit_message=self.title, revision=self.branch, parent_commit=head.sha
            )
            return commit.oid, text, True

        # 409 and 412: the head has moved; the next attempt looks at what was done to it.
        return self.patience.ask(attempt, f"{self.repo}: commit", again=AGAIN | {409, 412})

    def _card(self, card: str, mine: str | None, head: str, exists: bool) -> str:
        """Bring the generated card into the one on the Hub, or into that of the folder where a person wrote there."""
        if not exists:
            return merge(mine, card)
        theirs = read_card(Download(self.repo, head, token=self.token).path(artifact.CARD))
        if own_text(mine) and not own_text(theirs):
            return merge(mine, merge(theirs, card))
        if own_text(mine) and own_text(mine) != own_text(theirs):
            logger.warning("%s: its card and the folder's both hold text of yours; the one on the Hub stays", self.repo)
        return merge(theirs, card)

    def _tag(self, commit: str, tag: str | None) -> str:
        """Name the release."""

        def attempt() -> str:
            tags = {ref.name: ref.target_commit for ref in self.api.list_repo_refs(self.repo).tags}
            name = tag or _next_tag(tags, commit)
            if tags.get(name, commit) != commit:
                remedy = f"the model is committed as {commit}. Publish again with another tag."
                raise FileExistsError(f"{self.repo}: tag {name!r} names commit {tags[name]} already; {remedy}")
            if name not in tags:
                self.api.create_tag(self.repo, tag=name, revision=commit)
            return name

        # 409: taken by another writer since
        return self.patience.ask(attempt, f"{self.repo}: tag", again=AGAIN | {409})


def client(token: str | None) -> "HfApi":
    """Give the Hub client, which says on whose behalf it asks."""
    from huggingface_hub import HfApi

    return HfApi(token=token, **configs.AGENT)


def _next_tag(tags: Mapping[str, str], commit: str) -> str:
    """The tag ``v1``, ``v2``, ... that names the commit already, or the next that is free."""
    numbers = {int(name[1:]): name for name in tags if re.fullmatch(r"v\d+", name)}
    named = [name for name in numbers.values() if tags[name] == commit]
    return named[-1] if named else f"v{max(numbers, default=0) + 1}"


def _operations(ours: Mapping[str, Path | bytes], there: Mapping[str, str | None]) -> list[Any]:
    """What a commit has to do so that the repo holds our files, and no results or picture of another model."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    changed = [name for name, content in ours.items() if not _is(content, there.get(name))]
    stale = [
        name
        for name in (artifact.RESULTS, artifact.PICTURE, artifact.SKILLS, artifact.PAGE)
        if name in there and name not in ours
    ]
    return [CommitOperationAdd(name, ours[name]) for name in changed] + [CommitOperationDelete(name) for name in stale]


def _is(content: Path | bytes, known: str | None) -> bool:
    """Say whether the Hub's hash of a file, LFS or git's, is this content's."""
    if isinstance(content, Path):
        return known is not None and artifact.has_hash(content, known)
    return known in (artifact.git_hash(content), hashlib.sha256(content).hexdigest())
