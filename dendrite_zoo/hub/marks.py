"""What the header of a file of weights says of a model, beside its fingerprint."""

from collections.abc import Mapping
from typing import Any


class Marked:
    """A model whose file may say more of it than its config; an earlier version does not ask, and loads it as well.

    Example:
        >>> Marked().marks()
        {}
    """

    def marks(self) -> dict[str, Any]:
        """Give what the header is to say, JSON values by name; to be overridden together with `recall`."""
        return {}

    def recall(self, marks: Mapping[str, Any], saved: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Take what the header says, in whose place a stranger may have put anything, or nothing.

        Args:
            marks: of the header.
            saved: the constructor's arguments in the file.
            changes: how the model is to differ from them.
        """
