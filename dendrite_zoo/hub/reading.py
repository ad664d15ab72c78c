"""Reading an artifact: each part held against the others before any of it is used."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dendrite_zoo.hub import artifact
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.arguments import defaults_of, plain
from dendrite_zoo.hub.migrations import migrate
from dendrite_zoo.hub.resolve import REPO, Place
from dendrite_zoo.hub.results import Results, read_results
from dendrite_zoo.hub.skeleton import check_numbers, compare, skeleton

HEADER_BYTES = 1 << 20  # that names and shapes take in a file of weights, at most


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from, and which weights its results speak of.

    Attributes:
        repo: ``org/name`` on the Hub, or None.
        base_model: the repo that the loaded weights themselves were trained from, or empty.
        fingerprint: of the model as loaded.
        results: as loaded.
        arguments: of the model's constructor, as they were saved.
        marks: in the header of the file of weights.
    """

    repo: str | None = None
    base_model: str = ""
    fingerprint: str = ""
    results: Results | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)


def read(model_class: Any, place: Place, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor], Origin]:
    """Give the constructor's arguments and the state dict of the artifact in a place, and what it is."""
    where = f"{place}: {artifact.CONFIG}"
    expected = skeleton(model_class, configs.arguments_of(migrated(model_class, config, {})[0]), where)
    most = 8 * sum(tensor.numel() for tensor in expected.values()) + HEADER_BYTES
    stored, marks = artifact.read_weights(place.path(artifact.WEIGHTS, most))
    current, state = migrated(model_class, config, stored)
    arguments = configs.arguments_of(current)
    made = {name: x for name, x in expected.items() if name not in state or state[name].ndim < x.ndim}
    check_numbers(model_class, made, where)
    state = model_class.from_file(arguments, state)
    compare(expected, state, f"{place}: {artifact.WEIGHTS}")
    artifact.verify(place, config, stored, marks)
    fingerprint = marks.get("fingerprint", "")
    if current != config:
        fingerprint = artifact.fingerprint(model_class.to_file(arguments, state), current)
    found = place.find(artifact.RESULTS)
    results = None if found is None else read_results(found)
    base = str(marks.get("base_model", ""))
    base = base if REPO.fullmatch(base) else ""
    return arguments, state, Origin(place.repo, base, fingerprint, results, dict(arguments), marks)


def migrated(
    model_class: Any, config: Mapping[str, Any], state: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give config and tensors in the current format."""
    defaults = defaults_of(model_class.__init__)
    return migrate(config, state, {k: plain(v) for k, v in defaults.items() if v is not inspect.Parameter.empty})
