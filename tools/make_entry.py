"""Make an entry of the zoo: weights from a run, results from it and from the runs it is compared with.

python tools/make_entry.py permuted-digits runs/permuted-digits-0 [more runs, or JSON files of result records]
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import dendrite_zoo.models  # noqa: F401  (which registers its classes)
from dendrite_zoo.hub import registry
from dendrite_zoo.hub.artifact import WEIGHTS
from dendrite_zoo.hub.model import HubModel
from dendrite_zoo.hub.publish.card import write_card
from dendrite_zoo.hub.publish.kinds import kind_of
from dendrite_zoo.models import AdaptedBackbone
from dendrite_zoo.models.control import ControlModel
from dendrite_zoo.records import merge_seeds, read_records


def make_entry(
    name: str,
    source: str | Path,
    results: list[dict[str, Any]],
    *,
    build: str,
    folder: Path | None = None,
    weights: bool = True,
) -> registry.Entry:
    """Put a trained model into ``model_cards/`` and into the registry; run in a checkout, before a release.

    Args:
        name: of the entry.
        source: the run whose weights are taken.
        results: the records its card shows, the model's own first.
        build: the command that trains it.
        folder: another ``model_cards`` than the package's.
        weights: whether they come with the package; those of some megabytes do not.
    """
    shelf = folder or registry.cards_folder()
    model = HubModel.from_pretrained(source)
    if isinstance(model, ControlModel):
        model.clear_unused()
    if isinstance(model, AdaptedBackbone):
        model.drop_sums(half=True)
    model.save_pretrained(shelf / name, results=results)
    model.results = results
    write_card(model, shelf / name, name)
    if not weights:
        (shelf / name / WEIGHTS).unlink()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the entry")
    parser.add_argument("source", help="the run whose weights are taken")
    parser.add_argument("results", nargs="*", help="more runs, or JSON files of records; the entry's own come first")
    parser.add_argument("--recipe", help="what trains it, for those who lack its weights (default: NAME)")
    parser.add_argument("--build", help="the command that does, where it is no recipe")
    parser.add_argument("--no-weights", action="store_true", help="leave them out: they are too large for the package")
    given = parser.parse_args()
    records = merge_seeds(record for run in given.results or [given.source] for record in read_records(run))
    build = given.build or f"dendrite-zoo fit --config {given.recipe or given.name}"
    results = [record.to_json() for record in records]
    entry = make_entry(given.name, given.source, results, build=build, weights=not given.no_weights)
    print(f"{entry.name}: {entry.headline}, {entry.size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
