"""The mixin that lets a model be saved, loaded and published by name."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from dendrite_zoo.hub import artifact
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.build import arguments_of, check_numbers, class_of, compare, fill, full_config, skeleton
from dendrite_zoo.hub.resolve import REPO, locate

if TYPE_CHECKING:
    from dendrite_zoo.hub.publish.release import Release

logger = logging.getLogger(__name__)

M = TypeVar("M", bound="HubModel")


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from, and which weights its results speak of.

    Attributes:
        name: as it was asked for, with the revision.
        repo: ``org/name`` on the Hub, or None.
        base_model: the repo that the loaded weights themselves were trained from, or None.
        fingerprint: of the weights as loaded.
        results: as loaded.
    """

    name: str
    repo: str | None
    base_model: str | None
    fingerprint: str
    results: Any


class HubModel:
    """Mixin for an ``nn.Module`` that lives as ``config.json`` and ``model.safetensors``.

    A class registers itself with `register_model` and sets ``self.config`` to its constructor's arguments, as
    JSON values. It must be constructible on the meta device, which is how a config is held against a
    file's tensors before memory is taken.

    Attributes:
        pipeline_tag: the Hub's name for what such a model does, such as ``"image-classification"``.
        card_template: what its card is made from.
        card_tags: under which the Hub lists it.
        card_task: what it was trained for, and ``card_metric``, how that is measured.
        config: the constructor's arguments.
        results: result records of these weights, or None; written with them.
        origin: where it was loaded from, or None.

    Example:
        >>> import tempfile
        >>> from dendrite_zoo.hub import register_model
        >>> @register_model("doctest-linear")
        ... class Linear(HubModel, nn.Linear):
        ...     def __init__(self, in_features: int, out_features: int):
        ...         super().__init__(in_features, out_features)
        ...         self.config = {"in_features": in_features, "out_features": out_features}
        >>> model = Linear(3, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     again = Linear.from_pretrained(folder)
        >>> bool((again.weight == model.weight).all())
        True
    """

    model_type: ClassVar[str]
    pipeline_tag: ClassVar[str | None] = None
    card_template: ClassVar[str] = "classifier.md.j2"
    card_tags: ClassVar[tuple[str, ...]] = ("continual-learning", "active-dendrites")
    card_task: ClassVar[str] = "Continual learning"
    card_metric: ClassVar[str] = "accuracy"
    config: dict[str, Any]
    results: Any = None
    origin: Origin | None = None

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Refuse arguments that make no model of this class, before anything is allocated; to be overridden.

        Raises:
            ValueError: naming the argument, what was expected, and what to do.
        """

    @classmethod
    def usage(cls, config: Mapping[str, Any]) -> str:
        """Give lines of Python for the card, to follow ``model = dendrite_zoo.load(...)``; to be overridden."""
        return "print(model)"

    @classmethod
    def limits(cls, config: Mapping[str, Any]) -> list[str]:
        """Give sentences for the card on what the model cannot do; to be overridden."""
        return []

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Change a loaded model as ``from_pretrained(x, **changes)`` asks; to be overridden.

        Returns:
            The new constructor arguments; the new state, in the new shapes, without the tensors that are to
            stay as a new model has them; and the names of all tensors that start anew, in whole or in part.

        Raises:
            TypeError: for a change this class does not know.
        """
        raise TypeError(
            f"{cls.__name__}.from_pretrained does not know {sorted(changes)}; it takes no changes. Leave them out, or "
            "build a new model and copy what you need."
        )

    @classmethod
    def to_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the tensors that a file needs to hold; to be overridden by a class that can compute some of them again.

        Args:
            config: the constructor's arguments.
            state: the model's state dict.
        """
        return dict(state)

    @classmethod
    def from_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the whole state dict of what `to_file` kept, equal to the bit; to be overridden together with it.

        It is called after the config was checked, with the tensors of a file that may lack any of them. What it adds
        has no more than `MAX_NUMBERS` numbers together.
        """
        return dict(state)

    @classmethod
    def from_pretrained(
        cls: type[M],
        x: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        **changes: Any,
    ) -> M:
        """Load a model, all of it or an error, in eval mode and on the CPU.

        Called on `HubModel` itself, the class comes from the config.

        Args:
            x: a zoo name, ``org/repo``, ``org/repo@revision``, or a folder (an artifact or a run).
            revision: branch, tag or commit of the repo.
            cache_dir: where downloads are kept; the Hub client's own cache by default.
            token: for private repos; the Hub client's own by default.
            **changes: what is to differ from the saved model, such as ``num_classes=`` or ``max_tasks=``,
                where the class knows how; what starts anew by it is logged.

        Raises:
            FileNotFoundError: the folder, or a file in it, is missing.
            ValueError: the name is unknown, or a file is not what it should be.
            TypeError: the class does not know how to make a change.
        """
        place = locate(x, revision=revision, cache_dir=cache_dir, token=token)
        loaded = configs.read(place.path(artifact.CONFIG))
        model_class = class_of(loaded)
        if not issubclass(model_class, cls):
            raise ValueError(
                f"{place} is a {loaded['model_type']!r}; expected a {cls.__name__}. Load it with "
                f"{model_class.__name__}.from_pretrained or dendrite_zoo.load."
            )
        state, marks = artifact.read_weights(place.path(artifact.WEIGHTS))
        stored = marks["fingerprint"]
        if loaded["format_version"] != configs.FORMAT_VERSION:
            loaded, state = configs.migrate(loaded, state)
            stored = artifact.fingerprint(state)
        arguments = arguments_of(loaded)
        expected = skeleton(model_class, arguments)
        check_numbers(model_class, {name: tensor for name, tensor in expected.items() if name not in state})
        state = model_class.from_file(arguments, state)
        compare(expected, state, place)
        if changes:
            arguments, state, fresh = model_class.adapt(arguments, state, changes)
            compare(skeleton(model_class, arguments), state, place, absent=fresh)
            logger.warning("%s: %s given; started anew: %s", place, sorted(changes), ", ".join(fresh) or "nothing")
        # Loading draws no random numbers from the user's generator, unless something starts anew.
        with contextlib.nullcontext() if changes else torch.random.fork_rng(devices=[]):
            model = model_class(**arguments)
        fill(cast(nn.Module, model), state)
        found = place.find(artifact.RESULTS)
        results = None if found is None else configs.parse_json(found.read_bytes(), str(found))
        model.results = None if changes else results
        unchanged = "" if changes else stored
        base = str(marks.get("base_model", ""))
        model.origin = Origin(str(place), place.repo, base if REPO.fullmatch(base) else None, unchanged, results)
        cast(nn.Module, model).eval()
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, results: Any = None, card: str | None = None) -> None:
        """Write ``config.json``, ``model.safetensors`` and a card, with results and picture where known; or nothing.

        Results that the model was loaded with are written again as long as its weights are unchanged.

        Args:
            folder: made where missing; an earlier artifact in it is replaced, a person's text in its card kept.
            results: result records; by default the model's own.
            card: text of the README.md; by default made from what is known of the model.

        Raises:
            OSError: the disk is full or the folder cannot be written; an earlier artifact is untouched.
        """
        self._save(Path(folder), results, card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        results: Any = None,
        private: bool | None = None,
        revision: str = "main",
        tag: str | None = None,
        token: str | None = None,
    ) -> Release:
        """Publish to the Hub, as `dendrite_zoo.hub.publish.upload` does, which has the arguments and errors.

        Args:
            repo_id: ``org/name``.
            results: result records; by default the model's own.
            private: make a private repo of it.
            revision: branch.
            tag: name of the release; the next of ``v1``, ``v2``, ... by default.
            token: with write access; by default the one of ``hf auth login`` or ``HF_TOKEN``.
        """
        from dendrite_zoo.hub.publish.upload import publish

        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), results, card="", target=repo_id)  # publish makes the card
            return publish(folder, repo_id, private=private, revision=revision, tag=tag, token=token)

    def _save(self, folder: Path, results: Any, card: str | None, target: str | None = None) -> None:
        from dendrite_zoo.hub.publish.card import describe

        config, origin = full_config(self), self.origin
        state = self.to_file(arguments_of(config), cast(nn.Module, self).state_dict())
        unchanged = origin is not None and origin.fingerprint == artifact.fingerprint(state)
        if results is None:
            stale = origin is not None and self.results == origin.results and not unchanged
            results = None if stale else self.results
        base = None
        if origin is not None:
            itself = unchanged or origin.repo == target
            base = origin.base_model if itself else origin.repo or origin.base_model

        def add_card(waiting: Path) -> None:
            if card is not None:
                (waiting / artifact.CARD).write_text(card, encoding="utf-8")
            else:
                describe(waiting, config, state, results=results, base_model=base, place=folder)

        artifact.write(folder, config, state, results=results, base_model=base, describe=add_card)
