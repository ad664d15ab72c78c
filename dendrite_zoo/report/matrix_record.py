"""The accuracy matrix as JSON: what was measured, and every metric with its reason where it is undefined."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dendrite_zoo._core.files import nan_to_null, write_json
from dendrite_zoo.functional.accuracy_matrix import as_values
from dendrite_zoo.metrics import forgetting_per_task, learned_part, summarize

__all__ = ["matrix_record", "write_record"]


def matrix_record(
    R: Any,
    baseline: Any = None,
    *,
    metric: str = "accuracy",
    mode: Literal["max", "min"] = "max",
    first_task: int = 0,
    samples: Sequence[int | None] | None = None,
) -> dict[str, Any]:
    """Everything about an accuracy matrix that a program would read, as JSON primitives.

    Args:
        R: accuracy matrix.
        baseline: accuracy of the untrained model on each task.
        metric: name of what was measured.
        mode: ``"min"`` where less is better.
        first_task: the task that training started at.
        samples: how many samples each column rests on, None where unknown.

    Returns:
        ``metric``, ``mode``, ``num_tasks``, ``first_task``, ``matrix``, ``baseline``, ``samples``, ``metrics`` (name ->
        ``{value, tasks, reason}``) and ``forgetting_per_task``. NaN is null.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``; ``samples``: ``T`` numbers.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> record = matrix_record([[0.9, float("nan")], [0.8, 0.9]])
        >>> record["matrix"][0], record["metrics"]["forward_transfer"]["value"]
        ([0.9, None], None)
    """
    R = _exact(R)
    T = len(R)
    baseline = torch.full((T,), math.nan) if baseline is None else _exact(baseline)
    figures = summarize(R, baseline, mode)
    lost = forgetting_per_task(learned_part(R), mode).tolist()
    return {
        "metric": metric,
        "mode": mode,
        "num_tasks": T,
        "first_task": first_task,
        "matrix": nan_to_null(R.tolist()),
        "baseline": nan_to_null(baseline.tolist()),
        "samples": [None] * T if samples is None else list(samples),
        "metrics": {name: {**f._asdict(), "value": nan_to_null(f.value, 10)} for name, f in figures.items()},
        "forgetting_per_task": nan_to_null(lost, 10) + [None] * (T - len(lost)),
    }


def write_record(record: dict[str, Any] | list[dict[str, Any]], path: str | Path) -> Path:
    """Write records as JSON, one row of a matrix a line; the file appears whole or not at all.

    Args:
        record: JSON primitives, such as :func:`matrix_record` gives, or a list of such.
        path: where to write; missing folders are made.

    Returns:
        The path.

    Raises:
        ValueError: the record holds a NaN, which JSON cannot say.
    """
    return write_json(path, record)


def _exact(x: Any) -> Tensor:
    """In double precision the number that one reads: .9, not the float32 nearest to it."""
    array = as_values(x).detach().cpu().numpy()
    return torch.tensor([float(str(value)) for value in array.ravel()], dtype=torch.float64).reshape(array.shape)
