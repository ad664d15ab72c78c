"""The arguments of a config, compared with the signature of the constructor that they are meant for."""

import inspect
import json
import operator
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

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


def fits(value: Any, hint: Any) -> bool:
    """Say whether a JSON value has the annotated type; ``true`` is no number, a list serves as any sequence.

    Example:
        >>> fits(3, int), fits(True, int), fits([64, 64], tuple[int, ...]), fits(None, int | None)
        (True, False, True, True)
    """
    if hint in TYPES:
        return type(value) in TYPES[hint]
    return KINDS.get(typing.get_origin(hint) or hint, lambda value, inner: True)(value, typing.get_args(hint))


def _fits_sequence(value: Any, inner: tuple[Any, ...]) -> bool:
    return isinstance(value, list | tuple) and all(fits(item, hint) for hint in inner[:1] for item in value)


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> bool:
    if not inner or inner[-1] is Ellipsis:
        return _fits_sequence(value, inner)
    return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(fits, value, inner))


def _fits_mapping(value: Any, inner: tuple[Any, ...]) -> bool:
    return isinstance(value, dict) and all(fits(item, hint) for hint in inner[-1:] for item in value.values())


NONE = type(None)
TYPES = {int: (int,), float: (int, float), bool: (bool,), str: (str,), None: (NONE,), NONE: (NONE,)}
"""An annotation to the types of JSON values that have it."""

KINDS: dict[Any, Callable[[Any, tuple[Any, ...]], bool]] = {
    typing.Literal: lambda value, inner: any(value == one and type(value) is type(one) for one in inner),
    **dict.fromkeys((typing.Union, types.UnionType), lambda value, inner: any(fits(value, one) for one in inner)),
    **dict.fromkeys((list, set, frozenset, Sequence, Collection, Iterable), _fits_sequence),
    **dict.fromkeys((dict, Mapping), _fits_mapping),
    tuple: _fits_tuple,
}
"""The origin of an annotation to what decides for a value and the types within; whatever else is not checked."""


def plain(value: Any) -> Any:
    """A value as JSON gives it back: lists for tuples, Python's numbers for NumPy's.

    Example:
        >>> import numpy
        >>> plain({"hidden_features": (numpy.int64(8), 8), "density": numpy.float32(0.5)})
        {'hidden_features': [8, 8], 'density': 0.5}
    """
    return json.loads(json.dumps(value, default=operator.methodcaller("item")))
