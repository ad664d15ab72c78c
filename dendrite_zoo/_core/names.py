"""Which known name was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant, as the end of an error message.

    Example:
        >>> nearest("permuted-digit", ["permuted-digits", "split-mnist"])
        " Did you mean 'permuted-digits'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
