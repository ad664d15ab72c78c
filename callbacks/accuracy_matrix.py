"""The accuracy matrix of a run: what it was measured on, and how it is shown and written."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.console import Console

from dendrite_zoo._core.files import read_json
from dendrite_zoo.metrics import AccuracyMatrix
from dendrite_zoo.report import matrix_record, matrix_table, plot_matrix, read_matrix, summary_table, write_record

Counts = Mapping[int, int | None] | None  # task -> number of samples, None where it is unknown


class AccuracyRecord(AccuracyMatrix):
    """An accuracy matrix that grows with the tasks seen, with its name and the sample counts.

    Args:
        metric: name of what is measured.
        mode: ``"min"`` where less is better.
        label: tells its files from those of others.

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

    def __init__(self, metric: str, mode: Literal["max", "min"] = "max", label: str = "") -> None:
        super().__init__()
        self.metric, self.mode, self.label, self.first_task = metric, mode, label, 0
        self._samples: dict[int, int | None] = {}
        self._said: set[Path] = set()  # where the file is

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

    def begin(self, task: int) -> None:
        """Training starts at a task: what was measured before it is the row before that task's."""
        before, after = self.first_task, task  # in the states, where row 0 is the untrained model
        self.first_task = task
        if before != after:
            self.grow(after)
            for state in (self.correct, self.total, self.given):
                state[after], state[before] = state[before].clone(), 0

    def show(self, console: Console | None = None) -> None:
        """Print the matrix, and what follows from it."""
        console = console or Console()
        console.print(matrix_table(self.matrix, **self._about()))
        if not self.matrix.isnan().all():
            console.print(summary_table(self.matrix, self.baseline, metric=self.metric, mode=self.mode))

    def path(self, folder: Path, suffix: str = ".json") -> Path:
        """Where the matrix is written in a folder."""
        return folder / f"matrix{re.sub(r'[^A-Za-z0-9]+', '-', f'-{self.label}') if self.label else ''}{suffix}"

    def write_json(self, folder: Path) -> bool:
        """Write ``matrix.json``, but never over rows that were measured before and that this matrix lacks.

        Returns:
            Whether it was written.
        """
        path = self.path(folder)
        new = math.inf if self.matrix.isnan().all() else self.first_task  # the first task that was trained on
        if lost := [i for i in self.rows_in(folder) if i < new and not self.measured(i)]:
            rank_zero_warn(
                f"{path} contains values {after_tasks(lost)} of an earlier run, which this one did not measure, so "
                "the file is not overwritten. Use one ForgettingLogger for all fits, or give each fit's the same "
                "`folder=`, which goes on with the file; for another experiment choose another folder, or remove the "
                "file."
            )
            return False
        write_record(matrix_record(self.matrix, samples=self.samples, **self._about()), path)
        if path not in self._said:
            rank_zero_info(f"ForgettingLogger writes its matrix to {path.absolute()}.")
            self._said.add(path)
        return True

    def rows_in(self, folder: Path) -> list[int]:
        """The tasks after which something was measured, by the ``matrix.json`` in a folder, if there is one."""
        try:
            matrix = read_json(self.path(folder))["matrix"]
            return [i for i, row in enumerate(matrix) if any(value is not None for value in row)]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write(self, folder: Path, *, picture: bool) -> Path | None:
        """Write ``matrix.json`` and, where matplotlib is installed, ``matrix.png``; return the path of the latter."""
        if self.write_json(folder) and picture:
            try:
                self.plot(path := self.path(folder, ".png"))
                return path
            except ImportError as missing:
                rank_zero_info(str(missing))
        return None

    def plot(self, path: str | Path | None = None) -> Any:
        """The picture, see `dendrite_zoo.report.plot_matrix`."""
        return plot_matrix(self.matrix, path, **self._about())

    def read_rows(self, folder: Path, before: int) -> dict[str, Any] | None:
        """What ``matrix.json`` has of the rows before a task, for `from_state`; None where it has none."""
        try:
            file = read_matrix(self.path(folder))
        except (OSError, ValueError):
            return None
        if (file["metric"], file["mode"]) != (self.metric, self.mode) or not 0 < before <= len(file["samples"]):
            return None
        matrix = file["R"].float()
        matrix[before:] = math.nan
        state = {"baseline": file["baseline"].float(), "matrix": matrix}
        about = {name: file[name] for name in ("samples", "first_task")}
        return None if matrix.isnan().all() else state | about

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
        known = {"baseline": self.baseline, "metric": self.metric, "mode": self.mode}
        return {**known, "first_task": self.first_task}


def after_tasks(tasks: Sequence[int]) -> str:
    """The rows of a matrix in words.

    Example:
        >>> after_tasks([2]), after_tasks([0, 1, 2])
        ('after task 2', 'after the tasks 0 to 2')
    """
    return f"after task {tasks[0]}" if len(tasks) == 1 else f"after the tasks {tasks[0]} to {tasks[-1]}"
