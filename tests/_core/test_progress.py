"""Progress bars beside those of others."""

from rich.console import Console
from rich.errors import LiveError
from rich.progress import Progress

from dendrite_zoo._core.progress import progress_bar


def test_where_rich_shows_one_bar_alone_the_second_is_left_out(monkeypatch):
    """Before version 14.1 it refuses a second one, as while a Trainer shows its own."""
    set_live = Console.set_live

    def set_the_only(console, live):
        if console._live_stack:
            raise LiveError("Only one live display may be active at once")
        return set_live(console, live)

    monkeypatch.setattr(Console, "set_live", set_the_only)
    with Progress() as outer:
        with progress_bar(True) as bar:
            assert list(bar.track(range(3))) == [0, 1, 2] and bar.disable
        assert outer.live.is_started
    with progress_bar(True) as bar:
        assert not bar.disable
