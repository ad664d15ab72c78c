"""Result records: what a number was made by, so that it can be made again."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import reprlib
import shlex
import statistics
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch

from dendrite_zoo.metrics import bootstrap_interval

__all__ = [
    "hardware",
    "merge_records",
    "merge_rows",
    "read_records",
    "recipe_key",
    "result_record",
    "training_options",
    "versions",
]

KEYS: dict[str, type | tuple[type, ...]] = {
    "benchmark": str,
    "row": str,
    "ours": bool,
    "context_at_test": str,
    "num_tasks": int,
    "average_accuracy": (int, float),
    "average_accuracy_std": (int, float, type(None)),
    "seeds": list,
    "matrix": (list, type(None)),
    "wall_time_s": (int, float),
    "parameters": int,
}
"""What every record must have to be shown and merged."""

PER_SEED = "average_accuracy_per_seed"
"""The key that a merged record has, and the record of one run has not."""

NO_TRAINING = re.compile(
    r"--(name|row|ours|seed_everything|ckpt_path|weights_only|trainer\.(enable_|log|accelerator|devices|default_root_dir)"
    r"|data\.(init_args\.)?(seed|source|val_fraction|eval_at|num_tasks|num_processes|folder)\b)"
)
"""Options that do not change what is learned, or that a record tells by itself."""
MODEL = re.compile(r"--model\.(init_args\.)?model\.")
"""Options that the record of a model tells by itself."""


def result_record(
    *,
    benchmark: str,
    row: str,
    ours: bool,
    context_at_test: str,
    task_accuracies: Sequence[float],
    seed: int | None,
    command: str,
    wall_time_s: float,
    parameters: int,
    matrix: Sequence[Sequence[float | None]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The record of one seed.

    Args:
        benchmark: such as ``"permuted-mnist"``.
        row: the line of the results table it belongs to.
        ours: whether the recipe is this library's own, not a published one.
        context_at_test: ``"inferred"``, ``"given"``, ``"none"`` or ``"constant"``.
        task_accuracies: accuracy on each task after the last was learned, in [0, 1].
        seed: of the weights; None where there was none.
        command: what was typed.
        wall_time_s: training time, in seconds.
        parameters: numbers in the model's parameters, masked and frozen ones included.
        matrix: accuracy matrix, null where not measured.
        **more: further keys, kept as they are; ``stream_seeds``, of a stream's permutations, stands beside ``seeds``.

    Returns:
        A dict of JSON values with the keys users rely on.
    """
    return {
        "benchmark": benchmark,
        "row": row,
        "ours": ours,
        "context_at_test": context_at_test,
        "num_tasks": len(task_accuracies),
        "average_accuracy": statistics.fmean(task_accuracies),
        "average_accuracy_std": None,
        "seeds": [] if seed is None else [seed],
        "task_accuracies": list(task_accuracies),
        "matrix": matrix,
        "command": command,
        "versions": versions(),
        "hardware": hardware(),
        "wall_time_s": round(wall_time_s, 1),
        "parameters": parameters,
        **more,
    }


