"""Bring result records of version 0.1's first months up to date: `python tools/convert_records.py FILE ...`.

Without files, all those that are committed, and the registry's hashes with them. What was a paragraph under ``method``
becomes ``description``, ``row`` becomes ``method``, ``ours`` is dropped, and metrics of sparsity get the names under
which they are logged. What was typed is all that is known of the training, so that it stands as ``config``, and two
runs are seeds of one recipe where they were so before: where their models and the options that matter are equal.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import read_json, write_json
from dendrite_zoo._core.names import RENAMED
from dendrite_zoo.hub import registry
from dendrite_zoo.records import ResultRecord
from dendrite_zoo.records.record import hashed

ROOT = Path(__file__).parents[1]
NO_TRAINING = re.compile(
    r"--(name|row|method|ours|seed_everything|ckpt_path|weights_only"
    r"|trainer\.(enable_|log|accelerator|devices|default_root_dir)"
    r"|data\.(init_args\.)?(seed|source|holdout|val_fraction|evaluate_after|eval_at|num_tasks|num_processes|folder)\b)"
)
"""Options that do not change what is learned, or that a record tells by itself."""
MODEL = re.compile(r"--model\.(init_args\.)?model\.")
"""Options that the record of a model tells by itself."""
METRICS = {"activation": "activation_sparsity", "weight": "weight_sparsity"}
"""Metrics of a layer's sparsity whose names have changed."""


def converted(old: dict[str, Any], file: Path) -> dict[str, Any]:
    """An old record in today's fields; one of today, or of something else, as it is."""
    if old.get("goals") in RENAMED:
        old = {**old, "goals": RENAMED[old["goals"]][0]}
    if old.get("sparsity"):
        layers = old["sparsity"].items()
        old = old | {"sparsity": {layer: {METRICS.get(k, k): x for k, x in values.items()} for layer, values in layers}}
    if not {"row", "ours"} <= set(old):
        return old
    new = {name: value for name, value in old.items() if name not in ("row", "ours", "method", "holdout")}
    new |= {"method": old["row"], "description": old.get("method"), "val_fraction": old.get("holdout")}
    if old.get("model"):
        new["model"] = {RENAMED.get(name, (name,))[0]: value for name, value in old["model"].items()}
    options = training_options(old)
    record = ResultRecord.from_json({**new, "config": None if options is None else {"command": options}}, file)
    recipe = record.recipe()
    return replace(record, config_hash=None if recipe is None else hashed(recipe)).to_json()


def training_options(record: dict[str, Any]) -> dict[str, str] | None:
    """What the command of a record sets of the training; None where it is not ``dendrite-zoo fit``.

    Example:
        >>> training_options({"command": "dendrite-zoo fit --config configs/a.yaml --model.lr=0.1 --name b"})
        {'--config': 'a.yaml', '--model.lr': '0.1'}
    """
    if not record["command"].startswith("dendrite-zoo fit "):
        return None
    options: list[list[str]] = []
    for word in shlex.split(record["command"])[2:]:
        if word.startswith("--"):
            options.append(word.split("=", 1))
        else:
            options[-1].append(word)
    chosen = [o for o in options if not (NO_TRAINING.match(o[0]) or record.get("model") and MODEL.match(o[0]))]
    return {name: " ".join(Path(x).name if name == "--config" else x for x in values) for name, *values in chosen}


def main() -> None:
    """Convert the files named, or all."""
    given = [Path(name) for name in sys.argv[1:]]
    for file in given or [*(ROOT / "results").rglob("*.json"), *(ROOT / "model_cards").glob("*/results.json")]:
        old = read_json(file)
        new = [converted(record, file) for record in (old if isinstance(old, list) else [old])]
        if new != old:
            write_json(file, new)
            print(file)
    for entry in () if given else registry.entries().values():
        now = registry.pins(entry.folder).get("results.json")
        if now is not None and now != entry.files.get("results.json"):
            registry.record(replace(entry, files={**entry.files, "results.json": now}))


if __name__ == "__main__":
    main()
