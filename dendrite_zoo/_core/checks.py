"""Checks of arguments: each names the one argument that is wrong, what was expected and what it is."""

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

from dendrite_zoo._core.names import nearest

SMALLEST_SHARE = 1e-9


def check_integers(low: int, high: float = math.inf, /, **arguments: Any) -> None:
    """Refuse what is not an integer from ``low`` to ``high``.

    Args:
        low: the smallest value allowed.
        high: the largest.
        **arguments: values by the names that the user knows them by.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_integers(1, num_tasks=3, batch_size=0)
        Traceback (most recent call last):
        ValueError: Expected `batch_size` to be an integer of at least 1, but got 0.
    """
    _check(arguments, f"an integer {_bounds(low, high)}", lambda x: low <= x <= high, Integral)


def check_range(low: float, high: float, /, **arguments: float) -> None:
    """Refuse numbers outside ``[low, high]``, and those that are not finite.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_range(0, 1, expert_share=0.5, bursts=4)
        Traceback (most recent call last):
        ValueError: Expected `bursts` to be a number from 0 to 1, but got 4.
    """
    _check(arguments, f"a number {_bounds(low, high)}", lambda x: low <= x <= high and math.isfinite(x))


def check_density(**arguments: float) -> None:
    """Refuse what is not a share of at least something: numbers outside ``(0, 1]``, and below a billionth.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_density(weight_density=0.0)
        Traceback (most recent call last):
        ValueError: Expected `weight_density` to be a share in (0, 1], such as 0.5, but got 0.0.
    """
    _check(arguments, "a share in (0, 1], such as 0.5", lambda x: SMALLEST_SHARE <= x <= 1)


def check_choice(choices: Collection[str], /, **arguments: Any) -> None:
    """Refuse what is not one of several names, and say which is meant.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_choice(("train", "val", "test"), split="tset")
        Traceback (most recent call last):
        ValueError: Expected `split` to be one of 'train', 'val', 'test', but got 'tset'. Did you mean 'test'?
    """
    for name, value in arguments.items():
        if not isinstance(value, str) or value not in choices:
            expected = f"one of {', '.join(map(repr, choices))}"
            raise wrong_argument(name, expected, value, nearest(str(value), choices).strip())


def check_positive(**arguments: float) -> None:
    """Refuse numbers that are not above 0, and those that are not finite.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_positive(lr=1e-3, tau=0.0)
        Traceback (most recent call last):
        ValueError: Expected `tau` to be a number above 0, but got 0.0.
    """
    _check(arguments, "a number above 0", lambda x: 0 < x < math.inf)


def check_share(**arguments: float) -> None:
    """Refuse numbers outside ``[0, 1)``.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_share(discount=1.0)
        Traceback (most recent call last):
        ValueError: Expected `discount` to be a number from 0 to below 1, but got 1.0.
    """
    _check(arguments, "a number from 0 to below 1", lambda x: 0 <= x < 1)


def check_flags(**arguments: bool) -> None:
    """Refuse what is neither True nor False, such as ``"no"``, which Python takes for true.

    Raises:
        ValueError: one of them is wrong; the message names that one alone.

    Example:
        >>> check_flags(fast=True, collect_ahead="no")
        Traceback (most recent call last):
        ValueError: Expected `collect_ahead` to be True or False, but got 'no'.
    """
    for name, value in arguments.items():
        if type(value).__name__ not in ("bool", "bool_"):  # NumPy's too, in both of its names
            raise wrong_argument(name, "True or False", value)


def _check(arguments: Mapping[str, Any], expected: str, is_right: Callable[[Any], bool], kind: type = Real) -> None:
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, kind) or not is_right(value):
            raise wrong_argument(name, expected, value)


def _bounds(low: float, high: float) -> str:
    return f"of at least {low}" if high == math.inf else f"from {low} to {high}"


def wrong_argument(name: str, expected: str, value: object, remedy: str = "") -> ValueError:
    """The error for an argument whose value is not what was expected.

    Example:
        >>> wrong_argument("k", "at most 64", 80, "Lower `k`, or widen the layer.")
        ValueError('Expected `k` to be at most 64, but got 80. Lower `k`, or widen the layer.')
    """
    return ValueError(f"Expected `{name}` to be {expected}, but got {value!r}. {remedy}".rstrip())
