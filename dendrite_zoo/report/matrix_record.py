"""The accuracy matrix as JSON: what was measured, and every metric with its reason where it is undefined."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dendrite_zoo._core.files import nan_to_null, read_json, write_json
from dendrite_zoo.functional import forgetting_per_task, learned_part, summarize
from dendrite_zoo.functional.accuracy_matrix import as_values

__all__ = ["matrix_record", "read_matrix", "write_record"]

MAX_TEXT = 200


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


def read_matrix(path: str | Path) -> dict[str, Any]:
    """Read the accuracy matrix of a file that `matrix_record` made.

    Args:
        path: of a ``matrix.json``.

    Returns:
        ``R``, ``baseline``, ``metric``, ``mode``, ``first_task`` and ``samples``: what `matrix_record` takes.

    Raises:
        OSError: there is no such file.
        ValueError: it holds something else.

    Shape:
        ``R``: ``(T, T)``, and ``baseline``: ``(T,)``, both float64, NaN where not measured; ``samples``: ``T`` numbers.
    """
    file = read_json(path)
    try:
        metric, mode, first_task = str(file["metric"]), file.get("mode", "max"), int(file["first_task"])
        R, baseline = (as_doubles(file[name]) for name in ("matrix", "baseline"))
        samples = [None if count is None else int(count) for count in file["samples"]]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {str(error)[:MAX_TEXT]}"
        raise ValueError(f"Expected {path} to hold an accuracy matrix as a run writes it, but got {got}.") from None
    T = len(samples)
    right = R.shape == (T, T) and baseline.shape == (T,) and 0 <= first_task < T
    if not right or mode not in ("max", "min") or len(metric) > MAX_TEXT:
        got = f"{tuple(R.shape)}, {tuple(baseline.shape)}, first task {first_task}, mode {mode!r:.80}"
        expected = f"a matrix (T, T), a baseline (T,) and a first task of {T} tasks, mode 'max' or 'min'"
        raise ValueError(f"Expected {path} to hold {expected}, but got {got}.")
    known = {"metric": metric, "mode": mode, "first_task": first_task, "samples": samples}
    return {"R": R, "baseline": baseline, **known}


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


def as_doubles(x: Any) -> Tensor:
    """Numbers of JSON, in lists, as a float64 tensor; NaN for None.

    Raises:
        TypeError: something is no number.
        ValueError: rows have different lengths.
    """
    return torch.tensor(_floats(x), dtype=torch.float64)


def _floats(x: Any) -> Any:
    if isinstance(x, list):
        return [*map(_floats, x)]
    if isinstance(x, bool | str):
        raise TypeError(f"{x!r:.80} is no number")
    return math.nan if x is None else float(x)


def _exact(x: Any) -> Tensor:
    """In double precision the number that one reads: .9, not the float32 nearest to it."""
    array = as_values(x).detach().cpu().numpy()
    return torch.tensor([float(str(value)) for value in array.ravel()], dtype=torch.float64).reshape(array.shape)
