"""``dendrite-zoo list``: which pretrained models there are."""

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
    known, headers = registry.entries().values(), ("name", "trained on", "result", "weights")
    # a name stays whole, to be copied
    columns = (Column(header, overflow="fold", no_wrap=header == "name") for header in headers)
    table = Table(*columns, title="The zoo")
    for entry in known:
        if not entry.not_built:
            weights = f"{entry.size / 1e6:.1f} MB, {'bundled' if entry.bundled else entry.repo}"
            cells = (entry.name, entry.trained_on, entry.headline, weights)
            table.add_row(*(cell.replace(", ", "\n") for cell in cells))  # narrow enough for a terminal of 80 columns
    console.print(table)
    for entry in known:
        if entry.not_built:
            lead = f"\n{entry.name} ({entry.headline}) is not published yet. Train it, then load {entry.run}:"
            console.print(lead, soft_wrap=True, highlight=False)
            console.print(f"  {entry.build}", soft_wrap=True, highlight=False)
