"""A Hub on one's own machine, in memory: enough of the protocol to publish and load without an account.

The unmodified client speaks to it (`Hub.environment`). It keeps commits, checks the sha256 of uploads,
refuses stale parents, and fails on demand. Weights are served by a second host, as on the real Hub: one
that must never be shown a token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

from dendrite_zoo.hub.loopback_routes import Handler
from dendrite_zoo.hub.loopback_state import IDENTITY, Repo, State

__all__ = ["IDENTITY", "TOKEN", "Hub", "Repo"]

TOKEN = "hf_loopback"


class Hub(State):
    """The Hub's state and its two servers.

    Args:
        users: token to the namespaces it may write to, the user's own first.
        datasets: a mirror laid out as ``<org>/<name>/<path>``, served as data sets.
        models: another one, served as models.
        part_size: larger uploads have several parts.
        port: of the Hub; 0 for any free one.

    Example:
        >>> with Hub() as hub:
        ...     hub.url.startswith("http://127.0.0.1:")
        True
    """

    def __init__(
        self,
        users: Mapping[str, Iterable[str]] | None = None,
        datasets: Path | None = None,
        models: Path | None = None,
        part_size: int = 32 << 20,
        port: int = 0,
    ) -> None:
        super().__init__(users or {TOKEN: ["me"]}, {"datasets": datasets, "models": models}, part_size)
        handler = type("Bound", (Handler,), {"hub": self})
        self.servers = [ThreadingHTTPServer(("127.0.0.1", number), handler) for number in (port, 0)]
        self.url = f"http://127.0.0.1:{self.servers[0].server_port}"
        self.storage_url = f"http://localhost:{self.servers[1].server_port}"  # another host, to the client

    def __enter__(self) -> Hub:
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.shutdown()
        self.close()

    def close(self) -> None:
        """Free the ports."""
        for server in self.servers:
            server.socket.close()

    def environment(self, home: Path | str, token: str | None = TOKEN) -> dict[str, str]:
        """Give the variables with which a client speaks to this hub, to be set before it is imported."""
        variables = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return variables | ({"HF_TOKEN": token} if token else {})
