"""A value of JSON, held against a type annotation."""

import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

PLAIN = (int, bool, str, types.NoneType)
SEQUENCES = (list, tuple, set, frozenset, Sequence, Collection, Iterable)


def fits(value: Any, hint: Any) -> bool:
    """Say whether a JSON value has the annotated type: a finite number, ``true`` is none, a list is any sequence.

    Example:
        >>> fits(3, int), fits(True, int), fits([64, 64], tuple[int, ...]), fits(None, int | None)
        (True, False, True, True)
    """
    return _check(hint)(value)


@functools.cache
def _check(hint: Any) -> Callable[[Any], bool]:
    """What decides for a value; where the annotation is of no value of JSON, it accepts all."""
    kind, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if typing.is_typeddict(kind):
        return functools.partial(_has_fields, kind, typing.get_type_hints(kind))
    if kind in PLAIN:
        return lambda value: type(value) is kind
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return functools.partial(_fits_each, arguments)
    inner = [_check(one) for one in arguments] or [lambda value: True]
    checks: dict[Any, Callable[[Any], bool]] = {
        float: lambda value: type(value) in (int, float) and abs(value) < math.inf,
        typing.Literal: lambda value: any(value == one and type(value) is type(one) for one in arguments),
        **dict.fromkeys((typing.Union, types.UnionType), lambda value: any(check(value) for check in inner)),
        **dict.fromkeys(SEQUENCES, lambda value: isinstance(value, list | tuple) and all(map(inner[0], value))),
        **dict.fromkeys((dict, Mapping), lambda value: isinstance(value, dict) and all(map(inner[-1], value.values()))),
    }
    return checks.get(kind, lambda value: True)


def _fits_each(hints: tuple[Any, ...], value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == len(hints) and all(map(fits, value, hints))


def _has_fields(kind: Any, hints: Mapping[str, Any], value: Any) -> bool:
    return (
        isinstance(value, dict)
        and kind.__required_keys__ <= value.keys()
        and all(fits(item, hints[name]) for name, item in value.items() if name in hints)
    )
