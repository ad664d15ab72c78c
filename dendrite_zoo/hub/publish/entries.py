"""Making an entry of the zoo from a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dendrite_zoo.hub import registry
from dendrite_zoo.hub.model import HubModel

__all__ = ["make_entry"]


def make_entry(
    name: str,
    source: str | os.PathLike[str],
    results: Sequence[dict[str, Any]],
    *,
    build: str,
    folder: Path | None = None,
) -> registry.Entry:
    """Put a trained model into ``model_cards/`` and into the registry; run in a checkout, before a release.

    Args:
        name: of the entry.
        source: the run whose weights are taken.
        results: the records its card shows, the model's own first.
        build: the command that trains it.
        folder: another ``model_cards`` than the package's.
    """
    shelf = folder or registry.cards_folder()
    model = HubModel.from_pretrained(source)
    model.save_pretrained(shelf / name, results=list(results))
    first = results[0]
    entry = replace(
        registry.entries(shelf).get(name, registry.Entry(name)),
        revision=None,  # these weights are not the published ones
        files=registry.pins(shelf / name),
        trained_on=f"{first['benchmark']}, {first['num_tasks']} tasks",
        headline=f"{first['average_accuracy']:.3f} mean {model.card_metric}, context {first['context_at_test']}",
        build=build,
    )
    registry.record(entry, shelf)
    return entry
