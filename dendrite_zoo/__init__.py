"""Active-dendrite networks: pretrained, trained on one task after another, and measured for what they forget.

``import dendrite_zoo`` costs torch and no more. The parts that need Lightning, the Hub's client or matplotlib
are fetched when first named, so that ``dendrite_zoo.load`` and ``dendrite_zoo.callbacks.ForgettingLogger``
work after this one import, too.

Example:
    >>> import dendrite_zoo
    >>> layer = dendrite_zoo.layers.KWinners(k=2)
"""

import importlib
from typing import TYPE_CHECKING, Any

from dendrite_zoo import contexts, functional, layers

if TYPE_CHECKING:
    from dendrite_zoo import (
        callbacks,
        hub,
        lightning_modules,
        metrics,
        models,
        optim,
        records,
        regularizers,
        report,
        rl,
        streams,
    )
    from dendrite_zoo.models import add_dendrites, load

__version__ = "0.1.0"

__all__ = [
    "add_dendrites",
    "callbacks",
    "contexts",
    "functional",
    "hub",
    "layers",
    "lightning_modules",
    "load",
    "metrics",
    "models",
    "optim",
    "records",
    "regularizers",
    "report",
    "rl",
    "streams",
]


def __getattr__(name: str) -> Any:
    """Fetch what is not imported yet (PEP 562)."""
    if name in ("add_dendrites", "load"):
        return getattr(importlib.import_module("dendrite_zoo.models"), name)
    if name in __all__:
        return importlib.import_module(f"dendrite_zoo.{name}")
    raise AttributeError(f"module 'dendrite_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
