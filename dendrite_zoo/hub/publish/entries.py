"""Making an entry of the zoo from a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dendrite_zoo.hub import registry
from dendrite_zoo.hub.model import HubModel
from dendrite_zoo.hub.publish.card import write_card
from dendrite_zoo.hub.publish.kinds import kind_of

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
    model.results = list(results)
    write_card(model, shelf / name, name)
    first, metric = results[0], kind_of(model.model_type).metric
    entry = replace(
        registry.entries(shelf).get(name, registry.Entry(name)),
        revision=None,  # these weights are not the published ones
        files=registry.pins(shelf / name),
        trained_on=f"{first['benchmark']}, {first['num_tasks']} tasks",
        headline=f"{first['average_accuracy']:.3f} mean {metric}, context {first['context_at_test']}",
        build=build,
    )
    registry.record(entry, shelf)
    return entry
