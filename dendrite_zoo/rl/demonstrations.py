"""Observations with the actions of an expert, as data to imitate."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.files import write_atomically
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, MT50, OBSERVATION_SIZE
from dendrite_zoo.rl.transitions import check_actions

__all__ = ["Demonstrations"]


@dataclass(frozen=True)
class Demonstrations:
    """Observations, each with the action of the task's expert; arrays are taken as tensors.

    Attributes:
        tasks: names of the tasks.
        observation: ``(N, O)`` float32, as the environments return them; ``(N, 39)`` of Meta-World's tasks.
        action: ``(N, A)`` float32, the expert's, in [-1, 1]; ``(N, 4)`` of Meta-World's tasks.
        task: ``(N,)``, positions in ``tasks``.
        solved: ``(N,)``, whether the episode of a row reached its goal.
        config: how they were collected, see `dendrite_zoo.rl.collection.collection_config`; None if unknown.

    Raises:
        ValueError: tensors of other shapes, or with NaN or infinity, actions beyond -1 to 1, or a task that is no
            position in ``tasks``.

    Example:
        >>> one = Demonstrations(("reach-v3",), torch.zeros(2, 39), torch.zeros(2, 4), torch.zeros(2).long(),
        ...     torch.ones(2).bool())
        >>> one + one
        Demonstrations(tasks=('reach-v3',), observation (4, 39), action (4, 4), 4 rows solved)
    """

    tasks: tuple[str, ...]
    observation: Tensor
    action: Tensor
    task: Tensor
    solved: Tensor
    config: Mapping[str, Any] | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        """What there is, without its numbers."""
        shapes = f"observation {tuple(self.observation.shape)}, action {tuple(self.action.shape)}"
        return f"Demonstrations(tasks={self.tasks}, {shapes}, {int(self.solved.sum())} rows solved)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        for name in _TENSORS:
            object.__setattr__(self, name, _as_tensor(name, getattr(self, name)))
        rows = len(self.task)
        sizes = [OBSERVATION_SIZE, ACTION_SIZE]
        if not set(self.tasks) <= set(MT50):  # whatever their environments have
            sizes = [part.shape[-1] if part.ndim else 0 for part in (self.observation, self.action)]
        shapes = {"observation": (rows, sizes[0]), "action": (rows, sizes[1]), "solved": (rows,)}
        for name, shape in shapes.items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(f"Expected `{name}` to have the shape {shape}, but got {found} for {rows} rows.")
        for name in ("observation", "action"):
            if bad := unusable_rows(getattr(self, name)):
                raise ValueError(
                    f"Expected `{name}` to be finite, but got NaN or infinity in rows {bad[:8]}. Drop them."
                )
        check_actions(self.action)
        low, high = (int(end) for end in self.task.aminmax()) if rows else (0, 0)
        if not 0 <= low <= high < len(self.tasks):
            expected = f"positions in tasks={self.tasks}, from 0 to {len(self.tasks) - 1}"
            raise ValueError(f"Expected `task` to hold {expected}, but got {low} to {high}.")

    def __len__(self) -> int:
        return len(self.task)

    def __add__(self, other: Demonstrations) -> Demonstrations:
        """The rows of both, which must be of the same tasks."""
        return self.joined([self, other])

    @classmethod
    def joined(cls, parts: Sequence[Demonstrations]) -> Demonstrations:
        """The rows of one or more, which must be of the same tasks.

        Raises:
            ValueError: they are not.
        """
        tasks = parts[0].tasks
        if (other := next((part.tasks for part in parts if part.tasks != tasks), None)) is not None:
            raise ValueError(f"Expected demonstrations of the same tasks, but got {tasks} and {other}.")
        return cls(tasks, *(torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS))

    def of(self, task: int) -> Demonstrations:
        """The rows of one task."""
        return self.select(self.task == task)

    def among(self, tasks: Sequence[str]) -> Demonstrations:
        """The rows of some of the tasks, by name and in any order, numbered by their positions in ``tasks``.

        Raises:
            ValueError: there are none of a task.
        """
        if missing := [name for name in tasks if name not in self.tasks]:
            raise ValueError(
                f"Expected demonstrations of {', '.join(missing)}, but got those of {', '.join(self.tasks)}."
            )
        if tuple(tasks) == self.tasks:
            return self
        place = torch.tensor([[*tasks, name].index(name) for name in self.tasks])[self.task]
        rows = place < len(tasks)
        tensors = [place[rows] if name == "task" else getattr(self, name)[rows] for name in _TENSORS]
        return Demonstrations(tuple(tasks), *tensors, config=self.config)

    def select(self, rows: Tensor) -> Demonstrations:
        """Some of the rows, by a mask ``(N,)`` or their numbers."""
        return Demonstrations(self.tasks, *(getattr(self, name)[rows] for name in _TENSORS))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a safetensors file, which holds no code; the file appears whole or not at all."""
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        metadata = {"tasks": json.dumps(self.tasks), "config": json.dumps(self.config)}
        write_atomically(Path(path), lambda part: save_file(tensors, part, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Demonstrations:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else.
        """
        if not Path(path).is_file():
            make = "collect_demonstrations(...).save(path)"
            raise FileNotFoundError(f"There are no demonstrations at {path}. Make them with {make}.")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                config = json.loads(metadata.get("config", "null"))  # earlier versions wrote none
                tensors = (file.get_tensor(name) for name in _TENSORS)
                return cls(tuple(json.loads(metadata["tasks"])), *tensors, config=config)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"Expected {path} to be a file of Demonstrations.save, but got: {error}.") from None


def _as_tensor(name: str, given: Any) -> Tensor:
    """A tensor of the kind that a part of demonstrations has."""
    kind = _TENSORS[name]
    try:
        numbers = torch.as_tensor(given)
        found = numbers.to(kind)
    except (TypeError, ValueError, RuntimeError):
        remedy = "Of names give their positions: [tasks.index(name) for name in names]." if name == "task" else ""
        got = f"but got {reprlib.repr(given)}. {remedy}".rstrip()
        raise ValueError(f"Expected `{name}` to be an array of numbers, {got}") from None
    if not kind.is_floating_point and bool((found != numbers).any()):
        expected = "True or False in each row" if kind == torch.bool else "whole numbers, positions in `tasks`"
        raise wrong_argument(name, expected, numbers.flatten()[:8].tolist())
    return found


_TENSORS = {"observation": torch.float32, "action": torch.float32, "task": torch.long, "solved": torch.bool}
