"""Result records: what a number was made by, so that it can be made again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dendrite_zoo.metrics import bootstrap_interval

__all__ = ["hardware", "merge_records", "merge_rows", "read_records", "result_record", "versions"]


def result_record(
    *,
    benchmark: str,
    row: str,
    ours: bool,
    context_at_test: str,
    task_accuracies: Sequence[float],
    seed: int,
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
        seed: of weights and permutations.
        command: what was typed.
        wall_time_s: training time, in seconds.
        parameters: trainable numbers of the model, masked ones included.
        matrix: accuracy matrix, null where not measured.
        **more: further keys, kept as they are.

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
        "seeds": [seed],
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
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"Seeds {seeds} came to be merged; expected each once. Leave the repeated record out.")
    accuracies = [record["average_accuracy"] for record in records]
    matrices = [record["matrix"] for record in records]
    return {
        **first,
        "average_accuracy": statistics.fmean(accuracies),
        "average_accuracy_std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "average_accuracy_per_seed": accuracies,
        "seeds": seeds,
        "task_accuracies": [
            statistics.fmean(task) for task in zip(*(r["task_accuracies"] for r in records), strict=True)
        ],
        "matrix": _mean_matrix(matrices) if all(matrices) else None,
        **_mean_by_context(records),
        **_mean_success(records),
        "wall_time_s": round(statistics.fmean(record["wall_time_s"] for record in records), 1),
    }


def merge_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge the seeds of each row of a results table, in the order in which the rows came.

    Runs of one row whose models were built otherwise, by number of segments or density say, are points of a curve and
    stay apart; so do those measured on training rows held out.
    """
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        names = ("benchmark", "row", "num_tasks", "context_at_test")
        model = json.dumps(record.get("model"), sort_keys=True)
        key = *(record[name] for name in names), record.get("holdout"), model
        rows.setdefault(key, []).append(record)
    return [merge_records(row) if len(row) > 1 else row[0] for row in rows.values()]


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
    for record in records:
        missing = sorted({"benchmark", "row", "average_accuracy", "seeds"} - set(record))
        if missing:
            raise ValueError(f"A record of {found} lacks {', '.join(missing)}; expected those that a run leaves.")
    return records


def _mean_by_context(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    held = [record.get("accuracy_by_context") for record in records]
    if not all(held):
        return {}
    return {"accuracy_by_context": {way: statistics.fmean(one[way] for one in held if one) for way in held[0] or ()}}


def _mean_success(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of policies: the interval over goals and seeds, and means of what was measured besides."""
    if not all("first_success" in record for record in records):
        return {}
    first = [record["first_success"] for record in records]
    last = [record["success_at_last_step"] for record in records]
    steps = zip(*(record["steps_to_success"] for record in records), strict=True)
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
