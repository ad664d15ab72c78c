"""Asking the Hub again where that may help, and saying in one line what went wrong where it does not."""

import logging
import time
from collections.abc import Callable, Iterator
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
    responses = (getattr(cause, "response", None) for cause in _causes(error))
    return next((int(response.status_code) for response in responses if response is not None), None)


def is_transport(error: BaseException) -> bool:
    """Say whether an error came from the connection rather than from an answer."""
    from huggingface_hub import errors

    answer = errors.HfHubHTTPError
    client_error = answer.__bases__[0]  # HTTPError of httpx or httpx2, whichever the client uses
    return any(isinstance(cause, client_error) and not isinstance(cause, answer) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def retried(
    call: Callable[[], T], what: str, *, attempts: int = ATTEMPTS, broken: int = ATTEMPTS, again: frozenset[int] = AGAIN
) -> T:
    """Call until it succeeds, with waits that double, where the Hub is busy or the connection broke.

    Args:
        call: may be repeated without harm.
        what: is being done, for the log.
        attempts: how often it is called at most.
        broken: how often at most where it is the connection that broke.
        again: the HTTP statuses after which it is called again.

    Raises:
        Exception: the last error, or at once one that another attempt would meet again.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError  # the client asked several times before it

    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            status = status_of(error)
            may_help = status in again if status is not None else is_transport(error) and attempt < broken
            if not may_help or attempt == attempts or isinstance(error, LocalEntryNotFoundError):
                raise
            wait = min(max(WAIT * 2 ** (attempt - 1), _asked_to_wait(error)), LONGEST_WAIT)
            reason = f"HTTP {status}" if status is not None else type(error).__name__
            logger.warning("%s: %s; attempt %d of %d in %.0f s", what, reason, attempt + 1, attempts, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _asked_to_wait(error: BaseException) -> float:
    value = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
    return float(value) if value.isdigit() else 0.0


EXPLANATIONS: dict[type[OSError], dict[str, str]] = {
    PermissionError: {
        "GatedRepoError": "access is gated{said}; expected an account that was granted it. Ask for access on the "
        "repo's page, then log in with `hf auth login` or set HF_TOKEN.",
        "bad token": "the Hub refuses the token; expected a valid one. Log in with `hf auth login` or set HF_TOKEN.",
        "no right": "the Hub refuses it with HTTP {status}{said}; expected an account with the right to do it. Use a "
        "namespace of your own and a token with write access (`hf auth login` or HF_TOKEN).",
    },
    FileNotFoundError: {
        "RepositoryNotFoundError": "no such repo, or it is private and this account may not see it. Check the name; "
        "for a private repo log in with `hf auth login` or set HF_TOKEN.",
        "RevisionNotFoundError": "no such branch, tag or commit there. Check the revision on the repo's page.",
        "RemoteEntryNotFoundError": "no such file in that repo; expected config.json and model.safetensors, nothing "
        "else is opened. Publish the model with `dendrite-zoo publish`, or name another repo.",
    },
    ConnectionError: {
        "OfflineModeIsEnabled": "not in the cache, and offline mode is on. Unset HF_HUB_OFFLINE to fetch it once.",
        "LocalEntryNotFoundError": "the Hub cannot be reached ({kind}). Check the network and HF_ENDPOINT; try again.",
        "failing": "the Hub answers with HTTP {status}{said}, {attempts} times. Try again later.",
    },
}
"""An exception to the reasons for it, a class of the client's errors or another, each with its sentence."""


def explained(error: BaseException, what: str, token: str | bool | None = None) -> Exception:
    """Turn an error of the Hub client into one clear sentence, without the token.

    Args:
        error: as the client raised it.
        what: failed, such as ``"org/repo: config.json"``.
        token: that was used, if it was given.
    """
    *causes, last = _causes(error)
    cause = next((cause for cause in causes if getattr(cause, "response", None) is not None), last)
    reason = _reason(cause, status_of(error), is_transport(error))
    if reason is None:
        return OSError(f"{what}: {without_token(str(error), token)}")
    said = without_token(str(getattr(cause, "server_message", None) or "").strip(), token)
    words = {"said": f" ({said})" if said else "", "status": status_of(error), "kind": type(cause).__name__}
    exception = next(kind for kind, sentences in EXPLANATIONS.items() if reason in sentences)
    return exception(f"{what}: {EXPLANATIONS[exception][reason].format(attempts=ATTEMPTS, **words)}")


def _reason(cause: BaseException, status: int | None, transport: bool) -> str | None:
    """The key of `EXPLANATIONS` for an error; None where the error explains itself."""
    explained = set().union(*EXPLANATIONS.values())
    known = [kind.__name__ for kind in type(cause).__mro__ if kind.__name__ in explained]
    reasons = {
        "bad token": status == 401 and "Invalid credentials" in str(cause),
        "OfflineModeIsEnabled": "outgoing traffic has been disabled" in str(cause),
        **dict.fromkeys(known[:1], True),
        "no right": status in (401, 403),
        "failing": status is not None,
        "LocalEntryNotFoundError": transport or "LocalEntryNotFoundError" in known,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
