"""From a config to a model: the table of model types, and the checks before memory is taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

import dendrite_zoo
from dendrite_zoo.hub import config as configs

if TYPE_CHECKING:
    from dendrite_zoo.hub.model import HubModel

MODEL_TYPES: dict[str, type[HubModel]] = {}
"""``model_type`` of a config to the class it stands for."""

MAX_NUMBERS = 2**32  # of a model that is built from a config alone, or of the part of it that no file holds

M = TypeVar("M", bound="HubModel")


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
        held = MODEL_TYPES.get(model_type)
        if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"model_type {model_type!r} belongs to {held.__qualname__}; choose another name.")
        MODEL_TYPES[model_type] = cls
        cls.model_type = model_type
        return cls

    return register


def class_of(config: Mapping[str, Any]) -> type[HubModel]:
    """Give the class that a full config names, after checking the config's header."""
    configs.check_header(config, MODEL_TYPES)
    return MODEL_TYPES[config["model_type"]]


def full_config(model: HubModel) -> dict[str, Any]:
    """Give the config.json of a model: the header, then the constructor's arguments."""
    if MODEL_TYPES.get(getattr(type(model), "model_type", "")) is not type(model):
        raise TypeError(f"{type(model).__name__} is not registered; decorate it with dendrite_zoo.hub.register_model.")
    arguments = configs.plain(model.config)
    configs.check_arguments(type(model).__init__, arguments, type(model).__name__)
    header = (configs.LIBRARY_NAME, dendrite_zoo.__version__, configs.FORMAT_VERSION, model.model_type)
    return {**dict(zip(configs.HEADER, header, strict=True)), **arguments}


def build(config: Mapping[str, Any]) -> HubModel:
    """Build an untrained model from a full config.

    Raises:
        ValueError: the config is not one of ours, or an argument is not what the class takes.
    """
    model_class = class_of(config)
    config, _ = configs.migrate(dict(config), {})
    arguments = arguments_of(config)
    check_numbers(model_class, skeleton(model_class, arguments))
    return model_class(**arguments)


def check_numbers(model_class: type[HubModel], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a config that would take much memory without a file that is as large."""
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if numbers > MAX_NUMBERS:
        raise ValueError(
            f"config.json describes a {model_class.__name__} of {numbers:.1e} numbers; expected at most "
            f"{MAX_NUMBERS:.1e}. Correct the file, or call the class itself if that is meant."
        )


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the constructor's arguments of a full config."""
    return {key: value for key, value in config.items() if key not in configs.HEADER}


def skeleton(model_class: type[HubModel], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Check the arguments; give the state dict they lead to, on the meta device: shapes without memory."""
    configs.check_arguments(model_class.__init__, arguments, model_class.__name__)
    model_class.validate_config(arguments)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return cast(nn.Module, model_class(**arguments)).state_dict()
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"config.json makes no {model_class.__name__} ({str(error).splitlines()[0]}): sizes that no machine "
            "holds, or that do not agree. Correct the file or fetch it again."
        ) from error


def compare(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], place: object, absent: Collection[str] = ()
) -> None:
    """Hold the tensors of a file against those that the config leads to: names, shapes, kinds.

    Args:
        expected: the `skeleton`.
        state: from the file.
        place: where it came from, for the message.
        absent: names that may be missing.

    Raises:
        ValueError: naming what differs.
    """
    missing = sorted(set(expected) - set(state) - set(absent))
    unknown = sorted(set(state) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{place}: the weights lack {missing[:5]} and have {unknown[:5]} besides; expected the {len(expected)} "
            "tensors that config.json describes. The two files do not belong together; fetch or save both again."
        )
    for name, tensor in state.items():
        wanted = expected[name]
        floats = tensor.is_floating_point() and wanted.is_floating_point()
        if tensor.shape != wanted.shape or not (floats or tensor.dtype == wanted.dtype):
            raise ValueError(
                f"{place}: {name} is {list(tensor.shape)} {tensor.dtype}; config.json leads to {list(wanted.shape)} "
                f"{wanted.dtype}. A different head or capacity is an explicit argument, such as num_classes= or "
                "max_tasks=; else the two files do not belong together: fetch or save both again."
            )


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state into a model, each tensor in the precision it was stored in."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in state and tensor.dtype != state[name].dtype:
            tensor.data = tensor.data.to(state[name].dtype)
    present = {**model.state_dict(), **state}  # what starts anew stays as it is
    model.load_state_dict(present, strict=True)