def merge_records(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of several seeds: means, and the standard deviation over seeds (n - 1).

    Records that were merged before count as often as they have seeds.

    Raises:
        ValueError: the records are not of one row, or a seed stands twice.

    Example:
        >>> one = result_record(benchmark="b", row="r", ours=True, context_at_test="inferred",
        ...     task_accuracies=[0.9, 0.7], seed=0, command="c", wall_time_s=1, parameters=5)
        >>> merged = merge_records([one, {**one, "seeds": [1], "average_accuracy": 0.9}])
        >>> merged["seeds"], round(merged["average_accuracy"], 3), round(merged["average_accuracy_std"], 3)
        ([0, 1], 0.85, 0.071)
    """
    first = records[0]
    for key in ("benchmark", "row", "ours", "context_at_test", "num_tasks", "parameters"):
        values = {record[key] for record in records}
        if len(values) > 1:
            raise ValueError(
                f"Records with {key} {' and '.join(map(repr, sorted(values, key=repr)))} came to be merged; expected "
                "several seeds of one row. Merge each row by itself."
            )
    seeds = [seed for record in records for seed in record["seeds"]]
    drawn: dict[int, list[int | None]] = {}
    for record in records:
        for seed, stream in zip(record["seeds"], record.get("stream_seeds") or repeat(None), strict=False):
            drawn.setdefault(seed, []).append(stream)
    if any(len(of) > 1 and (None in of or len(set(of)) < len(of)) for of in drawn.values()):
        raise ValueError(f"Seeds {seeds} came to be merged; expected each once. Leave the repeated record out.")
    accuracies = [accuracy for record in records for accuracy in record.get(PER_SEED, [record["average_accuracy"]])]
    streams = [record.get("stream_seeds", []) for record in records]
    runs = _runs(records)
    matrices = [run["matrix"] for run in runs]
    return {
        **first,
        "average_accuracy": statistics.fmean(accuracies),
        "average_accuracy_std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        PER_SEED: accuracies,
        "seeds": seeds,
        **({"stream_seeds": list(chain(*streams))} if all(streams) else {}),
        **_mean_by_task(runs),
        "matrix": _mean_matrix(matrices) if all(matrices) else None,
        **_mean_by_context(runs),
        **_mean_success(records),
        "wall_time_s": round(statistics.fmean(run["wall_time_s"] for run in runs), 1),
    }


def merge_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge the seeds of each row of a results table, in the order in which the rows came.

    Runs of one row whose models were built otherwise, by number of segments or density say, are points of a curve and
    stay apart; so do those trained with other options, and those measured on training rows held out.
    """
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        key = *(record[name] for name in ("benchmark", "row", "num_tasks", "context_at_test")), recipe_key(record)
        rows.setdefault(key, []).append(record)
    return [merge_records(row) if len(row) > 1 else row[0] for row in rows.values()]


def recipe_key(record: Mapping[str, Any], but_for: str | None = None) -> str:
    """What the model is, what it was trained with and measured on: equal for the seeds of one recipe.

    Args:
        record: of a run.
        but_for: an argument of the model that may differ.
    """
    model = {k: v for k, v in (record.get("model") or {}).items() if v is not None and k != but_for}
    return json.dumps([model, training_options(record), record.get("val_fraction")], sort_keys=True)


def training_options(record: Mapping[str, Any]) -> list[str]:
    """What the command of a record sets of the training, in order of names: not its seeds, its name, or what is shown.

    The model's own arguments stand in the record. Of a command that is not ``dendrite-zoo fit`` nothing is known.

    Example:
        >>> training_options({"command": "dendrite-zoo fit --config configs/a.yaml --model.lr=0.1 --name b"})
        ['--config a.yaml', '--model.lr 0.1']
    """
    typed = record.get("command") or ""
    if not typed.startswith("dendrite-zoo fit "):
        return []
    options: list[list[str]] = []
    for word in shlex.split(typed)[2:]:
        if word.startswith("--"):
            options.append(word.split("=", 1))
        elif options:
            options[-1].append(word)
    chosen = [o for o in options if not (NO_TRAINING.match(o[0]) or record.get("model") and MODEL.match(o[0]))]
    return sorted(
        " ".join([option[0], *(Path(w).name if option[0] == "--config" else w for w in option[1:])])
        for option in chosen
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The result records of a run folder, or of a JSON file.

    Raises:
        FileNotFoundError: there are none.
    """
    files = [path, path / "results.json", path / "model" / "results.json"]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{path} holds no result records; expected a run folder that finished, or a JSON file.")
    try:
        records = json.loads(found.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{found} is no JSON ({error}); expected result records, as a run leaves them.") from None
    records = records if isinstance(records, list) else [records]
    if not records:
        raise ValueError(f"{found} holds no result records; expected those that a run leaves.")
    for record in records:
        _check(record, found)
    return records


def _check(record: Any, file: Path) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{file} holds {record!r}; expected result records, as a run leaves them.")
    missing = [key for key in KEYS if key not in record]
    if missing:
        raise ValueError(f"A record of {file} lacks {', '.join(missing)}; expected those that a run leaves.")
    tasks, matrix, by_task = record["num_tasks"], record["matrix"], record.get("task_accuracies")
    wrong = [key for key, kind in KEYS.items() if not isinstance(record[key], kind)] or [
        key
        for key, right in {
            "average_accuracy": math.isfinite(record["average_accuracy"]),
            "matrix": matrix is None or {len(matrix), *map(len, matrix)} == {tasks},
            "task_accuracies": by_task is None or len(by_task) == tasks,
        }.items()
        if not right
    ]
    if wrong:
        raise ValueError(
            f"A record of {file} has {wrong[0]} {reprlib.repr(record[wrong[0]])} of {tasks!r} tasks; expected what a "
            "run leaves."
        )


def _runs(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each record as often as runs were merged into it."""
    return [record for record in records for _ in record.get(PER_SEED, [record])]


def _mean_by_task(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    held = [record.get("task_accuracies") or [] for record in records]
    return {"task_accuracies": [statistics.fmean(task) for task in zip(*held, strict=True)]} if all(held) else {}


def _mean_by_context(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    held = [record.get("accuracy_by_context") for record in records]
    if not all(held):
        return {}
    ways = [way for way in held[0] or () if all(way in one for one in held if one)]
    return {"accuracy_by_context": {way: statistics.fmean(one[way] for one in held if one) for way in ways}}


def _mean_success(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of policies: the interval over goals and seeds, and means of what was measured besides."""
    if not all("first_success" in record for record in records):
        return {}
    first = list(chain(*(r["first_success"] if PER_SEED in r else [r["first_success"]] for r in records)))
    runs = _runs(records)
    last = [run["success_at_last_step"] for run in runs]
    steps = zip(*(run["steps_to_success"] for run in runs), strict=True)
    return {
        "interval": list(bootstrap_interval(torch.tensor(first).numpy() > 0)),
        "success_at_last_step": None if None in last else statistics.fmean(last),
        "steps_to_success": [statistics.fmean(known) if (known := [s for s in task if s]) else None for task in steps],
        "first_success": first,
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("dendrite-zoo", "torch", "lightning", "torchmetrics", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def hardware() -> str:
    """The machine in a few words: processor, cores, accelerator."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), processor)
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return f"{processor}, {os.cpu_count()} cores, {accelerator}"


def _mean_matrix(matrices: Sequence[Sequence[Sequence[float | None]]]) -> list[list[float | None]]:
    stacked = torch.tensor(
        [[[float("nan") if x is None else x for x in row] for row in matrix] for matrix in matrices],
        dtype=torch.float64,
    )
    return [[None if x != x else round(x, 6) for x in row] for row in stacked.mean(0).tolist()]
