"""Result records beside a model, whoever wrote them: checked, and never in the way of its weights."""

import json
import logging
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import check_bounds, read_json
from dendrite_zoo.records import check_records

logger = logging.getLogger(__name__)

Results = list[dict[str, Any]]


def read_results(path: Path) -> Results | None:
    """Read the records of a file; where it holds something else there is a warning, and None."""
    try:
        return _checked(read_json(path), path)
    except (OSError, ValueError) as error:
        logger.warning("%s The model goes without its results.", error)
        return None


def usable_results(results: Any) -> Results | None:
    """Give records as JSON has them, NaN being null; where they are none there is a warning, and None.

    Args:
        results: a record or several: `dendrite_zoo.records.ResultRecord`, or mappings with arrays of NumPy and torch.
    """
    try:
        plain = json.loads(json.dumps(results, default=_value), parse_constant=lambda _: None)
        return None if plain is None else _checked(plain, "results")
    except (TypeError, ValueError, RecursionError) as error:
        logger.warning("The model goes without its results. %s", error)
        return None


def _value(value: Any) -> Any:
    for method in ("to_json", "tolist"):
        if hasattr(value, method) and not isinstance(value, type):
            return getattr(value, method)()
    raise TypeError(f"Expected values of JSON, but got one of type {type(value).__name__}. Leave it out.")


def _checked(value: Any, where: str | Path) -> Results:
    records = value if isinstance(value, list) else [value]
    check_records(records, where)
    check_bounds(records, str(where))
    return records
