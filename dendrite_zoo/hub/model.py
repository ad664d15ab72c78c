"""The mixin that lets a model be saved, loaded and published by name, and the table of model types."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from dendrite_zoo._core.finite import unusable_parameter
from dendrite_zoo._core.names import refuse_unknown_names
from dendrite_zoo.hub import artifact
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.arguments import check_arguments, plain
from dendrite_zoo.hub.marks import Marked
from dendrite_zoo.hub.reading import Origin, migrated, read
from dendrite_zoo.hub.resolve import expanded, resolve
from dendrite_zoo.hub.results import usable_results
from dendrite_zoo.hub.skeleton import check_numbers, compare, fill, skeleton

if TYPE_CHECKING:
    from dendrite_zoo.hub.publish.release import Release

logger = logging.getLogger(__name__)

MODEL_TYPES: dict[str, type[HubModel]] = {}
"""``model_type`` of a config to the class it stands for."""

M = TypeVar("M", bound="HubModel")


class HubModel(Marked):
    """Mixin for an ``nn.Module`` that lives as ``config.json`` and ``model.safetensors``.

    A class registers itself with `register_model` and sets ``self.config`` to all its constructor's arguments, as
    JSON values. It must be constructible on the meta device, which is how a config is compared with a file's tensors
    before memory is taken; wrong arguments are refused there, by a ValueError. What its card says is chosen by its
    ``model_type`` when it is published; see `dendrite_zoo.hub.publish.kinds`.

    Attributes:
        changeable: the arguments that `from_pretrained` may change.
        config: the constructor's arguments, all of them.
        built_on: ``org/name`` of a model that this one was made on, for its card; or empty.
        results: a list of result records of these weights, or None; written with them.
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
    changeable: ClassVar[tuple[str, ...]] = ()
    config: dict[str, Any]
    built_on: str = ""
    results: Any = None
    origin: Origin | None = None

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Change a loaded model as ``from_pretrained(x, **changes)`` asks; to be overridden with `changeable`.

        Returns:
            The new constructor arguments; the new state, in the new shapes, without the tensors that are to
            stay as a new model has them; and the names of all tensors that start anew, in whole or in part.
        """
        raise NotImplementedError

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

        It is called after the config was checked, with the tensors of a file that may lack any of them.
        """
        return dict(state)

    @classmethod
    def blank(cls: type[M], config: Mapping[str, Any]) -> M:
        """Build a model for a state that follows; to be overridden where the constructor would compute that in vain."""
        return cls(**config)

    def complete(self, backbone: nn.Module | None) -> None:
        """Put in what no artifact of the class contains; to be overridden by a class that leaves something out.

        Raises:
            TypeError: a backbone was given to a model that is whole.
        """
        if backbone is not None:
            raise TypeError(f"{type(self).__name__} takes no `backbone`: its artifact is whole. Leave it out.")

    @classmethod
    def from_pretrained(
        cls: type[M],
        x: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **changes: Any,
    ) -> M:
        """Load a model, all of it or an error, in eval mode and on the CPU.

        Called on `HubModel` itself, the class comes from the config.

        Args:
            x: a zoo name, ``org/repo``, ``org/repo@revision``, or a folder (an artifact or a run).
            backbone: the network that an artifact of dendrites alone was learned on
                (`dendrite_zoo.models.AdaptedBackbone`).
            revision: branch, tag or commit of the repo.
            cache_dir: where downloads are kept; the Hub client's own cache by default.
            token: for private repos; the Hub client's own by default.
            force_download: fetch the files of a repo once more, where they are cached.
            local_files_only: ask nobody; what is not in the cache is an error.
            **changes: what is to differ from the saved model, where the class knows how: ``num_classes=`` and
                ``max_tasks=`` of a classifier, ``tasks=[...]`` and ``init_from=`` of a policy,
                ``additive_segments=True`` of both; what starts anew by it is logged.

        Raises:
            FileNotFoundError: the folder, or a file in it, is missing.
            ValueError: the name is unknown, or a file is not what it should be.
            TypeError: there is no such argument, or the class does not know how to make the change.
        """
        client: Any = {"cache_dir": cache_dir, "token": token, "force": force_download, "local": local_files_only}
        place = resolve(x, revision=revision, **client)
        config = configs.read(place.path(artifact.CONFIG))
        model_class = class_of(config, f"{place}: {artifact.CONFIG}")
        if not issubclass(model_class, cls):
            got = f"{model_class.__name__}. Load it with {model_class.__name__}.from_pretrained or dendrite_zoo.load."
            raise ValueError(f"Expected {place} to hold the class {cls.__name__}, but got {got}")
        parameters = inspect.signature(cls.from_pretrained).parameters.values()
        options = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        refuse_unknown_names(changes, [*model_class.changeable, *options], f"{model_class.__name__}.from_pretrained")
        arguments, stored, origin = read(model_class, place, config)
        state = stored
        if changes:
            with contextlib.suppress(TypeError):  # of what JSON has not, which `adapt` refuses
                changes = plain(changes)  # Python's numbers for those of NumPy
            arguments, state, fresh = model_class.adapt(arguments, stored, changes)
            compare(skeleton(model_class, arguments), state, place, absent=fresh)
            if fresh:
                logger.warning("%s: weights that start anew: %s", place, ", ".join(fresh))
            origin = replace(origin, fingerprint="")
        # Loading draws no random numbers from the user's generator, unless something starts anew.
        with contextlib.nullcontext() if changes else torch.random.fork_rng(devices=[]):
            model = model_class.blank(arguments)
        fill(cast(nn.Module, model), state, stored)
        model.complete(backbone)
        model.origin, model.results = origin, None if changes else origin.results
        model.recall(origin.marks, origin.arguments, changes)
        return cast(M, cast(nn.Module, model).eval())

    def save_pretrained(self, folder: str | os.PathLike[str], *, results: Any = None) -> None:
        """Write ``config.json`` and ``model.safetensors``, with ``results.json`` where results are known; or nothing.

        Results that the model was loaded with are written again as long as its weights are unchanged; what is no
        result record gives a warning, and the model is saved without. A card is made when the model is published; one
        that lies in the folder already is left as it is.

        Args:
            folder: made where missing; an earlier artifact in it is replaced.
            results: result records (`dendrite_zoo.records.ResultRecord`, or as JSON); by default the model's own.

        Raises:
            OSError: the disk is full or the folder cannot be written; an earlier artifact is untouched.
            ValueError: a weight is NaN or infinite; nothing is written.
        """
        self._save(expanded(folder), results)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        results: Any = None,
        private: bool | None = None,
        revision: str = "main",
        tag: str | None = None,
        token: str | None = None,
        commit_message: str | None = None,
    ) -> Release:
        """Publish to the Hub, as `dendrite_zoo.hub.publish.publish` does, which has the arguments and errors.

        Args:
            repo_id: ``org/name``.
            results: result records; by default the model's own.
            private: make a private repo of it.
            revision: branch.
            tag: name of the release; the next of ``v1``, ``v2``, ... by default.
            token: with write access; by default the one of ``hf auth login`` or ``HF_TOKEN``.
            commit_message: by default which version of this library published.
        """
        from dendrite_zoo.hub.publish.upload import publish

        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), results, repo_id)
            to: dict[str, Any] = {"revision": revision, "tag": tag, "commit_message": commit_message}
            return publish(folder, repo_id, private=private, token=token, **to)

    def _save(self, folder: Path, results: Any, target: str | None = None) -> None:
        if spoilt := unusable_parameter(cast(nn.Module, self)):
            remedy = "Nothing was written. Start again from weights that were saved earlier."
            raise ValueError(f"Expected finite weights to save, but `{spoilt}` has NaN or infinity. {remedy}")
        config, origin = full_config(self), self.origin or Origin()
        state = self.to_file(configs.arguments_of(config), cast(nn.Module, self).state_dict())
        unchanged = origin.fingerprint == artifact.fingerprint(state, config)
        if results is None and (unchanged or self.results != origin.results):
            results = self.results
        same = unchanged or origin.repo in (None, target)  # a model is not its own base, nor is a new version's repo
        base = (origin.base_model if same else str(origin.repo)) or self.built_on
        artifact.write(
            folder, config, state, results=usable_results(results), marks=self.marks() | {"base_model": base}
        )


