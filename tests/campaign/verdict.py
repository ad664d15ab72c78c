"""How a case ended, judged from outside.

An error is clear where this library itself raised it, by a ``raise`` of its own, as one of Python's errors, in one line
that names the file and the field. Anything else that ends a case is a raw traceback, whatever its text says.
"""

import json
import linecache
import re
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = tuple(str(ROOT / folder) for folder in ("dendrite_zoo", "callbacks", "lightning_modules"))
CLEAR = (ValueError, TypeError, FileNotFoundError, FileExistsError, PermissionError, ConnectionError, OSError)
KINDS = ("right", "refused", "wrong", "raw", "hang")
LONGEST = 1000  # characters of a message
WHERE = re.compile(
    r"`\w+`|line \d+ column|char \d+|bytes|values|items|numbers of|deep|saved together|do not belong together|"
    r"expected a whole|valid JSON|JSON object|codec can't decode|\w+_\w+|no such|promised|damaged|checkpoint|the Hub|"
    r"the tensors"
)
"""A field, a place in a file, or which two files differ."""


class Verdict(NamedTuple):
    """How a case ended, and why."""

    kind: str
    said: str = ""


class Wrong(Exception):
    """A case ended quietly with something that is not right."""


def judge(case: Callable[[], None], names: Collection[str]) -> Verdict:
    """Run a case.

    Args:
        case: raises `Wrong` where what it sees is not right; ends quietly where it is.
        names: files, of which a clear error names one.
    """
    try:
        case()
    except Wrong as error:
        return Verdict("wrong", str(error))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        fault = unclear(error, names)
        if fault is None:
            return Verdict("refused", said)
        where = "".join(traceback.format_exception(error)[-3:])
        return Verdict("raw", f"{fault}: {said[:LONGEST]}\n{where[-LONGEST:]}")
    return Verdict("right")


def unclear(error: Exception, names: Collection[str]) -> str | None:
    """Say why an error is not clear; None where it is."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    statement = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    message = str(error)
    if not frame.filename.startswith(SOURCES) or not statement.startswith("raise"):
        return f"not raised by the library ({frame.filename}:{frame.lineno})"
    if type(error) not in CLEAR:
        return "of a class of its own"
    if "\n" in message or len(message) > LONGEST:
        return "not one line"
    if not any(name in message for name in names):
        return f"names none of {', '.join(names)}"
    if not WHERE.search(message):
        return "names no field"
    return None


def line(number: int, verdict: Verdict) -> str:
    """A case as a line of JSON."""
    return json.dumps({"case": number, **verdict._asdict()})
