"""Result records as they stand in files."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import read_json, write_json
from dendrite_zoo._core.names import nearest_path
from dendrite_zoo.records.record import ResultRecord, check_record

__all__ = ["check_records", "may_replace", "read_records", "write_records"]

MAX_RECORDS = 1000


def read_records(path: str | Path) -> list[ResultRecord]:
    """The result records of a run folder, or of a JSON file.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is no JSON, too large, or holds something else; names the field.
    """
    path = Path(path)
    files = [path, path / "results.json", path / "model" / "results.json"]
    if (found := next((file for file in files if file.is_file()), None)) is None:
        meant = "" if path.exists() else nearest_path(path)
        expected = "Expected a run folder that finished, or a JSON file"
        if (path / "metrics.csv").is_file():
            expected = (
                "It has not finished, or its tasks do not say what success is, TaskSpec(success=...), and have returns "
                f"alone. See what it measured by dendrite-zoo report {path} --html"
            )
        raise FileNotFoundError(f"{path} holds no result records. {expected}.{meant}")
    value = read_json(found)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError(f"{found} holds no result records. Expected those that a run writes.")
    return [ResultRecord.from_json(one, found) for one in values]


def write_records(records: Iterable[ResultRecord], path: str | Path) -> Path:
    """Write result records as JSON; the file appears whole or not at all.

    Args:
        records: of runs, or merged ones.
        path: where to write; missing folders are made.
    """
    return write_json(path, [record.to_json() for record in records])


def may_replace(path: Path) -> bool:
    """Whether a run may write its records to a path: nothing is there, or records; else there is a warning."""
    try:
        value = read_json(path) if path.exists() else []
    except (ValueError, OSError):
        value = None
    if all(isinstance(one, Mapping) and "benchmark" in one for one in (value if isinstance(value, list) else [value])):
        return True
    warnings.warn(
        f"{path.absolute()} is no record of a run, so it is left as it is, and this run writes none. Choose another "
        "`folder=`, or remove the file.",
        stacklevel=2,
    )
    return False


def check_records(value: Any, where: str | Path) -> None:
    """Check each of one or several records as far as it goes: any field may be missing.

    Raises:
        ValueError: as `check_record`; or there are too many.
    """
    records = value if isinstance(value, list) else [value]
    if len(records) > MAX_RECORDS:
        raise ValueError(f"Expected {where} to hold at most {MAX_RECORDS} result records, but got {len(records)}.")
    for one in records:
        check_record(one, where)
