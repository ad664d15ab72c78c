"""``dendrite-zoo publish``: a model and its card, to the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

import dendrite_zoo.models  # noqa: F401  (which registers its classes)
from dendrite_zoo.hub import publish


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("source", type=Path, help="A run folder, a model's folder, or a Lightning checkpoint.")
    parser.add_argument("--repo", required=True, help="org/name; created where it does not exist.")
    parser.add_argument("--private", action="store_true", help="Make it a private repo.")
    parser.add_argument("--revision", default="main", help="Branch to publish to.")
    parser.add_argument("--dry-run", action="store_true", help="Show the card and the files, and send nothing.")


def run(source: Path, repo: str, private: bool, revision: str, dry_run: bool) -> None:
    """Publish, or show what would be sent."""
    show(publish.publish(source, repo, private=private or None, revision=revision, dry_run=dry_run), dry_run)


def show(release: Any, dry_run: bool) -> None:
    """Print the files of a release, and where they are; of a dry run also the card."""
    console = Console()
    if dry_run:
        print(release.card)
    for path, size in release.files.items():
        console.print(f"  {path}  {size:,} bytes")
    verb = "would be published to" if dry_run else "published to" if release.changed else "is published already:"
    console.print(f"{release.repo} {verb} {release.url}", soft_wrap=True)
