"""Loading a model whose class its config names."""

from __future__ import annotations

import os
from typing import Any

from dendrite_zoo.hub import HubModel

__all__ = ["load"]


def load(x: str | os.PathLike[str], **kwargs: Any) -> Any:
    """Load a pretrained model of any class of this library, in eval mode and on the CPU.

    Args:
        x: a zoo name, ``org/repo``, ``org/repo@revision`` or a folder.
        **kwargs: as for `dendrite_zoo.hub.HubModel.from_pretrained`.

    Raises:
        ValueError: the name is unknown, or a file is not what it should be.
        FileNotFoundError: the folder, or a file in it, is missing.

    Example:
        >>> load("permuted-digits").num_tasks
        10
    """
    return HubModel.from_pretrained(x, **kwargs)
