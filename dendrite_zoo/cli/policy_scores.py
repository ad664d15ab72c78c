"""What the record of a policy has beside what was logged: goals that it played, and what a skill took."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dendrite_zoo._core.environment import versions
from dendrite_zoo.callbacks import SuccessLogger
from dendrite_zoo.callbacks.metric_name import PLAYED
from dendrite_zoo.callbacks.trainer import find_callback
from dendrite_zoo.lightning_modules.policies import PolicyModule
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import MT50, MetaWorldTask, SuccessReport, evaluate_policy
from dendrite_zoo.rl.metaworld.tasks import metaworld
from dendrite_zoo.rl.task_list import benchmark_of, play_options, without_success


def policy_scores(
    policy: ActiveDendritePolicy, trainer: Trainer, module: LightningModule, *, goals: int, sequential: bool
) -> tuple[SuccessReport | None, dict[str, Any]]:
    """Let a policy play test goals of the tasks of its data once its fit has ended.

    Args:
        policy: that was trained.
        trainer: that trained it.
        module: of the policy.
        goals: of each task; none are played with 0, or where only some tasks say what success is.
        sequential: the tasks were learned one after another.

    Returns:
        What was reached, if it can be recorded; and fields of the run's record.
    """
    data: Any = getattr(trainer, "datamodule", None)
    tasks = list(getattr(data, "tasks", policy.tasks))
    record: dict[str, Any] = {"benchmark": benchmark_of(tasks, sequential=sequential), "tasks": tasks}
    if sequential:
        record |= _of_sequence(trainer, module)
    specs = getattr(data, "specs", ()) or [MetaWorldTask(name) for name in tasks if name in MT50]
    silent = without_success(specs)
    some = 0 < len(silent) < len(specs)
    if goals and some:
        where = "the run leaves no record. What it returned is in metrics.csv"
        print(f"No goals were played, for {', '.join(silent)} do not say what success is, and others do: {where}.")
    if not goals or some or len(specs) < len(tasks):
        return None, record
    options = {"num_goals": goals, **play_options(data)}
    report = evaluate_policy(policy.eval(), specs, progress=True, **options)
    if silent:  # a record is of shares from 0 to 1
        show_returns(report, f"{goals} starts a task, never trained on")
        return None, record
    show_success(report, f"{goals} test goals a task")
    kinds = {isinstance(spec, MetaWorldTask) for spec in specs}
    libraries = [name for kind in kinds for name in (("metaworld", "mujoco") if kind else ("gymnasium",))]
    return report, record | report.to_record(sequential=sequential) | {"versions": versions(*libraries)}


def show_success(report: SuccessReport, title: str) -> None:
    """Print what a policy reached in each task."""
    table = Table("task", "success", "at the last step", "steps", title=title)
    at_end = report.at_end_per_task or {}
    for task in report.tasks:
        last, steps = at_end.get(task), report.steps_to_success[task]
        shown = ["·" if last is None else f"{last:.2f}", "·" if steps is None else f"{steps:.0f}"]
        table.add_row(task, f"{report.per_task[task]:.2f}", *shown)
    table.add_section()
    low, high = report.interval()
    last = report.mean_at_last_step
    table.add_row("mean", f"{report.mean:.3f} ({low:.3f} to {high:.3f})", "·" if last is None else f"{last:.3f}")
    length = "an episode" if report.max_steps is None else f"an episode of {report.max_steps}"
    Console().print(table)
    Console().print(f"Success at any step of {length}; in brackets the 95 % interval over goals.")


def show_returns(report: SuccessReport, title: str) -> None:
    """Print what a policy's episodes returned in each task, where these do not say what success is."""
    table = Table("task", "mean return", "lowest", "highest", title=title)
    for task, returns in zip(report.tasks, cast("NDArray[np.float64]", report.returns), strict=True):
        table.add_row(task, *(f"{value:.4g}" for value in (returns.mean(), returns.min(), returns.max())))
    Console().print(table)
    print("The tasks do not say what success is, TaskSpec(success=...), and the run leaves no record.")


def check_playable(data: Any, *, goals: int) -> None:
    """Refuse tasks whose environments are not installed, before a run begins that would play them.

    Args:
        data: of the fit; demonstrations that are given in a file or a folder are not played.
        goals: that are played when it ends.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
    """
    are_given = getattr(data, "file", None) or getattr(data, "folder", None)
    if (goals or not are_given) and any(isinstance(spec, MetaWorldTask) for spec in getattr(data, "specs", ())):
        metaworld()


def success_logger(data: Any, callbacks: Sequence[Any]) -> list[SuccessLogger]:
    """One that plays, where tasks are learned one after another and nobody measures what is reached in them."""
    played = getattr(data, "metric", None) in PLAYED
    if not played or any(isinstance(callback, SuccessLogger) for callback in callbacks):
        return []
    options = play_options(data)
    return [SuccessLogger(**{name: options[name] for name in ("fast", "num_processes")})]


def _of_sequence(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Of skills one after another: how many numbers each trained, where it started, how many goals the matrix is of."""
    counts = module.parameters_by_task() if isinstance(module, PolicyModule) else []
    trained: dict[str, Any] = {"parameters_per_skill": max(counts), "parameters_by_skill": counts} if counts else {}
    if isinstance(module, PolicyModule) and module.started_from:
        names = {None: None} | dict(enumerate(module.tasks))
        trained["started_from"] = {names[task]: names[start] for task, start in module.started_from.items()}
    logger = find_callback(trainer, SuccessLogger)
    return trained if logger is None else trained | {"goals_of_matrix": logger.num_goals}
