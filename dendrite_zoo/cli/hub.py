"""``dendrite-zoo hub``: a Hub of one's own, to try publishing on."""

from contextlib import suppress
from pathlib import Path
from threading import Event

from jsonargparse import ArgumentParser
from rich.console import Console

from dendrite_zoo.hub.loopback import Hub


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--port", type=int, default=8000, help="Port to listen on, on 127.0.0.1.")
    parser.add_argument("--datasets", type=Path, help="A mirror of data sets to serve, too: ORG/NAME/PATH.")
    parser.add_argument("--models", type=Path, help="A mirror of models to serve, too: ORG/NAME/PATH.")


def run(port: int, datasets: Path | None, models: Path | None) -> None:
    """Serve until Ctrl-C."""
    console = Console(highlight=False)
    with Hub(datasets=datasets, models=models, port=port) as server:
        variables = server.environment(Path("runs") / "hub-cache")
        console.print("A Hub that forgets everything when it ends. In another terminal:\n")
        console.print("export " + " ".join(f"{name}={value}" for name, value in variables.items()), soft_wrap=True)
        console.print("dendrite-zoo publish runs/NAME --repo me/NAME && dendrite-zoo evaluate me/NAME\n")
        with suppress(KeyboardInterrupt):
            Event().wait()
