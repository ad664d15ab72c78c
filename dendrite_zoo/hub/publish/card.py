"""The card of a model: what it is, how to use it, what it forgot, how it was made, each figure from a record.

Generated parts stand between markers; whatever a person writes around them, and metadata of theirs, survives
a new version.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo.hub import artifact, registry
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.build import MODEL_TYPES
from dendrite_zoo.hub.model import HubModel
from dendrite_zoo.metrics import forgetting_per_task, learned_part, summarize, weight_sparsity

logger = logging.getLogger(__name__)

PART = re.compile(r"<!-- dendrite-zoo:begin (?P<name>\w+).*?<!-- dendrite-zoo:end (?P=name) -->", re.DOTALL)
FRONT = re.compile(r"\A---\n(?P<metadata>.*?\n)---\n", re.DOTALL)
DATASETS = {"mnist": "ylecun/mnist"}  # the last word of a benchmark's name, where its data are on the Hub
MOST_TASKS = 20


class Card:
    """What is known of one model, and the card and picture made of it.

    Args:
        config: the whole config.json.
        state: the state dict.
        results: result records; the first is the model's own, as are others of the same row.
        name: of the repo or the zoo entry.
        source: what `dendrite_zoo.load` is to be given.
        model_class: of the model; it has a word in the card (`HubModel.usage`, `HubModel.limits`).
        base_model: ``org/name`` it was fine-tuned from.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Tensor],
        *,
        results: Any = None,
        name: str,
        source: str,
        model_class: type[HubModel],
        base_model: str | None = None,
    ) -> None:
        self.config, self.state, self.name, self.source = config, state, name, source
        records = results if isinstance(results, list) else [results]
        self.results = [record for record in records if isinstance(record, Mapping)]
        self.own = [record for record in self.results if record.get("row") == self.results[0].get("row")]
        self.base_model = base_model
        self.model_class, self.pipeline_tag = model_class, model_class.pipeline_tag
        arguments = {key: value for key, value in config.items() if key not in configs.HEADER}
        self.arguments = arguments
        self.usage = model_class.usage(arguments)
        self.limits = model_class.limits(arguments)
        self.matrix = _square(self.own[0].get("matrix")) if self.own else None

    def text(self, *, picture: bool) -> str:
        """Give the whole README.md; ``picture`` says whether ``matrix.png`` lies beside it."""
        import jinja2

        template = importlib.resources.files("dendrite_zoo.hub.publish").joinpath(
            "templates", self.model_class.card_template
        )
        environment = jinja2.Environment(undefined=jinja2.ChainableUndefined, keep_trailing_newline=True)
        weights = [t for t in self.state.values() if t.is_floating_point()]
        first = self.own[0] if self.own else {}
        body = environment.from_string(template.read_text("utf-8")).render(
            title=self.name,
            config=self.config,
            arguments=json.dumps(self.arguments),
            results=self.results,
            own=self.own,
            base_model=self.base_model,
            source=self.source,
            usage=self.usage,
            limits=self.limits,
            picture=picture,
            figures={} if self.matrix is None else summarize(self.matrix),
            tasks=self._tasks(),
            matrix_size=0 if self.matrix is None else len(self.matrix),
            layers=self._layers(),
            parameters=first.get("parameters") or sum(t.numel() for t in weights),
            nonzero=sum(int(t.count_nonzero()) for t in weights),
            versions=", ".join(f"{k} {v}" for k, v in (first.get("versions") or {}).items()),
            wall_time=_duration(first.get("wall_time_s")),
            accuracy=_accuracy,
            context=_context,
            number=_number,
            percent=lambda share: "·" if share is None else f"{100 * share:.1f}",
        )
        return _front(self.metadata()) + "\n" + body

    def metadata(self) -> dict[str, Any]:
        """Give what the Hub indexes: the YAML at the head of the card."""
        benchmarks = [str(record["benchmark"]) for record in self.own if record.get("benchmark")]
        datasets = [DATASETS[last] for b in benchmarks if (last := b.rpartition("-")[2]) in DATASETS]
        return {
            "library_name": configs.LIBRARY_NAME,
            "license": "apache-2.0",
            **({"pipeline_tag": self.pipeline_tag} if self.pipeline_tag else {}),
            "tags": list(dict.fromkeys(["dendrite-zoo", *self.model_class.card_tags, *benchmarks])),
            **({"datasets": list(dict.fromkeys(datasets))} if datasets else {}),
            **({"base_model": self.base_model} if self.base_model else {}),
            **({"model-index": [self._model_index()]} if self.own else {}),
        }

    def draw(self, path: Path) -> bool:
        """Draw the accuracy matrix, else the sub-networks; False without either, or with nothing to draw them with."""
        from dendrite_zoo.report import plot_matrix, plot_subnetworks

        subnetworks = self.own[0].get("subnetworks") if self.own else None
        try:
            if self.matrix is not None:
                plot_matrix(self.matrix, path, title=self.name)
            elif subnetworks:
                plot_subnetworks(subnetworks, path, title=self.name)
            else:
                return False
        except ImportError as error:
            logger.warning("the card goes without its picture: %s", error)
            return False
        return True

    def _model_index(self) -> dict[str, Any]:
        results = []
        for record in self.own:
            over = f"{record.get('num_tasks')} tasks, context {record.get('context_at_test')}"
            figures = {self.model_class.card_metric: record.get("average_accuracy")}
            if record is self.own[0] and self.matrix is not None:
                lost = summarize(self.matrix)["forgetting"].value
                figures["forgetting"] = None if math.isnan(lost) else round(lost, 6)
            benchmark = str(record.get("benchmark"))
            data = {"type": DATASETS.get(benchmark.rpartition("-")[2], benchmark), "name": benchmark}
            metrics = [
                {"type": kind, "value": value, "name": f"mean {kind} over {over}"}
                for kind, value in figures.items()
                if value is not None
            ]
            if metrics:
                task = {"type": self.pipeline_tag or "other", "name": self.model_class.card_task}
                results.append({"task": task, "dataset": data, "metrics": metrics})
        return {"name": self.name, "results": results}

    def _tasks(self) -> list[dict[str, Any]]:
        if self.matrix is None:
            return []
        R = learned_part(self.matrix)
        lost, tasks = forgetting_per_task(R), list(range(len(R)))
        if len(R) > MOST_TASKS:
            tasks = sorted(lost.nan_to_num(nan=-math.inf).topk(MOST_TASKS).indices.tolist())
        return [
            {"name": j, "learned": R[j, j], "best": lost[j] + R[-1, j], "now": R[-1, j], "forgotten": lost[j]}
            for j in tasks
        ]

    def _layers(self) -> dict[str, dict[str, Any]]:
        layers: dict[str, dict[str, Any]] = {}
        for name, tensor in self.state.items():
            layer, _, what = name.rpartition(".")
            if what == "weight" and tensor.ndim > 1:
                layers[layer] = {"weight": weight_sparsity(tensor.float())}
        for name, figures in (self.own[0].get("sparsity") or {} if self.own else {}).items():
            layers[name] = {**layers.get(name, {}), **figures}
        return layers


