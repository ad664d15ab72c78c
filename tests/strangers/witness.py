"""Runs a pipeline with and without our callbacks, and computes the matrix again, from copies of the weights."""

from __future__ import annotations

import copy
import csv
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from torch import Tensor, nn

from tests.strangers.people import TASKS

OURS = (
    "forgetting", "average_accuracy", "backward_transfer", "forward_transfer", "learning_accuracy", "sparsity/",
    "subnetworks/",
)  # fmt: skip


@dataclass
class Measurement:
    """A validation or a test: the weights that it ran on, and when."""

    stage: str
    epoch: int
    step: int
    weights: dict[str, Tensor]


class Witness(Callback):
    """Copies the weights of each validation and test, and what the user's code logged."""

    def __init__(self) -> None:
        self.measured: list[Measurement] = []
        self.logged: list[dict[str, Tensor]] = []
        self.module: nn.Module | None = None

    def _measures(self, trainer, module, batch, batch_idx, dataloader_idx=0) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            self.module = module
            weights = {name: value.clone() for name, value in module.state_dict().items() if torch.is_tensor(value)}
            stage = {"FITTING": "fit", "VALIDATING": "validate", "TESTING": "test"}[trainer.state.fn.name]
            self.measured.append(Measurement(stage, trainer.current_epoch, trainer.global_step, weights))

    on_validation_batch_start = on_test_batch_start = _measures

    def _logs(self, trainer, module, *args) -> None:
        self.module = module
        self.logged.append({name: value.detach().clone() for name, value in trainer.callback_metrics.items()})

    on_validation_end = on_test_end = on_train_batch_end = on_train_epoch_end = on_fit_end = _logs


@dataclass
class Seen:
    """What a run left behind."""

    witness: Witness
    returned: Any
    final: dict[str, Tensor]
    rng: Tensor
    files: dict[str, dict[str, list[tuple[str, str]]]]
    warnings: list[str] = field(default_factory=list)

    def fits(self, stage: str = "fit") -> list[Measurement]:
        return [one for one in self.witness.measured if one.stage == stage]

    def at_epochs(self, *epochs: int) -> list[Measurement]:
        """The last validation in each of these epochs of a fit."""
        return [[one for one in self.fits() if one.epoch == epoch][-1] for epoch in epochs]

    def network(self, measurement: Measurement) -> nn.Module:
        """The module as it was then, in eval mode."""
        module = copy.deepcopy(self.witness.module)
        module.load_state_dict(measurement.weights, strict=False)
        return module.eval()


