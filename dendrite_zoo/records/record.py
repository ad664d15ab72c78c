"""Result records: what a run measured, and everything that is needed to measure it again."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_type_hints

from dendrite_zoo._core.annotations import fits
from dendrite_zoo._core.environment import hardware, versions
from dendrite_zoo._core.names import nearest

__all__ = ["ContextAtTest", "ResultRecord"]

MAX_TASKS = 2000  # their matrix has as many values as JSON may have, see `dendrite_zoo._core.files`
ContextAtTest = Literal["inferred", "given", "none", "constant"]
SHARES = {
    *("average_accuracy", "average_accuracy_std", "average_accuracy_per_seed", "accuracy_by_context"),
    *("task_accuracies", "matrix", "val_fraction", "interval", "success_at_last_step", "task_success_at_end"),
}
MAX_TEXT = 1 << 16
NULLABLE = ("average_accuracy_std", "seeds", "matrix", "wall_time_s", "parameters")
"""What stands in every record, null where unknown; further fields are left out where they are None."""


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """The result of one run, or of several seeds of one recipe; a JSON object in ``results.json``.

    Args:
        benchmark: such as ``"permuted-mnist"``.
        method: the line of a results table that it belongs to.
        context_at_test: ``"inferred"``, ``"given"``, ``"none"`` or ``"constant"``.
        num_tasks: how many tasks were learned.
        average_accuracy: over all tasks after the last was learned, in [0, 1]; the mean over seeds.
            Of policies the share of goals reached.
        average_accuracy_std: standard deviation over seeds (n - 1).
        seeds: of the weights; empty where none was set.
        matrix: accuracy matrix, rows of ``num_tasks`` values, None where not measured.
        command: what was typed, under the versions below.
        config_hash: equal for the seeds of one recipe; None where it is not known what decided the result.
        description: how the model was made, in sentences.
        versions: of the packages that the result depends on.
        hardware: the machine in a few words.
        wall_time_s: training time, in seconds; the mean over seeds.
        parameters: numbers in the model's parameters, masked and frozen ones included.
        task_accuracies: accuracy on each task after the last was learned.
        model: the model's arguments.
        config: what else decides the result: module, data, optimizer and trainer.
        stream_seeds: seeds of the stream of tasks, beside ``seeds``.
        accuracy_by_context: the average accuracy by where the context was taken from.
        average_accuracy_per_seed: only of a merged record.
        val_fraction: the share of the training data that it was measured on; None for the test split.
        source: ``"published"`` for a number of a publication; None for a run.
        reference: of that publication.
        more: further keys, of policies or anybody's own; in the file they stand beside the others.
    """

    benchmark: str
    method: str
    context_at_test: str
    num_tasks: int
    average_accuracy: float
    average_accuracy_std: float | None = None
    seeds: list[int] = field(default_factory=list)
    task_accuracies: list[float] | None = None
    matrix: list[list[float | None]] | None = None
    command: str | None = None
    config_hash: str | None = None
    description: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    wall_time_s: float | None = None
    parameters: int | None = None
    model: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    stream_seeds: list[int] | None = None
    accuracy_by_context: dict[str, float] | None = None
    average_accuracy_per_seed: list[float] | None = None
    val_fraction: float | None = None
    source: str | None = None
    reference: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_run(cls, task_accuracies: Sequence[float], *, seed: int | None = None, **known: Any) -> ResultRecord:
        """The record of one run on this machine.

        Args:
            task_accuracies: accuracy on each task after the last was learned, from which the average follows.
            seed: of the weights; None where none was set.
            **known: the other fields, and keys of your own. ``versions`` adds to those that are always recorded, and
                ``config_hash`` follows from ``model`` and ``config``.

        Raises:
            TypeError: a field is missing or misspelt.
            ValueError: there are no tasks, an accuracy is not from 0 to 1, or ``context_at_test`` is unknown.

        Example:
            >>> ResultRecord.from_run([0.9, 0.7], benchmark="b", method="m", context_at_test="none").average_accuracy
            0.8
        """
        accuracies = [float(accuracy) for accuracy in task_accuracies]
        value = {
            "num_tasks": len(accuracies),
            "average_accuracy": statistics.fmean(accuracies or [0.0]),
            "seeds": [] if seed is None else [seed],
            "task_accuracies": accuracies,
            "hardware": hardware(),
            **known,
            "versions": versions() | known.get("versions", {}),
        }
        for name in known.keys() - TYPES.keys() - FURTHER.keys():
            if meant := nearest(name, TYPES, cutoff=0.85):
                raise TypeError(f"A result record has no field `{name}`.{meant}")
        if missing := [name for name in NEEDED if name not in value]:
            raise TypeError(f"Expected {', '.join(missing)} of a run, but got none. Give it to `from_run`.")
        _check_sizes(value, "this run")
        _check_shares(value, "this run")
        record = _made_of(value)
        recipe = record.recipe()
        return replace(record, config_hash=recipe and hashlib.sha256(recipe.encode()).hexdigest()[:16])

    @classmethod
    def from_json(cls, value: Any, where: str | Path = "the record") -> ResultRecord:
        """Check what a file holds, and make a record of it.

        Args:
            value: a JSON object.
            where: the file, for the error.

        Raises:
            ValueError: a field is missing, or not what it should be.
        """
        check_record(value, where)
        if "row" in value and "ours" in value:
            raise ValueError(f"{where} has a record of before version 0.1, whose `row` is now `method`. Run it again.")
        further = ("reference",) if value.get("source") == "published" else NULLABLE
        if missing := [name for name in (*NEEDED, *further) if name not in value]:
            raise ValueError(f"{where} lacks {', '.join(missing)}, which a run writes. Add what is missing.")
        return _made_of(value)

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object; its further keys stand last."""
        named = {name: getattr(self, name) for name in TYPES}
        return {name: value for name, value in named.items() if value is not None or name in NULLABLE} | self.more

    @property
    def per_seed(self) -> list[float]:
        """The average accuracy of each run."""
        return self.average_accuracy_per_seed or [self.average_accuracy]

    @property
    def curve(self) -> list[dict[str, float]]:
        """How success rose with the steps, as `success_curve` reads it; empty where it has another form."""
        points: Any = self.more.get("curve")
        if not fits(points, list[dict[str, float]]):
            return []
        return [point for point in points if math.isfinite(point.get("env_steps", math.nan))]

    def recipe(self, but_for: str | None = None) -> str | None:
        """What decides the result, as canonical JSON without nulls; None where that is not known.

        Args:
            but_for: an argument of the model that is left out.
        """
        if self.config is None:
            return None
        left_out = (but_for, "segment_seed")  # which each run draws from its seed
        model = {name: value for name, value in (self.model or {}).items() if name not in left_out}
        recipe = {"arguments": model, "val_fraction": self.val_fraction, **self.config}
        return json.dumps(_without_none(recipe), sort_keys=True)


