"""The table of model types: which class a config is of, and back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.arguments import check_arguments, defaults_of, plain
from dendrite_zoo.hub.migrations import migrate
from dendrite_zoo.hub.skeleton import check_numbers, skeleton

if TYPE_CHECKING:
    from dendrite_zoo.hub.model import HubModel

M = TypeVar("M", bound="HubModel")

MODEL_TYPES: dict[str, type[HubModel]] = {}
"""``model_type`` of a config to the class it stands for."""


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
    arguments = configs.arguments_of(migrated(config, {})[0])
    check_numbers(model_class, skeleton(model_class, arguments, where), where)
    return model_class(**arguments)


def migrated(config: Mapping[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give config and tensors in the current format."""
    defaults = defaults_of(class_of(config).__init__)
    return migrate(config, state, {k: plain(v) for k, v in defaults.items() if v is not inspect.Parameter.empty})
