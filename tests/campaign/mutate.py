"""Damage: to values of JSON, to text, and to bytes, drawn from a generator."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOSTILE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, 1e-300, 5e-324, 1e300, -0.0, 2**31, 2**63, 10**30),
    *("", "x", "NaN", "os.system", "../../etc/passwd", "a" * 100_000, "\x00", "\ud800", "\u202e", "0"),
    *([], {}, [[]], [0], [1.5, "x"], [[1, [2, [3]]]], {"a": {"b": {"c": 1}}}, [2**30] * 3, list(range(2000))),
]


TINY = [1e-300, 1e-300, 1e-300, 5e-324]
ODD = [b"\xff", b"\x00", b"\xef\xbb\xbf", b"\r\n", b",", b"}", b'"', b"NaN"]


@contextmanager
def instead(path: Path, content: bytes) -> Iterator[None]:
    """Have a file hold something else for a while."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def flipped(data: bytes, place: int, draw: random.Random) -> bytes:
    """Bytes with one bit of one of them the other way round."""
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def change(value: Any, draw: random.Random) -> Any:
    """A value with one place in it changed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        return draw.choice([change_key, drop_key, add_key, change_key, change_key])(value, key, draw)
    if isinstance(value, list) and value and draw.random() < 0.7:
        place, copy = draw.randrange(len(value)), list(value)
        copy[place] = change(value[place], draw)
        return draw.choice([copy, copy, value[:place] + value[place + 1 :], [*value, value[place]], value[::-1]])
    return draw.choice([*near(value, draw), *draw.sample(HOSTILE, 3)])


def change_key(value: dict[str, Any], key: str, draw: random.Random) -> dict[str, Any]:
    return {**value, key: change(value[key], draw)}


def drop_key(value: dict[str, Any], key: str, draw: random.Random) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name != key}


def add_key(value: dict[str, Any], key: str, draw: random.Random) -> dict[str, Any]:
    name = draw.choice([key[:-1], key.upper(), f"{key}s", "self", "__class__", "args", "kwargs", "a" * 1000])
    renamed = drop_key(value, key, draw) if draw.random() < 0.5 else value
    return {**renamed, name: draw.choice([value[key], *HOSTILE])}


def near(value: Any, draw: random.Random) -> list[Any]:
    """Values that somebody might have meant."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1, value * 2, value / 2, float(value), -value, str(value), *TINY]
    if isinstance(value, str):
        others = ["abs_max", "max", "bias", "k-winners", "relu", "activation", "context", "prototype", "one-hot"]
        return [*others, value[:-1], value.upper(), [value]]
    return [None, [value]]


def as_text(value: Any, draw: random.Random) -> bytes:
    """JSON of a value, in one of the ways in which programs write it."""
    options = draw.choice([{}, {"indent": 2}, {"sort_keys": True}, {"separators": (",", ":")}, {"ensure_ascii": False}])
    return json.dumps(value, **options).encode("utf-8", "surrogatepass")


def damage(data: bytes, draw: random.Random) -> bytes:
    """Bytes with a place in them changed, cut out, doubled or written over."""
    if not data:
        return b"\x00"
    start = draw.randrange(len(data))
    stop = min(len(data), start + draw.choice([1, 1, 2, 8, 100]))
    part = data[start:stop]
    written: list[Callable[[], bytes]] = [
        lambda: flipped(data, start, draw),
        lambda: data[:start] + data[stop:],
        lambda: data[:stop] + part + data[stop:],
        lambda: data[:start] + draw.randbytes(stop - start) + data[stop:],
        lambda: data[:start],
        lambda: data[:start] + draw.choice(ODD) + data[start:],
    ]
    return draw.choice(written)()


def bomb(draw: random.Random) -> bytes:
    """A document that takes time or memory out of proportion, or holds nothing."""
    nothing = draw.choice([b"", b"null", b"[]", b"3", b'"x"', b"NaN", b"[1e999]", b"{", b"\x00" * 1000])
    ways = [
        nothing,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 500 + b"]" * 500,
        b'[{"mine": ' + b"[" * 500 + b"]" * 500 + b"}]",
        b"[" + b"1," * 5_000_000 + b"1]",
        b'{"a": ' + b"9" * 100_000 + b"}",
        "[]".encode("utf-16"),
    ]
    if draw.random() < 0.3:  # these are long
        return draw.choice([b"[" + b"[]," * 20_000_000 + b"[]]", b'["' + b"x" * 100_000_000 + b'"]'])
    return draw.choice(ways)
