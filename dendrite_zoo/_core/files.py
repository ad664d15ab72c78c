"""Files that appear whole or not at all, and JSON that a person can read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["to_json", "write_atomically"]


def to_json(value: Any, indent: str = "") -> str:
    """JSON for people: lists of plain values stay on one line.

    Raises:
        ValueError: there is a NaN, which JSON cannot say.

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
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(key)}: {to_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        return "[\n" + ",\n".join(f"{inner}{to_json(item, inner)}" for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def write_atomically(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let ``write`` fill a file beside ``path``, then move it there: no reader ever meets half a file.

    Args:
        path: the file to appear; missing folders are made.
        write: gets a path with the same suffix in the same folder, and writes it.

    Returns:
        The path.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(f"{folder}/a.txt", lambda part: part.write_text("hello")).read_text()
        'hello'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
