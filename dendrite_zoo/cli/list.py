"""``dendrite-zoo list``: which pretrained models there are."""

from __future__ import annotations

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Column, Table

from dendrite_zoo.hub import registry


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--hub", action="store_true", help="List what others have published on the Hugging Face Hub.")


def run(hub: bool) -> None:
    """Show what can be loaded, and apart from it what must be trained first, with the commands for it."""
    console = Console()
    if hub:
        from dendrite_zoo.hub.publish.upload import published

        table = Table("repo", "benchmarks", "downloads", title="On the Hub")
        for found in published():
            table.add_row(found["repo"], ", ".join(found["benchmarks"]), str(found["downloads"]))
        console.print(table)
        return
    table = Table(Column("name", no_wrap=True), "trained on", "result", "size", "weights", title="The zoo")
    not_built = []
    for entry in registry.entries().values():
        if entry.bundled or entry.revision:
            place = "bundled" if entry.bundled else f"{entry.repo}"
            table.add_row(entry.name, entry.trained_on, entry.headline, f"{entry.size / 1e6:.1f} MB", place)
        else:
            not_built.append(entry)
    console.print(table)
    for entry in not_built:
        console.print(f"\n{entry.name} ({entry.headline}) is too large to bundle. Train it, then load runs/NAME:")
        console.print(f"  {entry.build}", soft_wrap=True, highlight=False)