class Layer(TypedDict):
    """A layer of ``subnetworks``, see `dendrite_zoo.report.subnetwork_record`."""

    units: int
    active_share: float | None
    overlap: list[list[float | None]]
    win_rates: list[list[float | None]]


class Further(TypedDict, total=False):
    """Further keys that this library writes itself, of policies and from callbacks; each may be null or missing."""

    metric: str
    tasks: list[str]
    goals: str
    num_goals: int
    max_steps: int
    interval: tuple[float, float]
    success_at_last_step: float
    task_success_at_end: list[float]
    steps_to_success: list[float | None]
    reward_version: str
    updates: int
    env_steps: int
    sparsity: dict[str, dict[str, float | None]]
    subnetworks: dict[Literal["layers"], dict[str, Layer]]


TYPES = {name: kind for name, kind in get_type_hints(ResultRecord).items() if name != "more"}
FURTHER = {name: kind | None for name, kind in get_type_hints(Further).items()}
ANNOTATIONS = ResultRecord.__annotations__ | {name: str(kind) for name, kind in FURTHER.items()}
NEEDED = [one.name for one in fields(ResultRecord) if one.default is one.default_factory is MISSING]


def check_record(value: Any, where: str | Path) -> None:
    """Check what stands in a record, but not that it is complete.

    Args:
        value: a JSON object.
        where: the file, for the error.

    Raises:
        ValueError: a field is not what it should be; it is named.
    """
    if not isinstance(value, dict):
        raise ValueError(f"Expected result records in {where}, but it holds {reprlib.repr(value)}.")
    for name, kind in (TYPES | FURTHER).items():
        if name in value and not fits(value[name], kind):
            raise ValueError(_unexpected(where, name, value[name], f"`{ANNOTATIONS[name]}`"))
        if isinstance(text := value.get(name), str) and len(text) > MAX_TEXT:
            raise ValueError(_unexpected(where, name, text, f"at most {MAX_TEXT} characters"))
    _check_sizes(value, where)
    _check_shares(value, where)


def _check_sizes(value: Mapping[str, Any], where: str | Path) -> None:
    matrix, accuracies = value.get("matrix") or [], value.get("task_accuracies") or []
    tasks = value.get("num_tasks", len(matrix) or len(accuracies) or 1)
    sizes = {"num_tasks": tasks in range(1, MAX_TASKS + 1)}
    sizes["matrix"] = not matrix or {len(matrix), *map(len, matrix)} == {tasks}
    sizes["task_accuracies"] = len(accuracies) in (0, tasks)
    if wrong := next((name for name, is_right in sizes.items() if not is_right), None):
        expected = f"from 1 to {MAX_TASKS}" if wrong == "num_tasks" else f"of {tasks} tasks"
        raise ValueError(_unexpected(where, wrong, value.get(wrong, tasks), expected))


def _check_shares(value: Mapping[str, Any], where: str | Path) -> None:
    """Accuracies, like successes, are from 0 to 1."""
    if (context := value.get("context_at_test", "none")) not in get_args(ContextAtTest):
        raise ValueError(_unexpected(where, "context_at_test", context, f"one of {', '.join(get_args(ContextAtTest))}"))
    for name in SHARES & value.keys():
        held = value[name].values() if isinstance(value[name], dict) else value[name]
        rows = held if name == "matrix" else [held if isinstance(held, Iterable) else [held]]
        if not all(number is None or 0 <= number <= 1 for row in rows or () for number in row):
            raise ValueError(_unexpected(where, name, value[name], "from 0 to 1"))


def _made_of(value: Mapping[str, Any]) -> ResultRecord:
    named = {name: item for name, item in value.items() if name in TYPES}
    return ResultRecord(**named, more={name: item for name, item in value.items() if name not in TYPES})


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _unexpected(where: str | Path, name: str, value: Any, kind: str) -> str:
    return f"Expected `{name}` of {where} to be {kind}, but got {reprlib.repr(value)}. Correct it."
