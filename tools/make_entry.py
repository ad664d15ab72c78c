"""Make an entry of the zoo: weights from a run, results from it and from the runs it is compared with.

python tools/make_entry.py permuted-digits runs/permuted-digits-0 [more runs, or JSON files of result records]
"""

from __future__ import annotations

import argparse

import dendrite_zoo.models  # noqa: F401  (which registers its classes)
from dendrite_zoo.hub.publish.entries import make_entry
from dendrite_zoo.records import merge_seeds, read_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the entry")
    parser.add_argument("source", help="the run whose weights are taken")
    parser.add_argument("results", nargs="*", help="more runs, or JSON files of records; the entry's own come first")
    parser.add_argument("--recipe", help="what trains it, for whoever has not its weights (default: NAME)")
    given = parser.parse_args()
    records = merge_seeds(record for run in given.results or [given.source] for record in read_records(run))
    build = f"dendrite-zoo fit --config {given.recipe or given.name}"
    entry = make_entry(given.name, given.source, [record.to_json() for record in records], build=build)
    print(f"{entry.name}: {entry.headline}, {entry.size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
