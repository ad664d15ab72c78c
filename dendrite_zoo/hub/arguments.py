"""The arguments of a config, compared with the signature of the constructor that they are meant for."""

import inspect
import json
import reprlib
import typing
from collections.abc import Callable, Mapping
from typing import Any

from dendrite_zoo._core.annotations import fits
from dendrite_zoo._core.names import nearest
from dendrite_zoo.hub.config import LIBRARY_NAME, check_value


def defaults_of(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Give the arguments of a constructor with their defaults; `inspect.Parameter.empty` where there is none."""
    parameters = list(inspect.signature(constructor).parameters.values())
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default for p in parameters if p.name != "self" and p.kind in named}


def check_arguments(
    constructor: Callable[..., Any], arguments: Mapping[str, Any], name: str, where: str = "config.json"
) -> None:
    """Compare a config's arguments with the signature of the constructor they are meant for.

    Args:
        constructor: of a model.
        arguments: of the config.
        name: of the class, for the message.
        where: the file, for the message.

    Raises:
        ValueError: an argument is unknown, missing, or of another type than the signature says.
    """
    known = defaults_of(constructor)
    if unknown := [key for key in arguments if key not in known]:
        remedy = f"{nearest(unknown[0], known)} Correct the key, or upgrade: pip install -U {LIBRARY_NAME}"
        raise ValueError(f"{where} has {unknown[0][:99]!r}; expected arguments of {name}: {', '.join(known)}.{remedy}")
    if missing := [key for key in known if key not in arguments]:
        remedy = "Fetch it again; in a class of your own put them all into `config`."
        raise ValueError(f"{where} lacks {missing}; expected every argument of {name}. {remedy}")
    hints = typing.get_type_hints(constructor)
    for key, value in arguments.items():
        check_value(value, f"{where}: {key}")
        if not fits(value, hints.get(key, Any)):
            expected = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            got = f"{reprlib.repr(value)}. Correct it."
            raise ValueError(f"{where}: {name} expects `{key}` to be {expected}, but got {got}")


def plain(value: Any) -> Any:
    """A value as JSON gives it back: lists for tuples, Python's numbers for those of NumPy and torch.

    Raises:
        TypeError: it holds something that JSON has not.

    Example:
        >>> import numpy
        >>> plain({"hidden_features": (numpy.int64(8), 8), "density": numpy.float32(0.5)})
        {'hidden_features': [8, 8], 'density': 0.5}
    """
    return json.loads(json.dumps(value, default=_number))


def _number(value: Any) -> Any:
    try:
        return value.item()
    except (AttributeError, RuntimeError, ValueError):
        raise TypeError(f"Expected values of JSON, but got one of type {type(value).__name__}.") from None
