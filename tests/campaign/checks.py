"""Twenty checks of the library, each of which can be taken out, in a process of the campaign alone.

With a check taken out the counts must rise: if they do not, either the campaign does not try what the check is for, or
the check does nothing.
"""

import functools
import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dendrite_zoo.hub.arguments import check_arguments


def nothing(*args: Any, **kwargs: Any) -> None:
    """In the place of a function that raises an error or is silent."""


@dataclass(frozen=True)
class Check:
    """A check, and how to do without it.

    Attributes:
        what: it does.
        subject: of the campaign, in which the counts rise.
        places: ``module:name`` or ``module:Class.name`` to what stands there instead.
        cases: how many show it; by default the subject's ``few``.
    """

    what: str
    subject: str
    places: dict[str, Any]
    cases: int | None = None

    def take_out(self) -> None:
        """Put other things into its places, in this process."""
        for place, instead in self.places.items():
            owner, name = _found(place)
            getattr(owner, name)  # it is there
            setattr(owner, name, instead)

    def stands_at(self, place: str) -> Any:
        """What the library has there."""
        return getattr(*_found(place))


def _found(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(f"dendrite_zoo.{module}")), name


def lenient_json(text: Any, where: str, **bounds: Any) -> Any:
    return json.loads(text)


def read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


PART = re.compile(r"<!-- dendrite-zoo:begin (?P<name>\w+).*?<!-- dendrite-zoo:end (?P=name) -->", re.DOTALL)


def pieces_by_pattern(text: str) -> list[tuple[str | None, str]]:
    found: list[tuple[str | None, str]] = []
    end = 0
    for match in PART.finditer(text):
        found += [(None, text[end : match.start()]), (match["name"], match[0])]
        end = match.end()
    return [*found, (None, text[end:])]


def write_one_by_one(folder: Path, files: Any, *, stale: Any = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.write_text(content, encoding="utf-8") if isinstance(content, str) else content(path)


def bare_skeleton(model_class: Any, arguments: Any, where: str = "") -> dict[str, Any]:
    check_arguments(model_class.__init__, arguments, model_class.__name__, where)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return dict(model_class(**arguments).state_dict())


class Never(Exception):
    """Raised nowhere."""


def as_it_is(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


UNBOUNDED = {"_core.files:MAX_ITEMS": float("inf"), "_core.files:check_bounds": nothing}
BARE = dict.fromkeys(("hub.reading:skeleton", "hub.model:skeleton"), bare_skeleton)

CHECKS = {
    "fingerprint": Check("the fingerprint of tensors is compared", "weights", {"hub.artifact:verify": nothing}),
    "arguments": Check("the fingerprint covers the arguments", "configs", {"hub.artifact:verify": nothing}),
    "tensors": Check("names, shapes and types are the config's", "weights", {"hub.reading:compare": nothing}),
    "safetensors": Check(
        "errors of the reader of safetensors name the file", "weights", {"hub.artifact:SafetensorError": Never}
    ),
    "signature": Check("arguments are known and complete", "configs", {"hub.skeleton:check_arguments": nothing}),
    "header": Check("a config's header is one of this library", "configs", {"hub.config:check_header": nothing}),
    "JSON": Check("a config is strict JSON", "configs", {"hub.config:parse_json": lenient_json}),
    "densities": Check("a share is not below a billionth", "configs", {"_core.checks:SMALLEST_SHARE": 0.0}),
    "numbers": Check(
        "no file describes too large a network", "configs", {"hub.skeleton:MAX_NUMBERS": float("inf")}, 5000
    ),
    "construction": Check("what a constructor refuses is said with the file", "configs", BARE),
    "values": Check("JSON has a bounded number of values", "results", UNBOUNDED),
    "depth": Check("JSON has a bounded depth", "results", {"_core.files:MAX_DEPTH": float("inf")}),
    "records": Check("fields of a record have their types", "results", {"hub.results:check_records": nothing}),
    "results": Check("results never keep weights from being saved", "results", {"hub.model:usable_results": as_it_is}),
    "encoding": Check("a README may be in Latin-1", "readmes", {"hub.publish.upload:read_card": read_text}),
    "marks": Check("a card is split in linear time", "readmes", {"hub.publish.merge:pieces": pieces_by_pattern}),
    "metadata": Check("aliases of YAML are not written out", "readmes", {"hub.publish.merge:check_bounds": nothing}),
    "whole writes": Check("files appear whole", "saves", {"hub.artifact:write_together": write_one_by_one}),
    "checksums": Check(
        "checksums of a checkpoint are compared",
        "bits",
        dict.fromkeys(("_core.checkpoints:damage", "hub.publish.upload:damage"), nothing),
    ),
    "hashes": Check("a download has its hash", "hub", {"hub.download:Download._is_whole": lambda *args: True}),
    "deadline": Check("a conversation with the Hub has a deadline", "hub", {"hub.retry:TIMEOUTS": 10**6}),
    "explanations": Check("errors of the Hub's client are explained", "hub", {"hub.download:explained": as_it_is}),
}
