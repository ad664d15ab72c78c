"""A value of JSON, held against a type annotation."""

import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any


def fits(value: Any, hint: Any) -> bool:
    """Say whether a JSON value has the annotated type: a finite number, ``true`` is none, a list is any sequence.

    Example:
        >>> fits(3, int), fits(True, int), fits([64, 64], tuple[int, ...]), fits(None, int | None)
        (True, False, True, True)
    """
    return KINDS.get(typing.get_origin(hint) or hint, _always)(value, typing.get_args(hint))


def _exactly(kind: type) -> Callable[[Any, tuple[Any, ...]], bool]:
    return lambda value, inner: type(value) is kind


def _always(value: Any, inner: tuple[Any, ...]) -> bool:
    return True


def _fits_sequence(value: Any, inner: tuple[Any, ...]) -> bool:
    return isinstance(value, list | tuple) and all(fits(item, hint) for hint in inner[:1] for item in value)


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> bool:
    if not inner or inner[-1] is Ellipsis:
        return _fits_sequence(value, inner)
    return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(fits, value, inner))


def _fits_mapping(value: Any, inner: tuple[Any, ...]) -> bool:
    return isinstance(value, dict) and all(fits(item, hint) for hint in inner[-1:] for item in value.values())


KINDS: dict[Any, Callable[[Any, tuple[Any, ...]], bool]] = {
    float: lambda value, inner: type(value) in (int, float) and abs(value) < math.inf,
    **{kind: _exactly(kind) for kind in (int, bool, str, types.NoneType)},
    typing.Literal: lambda value, inner: any(value == one and type(value) is type(one) for one in inner),
    **dict.fromkeys((typing.Union, types.UnionType), lambda value, inner: any(fits(value, one) for one in inner)),
    **dict.fromkeys((list, set, frozenset, Sequence, Collection, Iterable), _fits_sequence),
    **dict.fromkeys((dict, Mapping), _fits_mapping),
    tuple: _fits_tuple,
}
"""An annotation, or its origin, to what decides for a value and the types within; whatever else is not checked."""
