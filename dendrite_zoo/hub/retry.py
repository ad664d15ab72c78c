"""Asking the Hub again where that may help, and saying in one line what went wrong where it does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from dendrite_zoo._core.redact import without_token

logger = logging.getLogger(__name__)

ATTEMPTS = 5
WAIT = 1.0  # seconds before the second attempt; doubled for each after it
LONGEST_WAIT = 60.0
AGAIN = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


def status_of(error: BaseException) -> int | None:
    """Give the HTTP status an error of the Hub client carries, its causes included."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if response is not None:
            return int(response.status_code)
        seen = seen.__cause__
    return None


def is_transport(error: BaseException) -> bool:
    """Say whether an error came from the connection rather than from an answer."""
    from huggingface_hub import errors

    client_error: type[BaseException] = errors.HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, client_error) and not isinstance(seen, errors.HfHubHTTPError):
            return True
        seen = seen.__cause__
    return False


def retried(call: Callable[[], T], what: str, *, attempts: int = ATTEMPTS, broken: int = ATTEMPTS) -> T:
    """Call until it succeeds, with waits that double, where the Hub is busy or the connection broke.

    Args:
        call: may be repeated without harm.
        what: is being done, for the log.
        attempts: how often it is called at most.
        broken: how often at most where it is the connection that broke.

    Raises:
        Exception: the last error, or at once one that another attempt would meet again.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError  # the client asked several times before it

    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            status = status_of(error)
            again = status in AGAIN if status is not None else is_transport(error) and attempt < broken
            if not again or attempt == attempts or isinstance(error, LocalEntryNotFoundError):
                raise
            wait = min(max(WAIT * 2 ** (attempt - 1), _asked_to_wait(error)), LONGEST_WAIT)
            reason = f"HTTP {status}" if status is not None else type(error).__name__
            logger.warning("%s: %s; attempt %d of %d in %.0f s", what, reason, attempt + 1, attempts, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _asked_to_wait(error: BaseException) -> float:
    value = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
    return float(value) if value.isdigit() else 0.0


def explained(error: BaseException, what: str, token: str | bool | None = None) -> Exception:
    """Turn an error of the Hub client into one clear sentence, without the token.

    Args:
        error: as the client raised it.
        what: failed, such as ``"org/repo: config.json"``.
        token: that was used, if it was given.
    """
    from huggingface_hub import errors

    status = status_of(error)
    cause = error
    while cause.__cause__ is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    said = str(getattr(cause, "server_message", None) or "").strip()
    said = f" ({without_token(said, token)})" if said else ""
    if isinstance(cause, errors.GatedRepoError):
        return PermissionError(
            f"{what}: access is gated{said}; expected an account that was granted it. Ask for access on the repo's "
            "page, then log in with `hf auth login` or set HF_TOKEN."
        )
    if status == 401 and "Invalid credentials" in str(cause):
        return PermissionError(
            f"{what}: the Hub refuses the token; expected a valid one. Log in with `hf auth login` or set HF_TOKEN "
            "anew."
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{what}: no such repo, or it is private and this account may not see it. Check the name; for a private "
            "repo log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return FileNotFoundError(f"{what}: no such branch, tag or commit there. Check the revision on the repo's page.")
    if isinstance(cause, errors.EntryNotFoundError) and status == 404:
        return FileNotFoundError(
            f"{what}: no such file in that repo; expected config.json and model.safetensors, nothing else is opened. "
            "Publish the model with `dendrite-zoo publish`, or name another repo."
        )
    if status in (401, 403):
        return PermissionError(
            f"{what}: the Hub refuses it with HTTP {status}{said}; expected an account with the right to do it. Use a "
            "namespace of your own and a token with write access (`hf auth login` or HF_TOKEN)."
        )
    if isinstance(cause, errors.OfflineModeIsEnabled) or "outgoing traffic has been disabled" in str(cause):
        return ConnectionError(
            f"{what}: not in the cache, and offline mode is on. Unset HF_HUB_OFFLINE to fetch it once."
        )
    if status is not None:
        return ConnectionError(f"{what}: the Hub answers with HTTP {status}{said}, {ATTEMPTS} times. Try again later.")
    if is_transport(error) or isinstance(cause, errors.LocalEntryNotFoundError):
        return ConnectionError(
            f"{what}: the Hub cannot be reached ({type(cause).__name__}). Check the network and HF_ENDPOINT, then try "
            "again."
        )
    return OSError(f"{what}: {without_token(str(error), token)}")
