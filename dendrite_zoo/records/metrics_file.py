"""``metrics.csv`` of a run: what was logged, row by row."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["read_metrics", "success_curve"]

MAX_BYTES = 1 << 28
CURVE = ("env_steps", "updates", "minutes", "success")


def read_metrics(path: str | Path, wanted: Callable[[str], bool]) -> Iterator[dict[str, float]]:
    """What a run has logged, a row at a time; columns that are not wanted, and cells without a value, are left out.

    Args:
        path: of a ``metrics.csv``; of one that is still being written the last row may be missing.
        wanted: says which columns are read.

    Raises:
        ValueError: the file is larger than 256 MB, or holds something else than numbers.
    """
    if (size := Path(path).stat().st_size) > MAX_BYTES:
        raise ValueError(f"Expected {path} to have at most {MAX_BYTES:,} bytes, but got {size:,}. Do not load it.")
    with open(path, newline="", encoding="utf-8") as file:
        try:
            rows = csv.reader(file)
            columns = [(place, name) for place, name in enumerate(next(rows, [])) if wanted(name)]
            for row in rows:
                yield {name: float(row[place]) for place, name in columns if place < len(row) and row[place]}
        except (csv.Error, ValueError) as error:
            raise ValueError(f"Expected {path} to hold numbers under their names, but got: {error}.") from None


def success_curve(folder: Path) -> list[dict[str, float]]:
    """Read from ``metrics.csv`` how success rose with the steps played, a point an epoch.

    Args:
        folder: of a run of `dendrite_zoo.streams.OnlineTasks` with a `SuccessLogger`; without one there are no points.

    Returns:
        ``env_steps``, ``updates``, ``minutes`` (where a `RunRecorder` logs them) and every ``success/...`` of each
        evaluation.
    """
    if not (folder / "metrics.csv").is_file():
        return []
    points: dict[float, dict[str, float]] = defaultdict(dict)
    for row in read_metrics(folder / "metrics.csv", lambda name: name.partition("/")[0] in ("epoch", *CURVE)):
        points[row.pop("epoch", -1.0)].update(row)  # of an epoch that a crash made run twice the last values count
    return [point for point in points.values() if {"env_steps", "updates", "success/mean"} <= point.keys()]
