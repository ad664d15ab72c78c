"""``config.json``: what it may hold, and what it must, checked before any model is built.

A config comes from strangers. It is parsed strictly, its ``model_type`` is looked up in a table and never
imported, and every argument is compared with the constructor's own signature.
"""

import math
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import dendrite_zoo
from dendrite_zoo._core.files import parse_json
from dendrite_zoo._core.names import nearest

LIBRARY_NAME = "dendrite-zoo"
AGENT: dict[str, Any] = {"library_name": LIBRARY_NAME, "library_version": dendrite_zoo.__version__}
"""Who asks, as the Hub's client says it, and who wrote a config."""

FORMAT_VERSION = 6
HEADER = ("library_name", "library_version", "format_version", "model_type")

MAX_CONFIG = 1 << 20  # of a config.json
MAX_VERSION = 64  # characters
MAX_NAME = 80  # of an argument, in a message
MAX_INT = 2**31 - 1  # a size, a count or a seed
MAX_ITEMS = 1024  # of a list or an object: each could become a layer

Config = dict[str, Any]


def parse(text: str | bytes, where: str = "config.json") -> Config:
    """Parse a config: one strict JSON object, with sizes that a model can have.

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse('{"model_type": "mlp", "width": NaN}')
        Traceback (most recent call last):
        ...
        ValueError: config.json: no valid JSON (NaN is not JSON); expected a whole document. It is ...
    """
    config = parse_json(text, where, max_bytes=MAX_CONFIG)
    if not isinstance(config, dict):
        raise ValueError(f"{where}: expected one JSON object, but got {type(config).__name__}. Fetch it again.")
    check_value(config, where)
    return config


def read(path: Path) -> Config:
    """Read and parse the config at ``path``, never more of it than a config may have."""
    with path.open("rb") as file:
        return parse(file.read(MAX_CONFIG + 1), str(path))


def check_value(value: Any, where: str) -> None:
    """Refuse numbers and lengths that no config of ours has, however deep they stand."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, but got {value}. Correct it.")
    if isinstance(value, int) and not 0 <= value <= MAX_INT:
        raise ValueError(f"{where}: expected a whole number from 0 to {MAX_INT}, but got {value}. Correct it.")
    if isinstance(value, list | tuple | dict):
        if len(value) > MAX_ITEMS:
            raise ValueError(f"{where}: expected at most {MAX_ITEMS} items, but got {len(value)}. Do not load it.")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            check_value(item, f"{where}: {str(key)[:MAX_NAME]}")


def check_header(config: Mapping[str, Any], known_types: Collection[str], where: str = "config.json") -> None:
    """Check the four keys every artifact's config starts with.

    Raises:
        ValueError: where it is not ours, of a newer format, or of an unknown type.
    """
    library, written_by, version, model_type = (config.get(key) for key in HEADER)
    if library != LIBRARY_NAME:
        remedy = "This is not an artifact of this library: load it with the one that wrote it."
        raise ValueError(f"{where} has library_name {reprlib.repr(library)}; expected {LIBRARY_NAME!r}. {remedy}")
    if not isinstance(written_by, str) or len(written_by) > MAX_VERSION:
        remedy = "expected one such as '0.1.0'. Fetch it again."
        raise ValueError(f"{where} has library_version {reprlib.repr(written_by)}; {remedy}")
    if type(version) is not int or version < 1:
        expected = f"expected 1 to {FORMAT_VERSION}. Fetch it again."
        raise ValueError(f"{where} has format_version {reprlib.repr(version)}; {expected}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{where} has format_version {version}, written by {LIBRARY_NAME} {written_by}; "
            f"this release reads up to {FORMAT_VERSION}. Upgrade: pip install -U {LIBRARY_NAME}"
        )
    if not isinstance(model_type, str) or model_type not in known_types:
        expected = f"expected one of {', '.join(sorted(known_types))}, never a path to import"
        remedy = f"{nearest(str(model_type)[:99], known_types)} Import a class of your own, which registers it, first."
        raise ValueError(f"{where} has model_type {reprlib.repr(model_type)}; {expected}.{remedy}")


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the constructor's arguments of a full config: all but the header."""
    return {key: value for key, value in config.items() if key not in HEADER}
