"""Asking the Hub again where that may help, and for so long in all."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import Any, TypeVar

from dendrite_zoo.hub.explain import AGAIN, TooLong, is_transport, status_of

logger = logging.getLogger(__name__)

ATTEMPTS = 5
WAIT = 1.0  # seconds before the second attempt; doubled for each after it
LONGEST_WAIT = 60.0

SILENCE = 120.0  # seconds without an answer after which a request is given up: the client's own sessions wait for ever
TIMEOUTS = 30  # so many times HF_HUB_DOWNLOAD_TIMEOUT is what a conversation may take, ...
SLOWEST = 10_000  # ... and a second more for so many bytes

T = TypeVar("T")


class Patience:
    """How long a conversation with the Hub may take in all, whatever its server does.

    It is 30 times ``HF_HUB_DOWNLOAD_TIMEOUT``, 5 minutes unless that is set, and a second more for every 10 kB that are
    sent: a large file on a slow line has its time, a server that sends a byte now and then has not. Requests are made
    in a thread of their own, which is left to itself when the time is over.

    Args:
        num_bytes: that will be sent.
    """

    def __init__(self, num_bytes: int = 0) -> None:
        self.begun, self.num_bytes = time.monotonic(), num_bytes

    @property
    def seconds(self) -> float:
        """What the conversation may take."""
        from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

        return TIMEOUTS * float(HF_HUB_DOWNLOAD_TIMEOUT) + self.num_bytes / SLOWEST

    @property
    def left(self) -> float:
        """The seconds that are left of it."""
        return self.begun + self.seconds - time.monotonic()

    def ask(
        self,
        call: Callable[[], T],
        what: str,
        *,
        attempts: int = ATTEMPTS,
        broken: int = ATTEMPTS,
        again: frozenset[int] = AGAIN,
    ) -> T:
        """Call until it succeeds, with waits that double, where the Hub is busy or the connection broke.

        Args:
            call: may be repeated without harm.
            what: is being done, for the log.
            attempts: how often it is called at most.
            broken: how often at most where it is the connection that broke.
            again: the HTTP statuses after which it is called again.

        Raises:
            TooLong: the time is over, or the Hub asks to wait for longer.
            Exception: the last error, or at once one that another attempt would meet again.
        """
        from huggingface_hub.errors import LocalEntryNotFoundError  # the client asked several times before it

        for attempt in range(1, attempts + 1):
            try:
                return self._wait_for(call)
            except Exception as error:
                status = status_of(error)
                may_help = status in again if status is not None else is_transport(error) and attempt < broken
                if not may_help or attempt == attempts or isinstance(error, LocalEntryNotFoundError):
                    raise
                pause = min(
                    max(WAIT * 2 ** (attempt - 1), asked_to_wait(getattr(error, "response", None))), LONGEST_WAIT
                )
                reason = f"HTTP {status}" if status is not None else type(error).__name__
                logger.warning("%s: %s; attempt %d of %d in %.0f s", what, reason, attempt + 1, attempts, pause)
                time.sleep(max(0, min(pause, self.left)))
        raise AssertionError("unreachable")

    def _wait_for(self, call: Callable[[], T]) -> T:
        from huggingface_hub import close_session, get_session

        hooks = get_session().event_hooks
        if _limit not in hooks["request"]:  # for requests of our own threads alone
            get_session().event_hooks = {
                "request": [*hooks["request"], _limit],
                "response": [*hooks["response"], _refuse_long_wait],
            }
        answer: Future[T] = Future()
        threading.Thread(target=self._work, args=(call, answer), name="Hub", daemon=True).start()
        try:
            while not answer.done():
                if self.left <= 0:
                    remedy = "Try again later; on a slow line set HF_HUB_DOWNLOAD_TIMEOUT, in seconds, higher."
                    raise TooLong(f"the Hub has not done it within {self.seconds:.0f} s. {remedy}")
                wait([answer], timeout=min(self.left, 1.0))
        finally:
            if not answer.done():
                close_session()  # which ends a download that goes on, and frees its lock
        return answer.result()

    def _work(self, call: Callable[[], T], answer: Future[T]) -> None:
        ASKING.set(self)
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)


ASKING: ContextVar[Patience | None] = ContextVar("ASKING", default=None)
"""Whose requests a thread makes."""


def asked_to_wait(response: Any) -> float:
    """Give the seconds after which an answer asks to be asked again, 0 where it does not."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    headers = getattr(response, "headers", {})
    value, limit = str(headers.get("Retry-After", "")).strip(), parse_ratelimit_headers(headers)
    return max(
        float(value) if value.isdecimal() else 0.0, 0.0 if limit is None or limit.remaining else limit.reset_in_seconds
    )


def _limit(request: Any) -> None:
    """Give up on a server that does not answer."""
    if ASKING.get() is not None:
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {name: SILENCE if limit is None else limit for name, limit in limits.items()}


def _refuse_long_wait(response: Any) -> None:
    """The client would wait for as long as it is asked to."""
    patience, seconds = ASKING.get(), asked_to_wait(response)
    if patience is not None and response.status_code in AGAIN and seconds > patience.left:
        answer = f"the Hub answers with HTTP {response.status_code}"
        raise TooLong(f"{answer} and asks to wait for {seconds:.0f} s. Try again then.")
