"""``fit --tasks``: the tasks of a robot recipe, in place of its own."""

import json
import math
from pathlib import Path
from typing import Any

from jsonargparse import get_loader

from dendrite_zoo._core.checks import check_choice
from dendrite_zoo.rl.metaworld.tasks import BENCHMARKS

OF_ALL_TASKS = "env_steps", "warmup_steps", "capacity"
"""Arguments of the data that count what all tasks have together."""


def options_of_tasks(tasks: str, config: str) -> list[str]:
    """The options that give a recipe other tasks, each with as many steps as a task of the recipe has.

    A policy that is made by the recipe has these tasks, and as many units for each as before where tasks have units of
    their own; one that is loaded with further tasks has them as further ones.

    Args:
        tasks: names, with commas between, or ``"mt10"``, ``"mt50"`` or ``"cw10"``; of a recipe with environments of
            one's own, some of theirs.
        config: the path of the recipe.

    Raises:
        ValueError: the data of the recipe have no tasks by name, or its own tasks are others.

    Example:
        >>> from dendrite_zoo.cli.recipes import find
        >>> options_of_tasks("door-close-v3,push-v3", find("metaworld-mt3"))[:4]
        ['--data.init_args.tasks', '["door-close-v3", "push-v3"]', '--data.init_args.env_steps', '100000']
    """
    recipe = get_loader("yaml")(Path(config).read_text(encoding="utf-8"))
    data = recipe["data"]["init_args"] if "tasks" in (recipe.get("data") or {}).get("init_args", {}) else None
    if data is None:
        got = f"one whose data have none: {Path(config).stem}"
        raise ValueError(f"Expected `--tasks` with a recipe of robot skills, but got {got}. Leave the option out.")
    own, chosen = _own_tasks(data["tasks"]), _names(tasks)
    before = list(own) or _names(data["tasks"])
    options = {f"data.init_args.{name}": value for name, value in _of_data(data, before, chosen).items()}
    if own:
        options["data.init_args.tasks"] = _chosen(own, chosen)
    if (model := _of_model(recipe["model"]["init_args"].get("model"), before, chosen)) is not None:
        options["model.init_args.model"] = model
    return [word for name, value in options.items() for word in (f"--{name}", json.dumps(value))]


def _of_model(model: Any, before: list[str], chosen: list[str]) -> dict[str, Any] | None:
    """The policy of a recipe with other tasks; None where it has those that it is loaded with."""
    arguments = model.get("init_args", model) if isinstance(model, dict) else {}
    if "tasks" not in arguments:
        return None
    every = _names(arguments["tasks"])
    known = [task for task in every if task not in before]
    arguments["tasks"] = known + [task for task in chosen if task not in known]
    if arguments.get("overlap") is not None and arguments.get("hidden_features"):  # units of its own for each
        more = len(arguments["tasks"]) / len(every)
        arguments["hidden_features"] = [math.ceil(units * more) for units in arguments["hidden_features"]]
        arguments["activation_density"] /= more
    changed: dict[str, Any] = model
    return changed


def _own_tasks(tasks: Any) -> dict[str, Any]:
    """The `dendrite_zoo.rl.TaskSpec` of a recipe, by their names; none where its tasks are Meta-World's."""
    given = [] if isinstance(tasks, str) else list(tasks)
    arguments = [task["init_args"] for task in given if isinstance(task, dict) and "name" in task.get("init_args", {})]
    if len(arguments) < len(given):
        return {}
    return {str(one["name"]): task for one, task in zip(arguments, given, strict=True)}


def _chosen(own: dict[str, Any], names: list[str]) -> list[Any]:
    for name in names:
        check_choice(own, tasks=name)
    return [own[name] for name in names]


def _of_data(data: dict[str, Any], before: list[str], chosen: list[str]) -> dict[str, Any]:
    """Of the arguments of the data those that depend on the tasks."""
    weights = data.get("task_weights") or {}
    own = {
        "tasks": chosen,
        "eval_at": [task for task in data.get("eval_at") or () if task < len(chosen)] or None,
        "task_weights": {name: weights[name] for name in chosen if name in weights} or None,
        **{name: -(-data[name] * len(chosen) // len(before)) for name in OF_ALL_TASKS if name in data},
    }
    return {name: value for name, value in own.items() if name in data}


def _names(tasks: Any) -> list[str]:
    if not isinstance(tasks, str):
        return list(tasks)
    return list(BENCHMARKS.get(tasks.lower(), [name.strip(" '\"") for name in tasks.strip("[] ").split(",")]))
