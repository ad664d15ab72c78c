"""The arguments of a config, compared with the signature of the constructor that they are meant for."""

import inspect
import json
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


def check_arguments(constructor: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> None:
    """Compare a config's arguments with the signature of the constructor they are meant for.

    Raises:
        ValueError: an argument is unknown, missing, or of another type than the signature says.
    """
    known = defaults_of(constructor)
    if unknown := [key for key in arguments if key not in known]:
        remedy = f"{nearest(unknown[0], known)} Correct the key, or upgrade: pip install -U {LIBRARY_NAME}"
        raise ValueError(f"config.json has {unknown[0]!r}; expected arguments of {name}: {', '.join(known)}.{remedy}")
    if missing := [key for key in known if key not in arguments]:
        remedy = "Fetch it again; in a class of your own put them all into `config`."
        raise ValueError(f"config.json lacks {missing}; expected every argument of {name}. {remedy}")
    hints = typing.get_type_hints(constructor)
    for key, value in arguments.items():
        check_value(value, f"config.json: {key}")
        if not fits(value, hints.get(key, Any)):
            expected = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            raise ValueError(f"config.json: {name} expects `{key}` to be {expected}, but got {value!r}. Correct it.")


def plain(value: Any, *, nan_is_null: bool = False) -> Any:
    """A value as JSON gives it back: lists for tuples, Python's numbers for those of NumPy and torch.

    Args:
        value: also an object that has `to_json`.
        nan_is_null: give None for NaN and infinity.

    Raises:
        TypeError: it holds something that JSON has not.

    Example:
        >>> import numpy
        >>> plain({"hidden_features": (numpy.int64(8), 8), "density": numpy.float32(0.5)})
        {'hidden_features': [8, 8], 'density': 0.5}
    """
    return json.loads(json.dumps(value, default=_primitive), parse_constant=(lambda _: None) if nan_is_null else None)


def _primitive(value: Any) -> Any:
    for method in ("to_json", "tolist"):
        if hasattr(value, method) and not isinstance(value, type):
            return getattr(value, method)()
    raise TypeError(f"Expected values of JSON, but got one of type {type(value).__name__}. Leave it out.")