def register_model(model_type: str) -> Callable[[type[M]], type[M]]:
    """Register the decorated class under the name its configs will carry.

    Args:
        model_type: lower case words joined by hyphens, for ever: artifacts hold it.

    Raises:
        ValueError: the name has another form or belongs to another class.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", model_type):
        raise ValueError(f"model_type {model_type!r}; expected lower case words joined by hyphens. Rename it.")

    def register(cls: type[M]) -> type[M]:
        present = MODEL_TYPES.get(model_type)
        if present is not None and (present.__module__, present.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"model_type {model_type!r} belongs to {present.__qualname__}; choose another name.")
        MODEL_TYPES[model_type] = cls
        cls.model_type = model_type
        return cls

    return register


def class_of(config: Mapping[str, Any], where: str = "config.json") -> type[HubModel]:
    """Give the class that a full config names, after checking the config's header."""
    configs.check_header(config, MODEL_TYPES, where)
    return MODEL_TYPES[config["model_type"]]


def full_config(model: HubModel) -> dict[str, Any]:
    """Give the config.json of a model: the header, then the constructor's arguments."""
    if MODEL_TYPES.get(getattr(type(model), "model_type", "")) is not type(model):
        raise TypeError(f"{type(model).__name__} is not registered; decorate it with dendrite_zoo.hub.register_model.")
    arguments = plain(model.config)
    check_arguments(type(model).__init__, arguments, type(model).__name__, "the model's config")
    return {**configs.AGENT, "format_version": configs.FORMAT_VERSION, "model_type": model.model_type, **arguments}


def build(config: Mapping[str, Any], where: str = "config.json") -> HubModel:
    """Build an untrained model from a full config.

    Args:
        config: header and arguments.
        where: it stands, for the messages.

    Raises:
        ValueError: the config is not one of ours, or an argument is not what the class takes.
    """
    model_class = class_of(config, where)
    arguments = configs.arguments_of(migrated(model_class, config, {})[0])
    check_numbers(model_class, skeleton(model_class, arguments, where), where)
    return model_class(**arguments)
