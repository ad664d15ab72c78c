"""The accuracy matrix while it grows: filled row by row, summed up, saved, shown and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from torch import nn

from dendrite_zoo.functional import accuracy_matrix as F
from dendrite_zoo.report import matrix_record, matrix_table, plot_matrix, summary_table, write_record

__all__ = ["AccuracyRecord"]

NAN = float("nan")


class AccuracyRecord:
    """An accuracy matrix that grows with the tasks seen, with the untrained row and the sample counts.

    Args:
        metric: name of what is measured.

    Attributes:
        matrix: ``(T, T)`` float32 on the CPU, NaN where not measured.
        baseline: ``(T,)``, the untrained model.
        samples: how many samples each column rests on, None where unknown.
        first_task: the task that training started at.

    Example:
        >>> record = AccuracyRecord("val/acc")
        >>> record.put({0: 0.9, 1: 0.1}, after=0)
        >>> record.put({0: 0.8, 1: 0.9}, after=1)
        >>> round(record.figures(after=1)["forgetting/task_0"], 3)
        0.1
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.matrix = torch.full((0, 0), NAN)
        self.baseline = torch.full((0,), NAN)
        self.samples: list[int | None] = []
        self.first_task = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was measured yet."""
        return bool(self.matrix.isnan().all() and self.baseline.isnan().all())

    def measured(self, after: int) -> bool:
        """Whether anything was measured after a task."""
        return after < len(self.matrix) and not bool(self.matrix[after].isnan().all())

    @torch.inference_mode(False)  # Lightning validates in inference mode, whose tensors cannot be written to later
    def grow(self, tasks: int) -> None:
        """Make room for so many tasks."""
        more = tasks - len(self.matrix)
        if more > 0:
            self.matrix = nn.functional.pad(self.matrix, (0, more, 0, more), value=NAN)
            self.baseline = nn.functional.pad(self.baseline, (0, more), value=NAN)
            self.samples += [None] * more

    @torch.inference_mode(False)
    def put(
        self,
        accuracies: Mapping[int, float],
        after: int,
        *,
        samples: Mapping[int, int | None] | None = None,
        gaps_only: bool = False,
    ) -> None:
        """Write what was measured after a task into its row.

        Args:
            accuracies: task -> accuracy.
            after: the task learned last, -1 for the untrained model.
            samples: task -> number of samples.
            gaps_only: leave entries alone that were measured before.
        """
        self.grow(max(after, *accuracies) + 1)
        row = self.matrix[after] if after >= 0 else self.baseline
        for j, accuracy in accuracies.items():
            if not gaps_only or row[j].isnan():
                row[j] = accuracy
                self.samples[j] = (samples or {}).get(j)

    def figures(self, after: int) -> dict[str, float]:
        """What follows from the matrix after a task, under the names that are logged.

        ``average_accuracy`` is NaN where a task that was measured before is missing in the row: it would be another
        mean than in the rows around it.

        Args:
            after: the task learned last, -1 for the untrained model.
        """
        end = max(after, 0) + 1
        R, lost = self.matrix[:end, :end], F.forgetting_per_task(self.matrix[:end, :end])
        known = ~(self.matrix[:, :end].isnan().all(0) & self.baseline[:end].isnan())
        complete = not R[-1, known].isnan().any()
        figures = {
            "average_accuracy": F.average_accuracy(R) if complete else NAN,
            "backward_transfer": F.backward_transfer(R),
            "forgetting": lost.nanmean(),
            "forward_transfer": F.forward_transfer(R, self.baseline[:end]),
            "learning_accuracy": F.learning_accuracy(R),
        }
        # every name from the start, NaN for tasks to come: what is monitored must not appear later
        per_task = {f"forgetting/task_{j}": lost[j] if j < end else NAN for j in range(len(self.matrix))}
        return {name: float(value) for name, value in (figures | per_task).items()}

    def show(self, console: Console | None = None) -> None:
        """Print the matrix, and what follows from it."""
        console = console or Console()
        console.print(matrix_table(self.matrix, self.baseline, metric=self.metric, first_task=self.first_task))
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
                f"{path} holds what an earlier run measured after its tasks, and here only the untrained model was "
                "measured; expected a folder of its own, so the file is left as it is. Give "
                "ForgettingLogger(folder=...), or remove the file."
            )
            return False
        record = matrix_record(
            self.matrix,
            self.baseline,
            metric=self.metric,
            first_task=self.first_task,
            samples=self.samples,
        )
        write_record(record, path)
        return True

    def write_picture(self, folder: Path) -> None:
        """Write ``matrix.png``.

        Raises:
            ImportError: matplotlib is missing.
        """
        plot_matrix(
            self.matrix,
            folder / "matrix.png",
            baseline=self.baseline,
            metric=self.metric,
            first_task=self.first_task,
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives, for a checkpoint."""
        return {
            "matrix": self.matrix.clone(),
            "baseline": self.baseline.clone(),
            "samples": list(self.samples),
            "first_task": self.first_task,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.matrix, self.baseline = state["matrix"].clone(), state["baseline"].clone()
        self.samples, self.first_task = list(state["samples"]), state["first_task"]


def _holds_rows(path: Path) -> bool:
    try:
        matrix = json.loads(path.read_text(encoding="utf-8"))["matrix"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return any(value is not None for row in matrix for value in row)
