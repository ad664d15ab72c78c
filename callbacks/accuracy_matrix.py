"""The accuracy matrix of a run: what it was measured on, and how it is shown and written."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.console import Console

from dendrite_zoo.metrics import AccuracyMatrix
from dendrite_zoo.report import matrix_record, matrix_table, plot_matrix, summary_table, write_record

Counts = Mapping[int, int | None] | None  # task -> number of samples, None where it is unknown


class AccuracyRecord(AccuracyMatrix):
    """An accuracy matrix that grows with the tasks seen, with its name and the sample counts.

    Args:
        metric: name of what is measured.

    Attributes:
        samples: the number of samples behind each column, None where unknown.
        first_task: the task that training started at.

    Example:
        >>> record = AccuracyRecord("val/acc")
        >>> record.put({0: 0.9, 1: 0.1}, after=0, samples={0: 50})
        [0, 1]
        >>> record.samples
        [50, None]
    """

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric, self.first_task = metric, 0
        self._samples: dict[int, int | None] = {}

    @property
    def samples(self) -> list[int | None]:
        """The number of samples behind each column."""
        return [self._samples.get(j) for j in range(self.num_tasks)]

    def put(
        self,
        accuracies: Mapping[int, float],
        after: int | None,
        *,
        overwrite: bool = True,
        samples: Counts = None,
    ) -> list[int]:
        """Write accuracies into the row of a task, see `AccuracyMatrix.put`, with the number of samples of each."""
        written = super().put(accuracies, after, overwrite=overwrite)
        self._samples |= {j: (samples or {}).get(j) for j in written}
        return written

    def show(self, console: Console | None = None) -> None:
        """Print the matrix, and what follows from it."""
        console = console or Console()
        console.print(matrix_table(self.matrix, **self._about()))
        if not self.matrix.isnan().all():
            console.print(summary_table(self.matrix, self.baseline))

    def write_json(self, folder: Path) -> bool:
        """Write ``matrix.json``, but never the untrained model alone over the rows of an earlier run.

        Returns:
            Whether it was written.
        """
        path = folder / "matrix.json"
        if self.matrix.isnan().all() and _holds_rows(path):
            rank_zero_warn(
                f"{path} contains the accuracies of an earlier run after its tasks, and in this run only the untrained "
                "model was measured, so the file is not overwritten. Pass ForgettingLogger(folder=...) a folder of its "
                "own, or remove the file."
            )
            return False
        write_record(matrix_record(self.matrix, samples=self.samples, **self._about()), path)
        return True

    def write(self, folder: Path) -> None:
        """Write ``matrix.json`` and, where matplotlib is installed, ``matrix.png``."""
        if self.write_json(folder):
            try:
                plot_matrix(self.matrix, folder / "matrix.png", **self._about())
            except ImportError as missing:
                rank_zero_info(str(missing))

    def to_state(self) -> dict[str, Any]:
        """Tensors and primitives, for a callback's state."""
        return {name: getattr(self, name) for name in ("matrix", "baseline", "samples", "first_task")}

    def from_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_state` gave."""
        self.reset()
        self.grow(len(state["matrix"]))
        for after, row in zip([None, *range(self.num_tasks)], [state["baseline"], *state["matrix"]], strict=True):
            self.put({j: a for j, a in enumerate(row.tolist()) if not math.isnan(a)}, after)
        self._samples, self.first_task = dict(enumerate(state["samples"])), state["first_task"]

    def _about(self) -> dict[str, Any]:
        return {"baseline": self.baseline, "metric": self.metric, "first_task": self.first_task}


def _holds_rows(path: Path) -> bool:
    try:
        matrix = json.loads(path.read_text(encoding="utf-8"))["matrix"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return any(value is not None for row in matrix for value in row)
