"""Mutated results.json and README.md: weights load all the same, and what is left out is said."""

import json
import logging
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import dendrite_zoo
from dendrite_zoo.hub.publish import publish
from tests.campaign.models import originals
from tests.campaign.mutate import as_text, bomb, change, damage, instead
from tests.campaign.verdict import Wrong

PART = re.compile(r"<!-- dendrite-zoo:begin (\w+).*?<!-- dendrite-zoo:end \1 -->", re.DOTALL)
PARTS = ["summary", "use", "results", "training", "limits"]
PERSON = "Written by a person, and to be kept."
EXPECTED: dict[str, Any] = {
    **dict.fromkeys(("benchmark", "method", "command", "hardware", "config_hash"), lambda x: isinstance(x, str)),
    **dict.fromkeys(("num_tasks", "updates", "parameters"), lambda x: x is None or (type(x) is int)),
    "context_at_test": lambda x: x in ("inferred", "given", "none", "constant"),
    "average_accuracy": lambda x: is_share(x),
    "average_accuracy_std": lambda x: x is None or is_share(x),
    "average_accuracy_per_seed": lambda x: x is None or all(map(is_share, x)),
    "task_accuracies": lambda x: x is None or all(map(is_share, x)),
    "seeds": lambda x: isinstance(x, list) and all(type(seed) is int for seed in x),
    "matrix": lambda x: (
        x is None or all(len(row) == len(x) and all(c is None or is_share(c) for c in row) for row in x)
    ),
    "versions": lambda x: isinstance(x, dict) and all(isinstance(version, str) for version in x.values()),
    "wall_time_s": lambda x: x is None or (type(x) in (int, float) and abs(x) < float("inf")),
    "sparsity": lambda x: x is None or all(isinstance(layer, dict) for layer in x.values()),
    "tasks": lambda x: x is None or all(isinstance(name, str) for name in x),
}
"""What stands in a record, said once more and in another way than the library does."""


def is_share(x: Any) -> bool:
    return type(x) in (int, float) and 0 <= x <= 1


def is_share_or_none(x: Any) -> bool:
    return x is None or is_share(x)


