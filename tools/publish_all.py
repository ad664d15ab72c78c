"""Publish every model of model_cards/, and write commits and hashes into its registry; run it again after a failure.

python tools/publish_all.py --namespace ORG [--private] [--dry-run] [--trusted] [--folder FOLDER]
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from huggingface_hub import get_token

import dendrite_zoo.models  # noqa: F401  (which registers its classes)
from dendrite_zoo.cli.publish import show
from dendrite_zoo.hub import artifact, registry
from dendrite_zoo.hub.publish import Release, publish


def publish_all(
    namespace: str,
    *,
    private: bool | None = None,
    dry_run: bool = False,
    trusted: bool = False,
    folder: Path | None = None,
) -> Iterator[tuple[registry.Entry, Release | None]]:
    """Publish every entry of ``model_cards/``, and write commit and sha256s into the registry after each.

    May be interrupted and run again: an entry that is published with the same content is left as it is.

    Args:
        namespace: the organisation or user.
        private: as for `publish`.
        dry_run: send nothing, write nothing.
        trusted: publish as what each repo has as its trusted publisher, a CI job: its identity is exchanged for a
            token of that one repo, which must exist.
        folder: another ``model_cards`` than the package's.

    Yields:
        The entry as it now stands in the registry, and its release; None where its weights are not there, which
        ``entry.build`` makes.
    """
    shelf = folder or registry.cards_folder()
    for entry in registry.entries(shelf).values():
        place, repo, release = shelf / entry.name, f"{namespace}/{entry.name}", None
        if (place / artifact.WEIGHTS).is_file():
            token = trusted_token(repo) if trusted and not dry_run else None
            release = publish(place, repo, private=private, dry_run=dry_run, token=token)
            unchanged = entry.repo == repo and entry.revision is not None and not release.changed
            if not dry_run and not unchanged:
                entry = replace(entry, repo=repo, revision=release.commit, files=registry.pins(place))
                registry.record(entry, shelf)
        yield entry, release


def trusted_token(repo: str) -> str | None:
    """A token of one repo for this CI job, by the job's identity.

    Raises:
        PermissionError: the repo does not exist, or does not trust this job.
    """
    os.environ["HF_OIDC_RESOURCE"] = repo
    try:
        return get_token()
    except Exception as error:  # of the client and of its HTTP library
        reason = " ".join(str(error).split()).rstrip(".")
        remedy = "Make the repo, and name this job under Trusted Publishers in its settings: see RELEASING.md."
        raise PermissionError(f"Expected {repo} to trust this job, but the Hub says: {reason}. {remedy}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", required=True, help="the organisation or user")
    parser.add_argument("--private", action="store_true", default=None, help="make the repos private")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    parser.add_argument(
        "--trusted", action="store_true", help="as the repos' trusted publisher, in CI; they must exist"
    )
    parser.add_argument("--folder", type=Path, help="another model_cards than the package's")
    given = parser.parse_args()
    try:
        for entry, release in publish_all(**vars(given)):
            if release is None:
                print(f"{entry.name}: its weights are not here. Train it: {entry.build}")
            else:
                show(release, given.dry_run)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
