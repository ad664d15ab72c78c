"""``config.json``: what it may hold, and what it must, checked before any model is built.

A config comes from strangers. It is parsed strictly, its ``model_type`` is looked up in a table and never
imported, and every argument is held against the constructor's own signature.
"""

from __future__ import annotations

import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import dendrite_zoo
from dendrite_zoo._core.names import nearest

LIBRARY_NAME = "dendrite-zoo"
FORMAT_VERSION = 2
HEADER = ("library_name", "library_version", "format_version", "model_type")

MAX_BYTES = 1 << 20  # of a config.json
MAX_INT = 2**31 - 1  # a size, a count or a seed
MAX_ITEMS = 1024  # of a list or an object: each could become a layer

Config = dict[str, Any]
State = dict[str, Any]


def _to_format_2(config: Config, state: State) -> tuple[Config, State]:
    names = {"modulated": "dendrite_layers", "gated": "gate_fraction"}
    return {names.get(key, key): value for key, value in config.items()}, state


MIGRATIONS: dict[int, Callable[[Config, State], tuple[Config, State]]] = {1: _to_format_2}
"""Format version ``v`` to the function that turns its (config, state) into those of ``v + 1``."""


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse strict JSON: no NaN or Infinity, no key twice.

    Raises:
        ValueError: for anything else.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{where}: {constant} is not JSON; expected finite numbers. Correct it or fetch it again.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise ValueError(f"{where}: a key stands twice in {keys}; expected each once. Correct the file.")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{where}: no valid JSON ({error}); expected a whole document. It is cut off or altered; fetch it again."
        ) from None


def parse(text: str | bytes, where: str = "config.json") -> Config:
    """Parse a config: one strict JSON object, with sizes that a model can have.

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse('{"model_type": "mlp", "width": NaN}')
        Traceback (most recent call last):
        ...
        ValueError: config.json: NaN is not JSON; expected finite numbers. Correct it or fetch it again.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{where}: more than {MAX_BYTES} bytes; no model's config is as long. Do not load it.")
    config = parse_json(text, where)
    if not isinstance(config, dict):
        raise ValueError(f"{where}: holds a {type(config).__name__}; expected one JSON object. Fetch it again.")
    check_value(config, where)
    return config


def read(path: Path) -> Config:
    """Read and parse the config at ``path``, never more of it than a config may have."""
    with path.open("rb") as file:
        return parse(file.read(MAX_BYTES + 1), str(path))


def check_value(value: Any, where: str) -> None:
    """Refuse numbers and lengths that no config of ours has, however deep they stand."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: came {value}; expected a finite number. Correct it.")
    if isinstance(value, int) and not 0 <= value <= MAX_INT:
        raise ValueError(f"{where}: came {value}; expected a whole number from 0 to {MAX_INT}. Correct it.")
    if isinstance(value, list | tuple | dict):
        if len(value) > MAX_ITEMS:
            raise ValueError(f"{where}: {len(value)} items; expected at most {MAX_ITEMS}. Do not load it.")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            check_value(item, f"{where}: {key}")


def plain(value: Any) -> Any:
    """A value whose numbers are Python's own, NumPy's among them, as JSON takes them.

    Example:
        >>> import numpy
        >>> plain({"hidden_features": (numpy.int64(8), 8), "density": numpy.float32(0.5)})
        {'hidden_features': [8, 8], 'density': 0.5}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def check_header(config: Mapping[str, Any], known_types: Collection[str]) -> None:
    """Check the four keys every artifact's config starts with.

    Raises:
        ValueError: where it is not ours, of a newer format, or of an unknown type.
    """
    if config.get("library_name") != LIBRARY_NAME:
        raise ValueError(
            f"config.json has library_name {config.get('library_name')!r}; expected {LIBRARY_NAME!r}. This is not an "
            "artifact of this library: load it with the one that wrote it."
        )
    version = config.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(
            f"config.json has format_version {version!r}; expected 1 to {FORMAT_VERSION}. Fetch the file again."
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"config.json has format_version {version}, written by {LIBRARY_NAME} {config.get('library_version')}; "
            f"this is {dendrite_zoo.__version__}, which reads up to {FORMAT_VERSION}. Upgrade: pip install -U "
            f"{LIBRARY_NAME}"
        )
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in known_types:
        raise ValueError(
            f"config.json has model_type {model_type!r}; expected one of "
            f"{sorted(known_types)}.{nearest(str(model_type), known_types)} A type is a registered name, never a path "
            "to import; a class of your own is registered by dendrite_zoo.hub.register_model once its module is "
            "imported."
        )


def migrate(config: Config, state: State) -> tuple[Config, State]:
    """Bring a config and its state dict from their format version to the current one."""
    config, state = dict(config), dict(state)
    while (version := config["format_version"]) < FORMAT_VERSION:
        config, state = MIGRATIONS[version](config, state)
        config["format_version"] = version + 1
    return config, state


def check_arguments(constructor: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> None:
    """Hold a config's arguments against the signature of the constructor they are meant for.

    Raises:
        ValueError: an argument is unknown, missing, or of another type than the signature says.
    """
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(constructor).parameters.items()
        if key != "self" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for key in arguments:
        if key not in parameters:
            raise ValueError(
                f"config.json has {key!r}, which {name} does not take; expected "
                f"{sorted(parameters)}.{nearest(key, parameters)} Correct the key, or upgrade: pip install -U "
                f"{LIBRARY_NAME}"
            )
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in arguments]
    if missing:
        raise ValueError(f"config.json lacks {missing}, which {name} needs. The file is altered; fetch it again.")
    hints = typing.get_type_hints(constructor)
    for key, value in arguments.items():
        check_value(value, f"config.json: {key}")
        if key in hints and not fits(value, hints[key]):
            expected = getattr(hints[key], "__name__", None) if isinstance(hints[key], type) else hints[key]
            raise ValueError(
                f"config.json: {key} is {value!r} ({type(value).__name__}); {name} expects {expected}. Correct the "
                "file."
            )


def fits(value: Any, hint: Any) -> bool:
    """Say whether a JSON value has the annotated type; ``true`` is no number, a list serves as any sequence.

    Example:
        >>> fits(3, int), fits(True, int), fits([64, 64], tuple[int, ...]), fits(None, int | None)
        (True, False, True, True)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    kind = origin or hint
    if kind is not str and isinstance(kind, type) and issubclass(kind, Mapping):
        return isinstance(value, dict) and (not inner or all(fits(item, inner[-1]) for item in value.values()))
    if isinstance(kind, type) and issubclass(kind, Iterable):
        if not isinstance(value, list | tuple):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return not inner or all(fits(item, inner[0]) for item in value)
    return True
