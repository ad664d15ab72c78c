"""A connection to a Hub on one's own machine: what it is asked, how it answers, and how it fails on demand."""

import contextlib
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dendrite_zoo.hub.loopback_state import Fault, State

PAUSE = 0.1  # seconds between the bytes of a slow answer
ROUTES: list[tuple[str, Callable[..., None]]] = []


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "", **body: Any) -> None:
        self.status, self.body = status, {"error": message, **body}
        self.headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}


def route(pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Answer requests whose method and path match."""
    pattern = pattern.replace("REPO", "(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)")
    pattern = pattern.replace("FILES", "(?:/(?P<kind>datasets))?/(?P<id>[^/]+/[^/]+)")

    def register(answer: Callable[..., None]) -> Callable[..., None]:
        ROUTES.append((pattern, answer))
        return answer

    return register


class Connection(BaseHTTPRequestHandler):
    """One connection of a client."""

    hub: State
    fault = Fault()
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Keep quiet: requests are in ``hub.log``."""

    def _handle(self) -> None:
        self.hub.log.append(f"{self.command} {self.path}")
        self.body, self.fault = self.rfile.read(int(self.headers.get("Content-Length") or 0)), Fault()
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        try:
            self._answer(f"{self.command} {url.path}")
        except Refusal as refusal:
            self.reply(refusal.body, refusal.status, refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _answer(self, request: str) -> None:
        found = ((answer, re.fullmatch(pattern, request)) for pattern, answer in ROUTES)
        answer, match = next(((answer, match) for answer, match in found if match), (None, None))
        if answer is None or match is None:
            raise Refusal(404, f"no such route: {request}")
        self.fault = self.hub.next_fault(answer.__name__.strip("_"))
        how, retry_after = self.fault
        if isinstance(how, int):
            refusal = Refusal(how, "failing on demand")
            refusal.headers |= {} if retry_after is None else {"Retry-After": str(retry_after)}
            raise refusal
        if how in ("drop", "hang"):
            time.sleep(30 if how == "hang" else 0)
            self.close_connection = True
        else:
            answer(self, **{key: unquote(value) for key, value in match.groupdict("models").items()})

    def reply(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer; JSON unless it is bytes."""
        data, how = body if isinstance(body, bytes) else json.dumps(body).encode(), self.fault.how
        if how == "lose":
            self.close_connection = True
            return
        if how == "corrupt" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        answer = io.BytesIO()
        everything, self.wfile = self.wfile, answer
        self.end_headers()
        self.wfile = everything
        self.write(answer.getvalue(), how == "slow")
        if self.command != "HEAD":
            self.close_connection = how == "cut" or self.close_connection
            self.write(data[: len(data) // 2] if how == "cut" else data, how in ("slow", "slow body"))

    def write(self, data: bytes, slowly: bool) -> None:
        """Send bytes, or one now and then until nobody listens any more."""
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(data), 1) if slowly else [0]:
                self.wfile.write(data[start : start + 1] if slowly else data)
                time.sleep(PAUSE if slowly else 0)
