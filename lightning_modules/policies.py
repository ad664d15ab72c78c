"""What LightningModules share that train a policy: the tasks of the data are some of the policy's, by name."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.lightning import validation_of
from dendrite_zoo._core.names import nearest, places_of
from dendrite_zoo.lightning_modules.known_skills import known_of, warn_of_loss, warn_of_other_scales
from dendrite_zoo.lightning_modules.new_parts import thaw
from dendrite_zoo.lightning_modules.new_tasks import NewTaskModule
from dendrite_zoo.lightning_modules.part_numbers import numbers_trained
from dendrite_zoo.lightning_modules.play import check_data, chosen_actions, goal_scores
from dendrite_zoo.lightning_modules.starts import check_starts, words_of_tasks_without_parts
from dendrite_zoo.models.control import ControlModel
from dendrite_zoo.models.learned import LEARNED, NORMALIZERS, LearnedTasks
from dendrite_zoo.rl import MetaWorldTask
from dendrite_zoo.rl.transitions import check_rows
from dendrite_zoo.streams import OnlineTasks

FAR = 20.0
"""No number of an observation is as far from its mean, in units of its scale, in the tasks that set both."""


class PolicyModule(NewTaskModule):
    """Trains a policy on data of some of its tasks.

    A datamodule says by ``tasks`` which these are; its batches and loaders number them in that order. With other data
    the numbers are those of the policy.

    Attributes:
        tasks: the names of the policy's tasks.
    """

    tasks: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self._places: Tensor | None = None  # of the data's tasks in the policy
        self._task_of_batch = 0  # where the data do not say it
        self._noted: set[str] = set()  # tasks that this fit has trained
        self._looked_at = False  # a batch, for the scale of its observations
        self._knows_learned = True  # or a loop of one's own has trained the policy, on tasks that it does not say

    def setup(self, stage: str) -> None:
        """Refuse data of tasks that the policy does not know, before anything is trained."""
        check_data(self, stage)
        self._noted = set()
        tasks = getattr(self.datamodule, "tasks", None)
        self._places = None if tasks is None else torch.tensor(places_of(tasks, self.tasks))
        check_sizes(self.model, self.datamodule)
        if stage == "fit" and isinstance(self.model, LearnedTasks):
            self._knows_learned = not self.model.was_trained_elsewhere()
        super().setup(stage)
        if stage == "fit" and self.new is not None:
            if words := words_of_tasks_without_parts(self):
                raise ValueError(words)
            check_starts(self)
            if tasks is not None and tuple(tasks) == (start := self.hparams["init_from"],):
                raise wrong_argument("init_from", "another task than the one that is trained, or 'nearest'", start)

    def on_fit_start(self) -> None:
        """Take note of the normaliser, which the fit may set."""
        super().on_fit_start()
        self.keep_until_trained(self.model, recurse=False)
        warn_of_other_scales(self.model, getattr(self.datamodule, "specs", ()))
        if self.new is None and self._places is not None:
            warn_of_loss(self.known_tasks(), {self.tasks[place] for place in self._places.tolist()})

    def in_policy(self, task: Tensor) -> Tensor:
        """The numbers in the policy of tasks as the data number them."""
        return task if self._places is None else self._places.to(task.device)[task]

    def enter_batch(self, task: Tensor | None) -> None:
        """Take note of the tasks of a batch, ``(B,)``; None where they are all of the data's."""
        current = self._current
        if self.new is None or current is not None:
            self.enter_task(current)
        elif self._places is not None or task is None:
            self.enter_task(0)  # all of the data's at once: nothing ends before the fit
        elif bool((task != task[0]).any()):
            raise ValueError(
                "Expected batches of one task each for learn='new', where the data have no `tasks`, but got tasks "
                f"{task.unique().tolist()} in one batch. Train one after another, or give a datamodule with `tasks`, "
                "their names."
            )
        else:
            self._task_of_batch = int(task[0])
            self.enter_task(self._task_of_batch)

    def check_batch(self, observation: Tensor, action: Tensor, task: Tensor) -> None:
        """Refuse rows of a loader of one's own that no policy could have played; warn where nothing scales them."""
        check_rows(action, task, len(self.tasks if self._places is None else self._places))
        is_first, self._looked_at = not self._looked_at, True
        if not is_first or not isinstance(self.model, ControlModel) or self.model.has_normalizer:
            return
        if (largest := float(observation.abs().max())) > FAR:
            rank_zero_warn(
                f"The policy reads observations as they are, up to {largest:.4g}, and learns little from numbers that "
                "large. Call module.model.fit_normalizer(observations) before the fit."
            )

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Play test goals of the tasks of the data, and log what is reached in each."""
        self.log_dict(goal_scores(self, batch), batch_size=1, add_dataloader_idx=False)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The policy's actions ``(B, A)`` of observations ``(B, O)`` and tasks ``(B,)``; of one task, for the first."""
        return chosen_actions(self, batch)

    def start_parts(self, *, is_first: bool) -> None:
        """Say so where a task is none that is new."""
        known = self.known_tasks()
        if again := [self.tasks[task] for task in self.first_tasks() if self.tasks[task] in known]:
            rank_zero_warn(
                f"learn='new': the policy was loaded with {', '.join(again)}. What the task has for itself is trained "
                "again, and its actions change; those of all other tasks do not. Where that is not meant, give data of "
                "the new tasks alone, or first_task=."
            )
        if (observations := getattr(self.datamodule, "observations", None)) is not None and not self.may_change_all:
            self.say_what_is_far(observations)
        super().start_parts(is_first=is_first)

    def say_what_is_far(self, observations: Tensor) -> None:
        """Observations unlike all that the policy was normalised by drown what they have in common with them."""
        if not isinstance(self.model, ControlModel):
            return
        sizes = self.model.normalized(observations.to(self.model.observation_mean)).abs().amax(0)
        if far := (sizes > FAR).nonzero().flatten().tolist():
            rank_zero_warn(
                f"Numbers {far[:8]} of the observations are up to {float(sizes.max()):.0f} times their "
                f"scale in the policy's normaliser, for they hardly moved in the tasks before, and drown the rest. "
                f"{self._remedy_for_what_is_far()}"
            )

    def _remedy_for_what_is_far(self) -> str:
        """What can be done about it, before a fit."""
        effect = "it helps where they were zero, and leaves what the policy does in the tasks before as it is."
        if not isinstance(data := self.datamodule, OnlineTasks):
            return f"Call model.extend_normalizer(observations) before the fit: {effect}"
        place = self._current or 0
        words = f"Before another fit call model.extend_normalizer(data.specs[{place}].sample_observations()): {effect}"
        if not getattr(self, "began_trained", True):  # normalised by the first task of this fit
            sample = "numpy.concatenate([spec.sample_observations() for spec in data.specs])"
            words = f"Before another fit call model.fit_normalizer({sample}), which normalises by all tasks."
        is_own = not isinstance(data.specs[place], MetaWorldTask)
        return words + " Or give the task as spec.normalized(), by scales of its own." * is_own

    def note_learned(self, task: Tensor) -> None:
        """Take note of tasks that were trained on, ``(B,)``, as the policy numbers them."""
        model, most = self.model, len(self.tasks if self._places is None else self._places)
        if not isinstance(model, LearnedTasks) or len(self._noted) == most:
            return
        if names := {model.tasks[number] for number in task.unique().tolist()} - self._noted:
            self._noted |= names
            known = model.learned_tasks or self._taught_elsewhere()
            if self._knows_learned or known:
                model.learned_tasks = names.union(known)
            specs = [one for one in getattr(self.datamodule, "specs", ()) if not isinstance(one, MetaWorldTask)]
            own = {spec.name: spec.normalizer for spec in specs if spec.name in names}
            model.task_normalizers = {**model.task_normalizers, **own}

    def _taught_elsewhere(self) -> list[str]:
        return [] if self._knows_learned or self.may_change_all else [self.tasks[one] for one in self.earlier_tasks()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which tasks the policy has learned."""
        super().on_save_checkpoint(checkpoint)
        if isinstance(self.model, LearnedTasks):
            noted = self.model.noted_tasks
            checkpoint[LEARNED] = None if noted is None else list(noted)
            checkpoint[NORMALIZERS] = dict(self.model.task_normalizers)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it; a checkpoint of an earlier version does not say it."""
        super().on_load_checkpoint(checkpoint)
        if isinstance(self.model, LearnedTasks):
            learned = checkpoint.get(LEARNED, self.model.tasks)
            self.model.note(None if learned is None else [task for task in learned if task in self.model.tasks])
            self.model.task_normalizers = self.model.as_normalizers(checkpoint.get(NORMALIZERS, {}))

    def known_tasks(self) -> Sequence[str]:
        """The tasks that the policy was loaded with, and has still."""
        return known_of(self.model, self.tasks)

    def first_tasks(self) -> Sequence[int]:
        """The task being trained; all of the data's, where they are trained at once."""
        if self._places is None:
            return [self._task_of_batch]
        return self._places.tolist() if self._current is None else [int(self._places[self._current])]

    def earlier_tasks(self) -> Iterable[int]:
        """All but those being trained, and those that the data have later."""
        has_order = self._places is not None and self._current is not None
        own = set(self._places[self._current :].tolist() if has_order else self.first_tasks())  # type: ignore[index]
        return [task for task in range(len(self.tasks)) if task not in own]

    def knows_tasks(self) -> bool:
        """Whether the policy was loaded or has learned; one trained elsewhere is to know what the data leave out."""
        every = self._places is None or sorted(self._places.tolist()) == [*range(len(self.tasks))]
        leaves_out = not every and not (isinstance(self.model, LearnedTasks) and self._knows_learned)
        said = getattr(self.model, "origin", None) is not None or getattr(self.datamodule, "first_task", 0) > 0
        return said or leaves_out or bool(getattr(self.model, "learned_tasks", ()))

    def parameters_by_task(self) -> list[int]:
        """After a fit, how many numbers of the policy each task trained, but for the first one that it ever learned."""
        new, every = self.new, range(len(self.tasks))
        order, counts = list(every) if self._places is None else self._places.tolist(), []
        trained = range(getattr(self.datamodule, "first_task", 0) if self.knew_tasks else 1, len(order))
        if new is None:
            return [numbers_trained(self.model, order[number]) for number in trained]
        for number in trained:
            new.own([order[number]], [task for task in every if task not in order[number:]])
            counts.append(new.num_parameters)
        thaw(self.model)
        return counts

    def place_of(self, name: str | int) -> int:
        """The number in the policy of the task to start from."""
        if name not in self.tasks:
            remedy = nearest(str(name), self.known_tasks() or self.tasks).strip()
            raise wrong_argument("init_from", f"'nearest', or one of {', '.join(self.tasks)}", name, remedy)
        return self.tasks.index(str(name))

    def held_out(self, task: int) -> Iterable[Any]:
        """Batches of validation of a task; where there are none, of training."""
        return validation_of(self.trainer, task if self._places is None else self._places.tolist().index(task))

    @property
    def _current(self) -> int | None:
        """The task being trained, as the data number it."""
        return getattr(self.datamodule, "current_task", None)


def tasks_of(policy: nn.Module) -> tuple[str, ...]:
    """The names of a policy's tasks.

    Raises:
        TypeError: it has none.
    """
    if not (tasks := getattr(policy, "tasks", ())):
        got = f"a {type(policy).__name__} without. Give it the attribute."
        raise TypeError(f"Expected a policy with `tasks`, the names of those that it has, but got {got}")
    return tuple(cast(Any, tasks))


def check_sizes(model: nn.Module, data: Any) -> None:
    """Refuse a policy for observations or actions of other sizes than the data say they have.

    Raises:
        ValueError: it is one.
    """
    config = getattr(model, "config", {})
    names = [name for name in ("observation_size", "action_size") if name in config and hasattr(data, name)]
    if wrong := [name for name in names if config[name] != getattr(data, name)]:
        expected = ", ".join(f"{name}={getattr(data, name)}" for name in wrong)
        got = ", ".join(f"{name}={config[name]}" for name in wrong)
        raise ValueError(
            f"Expected a policy with {expected}, the size that the tasks have, but got {got}. Make it with "
            "these TaskSpecs as its `tasks`, or observation_size=data.observation_size, action_size=data.action_size."
        )


def warn_of_plan(data: OnlineTasks, actor_warmup: int) -> None:
    """Say so where a fit plays much more than was asked for, or is over before anything, or the policy, learns."""
    updates, steps, a_round = data.total_updates, data.total_env_steps, data.env_steps_per_round
    if (planned := a_round * data.rounds_per_epoch * data.epochs) > 2 * steps:
        rank_zero_warn(
            f"Expected `env_steps` to be as many as {data.epochs} epochs of a round have or more, but got {steps:,}: "
            f"rounds are of {a_round:,} steps, and {planned:,} will be played. Lower `epochs`, or `steps_per_round`, "
            "actions in each environment."
        )
    if data.updates_per_round and not updates:
        of_one, share = (" of a task", steps // len(data.tasks)) if data.order == "sequential" else ("", steps)
        rank_zero_warn(
            f"Expected `warmup_steps` to be fewer than the env_steps{of_one}, {share}, but got {data.warmup_steps}: "
            "nothing will be learned. Lower `warmup_steps`, or raise `env_steps`."
        )
    elif updates and actor_warmup >= updates:
        rank_zero_warn(
            f"Expected `actor_warmup` to be fewer than the {updates} updates of this fit, but got {actor_warmup}: "
            "the policy will not learn. Lower `actor_warmup`, or raise `env_steps`."
        )


def check_critic(policy: nn.Module, critic: nn.Module) -> None:
    """Refuse a critic of ours that is for other tasks or reads something else than a policy of ours.

    Raises:
        ValueError: it does.
    """
    if isinstance(policy, ControlModel) and isinstance(critic, ControlModel):
        for name in ("tasks", "observation_size", "action_size", "observation_features"):
            theirs, got = (model.config[name] for model in (policy, critic))
            if theirs != got:
                raise wrong_argument("critic", f"one with the {name} of the policy", got, "Give them to it.")
