"""A model from its name, its config, or itself."""

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from dendrite_zoo._core.names import check_call, nearest
from dendrite_zoo._core.torch import compiled_in_place
from dendrite_zoo.hub import HubModel, build, full_config
from dendrite_zoo.models.classifier import ActiveDendriteClassifier
from dendrite_zoo.models.config import check_value
from dendrite_zoo.models.policy import ActiveDendritePolicy

__all__ = ["load"]

M = TypeVar("M", bound=nn.Module)


def load(x: str | os.PathLike[str], **kwargs: Any) -> Any:
    """Load a pretrained model of any class of this library, in eval mode and on the CPU.

    Args:
        x: a zoo name, ``org/repo``, ``org/repo@revision`` or a folder.
        **kwargs: as for `dendrite_zoo.hub.HubModel.from_pretrained`.

    Raises:
        ValueError: the name is unknown, or a file is not what it should be.
        FileNotFoundError: the folder, or a file in it, is missing.

    Example:
        >>> load("permuted-digits").num_tasks
        10
    """
    return HubModel.from_pretrained(x, **kwargs)


def as_model(model: Any, kind: type[M], *, name: str = "model") -> M:
    """Return the model that an argument stands for, ready to be trained.

    Args:
        model: a model; or what `load` takes; or the same with changes, as a recipe writes them, such as
            ``{"from_pretrained": "metaworld-mt10", "tasks": [...]}``; or the config of a registered model, from which
            it is built.
        kind: the class that is expected.
        name: of the argument, for the messages.

    Returns:
        The model; one of this library is in train mode.

    Raises:
        TypeError: it is no such model.
        ValueError: the name or the config leads to no model.

    Example:
        >>> as_model("permuted-digits", nn.Module).training
        True
    """
    if isinstance(model, (str, os.PathLike)):
        model = load(model)
    elif isinstance(model, Mapping) and (given := _load_arguments(model)):
        model = load(given.pop("from_pretrained"), **given)
    elif isinstance(model, Mapping):
        if "library_name" not in model:
            raise ValueError(_what_is_wrong(model))
        model = build(model)
    model = compiled_in_place(model, HubModel)  # a wrapper is of another class, with other names
    if not isinstance(model, kind):
        others = "a name or folder that `dendrite_zoo.load` takes, or the config of a registered model"
        own = " For a checkpoint of a network of your own, use load_from_checkpoint(path, model=...)."
        got = f"{type(model).__name__}.{own if kind is nn.Module else ''}"
        raise TypeError(f"Expected `{name}` to be of type {kind.__name__}, {others}, but got {got}")
    return model.train() if isinstance(model, HubModel) else model


def saved_config(model: nn.Module) -> dict[str, Any] | None:
    """Return the config from which `as_model` builds a model anew; None for a network that is not registered."""
    return full_config(model) if isinstance(model, HubModel) else None


def _load_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a dictionary with ``from_pretrained`` says to load, and how it is to differ; empty for any other.

    Where a saved recipe has written it as the arguments of a class, that is the class of the argument's type.
    """
    arguments = model.get("init_args") if "class_path" in model else model
    return dict(arguments) if isinstance(arguments, Mapping) and "from_pretrained" in arguments else {}


def _what_is_wrong(model: Mapping[str, Any]) -> str:
    """Say why the command line found no class for a dictionary that names one and its arguments."""
    if "class_path" not in model:
        expected = "the arguments of a model class, the config of a saved model, or class_path and init_args"
        known = (
            inspect.signature(ActiveDendritePolicy).parameters | inspect.signature(ActiveDendriteClassifier).parameters
        )
        if isinstance(tasks := model.get("tasks"), str):
            ActiveDendritePolicy(tasks)  # which says what is wrong
        for key in filter(known.__contains__, model):
            check_value(key, known[key].annotation, model[key])  # likewise
        near = nearest(next(iter(map(str, model)), ""), known)
        got = f"{', '.join(map(repr, model))}, which no class takes.{near or ' Correct the misspelt name.'}"
        return f"Expected `model` to hold {expected}, but got {got}"
    path, given = str(model["class_path"]), dict(model.get("init_args") or {})
    module, _, name = path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)  # a checkpoint imports nothing
    if not isinstance(cls, type):
        return f"There is no class {path}; expected one such as dendrite_zoo.models.ActiveDendriteClassifier."
    try:
        check_call(name, inspect.signature(cls.__init__), (), given)  # type: ignore[misc]
        if issubclass(cls, HubModel):  # which says what is wrong
            cls(**given)
    except (TypeError, ValueError) as error:
        return str(error)
    return f"Expected the arguments of {path} to have the types in its documentation, but got {given}."
