"""How many goals a policy reaches, and what return it has, while it is trained."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_flags, check_integers
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.mailbox import Returning
from dendrite_zoo.callbacks.trainer import log_metrics
from dendrite_zoo.rl import GoalEvaluation, MetaWorldTask, Split, SuccessReport, Tasks, TaskSpec, task_specs
from dendrite_zoo.rl.seen import as_learned
from dendrite_zoo.rl.task_list import rules_of, say_success
from dendrite_zoo.tasks import Task, current_task, has_task


@say_new_names
class SuccessLogger(Returning):
    """Lets a policy play goals of Meta-World, or in environments of your own, and logs the share that it reached.

    It plays one episode on each goal; environments without goals are started in as many ways. Where the data say which
    tasks are due, as ``DemonstrationSequence(eval_at=[...])`` does, it plays those. Logged are
    ``success/{task}`` and ``success/mean``. Of environments of your own, whose episodes are played to their end,
    ``success_at_end``, ``return/{task}`` and ``return/mean`` are logged, too; of those that do not say what success is,
    returns alone. In a
    validation of tasks that are learned one after another (``task=``, a ``current_task`` of datamodule or module, or a
    `ForgettingLogger` says which is trained on) ``val/task_{j}/success`` and ``val/task_{j}/return`` are logged in the
    same way, of which ``ForgettingLogger("val/success")`` or ``ForgettingLogger("val/return")`` makes its matrix.

    It works for every module that has ``act_batch(observations, task_index)``, from ``(N, O)`` and ``(N,)`` to ``(N,
    A)``, and plays within its context ``averaged()`` where it has one. The first process plays. The environments stay
    open until training ends.

    Args:
        every_n_steps: of the optimizer: after each batch that reaches a multiple of it, or passes it by; None for each
            validation.
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` or names, or a list of `dendrite_zoo.rl.TaskSpec`; by default the
            ``specs`` or ``tasks`` of the datamodule. Any of those in ``module.model.tasks``; without such a list, in
            the order of its indices.
        split: of the goals: ``"val"`` to choose models on; never choose on ``"test"``.
        num_goals: of each task.
        seed: of the goals; by default the ``seed`` of the datamodule, else 0.
        max_steps: length of an episode, which in Meta-World ends with success; by default 500 there, else as in the
            datamodule's training, or that of the environment.
        action_repeat: how many steps each action is played for; by default as in the datamodule's training, else 1.
        to_end: play episodes of Meta-World to their end, too, which takes several times as long, and log the share of
            goals that are reached at the last step, ``success_at_end/{task}`` and ``success_at_end/mean``.
        num_processes: of environments.
        fast: faster Python paths of the environments.
        task: the task being trained, see `ForgettingLogger`.

    Attributes:
        curves: by task, the success at each validation while it was trained, where tasks are learned one after another;
            with those of runs of a task alone, `dendrite_zoo.metrics.curve_transfer` gives the forward transfer.
        report: of the last evaluation; after a fit in processes that were spawned, that of the first of them.

    Raises:
        ValueError: the tasks are unknown, the policy lacks one, the module cannot act, or some of the tasks say what
            success is and others do not.
        ImportError: the ``[metaworld]`` extra is missing.

    Example:
        >>> SuccessLogger(every_n_steps=1000, num_goals=20).split
        'val'
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        tasks: str | Sequence[str] | Sequence[TaskSpec] | None = None,
        split: Split = "val",
        num_goals: int = 20,
        seed: int | None = None,
        max_steps: int | None = None,
        action_repeat: int | None = None,
        to_end: bool = False,
        num_processes: int = 2,
        fast: bool = False,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        check_integers(1, every_n_steps=1 if every_n_steps is None else every_n_steps)
        self.every_n_steps, self.split, self.num_goals, self.seed = every_n_steps, split, num_goals, seed
        check_integers(1, action_repeat=1 if action_repeat is None else action_repeat)
        check_flags(to_end=to_end, fast=fast)
        self.action_repeat = action_repeat
        self.to_end = to_end
        self.curves: dict[int, list[float]] = {}
        self.tasks, self.task = None if tasks is None else task_specs(tasks), task
        self.options: dict[str, Any] = {"max_steps": max_steps, "num_processes": num_processes, "fast": fast}
        self._report: SuccessReport | None = None
        self._evaluation: GoalEvaluation | None = None
        self._ends_with_success = True
        self._last_step = 0

    @property
    def report(self) -> SuccessReport | None:
        """The last evaluation; None before the first, and in every process but the first."""
        self.receive()
        return self._report

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the report."""
        names = None if self.tasks is None else tuple(spec.name for spec in self.tasks)
        about = {"every_n_steps": self.every_n_steps, "tasks": names, "split": self.split, "seed": self.seed}
        further = {"action_repeat": self.action_repeat, "to_end": self.to_end or None}  # which earlier versions lack
        about |= {name: value for name, value in further.items() if value is not None}
        return self._generate_state_key(**about, num_goals=self.num_goals)

    def state_dict(self) -> dict[str, Any]:
        """The last report and the curves, in tensors and primitives."""
        curves = {task: list(values) for task, values in self.curves.items()}
        return {"curves": curves, "report": None if self.report is None else self.report.to_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.curves = {task: list(values) for task, values in state_dict.get("curves", {}).items()}
        state = state_dict["report"]
        self._report = None if state is None else SuccessReport.from_state(state)

    def _is_blank(self) -> bool:
        return self.report is None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that there is a policy, that its tasks are known, and that they can be evaluated together."""
        super().setup(trainer, pl_module, stage)
        if not callable(getattr(pl_module, "act_batch", None)):
            raise ValueError(
                f"SuccessLogger needs a module that acts, but {type(pl_module).__name__} does not define "
                "`act_batch(observations, task_index)`. Train one such as BehaviorCloning or MultiTaskSAC."
            )
        self._indices(pl_module, specs := self._specs(trainer))
        say_success(specs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here: a resumed run has steps behind it; say so where it will never play."""
        self._last_step = trainer.global_step
        if self.every_n_steps is None and not trainer.enable_validation:
            rank_zero_warn(
                "SuccessLogger plays at each validation, but this fit has none, and nothing will be logged. Give the "
                "fit a validation loader and the module a `validation_step`, or pass SuccessLogger(every_n_steps=...)."
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Play, every so many steps."""
        last, self._last_step = self._last_step, trainer.global_step
        if self.every_n_steps is not None and self._last_step // self.every_n_steps > last // self.every_n_steps:
            self._play(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Play, at each validation."""
        if self.every_n_steps is None and not trainer.sanity_checking:
            self._play(trainer, pl_module, validating=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the environments."""
        self._close()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the environments."""
        self._close()
        super().on_exception(trainer, pl_module, exception)

    def _close(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _play(self, trainer: Trainer, pl_module: LightningModule, validating: bool = False) -> None:
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            report = self._report = self._evaluate(trainer, pl_module)
            sequential = validating and has_task(trainer, self.task)
            numbers = self._numbers(trainer, pl_module) if sequential else {}
            if sequential and trainer.state.fn == "fit":
                self._follow(trainer, report, numbers)
            measured = {report.metric: report.per_task}
            if not self._ends_with_success:
                measured["return"] = report.return_per_task
            if report.at_end_per_task is not None:
                measured["success_at_end"] = report.at_end_per_task
            for metric, per_task in measured.items():
                values |= {f"{metric}/{task}": value for task, value in per_task.items()}
                values |= {f"val/task_{numbers[name]}/{metric}": v for name, v in per_task.items() if name in numbers}
                values[f"{metric}/mean"] = float(np.mean([*per_task.values()]))
        log_metrics(trainer, trainer.strategy.broadcast(values))

    def _follow(self, trainer: Trainer, report: SuccessReport, numbers: dict[str, int]) -> None:
        """Add a point to the curve of the task that is trained."""
        task = current_task(trainer, self.task)
        for name, success in report.per_task.items():
            if report.metric == "success" and task is not None and numbers.get(name) == task:
                self.curves.setdefault(task, []).append(success)

    def _numbers(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int]:
        """By name, the numbers that tasks have in the data; where these name none that is played, in the policy."""
        own, names = [spec.name for spec in self._specs(trainer)], getattr(_data(trainer), "tasks", None) or ()
        if not set(own) & set(names):
            names = getattr(getattr(pl_module, "model", None), "tasks", own)
        return {name: number for number, name in enumerate(names)}

    def _evaluate(self, trainer: Trainer, pl_module: Any) -> SuccessReport:
        specs = self._due(trainer)
        if self._evaluation is None or self._evaluation.specs != specs:
            self._close()
            seed = getattr(_data(trainer), "seed", 0) if self.seed is None else self.seed
            goals: dict[str, Any] = {"split": self.split, "num_goals": self.num_goals, "seed": seed}
            self._ends_with_success = not self.to_end and all(isinstance(spec, MetaWorldTask) for spec in specs)
            repeat = self.action_repeat or getattr(_data(trainer), "action_repeat", 1)
            rules = {"stop_at_success": self._ends_with_success, "action_repeat": repeat, **self.options}
            rules["max_steps"] = rules["max_steps"] or rules_of(_data(trainer), specs).get("max_steps")
            self._evaluation = GoalEvaluation(specs, **goals, **rules)
        index = self._indices(pl_module, specs)
        with getattr(pl_module, "averaged", nullcontext)():  # once, and not for every action
            act = as_learned(lambda seen, task: pl_module.act_batch(seen, index[task]), pl_module, specs)
            return self._evaluation(act)

    def _specs(self, trainer: Trainer) -> tuple[TaskSpec, ...]:
        data = _data(trainer)
        tasks: Tasks | None = self.tasks or getattr(data, "specs", getattr(data, "tasks", None))
        if tasks is None:
            raise ValueError(
                "SuccessLogger needs names of tasks, but the datamodule has no `tasks`. Pass SuccessLogger(tasks=...)."
            )
        return task_specs(tasks)

    def _due(self, trainer: Trainer) -> tuple[TaskSpec, ...]:
        """The tasks to play now: all, unless the data say which."""
        specs, data = self._specs(trainer), _data(trainer)
        if self.tasks is None and (due := getattr(data, "due_tasks", None)) is not None:
            return tuple(specs[task] for task in due())
        return specs

    def _indices(self, pl_module: LightningModule, specs: Sequence[TaskSpec]) -> NDArray[np.int64]:
        """The numbers that tasks have in the policy."""
        names = [spec.name for spec in specs]
        known = tuple(getattr(getattr(pl_module, "model", None), "tasks", names))
        if missing := [name for name in names if name not in known]:
            raise ValueError(
                f"Expected `tasks` among those of the policy, {', '.join(known)}, but got {', '.join(missing)}. Give "
                "these to the policy where it is made, as `fit --tasks` does, or pass SuccessLogger(tasks=...)."
            )
        return np.array([known.index(name) for name in names])


def _data(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
