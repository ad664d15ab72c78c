"""Files that appear whole or not at all, and JSON that a person can read."""

import contextlib
import functools
import json
import math
import os
import reprlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

MAX_BYTES = 1 << 26  # the record of 1000 tasks takes 6 MB
MAX_ITEMS = 1 << 22  # of all lists and objects together: the matrix of 2000 tasks
MAX_DEPTH = 16
WAITING, LEFT_AFTER = ".writing-", 3600.0  # seconds
Content: TypeAlias = str | Callable[[Path], Any]


def parse_json(text: str | bytes, where: str, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse strict JSON that somebody else may have written: no NaN or Infinity, no key twice, and within bounds.

    Args:
        text: the whole document.
        where: it stands, for the message.
        max_bytes: how long it may be.

    Raises:
        ValueError: for anything else.
    """
    if len(text) > max_bytes:
        raise ValueError(f"Expected {where} to have at most {max_bytes:,} bytes, but it is larger. Do not load it.")
    data = text.encode(errors="replace") if isinstance(text, str) else text
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_ITEMS:  # before it takes memory
        raise ValueError(f"Expected {where} to have at most {MAX_ITEMS:,} values, but it has more. Do not load it.")

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        named = dict(pairs)
        if len(named) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise ValueError(f"the key {reprlib.repr(twice)} stands twice")
        return named

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        remedy = "It is cut off or altered; fetch it again."
        raise ValueError(f"{where}: no valid JSON ({error}); expected a whole document. {remedy}") from None
    check_bounds(value, where)
    return value


def check_bounds(value: Any, where: str, *, max_items: int = MAX_ITEMS) -> None:
    """Refuse nested lists and mappings that are too deep, or have more items than memory should be spent on.

    Raises:
        ValueError: naming ``where``.
    """
    level, depth, items = [value], 0, 0
    while level := [item for item in level if isinstance(item, list | tuple | dict)]:
        depth, items = depth + 1, items + sum(map(len, level))
        if depth > MAX_DEPTH:
            raise ValueError(f"Expected {where} to be at most {MAX_DEPTH} deep, but it is deeper. Do not load it.")
        if items > max_items:
            raise ValueError(f"Expected {where} to have at most {max_items:,} values, but it has more. Do not load it.")
        level = list(chain.from_iterable(item.values() if isinstance(item, dict) else item for item in level))


def read_json(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON document as `parse_json` does, never more of the file than it may have.

    Raises:
        ValueError: the file is larger or deeper than `parse_json` allows, or no strict JSON.
    """
    with open(path, "rb") as file:
        return parse_json(file.read(max_bytes + 1), str(path), max_bytes=max_bytes)


def to_json(value: Any, indent: str = "", *, nan_is_null: bool = False) -> str:
    """JSON for people: lists of plain values stay on one line.

    Args:
        value: of JSON's types; tuples and other mappings are written as lists and objects.
        indent: white space in front of every line but the first.
        nan_is_null: write null for NaN and infinity.

    Raises:
        ValueError: there is a NaN or an infinity, which JSON cannot say, and ``nan_is_null`` is False.

    Example:
        >>> print(to_json({"seeds": [0, 1], "matrix": [[1, 2], [3, 4]]}))
        {
          "seeds": [0, 1],
          "matrix": [
            [1, 2],
            [3, 4]
          ]
        }
    """
    inner = indent + "  "
    within = functools.partial(to_json, indent=inner, nan_is_null=nan_is_null)
    if isinstance(value, Mapping):
        items = [f"{json.dumps(str(key))}: {within(item)}" for key, item in value.items()]
        nested, (first, last) = bool(value), "{}"
    elif isinstance(value, list | tuple):
        items = [within(item) for item in value]
        nested, (first, last) = any(isinstance(item, list | tuple | dict) for item in value), "[]"
    else:
        is_nan = nan_is_null and isinstance(value, float) and not math.isfinite(value)
        escaped = isinstance(value, str) and not value.isprintable()  # half a surrogate pair is no UTF-8
        return json.dumps(None if is_nan else value, allow_nan=False, ensure_ascii=escaped)
    if nested:
        return f"{first}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{last}"
    return first + ", ".join(items) + last


def nan_to_null(value: Any, places: int | None = None) -> Any:
    """A number as JSON can say it, None for NaN; or each of nested lists of numbers.

    Args:
        value: a number, or a list.
        places: decimals to round to.

    Example:
        >>> nan_to_null([[0.125, float("nan")]], places=2)
        [[0.12, None]]
    """
    if isinstance(value, list):
        return [nan_to_null(item, places) for item in value]
    return None if math.isnan(value) else value if places is None else round(value, places)


def write_json(path: str | Path, value: Any, *, nan_is_null: bool = False) -> Path:
    """Write a value as `to_json` gives it, by `write_atomically`; give the path."""
    return write_atomically(path, to_json(value, nan_is_null=nan_is_null) + "\n")


def write_atomically(path: str | Path, content: Content) -> Path:
    """Write a file beside ``path``, then move it there: no reader ever meets half a file.

    Args:
        path: the file to appear; missing folders are made.
        content: its text; or a function that gets a path with the same name in a folder on the same disk, and writes
            that.

    Returns:
        The path.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(f"{folder}/a.txt", "hello").read_text()
        'hello'
    """
    path = Path(path)
    write_together(path.parent, {path.name: content})
    return path


def write_together(folder: Path, files: Mapping[str, Content], *, stale: Iterable[str] = ()) -> None:
    """Write several files of one folder: where one of them fails, none appears.

    Args:
        folder: made where it is missing.
        files: name to content, as for `write_atomically`; they appear in this order.
        stale: names of files about what the folder held before, which go before the new files appear.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{WAITING}*"):  # by a process that was killed; one at work is not as slow
        with contextlib.suppress(FileNotFoundError):  # another process has ended its work meanwhile
            if time.time() - left.stat().st_mtime > LEFT_AFTER:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=WAITING, dir=folder) as waiting:
        for name, content in files.items():
            part = Path(waiting, name)
            part.touch()
            mode = part.stat().st_mode  # of an ordinary file; safetensors makes its own readable by the user alone
            part.write_text(content, encoding="utf-8") if isinstance(content, str) else content(part)
            part.chmod(mode)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        for name in files:
            os.replace(Path(waiting, name), folder / name)
