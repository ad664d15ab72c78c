"""Figures in prose, from the JSON that holds them.

``<!-- results/multi-task.json [0][average_accuracy]:.1% -->91.1 %<!-- end -->`` is the value at a path of a file, in a
format, both as in `str.format`.
"""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from dendrite_zoo.functional import forgetting, learning_accuracy
from tools.pages.markdown import ROOT

FIGURE = re.compile(r"(?P<comment><!-- (?P<file>[\w./-]+\.json) (?P<path>[^>]+?) -->)[^<]*<!-- end -->")


DERIVED: dict[str, Callable[[Any], float]] = {
    "forgetting": lambda record: float(forgetting(record["matrix"])),
    "learning_accuracy": lambda record: float(learning_accuracy(record["matrix"])),
    "mean": statistics.fmean,
}
"""What is computed from the value at a path: ``[0].forgetting``."""


class Value:
    """A part of a JSON file, as `str.format` walks through it.

    A list is indexed by a number; a list of records also by ``method``, or ``method, 10 tasks``; and a list with a
    value for each task by the task's name.
    """

    def __init__(self, value: Any, tasks: Sequence[str] = ()) -> None:
        self.value, self.tasks = value, tasks

    def __getitem__(self, key: int | str) -> "Value":
        if isinstance(self.value, dict):
            return Value(self.value[str(key)], self.value.get("tasks", ()))
        return Value(self.value[key if isinstance(key, int) else self.place(key)])

    def place(self, name: str) -> int:
        labels = [{task} for task in self.tasks] or list(map(named, self.value))
        found = [place for place, label in enumerate(labels) if name in label]
        if len(found) != 1 or len(labels) != len(self.value):
            raise KeyError(f"Expected one entry called {name!r}, but got {len(found)}. Give its place instead.")
        return found[0]

    def __getattr__(self, name: str) -> "Value":
        return Value(DERIVED[name](self.value))

    def __format__(self, form: str) -> str:
        return format(self.value, form).replace("%", " %")


def named(record: dict[str, Any]) -> set[str]:
    """What a record is called."""
    method = record.get("method", "")
    return {method, f"{method}, {record.get('num_tasks')} tasks"}


@cache
def read(file: str) -> Any:
    """A JSON file; what a benchmark printed has a line for each value."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return [*map(json.loads, text.splitlines())] if file.startswith("benchmarks/") else json.loads(text)


def figure(value: Any, path: str) -> str:
    """What is at a path, ``[0][average_accuracy]:.1%``."""
    return ("{0" + path + "}").format(Value(value))


def filled(text: str) -> str:
    """A page with its figures written anew."""
    return FIGURE.sub(lambda one: f"{one['comment']}{figure(read(one['file']), one['path'])}<!-- end -->", text)
