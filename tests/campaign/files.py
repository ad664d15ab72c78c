"""Mutated configs and weights: what loads is what was saved, to the bit, or there is one clear error."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dendrite_zoo
from dendrite_zoo.hub import build, reading
from dendrite_zoo.hub.config import FORMAT_VERSION
from dendrite_zoo.hub.model import class_of
from tests.campaign.models import Original, of_format_1, originals
from tests.campaign.mutate import as_text, bomb, change, damage, flipped, instead
from tests.campaign.verdict import Wrong

Case = Callable[[int], None]
HEADER = ("library_name", "library_version", "format_version", "model_type")
MOST_BYTES, MOST_NUMBERS = 2**20, 10**6  # of a config that is parsed, and of a model that is built here


def configs(folder: Path) -> Case:
    """A config.json that is not the one that was saved, beside its weights, and by itself."""
    saved = originals(folder)

    def case(number: int) -> None:
        draw = random.Random(number)
        original = draw.choice(saved)
        path = original.folder / "config.json"
        whole = path.read_bytes()
        with instead(path, mutated_config(whole, draw)):
            _build(path)
            original.same(dendrite_zoo.load(original.folder))
            if _header(path.read_bytes()) != _header(whole):
                raise Wrong(f"it loads as what it does not say it is: {_header(path.read_bytes())}")

    return case


def mutated_config(whole: bytes, draw: random.Random) -> bytes:
    way, value = draw.random(), json.loads(whole)
    if way < 0.6:
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            value = change(value, draw)
        return as_text(value, draw)
    if way < 0.9:
        for _ in range(draw.choice([1, 1, 3])):
            whole = damage(whole, draw)
        return whole
    if way < 0.95:  # a key that stands twice
        key = draw.choice(sorted(value))
        first = json.dumps({key: change(value[key], draw)})
        return as_text(value, draw).replace(b"{", first[:-1].encode("utf-8", "surrogatepass") + b", ", 1)
    return bomb(draw)


def _header(text: bytes) -> list[Any]:
    config = json.loads(text.decode("utf-8-sig", "surrogatepass"))
    return [config.get(key) for key in ("library_name", "format_version", "model_type")]


def _build(path: Path) -> None:
    """Build a model from what a config says, as for a fit; whatever is a config, it is one of another model."""
    if path.stat().st_size > MOST_BYTES:  # no config: what a load makes of it is seen next
        return
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(config, dict) and config.get("format_version") == FORMAT_VERSION:
        model_class = class_of(config)
        arguments = {key: value for key, value in config.items() if key not in HEADER}
        if sum(tensor.numel() for tensor in reading.skeleton(model_class, arguments).values()) <= MOST_NUMBERS:
            build(config)


def weights(folder: Path) -> Case:
    """A model.safetensors that is not the one that was saved.

    In the first format, where weights do not say which config is theirs, it is never a whole one of the same shapes.
    """
    saved = originals(folder)
    saved += map(of_format_1, saved[:3])

    def case(number: int) -> None:
        draw = random.Random(number)
        original = draw.choice(saved)
        path = original.folder / "model.safetensors"
        whole = path.read_bytes()
        others = [one for one in saved if original.tells_apart(one)]
        with instead(path, mutated_weights(whole, draw, others)):
            original.same(dendrite_zoo.load(original.folder))

    return case


def mutated_weights(whole: bytes, draw: random.Random, saved: list[Original]) -> bytes:
    way, size = draw.random(), int.from_bytes(whole[:8], "little")
    head, body = whole[8 : 8 + size], whole[8 + size :]
    if way < 0.4:  # anywhere in the numbers: what costs most is what nothing but a checksum sees
        place = 8 + size + draw.randrange(len(body))
        return flipped(whole, place, draw)
    if way < 0.55:
        return damage(whole, draw)
    if way < 0.7:
        return whole[:8] + damage(head, draw) + body
    if way < 0.85:  # a header that is one, of another file
        header = mutated_header(json.loads(head), draw)
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(8, "little") + text + body
    if way < 0.95:
        return draw.choice(saved).folder.joinpath("model.safetensors").read_bytes()[: draw.choice([None, -1])]
    length = draw.choice([0, 1, 2**20, 2**40, 2**63, 10**8, size + 1, size - 1])
    return length.to_bytes(8, "little") + whole[8:]


def mutated_header(header: dict, draw: random.Random) -> dict:
    marks = header.pop("__metadata__")
    names = sorted(header)
    one, other = draw.choice(names), draw.choice(names)
    way = draw.randrange(7)
    if way == 0:
        header[one], header[other] = header[other], header[one]
    elif way == 1:
        header[one] = {**header[one], "shape": header[one]["shape"][::-1]}
    elif way == 2:
        header[one] = {**header[one], "dtype": draw.choice(["I32", "F16", "BF16", "F64", "U8", "F99"])}
    elif way == 3:
        header[one] = change(header[one], draw)
    elif way == 4:
        header[f"{one}s"] = header.pop(one)
    elif way == 5:
        marks = draw.choice([{}, {"format": "pt"}, {"dendrite-zoo": "{}"}, {"dendrite-zoo": "[" * 5000}])
    else:
        marks = {
            "dendrite-zoo": as_text(change(json.loads(marks["dendrite-zoo"]), draw), draw).decode("utf-8", "replace")
        }
    return {"__metadata__": marks, **header} if marks else header
