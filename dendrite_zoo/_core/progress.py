"""A progress bar for long work, also where another one is shown already."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.errors import LiveError
from rich.progress import Progress


@contextmanager
def progress_bar(shown: bool) -> Iterator[Progress]:
    """A bar that disappears when the work is done.

    Before version 14.1 rich shows one at a time: where that of a Trainer is at work, there is none.

    Args:
        shown: whether there is to be one.

    Example:
        >>> with progress_bar(False) as bar:
        ...     [task for task in bar.track(["reach", "push"])]
        ['reach', 'push']
    """
    bar = Progress(transient=True, disable=not shown)
    try:
        bar.start()
    except LiveError:
        bar = Progress(disable=True)
    try:
        yield bar
    finally:
        bar.stop()
