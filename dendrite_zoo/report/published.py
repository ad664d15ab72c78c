"""What others published on permuted MNIST: mean accuracy over all tasks after the last one."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dendrite_zoo.records import ResultRecord, read_records

__all__ = ["PUBLISHED"]

PUBLISHED_FOR = "permuted-mnist"
"""The benchmark of all these numbers."""


class Published(NamedTuple):
    """A curve of a paper.

    Args:
        method: the line of a results table it belongs to.
        context_at_test: ``"inferred"``, ``"given"`` or ``"none"``.
        accuracy: by the number of tasks.
        by_segments: by the number of segments a unit, for some numbers of tasks.
        by_density: by the share of active units, for some numbers of tasks.
        reference: of the paper.
    """

    method: str
    context_at_test: str
    accuracy: dict[float, float]
    by_segments: dict[int, dict[float, float]] = {}
    by_density: dict[int, dict[float, float]] = {}
    reference: str = ""


def _curves(records: Iterable[ResultRecord]) -> dict[str, Published]:
    curves: dict[str, Published] = {}
    for record in records:
        blank = Published(record.method, record.context_at_test, {}, {}, {}, record.reference or "")
        curve, model = curves.setdefault(record.method, blank), record.model or {}
        points = curve.accuracy
        for swept, argument in ((curve.by_segments, "num_segments"), (curve.by_density, "activation_density")):
            if argument in model:
                points = swept.setdefault(record.num_tasks, {})
        points[next(iter(model.values()), record.num_tasks)] = record.average_accuracy
    return curves


PUBLISHED = _curves(read_records(Path(__file__).with_suffix(".json")))
"""By method. Iyer et al. 2022 (arXiv 2201.00042), tables and figures on permuted MNIST; SI, XdG: Masse et al. 2018;
SupSup (GNu, labels not shared): Wortsman et al. 2020 (arXiv 2006.14769)."""