def describe(
    waiting: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    results: Any,
    base_model: str | None,
    place: Path,
) -> None:
    """Add card and picture to an artifact that is being written.

    Args:
        waiting: where to write them.
        config: as for `Card`, like the following.
        state: the state dict.
        results: result records.
        base_model: ``org/name``.
        place: the folder the artifact will lie in; an earlier card there keeps a person's text.
    """
    in_zoo = place.resolve().parent == registry.cards_folder().resolve()
    name = place.resolve().parent.name if place.name == "model" else place.resolve().name
    card = Card(
        config,
        state,
        results=results,
        name=name,
        source=name if in_zoo else os.path.join(".", place),
        base_model=base_model,
        model_class=MODEL_TYPES[config["model_type"]],
    )
    earlier = place / artifact.CARD
    old = earlier.read_text(encoding="utf-8") if earlier.is_file() else None
    text = merge(old, card.text(picture=card.draw(waiting / artifact.PICTURE)))
    (waiting / artifact.CARD).write_text(text, encoding="utf-8")


def merge(old: str | None, new: str) -> str:
    r"""Bring a generated card into one that exists: generated parts replaced, a person's text and metadata kept.

    A part that a person removed stays away; a card without any marks gets all parts at its end.

    Example:
        >>> part = "<!-- dendrite-zoo:begin use -->{}<!-- dendrite-zoo:end use -->"
        >>> merge("Mine.\n" + part.format(1), part.format(2)).replace(part.format(2), "NEW")
        'Mine.\nNEW'
    """
    if not old or not old.strip():
        return new
    parts = {match["name"]: match[0] for match in PART.finditer(new)}
    body = FRONT.sub("", old, count=1)
    if PART.search(body):
        body = PART.sub(lambda match: parts.get(match["name"], ""), body)
    else:
        body = "\n\n".join([body.strip(), *parts.values()]) + "\n"
    generated, present = _read_front(new), _read_front(old)
    lists: dict[str, Any] = {
        key: list(dict.fromkeys([*generated.get(key, []), *_as_list(present.get(key))]))
        for key in ("tags", "datasets")
        if key in generated or key in present
    }
    mine = {"library_name", "pipeline_tag", "base_model", "model-index"}  # what only the library knows
    kept = {key: value for key, value in present.items() if key not in mine}
    metadata = {**generated, **kept, **lists}
    return (_front(metadata) if metadata else "") + body


def own_text(card: str | None) -> str:
    """Give what a person wrote into a card: all that stands outside the generated parts."""
    return " ".join(PART.sub("", FRONT.sub("", card or "", count=1)).split())


def _front(metadata: Mapping[str, Any]) -> str:
    from huggingface_hub import CardData

    return f"---\n{CardData(**metadata).to_yaml()}\n---\n"


def _read_front(card: str) -> dict[str, Any]:
    from huggingface_hub import RepoCard

    if not FRONT.match(card):
        return {}
    try:
        return dict(RepoCard(card, ignore_metadata_errors=True).data.to_dict())
    except Exception as error:  # whatever a person typed there
        logger.warning("the metadata of the card cannot be read and is written anew: %s", error)
        return {}


def _square(rows: Any) -> Tensor | None:
    """Give an accuracy matrix of a record, null being NaN; None where it holds none."""
    try:
        matrix = torch.tensor([[math.nan if x is None else float(x) for x in row] for row in rows])
    except (TypeError, ValueError):
        return None
    return matrix if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0 else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _accuracy(record: Mapping[str, Any]) -> str:
    spread = record.get("average_accuracy_std")
    return _number(record.get("average_accuracy")) + (f" ± {_number(spread)}" if spread is not None else "")


def _context(record: Mapping[str, Any]) -> str:
    ways = {
        "inferred": "the task inferred from each input",
        "given": "the task given",
        "constant": "one constant context",
    }
    return ways.get(str(record.get("context_at_test")), "without a context")


def _number(value: Any) -> str:
    if isinstance(value, Tensor):
        value = float(value)
    if not isinstance(value, int | float) or math.isnan(value):
        return "·"
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "not recorded"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
