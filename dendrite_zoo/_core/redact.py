"""What must not stand in a file, a log or an exception."""

import re
import shlex
import sys

SECRET_OPTION = re.compile(r"token|secret|passw|credential|(api|access|private)[_-]?key", re.IGNORECASE)


def without_token(text: str, token: str | bool | None = None) -> str:
    """Blot out the token in a text, whoever wrote it there."""
    for secret in (token, _own_token()):
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return re.sub(r"\bhf_\w{8,}", "***", text)


def _own_token() -> str | None:
    """The account's token; None for a CI job that no repo trusts, where asking for one fails."""
    from huggingface_hub import get_token

    try:
        return get_token()
    except Exception:  # of the client and of its HTTP library
        return None


def typed_command(program: str) -> str:
    """What was typed to start this process, as a record shows it: no token, and no value of an option that is secret.

    Args:
        program: the name to begin with.
    """
    words, secret = [program], False
    for word in sys.argv[1:]:
        option, equals, _ = word.partition("=")
        named = option.startswith("-") and SECRET_OPTION.search(option) is not None
        if secret and not option.startswith("--"):
            word = "***"
        elif named and equals:
            word = f"{option}=***"
        secret = named and not equals
        words.append(word)
    return without_token(shlex.join(words))
