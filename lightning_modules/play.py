"""A policy at play in the tasks of its data: on test goals, and to choose what a new task starts as."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dendrite_zoo._core.lightning import attached_trainer, has_loaders, training_data_given
from dendrite_zoo.rl import MetaWorldTask, evaluate_policy
from dendrite_zoo.rl.seen import Act
from dendrite_zoo.rl.task_list import play_options
from dendrite_zoo.rl.transitions import by_name, refuse_batches, shapes_of
from dendrite_zoo.streams import OnlineTasks
from dendrite_zoo.streams.rounds import Goals

LARGE, SMALL = 1000.0, 0.1
"""Rewards above which a warning is given, as the root of their mean square; and below which, by entropy coefficient."""
TASK_AT = {2: 1, 3: 2, 5: 4, 6: 4, 7: 4}
"""Where the task is among so many parts of a batch: beside observations, in what is imitated, in `Transitions`."""
PLAYED = 3
"""Episodes by which the task to start from is chosen, where there are no data."""


def check_data(module: LightningModule, stage: str) -> None:
    """Say what to give where batches are given in the place of a loader, or there is nothing to validate or test on.

    Raises:
        ValueError: that is so.
    """
    trainer = attached_trainer(module)
    if stage == "fit" and trainer is not None:
        refuse_batches(training_data_given(trainer))
    if stage in ("validate", "test") and trainer is not None and not has_loaders(trainer, stage):
        plays, name = "whose test goals are played" if stage == "test" else "or loaders", getattr(stage, "value", stage)
        raise ValueError(
            f"Expected data, {plays}, but got none. Give trainer.{name}(module, data) with the data of the fit, such "
            "as OnlineTasks, or play goals of any tasks by dendrite_zoo.rl.evaluate_policy(module, tasks)."
        )


def warn_of_silence(trainer: Trainer, data: OnlineTasks) -> None:
    """Say so where a validation by itself has nothing to go by, for nothing was played yet, and nobody plays in it."""
    plays = any(hasattr(callback, "report") for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if trainer.state.fn == "validate" and not data.replay.seen.any() and not plays:
        rank_zero_warn(
            f"{type(data).__name__} validates on what was played in its fit, and there was none: nothing was measured. "
            "To play goals call trainer.test(module, data) or dendrite_zoo.rl.evaluate_policy(module, tasks), or give "
            "the Trainer a SuccessLogger(), whose `report` says what is reached on goals of validation."
        )


def warn_of_rewards(data: OnlineTasks, scale: float, alpha: float) -> None:
    """Say so where rewards of tasks are so large that critics take long to grow, or so small that entropy counts alone.

    Args:
        data: that were played in, and not yet learned from.
        scale: factor of all rewards.
        alpha: coefficient of the entropy, in units of the scaled reward; 0 where it is not learned.
    """
    if data.normalize_rewards:
        return
    replay, specs = data.replay, data.practice.specs
    sizes = [scale * float(replay.rewards(place, len(replay)).square().mean().sqrt()) for place in range(len(specs))]
    remedy = "Give OnlineTasks(normalize_rewards=True), or MultiTaskSAC(reward_scale=...)."
    if large := [f"{spec.name} ({size:.4g})" for spec, size in zip(specs, sizes, strict=True) if size > LARGE]:
        rank_zero_warn(
            f"Rewards are large in {', '.join(large)}, the root of their mean square: critics grow to the size of "
            f"returns in steps of the learning rate, and learn little until then. {remedy}"
        )
    # Those of Meta-World are small as long as nothing is reached.
    own = [pair for pair in zip(specs, sizes, strict=True) if not isinstance(pair[0], MetaWorldTask)]
    if small := [f"{spec.name} ({size:.4g})" for spec, size in own if 0 < size < SMALL * alpha]:
        rank_zero_warn(
            f"Rewards are small in {', '.join(small)}, the root of their mean square, beside an entropy coefficient of "
            f"{alpha:.4g}: actions stay random until that has fallen, in thousands of updates. {remedy}"
        )


def goal_scores(module: Any, batch: Any) -> dict[str, float]:
    """What the policy of a module reaches on test goals of the tasks of its data; the first process plays.

    Args:
        module: with ``act_batch`` and ``tasks``.
        batch: of the data.

    Returns:
        ``test/task_{j}/success`` and ``test/task_{j}/success_at_end``, or ``test/task_{j}/return`` where tasks do not
        say what success is, by the numbers that tasks have in the data, and their means, such as ``test/success/mean``.

    Raises:
        ValueError: the batch is none of `dendrite_zoo.streams.OnlineTasks` or of demonstrations.
    """
    if not isinstance(batch, Goals):
        raise ValueError(
            "Expected data whose test goals are played, such as OnlineTasks or DemonstrationMixture, but "
            f"got a batch that is a {type(batch).__name__}. Give trainer.test(module, data) one of these, or call "
            "dendrite_zoo.rl.evaluate_policy(module, tasks)."
        )
    trainer, scores = module.trainer, dict[str, float]()
    if trainer.is_global_zero:
        shown, options = trainer.progress_bar_callback is not None, play_options(module.datamodule)
        with getattr(module, "averaged", nullcontext)():
            report = evaluate_policy(
                module, module.datamodule.specs, num_goals=batch.per_task, progress=shown, **options
            )
        measured = {report.metric: report.per_task, "success_at_end": report.at_end_per_task or {}}
        for metric, of_tasks in measured.items():
            scores |= {f"test/task_{number}/{metric}": value for number, value in enumerate(of_tasks.values())}
            scores |= {f"test/{metric}/mean": float(np.mean([*of_tasks.values()]))} if of_tasks else {}
    shared: dict[str, float] = trainer.strategy.broadcast(scores)
    return shared


def chosen_actions(module: Any, batch: Any) -> Tensor:
    """The actions of a policy for a batch to predict.

    Args:
        module: with ``act_batch`` and ``tasks``.
        batch: observations ``(B, O)`` and tasks ``(B,)``, as the policy numbers them; or what can be learned from, with
            them in it; or observations alone, of a policy with one task.

    Returns:
        ``(B, A)``, from -1 to 1.

    Raises:
        ValueError: it does not say the tasks.
    """
    named = by_name(batch)
    given: Any = [named.get(name) for name in ("observation", "task")] if isinstance(named, Mapping) else named
    if isinstance(given, Sequence) and len(given) == 1:  # of a TensorDataset(observations)
        (given,) = given
    if isinstance(given, Tensor) and len(module.tasks) == 1:
        given = given, torch.zeros(len(given), dtype=torch.long)
    place = TASK_AT.get(len(given)) if isinstance(given, Sequence) else None
    if place is None or not all(isinstance(given[part], Tensor) for part in (0, place)):
        raise ValueError(
            f"Expected batches of observations and tasks to predict, (observation, task), but got {shapes_of(batch)}. "
            "Where all are of one task, its number is torch.zeros(len(observation), dtype=torch.long)."
        )
    return torch.as_tensor(module.act_batch(given[0], given[place]))


def mean_return(act: Act, task: int, name: str, data: OnlineTasks) -> float:
    """The mean sum of rewards that a policy has in a few episodes of a task, on goals or starts of validation.

    Args:
        act: from observations ``(N, O)`` and the policy's task indices ``(N,)`` to actions ``(N, A)``.
        task: its number in the policy.
        name: of the task.
        data: whose environments are played.
    """
    spec = data.specs[data.tasks.index(name)]
    rules: dict[str, Any] = {name: getattr(data, name) for name in ("fast", "action_repeat", "seed")}
    rules |= {"num_processes": 0, "max_steps": data.hparams["environments"].get("max_steps")}

    def in_policy(observations: NDArray[Any], index: NDArray[Any]) -> ArrayLike:
        return act(observations, np.full_like(index, task))

    return evaluate_policy(in_policy, [spec], split="val", num_goals=PLAYED, **rules).mean_return
