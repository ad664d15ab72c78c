"""``dendrite-zoo list``: which pretrained models there are."""

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

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
    table = Table(title="The zoo")
    for header in ("name", "trained on", "result", "weights"):
        table.add_column(header, overflow="fold")
    not_built = []
    for entry in registry.entries().values():
        if entry.bundled or entry.revision:
            weights = f"{entry.size / 1e6:.1f} MB, {'bundled' if entry.bundled else entry.repo}"
            cells = (entry.name, entry.trained_on, entry.headline, weights)
            table.add_row(*(cell.replace(", ", "\n") for cell in cells))  # narrow enough for a terminal of 80 columns
        else:
            not_built.append(entry)
    console.print(table)
    for entry in not_built:
        console.print(
            f"\n{entry.name} ({entry.headline}) does not come with the package. Train it, then load runs/NAME:"
        )
        console.print(f"  {entry.build}", soft_wrap=True, highlight=False)
