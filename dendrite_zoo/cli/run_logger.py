"""``metrics.csv``: what a run logged, also where it was killed and resumed."""

import csv
import os
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class RunLogger(Logger):
    """Writes ``metrics.csv`` as Lightning's CSVLogger does, to one folder, where a resumed run appends to it.

    Each task has columns of its own. CSVLogger writes the whole file anew for each of them, which takes most of the
    time of a run of hundreds of tasks, and deletes what an earlier run wrote. Here new columns stand last, earlier
    rows, which end before them, are filled up when the run ends, and a crash at any moment loses nothing. A run that is
    resumed from a checkpoint drops what was logged after it (`resume`): each row stands once.

    Args:
        folder: the run folder; ``metrics.csv`` lies directly in it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(folder, "metrics.csv")
        self._repeated: int | None = None  # the step of rows that a resumed run may log again

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.path.parent.name

    version = ""
    """None: a run that is resumed has one folder."""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    log_dir = save_dir

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Drop the rows that a resumed run logs anew.

        Args:
            step: the last one of the checkpoint. Its own rows, such as those of a validation that a crash may have cut
                short, stay until they are logged again.
        """
        self._repeated = step
        if self.path.exists():
            self._keep(lambda row: int(row.get("step") or 0) <= step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row."""
        row = {name: getattr(value, "item", lambda value=value: value)() for name, value in metrics.items()}
        row["step"] = step
        columns = self._columns
        if step == self._repeated:
            self._keep(lambda old: old.keys() != row.keys() or old["step"] != str(step))
        if new := sorted(row.keys() - columns.keys()):
            columns.update(zip(new, range(len(columns), len(columns) + len(new)), strict=True))
            self._rewrite(shutil.copyfileobj)
        cells = [""] * (1 + max(columns[name] for name in row))
        for name, value in row.items():
            cells[columns[name]] = value
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow(cells)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Give all rows a cell in each column."""
        if self.path.exists():
            size = len(self._columns)
            self._rewrite(
                lambda old, new: csv.writer(new).writerows(r + [""] * (size - len(r)) for r in csv.reader(old))
            )

    @cached_property
    def _columns(self) -> dict[str, int]:
        """The columns of the file as it is, to their places."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a kill may have cut the last line
        with open(self.path, newline="") as file:
            return {name: place for place, name in enumerate(next(csv.reader(file), []))}

    def _keep(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Drop the other rows."""
        columns = list(self._columns)

        def copy(old: TextIO, new: TextIO) -> None:
            rows = ((row, {name: x for name, x in zip(columns, row, strict=False) if x}) for row in csv.reader(old))
            csv.writer(new).writerows(row for row, values in rows if wanted(values))

        self._rewrite(copy)

    def _rewrite(self, copy: Callable[[TextIO, TextIO], object]) -> None:
        """Write the file anew, with the header of now and the rows as ``copy`` copies them."""
        waiting = self.path.with_suffix(".csv.new")
        with open(self.path, newline="") as old, open(waiting, "w", newline="") as new:
            old.readline()
            csv.writer(new).writerow(self._columns)
            copy(old, new)
        os.replace(waiting, self.path)
