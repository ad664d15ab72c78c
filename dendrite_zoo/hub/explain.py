"""Saying in one line what went wrong between the Hub and its client."""

from collections.abc import Iterator, Sequence

from dendrite_zoo._core.redact import without_token

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which asking again may help."""


class TooLong(ConnectionError):
    """A conversation with the Hub takes longer than it may."""


class TooLarge(ValueError):
    """A file is larger than such a file can be."""


def too_large(file: str, most: int, size: int) -> TooLarge:
    """Say so."""
    return TooLarge(f"Expected {file} to have at most {most:,} bytes, but got {size:,}. Do not load it.")


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


LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
SENTENCES = {
    "OfflineModeIsEnabled": "not in the cache, and offline mode is on. To fetch it once leave out "
    "local_files_only=, or unset HF_HUB_OFFLINE.",
    "GatedRepoError": "access is gated{said}; expected an account that was granted it. Ask for access on the repo's "
    f"page, then {LOG_IN}.",
    "bad token": f"the Hub refuses the token; expected a valid one. To use another, {LOG_IN}.",
    "RepositoryNotFoundError": "no such repo, or it is private and this account may not see it. Check the name; for a "
    f"private repo {LOG_IN}.",
    "RevisionNotFoundError": "no such branch, tag or commit there. Check the revision on the repo's page.",
    "RemoteEntryNotFoundError": "no such file in that repo; expected config.json and model.safetensors, nothing else "
    "is opened. Publish the model with `dendrite-zoo publish`, or name another repo.",
    "no right": "the Hub refuses it with HTTP {status}{said}; expected an account with the right to do it. Use a "
    "namespace of your own and a token with write access (`hf auth login` or HF_TOKEN).",
    "failing": "the Hub answers with HTTP {status}{said}, and did so again. Try again later.",
    "nothing there": "the Hub answers with HTTP {status}{said}: nothing is there. Check repo and revision.",
    "refused": "the Hub refuses the request as it is, with HTTP {status}{said}; asking again would not help. Check the "
    "names of repo, revision and tag.",
    "no answer": "the Hub cannot be reached ({kind}). Check the network and HF_ENDPOINT; try again.",
}
"""A reason, a class of the client's errors or another, to what is said; the first that holds counts."""
EXCEPTIONS: dict[str, type[Exception]] = {
    **dict.fromkeys(("GatedRepoError", "bad token", "no right"), PermissionError),
    **dict.fromkeys(("RepositoryNotFoundError", "RevisionNotFoundError"), FileNotFoundError),
    **dict.fromkeys(("RemoteEntryNotFoundError", "nothing there"), FileNotFoundError),
    "refused": ValueError,
}
"""A reason to its exception, where that is not a ConnectionError."""


def explained(error: BaseException, what: str, token: str | bool | None = None) -> Exception:
    """Turn an error of the Hub client into one clear sentence, without the token.

    Args:
        error: as the client raised it.
        what: failed, such as ``"org/repo: config.json"``.
        token: that was used, if it was given.
    """
    causes = list(_causes(error))
    if bound := next((cause for cause in causes if isinstance(cause, TooLong | TooLarge)), None):
        return (ConnectionError if isinstance(bound, TooLong) else ValueError)(f"{what}: {bound}")
    reason = _reason(causes)
    if reason is None:
        kind = ValueError if isinstance(error, ValueError) else OSError
        return kind(f"{what}: {without_token(' '.join(str(error).split()), token)}")
    said = next(filter(None, (str(getattr(cause, "server_message", None) or "").strip() for cause in causes)), "")
    words = {"said": f" ({said})" if said else "", "status": status_of(error), "kind": type(causes[-1]).__name__}
    sentence = without_token(SENTENCES[reason].format(**words), token)
    return EXCEPTIONS.get(reason, ConnectionError)(f"{what}: {sentence}")


def _reason(causes: Sequence[BaseException]) -> str | None:
    """The key of `SENTENCES` for an error; None where the error explains itself."""
    status, text = status_of(causes[0]), " ".join(map(str, causes))
    classes = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    holds = {
        **dict.fromkeys(classes, True),
        "bad token": status == 401 and "Invalid credentials" in text,
        "no right": status in (401, 403),
        "failing": status is not None and (status in AGAIN | {409, 412} or status >= 500),
        "nothing there": status in (404, 410),
        "refused": status is not None,
        "no answer": is_transport(causes[0]) or "LocalEntryNotFoundError" in classes,
    }
    holds["OfflineModeIsEnabled"] = "OfflineModeIsEnabled" in classes or "outgoing traffic has been disabled" in text
    return next((reason for reason in SENTENCES if holds.get(reason)), None)
