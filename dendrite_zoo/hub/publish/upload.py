"""Publishing a model: one function behind the command, the method and the callback."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from dendrite_zoo._core.checkpoints import damage
from dendrite_zoo._core.names import nearest_path
from dendrite_zoo.hub import artifact
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.explain import explained
from dendrite_zoo.hub.model import HubModel, build
from dendrite_zoo.hub.publish.card import Card
from dendrite_zoo.hub.publish.merge import merge, read_card
from dendrite_zoo.hub.publish.release import Release, RepoWriter, client
from dendrite_zoo.hub.reading import Origin
from dendrite_zoo.hub.resolve import REPO, check_repo, expanded, model_folder
from dendrite_zoo.hub.retry import Patience
from dendrite_zoo.hub.skeleton import compare, fill


def publish(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str = "main",
    tag: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
    commit_message: str | None = None,
) -> Release:
    """Publish a model to the Hub.

    Args:
        source: a run, an artifact's folder, where a person may have written a ``README.md``, or a Lightning checkpoint
            of a module with a ``model`` of ours.
        repo_id: ``org/name``; made where missing.
        private: make it a private repo; an existing public one is refused.
        revision: branch; made where missing.
        tag: name of the release; the next of ``v1``, ``v2``, ... by default.
        dry_run: send nothing, ask nobody; the `Release` has the card that would be sent.
        token: with write access; by default the one of ``hf auth login`` or ``HF_TOKEN``.
        commit_message: by default which version of this library published.

    Raises:
        FileNotFoundError: there is no model in ``source``.
        ValueError: the model there does not load, or ``repo_id`` is no name.
        PermissionError: the account may not write there.
        ConnectionError: the Hub could not be reached or kept failing; run it again.
        FileExistsError: somebody else published meanwhile, the tag is taken, or a public repo was to be private.
    """
    check_repo(repo_id)
    with opened(expanded(source)) as folder, tempfile.TemporaryDirectory() as drawn:
        with _silent("dendrite_zoo.models.adapters.gated"):  # whoever publishes need not give a backbone
            model = HubModel.from_pretrained(folder)  # what does not load is not published
        base = model.origin.base_model if model.origin is not None else ""
        source = repo_id if revision == "main" else f"{repo_id}@{revision}"
        header = configs.read(folder / artifact.CONFIG)
        card = Card(model, header, name=repo_id, source=source, base_model=base if base != repo_id else "")
        picture, page, skills = Path(drawn) / artifact.PICTURE, Path(drawn) / artifact.PAGE, folder / artifact.SKILLS
        text = card.text(picture=card.draw(picture), page=card.write_page(page), skills=skills.is_file())
        paths = [folder / name for name in (artifact.CONFIG, artifact.WEIGHTS)]
        paths += [folder / artifact.RESULTS] if model.results else []
        files = {path.name: path for path in (*paths, picture, page, skills) if path.is_file()}
        mine = read_card(folder / artifact.CARD)
        if dry_run:
            return Release.of(repo_id, files, merge(mine, text))
        return RepoWriter(repo_id, revision, token, commit_message).send(files, text, mine, private, tag)


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Pass over what a logger says."""
    logger = logging.getLogger(name)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def published(*, author: str | None = None, limit: int = 100, token: str | None = None) -> list[dict[str, Any]]:
    """List models of this library on the Hub, most downloaded first.

    Returns:
        Rows with ``repo``, ``task``, ``benchmarks``, ``downloads``, ``updated`` and ``private``.

    Raises:
        ConnectionError: the Hub cannot be reached.
    """
    wanted: dict[str, Any] = {"filter": configs.LIBRARY_NAME, "author": author, "limit": limit, "sort": "downloads"}
    what = "listing models"
    try:
        models = Patience().ask(lambda: list(client(token).list_models(**wanted)), what, attempts=3, broken=2)
    except Exception as error:
        raise explained(error, what, token) from None
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


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Path]:
    """Give the artifact's folder of a run, a folder, or a checkpoint."""
    if source.is_file():
        with tempfile.TemporaryDirectory() as saved:
            _from_checkpoint(source).save_pretrained(saved)
            yield Path(saved)
    elif (folder := model_folder(source)) is not None:
        yield folder
    else:
        files = f"a run, a folder with {artifact.CONFIG} and {artifact.WEIGHTS}, or a Lightning checkpoint"
        remedy = (not source.exists() and nearest_path(source)) or " Save it with save_pretrained first."
        raise FileNotFoundError(f"{source} holds no model; expected {files}.{remedy}")


def _from_checkpoint(path: Path) -> HubModel:
    """Build the model of a Lightning checkpoint: its config from the hyperparameters, its state under ``model.``."""
    remedy = "Save the model with save_pretrained, and publish that folder."
    if reason := damage(path):
        raise ValueError(f"Expected {path} to be a Lightning checkpoint, but got a damaged file ({reason}). {remedy}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises what its parts do
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(f"Expected {path} to be a Lightning checkpoint, but got {reason}. {remedy}") from None
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    arguments, state = parts.get("hyper_parameters"), parts.get("state_dict")
    config = arguments.get("model") if isinstance(arguments, dict) else None
    if not isinstance(config, Mapping) or not isinstance(state, Mapping):
        missing = "state_dict" if isinstance(config, Mapping) else "config of a model in hyper_parameters['model']"
        raise ValueError(f"{path} is no checkpoint of a model of this library: it has no {missing}. {remedy}")
    model = build(config, f"{path}: hyper_parameters['model']")
    named = {str(name).removeprefix("model."): t for name, t in state.items() if str(name).startswith("model.")}
    compare(cast(nn.Module, model).state_dict(), named, path)
    fill(cast(nn.Module, model), named, named)
    model.recall(parts, model.config, {})
    base = parts.get("base_model")
    model.origin = Origin(base if isinstance(base, str) and REPO.fullmatch(base) else None)
    return model
