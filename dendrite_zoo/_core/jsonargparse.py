"""Corners of jsonargparse that have a private name only, and what holds in a version that lacks it."""

import functools
from collections.abc import Callable
from typing import Any

from jsonargparse import _typehints


def write_texts_as_they_are() -> None:
    """Have jsonargparse write a text that may stand for a function, such as a key of ``info``, as it was read.

    It would look for the function, and write into a run's ``config.yaml`` that there is none.
    """
    module: Any = _typehints
    serializer = getattr(module, "object_path_serializer", None)
    if serializer is not None and not hasattr(serializer, "__wrapped__"):

        @functools.wraps(serializer)
        def written(value: Any) -> Any:
            return value if isinstance(value, str) else serializer(value)

        module.object_path_serializer = written


def arrange_groups(parser: Any, arrange: Callable[[list[Any]], list[Any]]) -> None:
    """Give the groups of options in a parser's help another order; without the name it stays as it is."""
    groups = getattr(parser, "_action_groups", None)
    if groups is not None:
        parser._action_groups = arrange(groups)