class Said(logging.Handler):
    """What the library logs while a case runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logger = logging.getLogger("dendrite_zoo")
        logger.handlers, logger.propagate = [self], False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def results(folder: Path) -> Callable[[int], None]:
    """A results.json of a stranger: loaded, saved again, and published."""
    saved, said = originals(folder), Said()

    def case(number: int) -> None:
        draw = random.Random(number)
        original = draw.choice(saved)
        path = original.folder / "results.json"
        said.lines.clear()
        with instead(path, mutated_results(path.read_bytes(), draw)):
            model = dendrite_zoo.load(original.folder)
            original.same(model)
            _check_results(model.results, said.lines, "results.json")
            model.save_pretrained(folder / "again")
            again = dendrite_zoo.load(folder / "again")
            original.same(again)
            if again.results != model.results:
                raise Wrong("results are saved as others than were loaded")
            _check_card(publish(original.folder, "me/mine", dry_run=True).card)
            model.results = in_hand(path, draw)
            model.save_pretrained(folder / "handed")
            original.same(dendrite_zoo.load(folder / "handed"))

    return case


def mutated_results(whole: bytes, draw: random.Random) -> bytes:
    way, value = draw.random(), json.loads(whole)
    if way < 0.6:
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            value = change(value, draw)
        return as_text(value, draw)
    if way < 0.75:
        return damage(whole, draw)
    return bomb(draw)


def in_hand(path: Path, draw: random.Random) -> Any:
    """What somebody might give to a model as its results, in Python."""
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size < 10**6 else None
    except (ValueError, RecursionError):
        value = [{"average_accuracy": float("nan")}]
    circle: list[Any] = [{"mine": 1}]
    circle[0]["mine"] = circle
    return draw.choice(
        [value, value, (value,), {"mine": {1, 2}}, {"mine": object()}, {("a", 1): 2}, circle, torch.ones(3)]
    )


def _check_results(results: Any, lines: list[str], name: str) -> None:
    if results is None:
        if not any(name in line and "\n" not in line for line in lines):
            raise Wrong(f"no results, and no word about {name}: {lines}")
        return
    for record in results:
        for field, value in record.items():
            if not EXPECTED.get(field, lambda x: True)(value):
                raise Wrong(f"a record with {field} {value!r:.99}")


def _check_card(card: str) -> None:
    names = [match[1] for match in PART.finditer(card)]
    if names != PARTS or PART.sub("", card.split("---\n", 2)[2]).strip():
        raise Wrong(f"a card of the parts {names}")


def readmes(folder: Path) -> Callable[[int], None]:
    """A README.md of a stranger in the folder of a model that is published."""
    saved, said = originals(folder), Said()
    cards = [publish(one.folder, "me/mine", dry_run=True).card for one in saved]

    def case(number: int) -> None:
        draw = random.Random(number)
        place = draw.randrange(len(saved))
        path = saved[place].folder / "README.md"
        text = mutated_readme(cards[place], draw)
        path.write_bytes(text)
        said.lines.clear()
        try:
            release = publish(saved[place].folder, "me/mine", dry_run=True)
            _check_kept(text, release.card, said.lines)
            saved[place].same(dendrite_zoo.load(saved[place].folder))
        finally:
            path.unlink()

    return case


def mutated_readme(card: str, draw: random.Random) -> bytes:
    marks = [f"<!-- dendrite-zoo:{what} {name} -->" for what in ("begin", "end") for name in (*PARTS, "other")]
    metadata = ["- a", "self: 1", "1: 2", "a: !!timestamp x", "tags: 3", "tags: {a: b}", "license: mit", "a: &a [*a]"]
    text = f"{card}\n{PERSON}\n"
    way = draw.random()
    if way < 0.4:
        data = text.encode()
        for _ in range(draw.choice([1, 1, 3, 10])):
            data = damage(data, draw)
        return data
    if way < 0.6:
        return f"---\n{draw.choice(metadata)}\n---\n{text.split('---', 2)[2]}".encode()
    if way < 0.75:
        for _ in range(draw.choice([1, 2, 5])):
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(marks) + text[place:]
        return text.encode()
    if way < 0.85:
        return f"{PERSON} Für alle.\r\n".encode(draw.choice(["latin-1", "utf-8", "utf-8-sig", "utf-16"]))
    aliases = "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijklm"))
    bomb = f"a: &a [x, x]\n{aliases}tags: *m\n"
    return draw.choice(
        [
            f"---\n{bomb}---\n{PERSON}\n",
            "---\na: " + "[" * 5000 + f"\n---\n{PERSON}\n",
            "".join(f"<!-- dendrite-zoo:begin a{n} -->" for n in range(50_000)) + PERSON,
            "<!-- dendrite-zoo:begin a -->" * 50_000 + "<!-- dendrite-zoo:end b -->" * 50_000 + PERSON,
            "---\n" + "\n" * 500_000 + PERSON,
            PERSON + "x" * (1 << 23),
        ]
    ).encode()


def _check_kept(text: bytes, card: str, lines: list[str]) -> None:
    """The card has its metadata, and what a person wrote, or a word is said."""
    if not card.startswith("---\n") or "library_name: dendrite-zoo" not in card:
        raise Wrong("a card without its metadata")
    try:
        theirs = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        if not any("README.md" in line for line in lines):
            raise Wrong("bytes that are no UTF-8, and no word") from None
        return
    body = re.sub(r"\A---\n.*?\n---\n", "", theirs.replace("\r\n", "\n"), count=1, flags=re.DOTALL)
    own = body if len(body) > 200_000 else PART.sub("", body)  # which takes time with marks by the thousand
    if PERSON in own and PERSON not in card and not any("README.md" in line for line in lines):
        raise Wrong("what a person wrote is gone, and no word")