def read_csv(folder: Path) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Each metrics.csv as column -> its (step, value)."""
    files = {}
    for path in sorted(folder.rglob("metrics.csv")):
        columns: dict[str, list[tuple[str, str]]] = {}
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch") and not name.startswith(OURS):
                        columns.setdefault(name, []).append((row["step"], value))
        files[str(path.relative_to(folder))] = columns
    return files


def run(pipeline: Callable, callbacks: Any, folder: Path) -> Seen:
    """One run in a folder of its own, seeded; ``callbacks`` is a list, or a function that makes one for each fit."""
    witness = Witness()
    folder.mkdir(parents=True)
    before = os.getcwd()
    os.chdir(folder)
    try:
        seed_everything(1, verbose=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            given = (lambda *args: [*callbacks(*args), witness]) if callable(callbacks) else [*callbacks, witness]
            returned = pipeline(given)
    finally:
        os.chdir(before)
    final = {name: value.clone() for name, value in witness.module.state_dict().items() if torch.is_tensor(value)}
    texts = [str(one.message).replace(str(folder), "") for one in caught]
    return Seen(witness, returned, final, torch.get_rng_state(), read_csv(folder), texts)


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, NaN to NaN."""
    if torch.is_tensor(one):
        return torch.is_tensor(two) and one.dtype == two.dtype and torch.equal(one.nan_to_num(7e7), two.nan_to_num(7e7))
    if isinstance(one, Mapping):
        return isinstance(two, Mapping) and all(name in two and same(value, two[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or (one != one and two != two)


def with_and_without(
    pipeline: Callable, callbacks: Any, folder: Path, *, warns: Sequence[str] = (), names: Sequence[str] = ()
) -> Seen:
    """The run with our callbacks, after a run without them: weights, random numbers and all that was logged agree.

    ``warns`` are parts of the warnings that our callbacks add: each one is there, and no other. ``names`` were given to
    our loggers.
    """
    bare = run(pipeline, (lambda *args: []) if callable(callbacks) else [], folder / "without")
    seen = run(pipeline, callbacks, folder / "with")
    assert bare.witness.measured, "the pipeline measured nothing"
    assert same(bare.final, seen.final), "the callbacks changed the weights"
    assert torch.equal(bare.rng, seen.rng), "the callbacks drew random numbers"
    for one, two in zip(bare.witness.measured, seen.witness.measured, strict=True):
        assert (one.stage, one.epoch, one.step) == (two.stage, two.epoch, two.step)
        assert same(one.weights, two.weights), f"the callbacks changed the weights of {one.stage}, epoch {one.epoch}"
    for one, two in zip(bare.witness.logged, seen.witness.logged, strict=True):
        wrong = {name: (value, two.get(name)) for name, value in one.items() if not same(value, two.get(name))}
        assert not wrong, f"the callbacks changed what was logged: {wrong}"
        foreign = [name for name in two if name not in one and not _ours(name, names)]
        assert not foreign, f"the callbacks logged under names that are not theirs: {foreign}"
    for name, columns in bare.files.items():
        assert {column: seen.files[name].get(column) for column in columns} == columns, "metrics.csv differs"
    if bare.returned is not None:
        assert same(bare.returned, seen.returned), f"returned {seen.returned}, without callbacks {bare.returned}"
    added = [text for text in seen.warnings if text not in bare.warnings]
    for part in warns:
        assert any(part in text for text in added), f"no warning has {part!r}: {added}"
    unexpected = [text for text in added if not any(part in text for part in warns)]
    assert not unexpected, f"the callbacks added warnings: {unexpected}"
    return seen


def _ours(key: str, names: Sequence[str]) -> bool:
    return key.startswith((*OURS, *(f"{name}/{ours}" for name in names for ours in OURS)))


def accuracy(module: nn.Module, task: int, limit: int | None = None) -> float:
    """A plain loop over the samples of a task's held-out data."""
    x, y = TASKS[task][1].tensors
    right = [int(module(x[i : i + 1]).argmax(1) == y[i]) for i in range(len(y[:limit]))]
    return sum(right) / len(right)


def matrix_by_hand(
    seen: Seen, rows: Iterable[Measurement | None], value: Callable = accuracy, *, seen_only: bool = False
) -> Tensor:
    """``R[i, j]``: the value on task j with the weights of row i; NaN where there are none, or j > i if so said."""
    rows = list(rows)
    matrix = torch.full((len(rows), len(rows)), float("nan"), dtype=torch.float64)
    for i, row in enumerate(rows):
        for j in range(len(rows)) if row is not None else ():
            if j <= i or not seen_only:
                with torch.no_grad():
                    matrix[i, j] = value(seen.network(row), j)
    return matrix


def summary_by_hand(matrix: Tensor, mode: str = "max") -> dict[str, float]:
    """What was learned and forgotten, each from its definition."""
    rows = [[float(v) if mode == "max" else -float(v) for v in row] for row in matrix]
    tasks, last = len(rows), rows[-1]

    def mean(values: list[float]) -> float:
        values = [v for v in values if v == v]
        return sum(values) / len(values) if values else float("nan")

    def best(j: int) -> float:
        return max((rows[i][j] for i in range(j, tasks - 1) if rows[i][j] == rows[i][j]), default=float("nan"))

    sign = 1 if mode == "max" else -1
    return {
        "average_accuracy": sign * mean(last),
        "forgetting": mean([best(j) - last[j] for j in range(tasks - 1)]),
        "backward_transfer": mean([last[j] - rows[j][j] for j in range(tasks - 1)]),
        "learning_accuracy": sign * mean([rows[j][j] for j in range(tasks)]),
    }


def check(log: Any, expected: Tensor, *, mode: str = "max", name: str = "", logged: Mapping | None = None) -> None:
    """The callback's matrix, and what it logged last, against the independent ones."""
    assert len(expected.unique()) > 2, "the expected matrix says nothing: all values are alike"
    torch.testing.assert_close(log.matrix.double(), expected, rtol=0, atol=1e-5, equal_nan=True)
    for key, value in summary_by_hand(expected, mode).items() if logged is not None else ():
        got = float(logged[name + key])
        assert abs(got - value) < 1e-5 or (got != got and value != value), (name + key, got, value)
