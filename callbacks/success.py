"""How many goals a policy reaches while it is trained."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.mailbox import Returning
from dendrite_zoo.callbacks.trainer import log_metrics
from dendrite_zoo.rl import MAX_STEPS, GoalEvaluation, Split, SuccessReport, task_names
from dendrite_zoo.tasks import Task, has_task


@say_new_names
class SuccessLogger(Returning):
    """Lets a policy play goals of Meta-World, one episode each, and logs the share that it reached.

    Logged are ``success/{task}`` and ``success/mean``. In a validation of tasks that are learned one after another
    (``task=``, a ``current_task`` of datamodule or module, or a `ForgettingLogger` says which is trained on)
    ``val/task_{j}/success`` is logged, too, of which ``ForgettingLogger("val/success")`` makes its matrix.

    It works for every module that has ``act_batch(observations, task_index)``, from ``(N, 39)`` and ``(N,)`` to ``(N,
    4)``, and plays within its context ``averaged()`` where it has one. The first process plays. The environments stay
    open until training ends.

    Args:
        every_n_steps: of the optimizer: after each batch that reaches a multiple of it, or passes it by; None for each
            validation.
        tasks: ``"mt10"``, ``"mt50"`` or names; by default the ``tasks`` of the datamodule. Any of those in
            ``module.model.tasks``; without such a list, in the order of its indices.
        split: of the goals: ``"val"`` to choose models on; never choose on ``"test"``.
        num_goals: of each task.
        seed: of the goals; by default the ``seed`` of the datamodule, else 0.
        max_steps: length of an episode, which ends with success.
        num_processes: of environments.
        fast: faster Python paths of the environments.
        task: the task being trained, see `ForgettingLogger`.

    Attributes:
        report: of the last evaluation; after a fit in processes that were spawned, that of the first of them.

    Raises:
        ValueError: the tasks are unknown, the policy lacks one, or the module cannot act.
        ImportError: the ``[metaworld]`` extra is missing.

    Example:
        >>> SuccessLogger(every_n_steps=1000, num_goals=20).split
        'val'
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        tasks: str | Sequence[str] | None = None,
        split: Split = "val",
        num_goals: int = 20,
        seed: int | None = None,
        max_steps: int = MAX_STEPS,
        num_processes: int = 2,
        fast: bool = False,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        check_integers(1, every_n_steps=1 if every_n_steps is None else every_n_steps)
        self.every_n_steps, self.split, self.num_goals, self.seed = every_n_steps, split, num_goals, seed
        self.tasks, self.task = None if tasks is None else task_names(tasks), task
        self.options: dict[str, Any] = {"max_steps": max_steps, "num_processes": num_processes, "fast": fast}
        self._report: SuccessReport | None = None
        self._evaluation: GoalEvaluation | None = None
        self._last_step = 0

    @property
    def report(self) -> SuccessReport | None:
        """The last evaluation; None before the first, and in every process but the first."""
        self.receive()
        return self._report

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the report."""
        about = {"every_n_steps": self.every_n_steps, "tasks": self.tasks, "split": self.split, "seed": self.seed}
        return self._generate_state_key(**about, num_goals=self.num_goals)

    def state_dict(self) -> dict[str, Any]:
        """The last report, in tensors and primitives."""
        return {"report": None if self.report is None else self.report.to_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        state = state_dict["report"]
        self._report = None if state is None else SuccessReport.from_state(state)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that there is a policy, and that its tasks are known."""
        super().setup(trainer, pl_module, stage)
        if not callable(getattr(pl_module, "act_batch", None)):
            raise ValueError(
                f"SuccessLogger needs a module that acts, but {type(pl_module).__name__} does not define "
                "`act_batch(observations, task_index)`. Train one such as BehaviorCloning or MultiTaskSAC."
            )
        self._indices(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here: a resumed run has steps behind it."""
        self._last_step = trainer.global_step

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
            self._report = report = self._evaluate(trainer, pl_module)
            values = {f"success/{task}": value for task, value in report.per_task.items()}
            if validating and has_task(trainer, self.task):
                of_tasks = zip(self._indices(trainer, pl_module), report.per_task.values(), strict=True)
                values |= {f"val/task_{j}/success": value for j, value in of_tasks}
            values["success/mean"] = report.mean
        log_metrics(trainer, trainer.strategy.broadcast(values))

    def _evaluate(self, trainer: Trainer, pl_module: Any) -> SuccessReport:
        if self._evaluation is None:
            seed = getattr(_data(trainer), "seed", 0) if self.seed is None else self.seed
            goals: dict[str, Any] = {"split": self.split, "num_goals": self.num_goals, "seed": seed}
            self._evaluation = GoalEvaluation(self._names(trainer), stop_at_success=True, **goals, **self.options)
        index = self._indices(trainer, pl_module)
        with getattr(pl_module, "averaged", nullcontext)():  # once, and not for every action
            return self._evaluation(lambda observations, task: pl_module.act_batch(observations, index[task]))

    def _names(self, trainer: Trainer) -> tuple[str, ...]:
        names = self.tasks or getattr(_data(trainer), "tasks", None)
        if names is None:
            raise ValueError(
                "SuccessLogger needs names of tasks, but the datamodule has no `tasks`. Pass SuccessLogger(tasks=...)."
            )
        return task_names(names)

    def _indices(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.int64]:
        """The numbers that the tasks have in the policy."""
        names = self._names(trainer)
        known = tuple(getattr(getattr(pl_module, "model", None), "tasks", names))
        if missing := [name for name in names if name not in known]:
            raise ValueError(
                f"Expected `tasks` among those of the policy, {', '.join(known)}, but got {', '.join(missing)}. Pass "
                "SuccessLogger(tasks=...)."
            )
        return np.array([known.index(name) for name in names])


def _data(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
