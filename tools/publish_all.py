"""Publish every model of model_cards/, and write commits and hashes into its registry; run it again after a failure.

python tools/publish_all.py ORG [--private] [--dry-run]
"""

from __future__ import annotations

import argparse

import dendrite_zoo.models  # noqa: F401  (which registers its classes)
from dendrite_zoo.cli.publish import show
from dendrite_zoo.hub.publish import publish_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("namespace", help="the organisation or user")
    parser.add_argument("--private", action="store_true", help="make the repos private")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    given = parser.parse_args()
    for entry, release in publish_all(given.namespace, private=given.private or None, dry_run=given.dry_run):
        if release is None:
            print(f"{entry.name}: its weights are not here. Train it: {entry.build}")
        else:
            show(release, given.dry_run)


if __name__ == "__main__":
    main()
