"""Robot tasks to be learned by imitation: all at once, or one after another."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dendrite_zoo._core.checks import check_choice, check_flags, check_integers
from dendrite_zoo._core.names import places_of, say_new_names
from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl import Demonstrations, Disturbance, TaskSpec, task_specs
from dendrite_zoo.rl.metaworld.tasks import MetaWorldTask
from dendrite_zoo.rl.seen import Policy, acting
from dendrite_zoo.rl.task_list import equal_sizes, played_metric
from dendrite_zoo.streams.datamodule import milestones_of
from dendrite_zoo.streams.demonstration_files import (
    check_demonstrations,
    check_given,
    check_without_expert,
    folder_of_run,
    hold_out,
    is_as_expected,
    load_or_collect,
    refuse_rounds,
    refuse_unsolved,
    rounds_in,
    rounds_of,
)
from dendrite_zoo.streams.loader import DemonstrationLoader, SingleBatch
from dendrite_zoo.streams.rounds import PlayedTasks

__all__ = ["DemonstrationMixture", "DemonstrationSequence"]


@say_new_names
class DemonstrationMixture(PlayedTasks):
    """Several tasks at once, each by imitating its expert, in a fixed number of updates.

    Before the first epoch the experts play ``episodes_per_task`` goals, every second one with noise on the actions, so
    that the way back is shown, too. Before each of the next ``dagger_rounds`` epochs the policy that is being trained
    plays ``dagger_episodes`` of each task in turn with the experts, who label the observations that it meets (DAgger):
    the module's ``act_batch`` is called, within its context ``averaged()`` if it has one. Episodes that did not reach
    their goal are left out, since the expert's actions may be wrong there.

    The demonstrations are saved in ``folder``, in one file for the experts and one for each round. A checkpoint names
    the folder, so that a resumed run finds them. Validation has one loader a task: the expert's steps on validation
    goals that it reached, each once.

    Args:
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` or names, or a list of `dendrite_zoo.rl.TaskSpec`; their order is that
            of the indices in a batch.
        episodes_per_task: goals of each task that the experts play.
        dagger_rounds: rounds of DAgger; None for 4, or as many as there are epochs after the first, or none without an
            expert.
        dagger_episodes: episodes of each task in a round.
        epochs: each ends with a validation, and may begin with a round; more than ``dagger_rounds``.
        updates_per_epoch: batches of an epoch.
        batch_size_per_task: rows of each task in a batch.
        task_weights: for harder tasks, by name, a factor of ``batch_size_per_task``, an integer from 1.
        val_episodes: episodes of each task to validate on.
        steps_after_success: how long an episode goes on once it has reached its goal, 50 for instance: a policy that
            saw no more than the way there leaves again. See `dendrite_zoo.rl.collect_demonstrations`.
        demonstrations: a file of the experts' demonstrations, made if it does not exist; by default in ``folder``. Or
            `dendrite_zoo.rl.Demonstrations`, of these tasks and maybe others, which are taken as they are. Where
            environments are your own and there is no ``expert``, the last tenth of each task's solved rows is then
            what is validated on, and not trained on.
        folder: of all files; by default ``demonstrations/`` in the folder of the Trainer's logger, or
            ``demonstrations-2/`` and so on where other fits have left theirs there.
        expert: who shows what to do, such as a policy that knows these tasks, or a function (see
            `dendrite_zoo.rl.collect_demonstrations`); by default Meta-World's scripted experts. Files name it, as
            ``ActiveDendritePolicy.act_batch``.
        max_steps: length of an episode at most, see `dendrite_zoo.rl.collect_demonstrations`.
        num_processes: of environments.
        fast: faster Python paths of the environments.
        seed: of goals, noise and the order of rows; of everything but the weights.

    Raises:
        ValueError: an argument out of range, an unknown task, a task whose expert solved no episode, or a file of other
            tasks, or collected with other arguments or by another expert; at fit, a Trainer without the arguments of
            `trainer_kwargs`.
        FileExistsError: a new fit finds the rounds of an earlier one.
        FileNotFoundError: a resumed run does not find a round that it collected.
        ImportError: the ``[metaworld]`` extra is missing.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | Sequence[TaskSpec],
        *,
        episodes_per_task: int = 200,
        dagger_rounds: int | None = None,
        dagger_episodes: int = 20,
        epochs: int = 5,
        updates_per_epoch: int = 2000,
        batch_size_per_task: int = 64,
        task_weights: Mapping[str, int] | None = None,
        val_episodes: int = 5,
        steps_after_success: int = 0,
        demonstrations: str | Path | Demonstrations | None = None,
        folder: str | Path | None = None,
        expert: Callable[..., Any] | Policy | None = None,  # in YAML the path of a function
        max_steps: int | None = None,
        num_processes: int = 2,
        fast: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.specs = task_specs(tasks)
        self.expert = None if expert is None else acting(expert, self.specs, "expert")[0]
        self.tasks = tuple(spec.name for spec in self.specs)
        self.num_tasks = len(self.tasks)
        self.observation_size, self.action_size = equal_sizes(self.specs)
        check_integers(1, episodes_per_task=episodes_per_task, dagger_episodes=dagger_episodes, epochs=epochs)
        check_integers(1, updates_per_epoch=updates_per_epoch, batch_size_per_task=batch_size_per_task)
        check_integers(1, val_episodes=val_episodes)
        check_flags(fast=fast)
        check_integers(0, steps_after_success=steps_after_success)
        self._has_expert = expert is not None or all(isinstance(spec, MetaWorldTask) for spec in self.specs)
        dagger_rounds = rounds_of(dagger_rounds, epochs, self._has_expert)
        self.episodes_per_task, self.dagger_episodes = episodes_per_task, dagger_episodes
        self.dagger_rounds, self.updates_per_epoch = dagger_rounds, updates_per_epoch
        self.epochs = self.max_epochs = epochs
        self.batch_size_per_task, self.task_weights = batch_size_per_task, dict(task_weights or {})
        for name, weight in self.task_weights.items():
            check_choice(self.tasks, task_weights=name)
            check_integers(1, **{f"task_weights[{name!r}]": weight})
        self.counts = [batch_size_per_task * self.task_weights.get(name, 1) for name in self.tasks]
        self.steps_after_success = steps_after_success
        # None where it is not used: the recipes of earlier versions stay the same recipes
        self.save_hyperparameters(
            {"steps_after_success": steps_after_success or None, "max_steps": max_steps}, logger=False
        )
        self.max_steps = max_steps
        self.val_episodes, self.num_processes, self.fast, self.seed = val_episodes, num_processes, fast, seed
        check_demonstrations(demonstrations)
        self._given = demonstrations if isinstance(demonstrations, Demonstrations) else None
        self.file = Path(demonstrations) if isinstance(demonstrations, str | Path) else None
        self._are_given = self._given is not None or not self._has_expert  # what is trained on was not collected here
        if not self._has_expert:
            check_without_expert(self.specs, dagger_rounds, demonstrations)
        self.folder = None if folder is None else Path(folder)
        self._parts: dict[int, Demonstrations] = {}  # of each task that is trained
        self._val_parts: list[Demonstrations] = []
        self._rounds: list[str] = []  # files of DAgger that are in the parts
        self._folder: Path | None = None  # where the files are, once it is known
        self._resumed: dict[str, Any] = {}  # the state in the checkpoint that a fit resumes from

    first_task = 0
    """The first task that is trained."""

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()

    @property
    def description(self) -> str:
        """How a policy learns from these data, for its card."""
        who = "scripted experts" if self.expert is None else "another policy"
        shown = f"{who}: {self.episodes_per_task} episodes a task, every second one disturbed"
        if self._are_given:
            shown = f"given demonstrations: {sum(map(len, self._parts.values())):,} steps"
        rounds = f", then {self.dagger_rounds} rounds of DAgger with {self.dagger_episodes} episodes a task each"
        stay = f" Episodes went on for {self.steps_after_success} steps after success, in which the experts stay."
        return (
            f"Distilled from {shown}{rounds if self.dagger_rounds else ''}.{stay if self.steps_after_success else ''} "
            "Nothing was learned by reinforcement."
        )

    @property
    def observations(self) -> Tensor:
        """All observations of the experts' episodes, ``(N, 39)``, to compute the normalisation from."""
        self._read()
        return torch.cat([part.observation for part in self._parts.values()])

    def schedule(self, epoch: int) -> tuple[int, int]:
        """The number of an epoch within its learning-rate schedule, and the schedule's number of epochs."""
        return epoch, self.epochs

    def setup(self, stage: str | None = None) -> None:
        """Collect or load the experts' demonstrations; under a Trainer later, when the checkpoint has named the folder.

        Raises:
            ValueError: at fit, a Trainer without the arguments of `trainer_kwargs`.
        """
        super().setup(stage)
        if self.trainer is None:
            self._read()
        elif stage == TrainerFn.FITTING:
            self._parts = {} if self._rounds else self._parts  # an earlier fit added rounds of its own
            self._rounds, self._folder, self._resumed = [], None, {}

    def state_dict(self) -> dict[str, Any]:
        """The folder of the demonstrations, and the rounds of DAgger in it."""
        return {} if self._folder is None else {"folder": str(self._folder), "rounds": list(self._rounds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the demonstrations of a checkpoint."""
        self._resumed = dict(state)

    def train_dataloader(self) -> DemonstrationLoader:
        """Return the batches of the current epoch, after the round of DAgger that is due before it."""
        self.resume_fit()
        tasks = self._trained
        self._collect(self.schedule(self.epoch)[0], tasks)
        parts, counts = [self._parts[task] for task in tasks], [self.counts[task] for task in tasks]
        place = {"epoch": self.epoch, "rank": self.rank, "world_size": self.world_size}
        return DemonstrationLoader(parts, self.updates_per_epoch, counts, self.seed, **place)

    @property
    def _trained(self) -> Sequence[int]:
        """The tasks of which the current epoch has batches."""
        return range(self.num_tasks)

    def val_dataloader(self) -> list[SingleBatch]:
        """Return a loader for each task: the steps of episodes in which its expert reached the goal, in one batch."""
        self.resume_fit()
        self._read()
        return [SingleBatch(partial(tuple, (part.observation, part.action, part.task))) for part in self._val_parts]

    def _read(self) -> Path:
        """Load the experts' demonstrations once, after they were collected if there are none; return their folder."""
        if self._folder is None:
            trainer, resumed = self.trainer, self._resumed.get("folder")
            self._folder = self.folder
            if self._folder is None:
                look = partial(folder_of_run, resumed=resumed, is_usable=self._is_usable)
                self._folder = look(trainer) if trainer else Path(self._temporary.name)
            if self._begins_rounds():
                refuse_rounds(self._folder)
        if not self._parts:
            trained = range(self.first_task, self.num_tasks)
            parts, names = self._shown(self._folder, trained), self.tasks[self.first_task :]
            refuse_unsolved(names, parts, are_given=self._are_given)
            self._parts = dict(zip(trained, parts, strict=True))
        return self._folder

    def _shown(self, folder: Path, trained: range) -> list[Demonstrations]:
        """What is trained on of each task; what of all of them is validated on is kept."""
        every, given = range(self.num_tasks), self._given
        if not self._has_expert and given is None:
            given = Demonstrations.load(cast(Path, self.file))
        if given is not None:
            check_given(given, self.observation_size, self.action_size)
        (experts, shown), (held_out, validated) = self._files(folder)
        if given is None:
            parts = self._load(experts, trained, **shown)
        else:
            parts = self._solved(given, trained if self._has_expert else every)
        if self._has_expert:
            self._val_parts = self._load(held_out, every, **validated)
            return parts
        both = [hold_out(part) for part in parts]
        self._val_parts = [held for _, held in both]
        return [part for part, _ in both[self.first_task :]]

    def _files(self, folder: Path) -> list[tuple[Path, dict[str, Any]]]:
        """What the experts show to train on and to validate on: where it is, and how it is collected."""
        shown = {"episodes_per_task": self.episodes_per_task, "disturbance": Disturbance()}
        validated = {"episodes_per_task": self.val_episodes, "split": "val"}
        return [(self.file or folder / "experts.safetensors", shown), (folder / "val.safetensors", validated)]

    def _begins_rounds(self) -> bool:
        """Whether a fit begins anew that collects rounds of DAgger."""
        trainer = self.fitting_trainer
        return trainer is not None and trainer.ckpt_path is None and self.dagger_rounds > 0

    def _is_usable(self, folder: Path) -> bool:
        """Whether what earlier fits have left in a folder, if anything, is what this one needs."""
        if self._begins_rounds() and rounds_in(folder):
            return False
        (experts, shown), (held_out, validated) = self._files(folder)
        trained, every = range(self.first_task, self.num_tasks), range(self.num_tasks)
        return all(
            path == self.file or is_as_expected(path, [self.specs[task] for task in tasks], **self._how(tasks, **how))
            for path, tasks, how in ((experts, trained, shown), (held_out, every, validated))
        )

    def _how(self, tasks: Sequence[int], **arguments: Any) -> dict[str, Any]:
        """Arguments of `dendrite_zoo.rl.collect_demonstrations` that decide what some tasks' demonstrations are."""
        options: dict[str, Any] = {"seed": self.seed, "steps_after_success": self.steps_after_success}
        options |= {"max_steps": self.max_steps, **arguments}
        expert, indices = self.expert, np.array(tasks)
        if expert is not None:
            options["expert"] = wraps(expert, updated=())(lambda seen, index: expert(seen, indices[index]))
        return options

    def _load(self, path: Path, tasks: Sequence[int], **arguments: Any) -> list[Demonstrations]:
        """The solved episodes of some tasks, one part for each."""
        specs, where = [self.specs[task] for task in tasks], (self.num_processes, self.fast)
        found = load_or_collect(path, specs, self.trainer, *where, **self._how(tasks, **arguments))
        return self._solved(found, tasks)

    def _solved(self, found: Demonstrations, tasks: Sequence[int]) -> list[Demonstrations]:
        """The solved episodes of some tasks, one part for each, by their numbers here."""
        found = found.among([self.tasks[task] for task in tasks])
        found = replace(found, tasks=self.tasks, task=torch.tensor(tasks)[found.task])
        return [found.select(found.solved & (found.task == task)) for task in tasks]

    def _collect(self, epoch: int, tasks: Sequence[int]) -> None:
        """Add the rounds of DAgger that some tasks need in an epoch of theirs: earlier ones from files, a new one."""
        folder, names = self._read(), [self.tasks[task] for task in tasks]
        module: Any = self.trainer and self.trainer.lightning_module
        indices = np.array(places_of(names, getattr(module, "tasks", self.tasks)))  # in the policy
        policy = module and (lambda observations, index: module.act_batch(observations, indices[index]))
        for round in range(1, min(epoch, self.dagger_rounds) + 1):
            name = f"{'' if len(tasks) == self.num_tasks else f'task-{tasks[0]}-'}round-{round}.safetensors"
            if name in self._rounds:
                continue
            earlier = round < epoch or name in self._resumed.get("rounds", [])
            if earlier and not (folder / name).is_file():
                raise FileNotFoundError(
                    f"Expected {folder / name}, which the run to be resumed collected with its policy of that time, "
                    "but there is no such file. Restore it, give the `folder` that holds it, or start a new run."
                )
            with getattr(module, "averaged", nullcontext)():  # once, and not for every action
                options = {"expert_share": 0.5**round, "seed": self.seed + 1000 * round, "policy": policy}
                parts = self._load(folder / name, tasks, episodes_per_task=self.dagger_episodes, **options)
            for task, part in zip(tasks, parts, strict=True):
                self._parts[task] += part
            self._rounds.append(name)


class DemonstrationSequence(DemonstrationMixture):
    """Tasks learned one after another, each by imitating its expert, in a single ``Trainer.fit``.

    Task ``first_task + epoch // epochs_per_task`` is trained in epoch ``epoch``, on its own demonstrations alone. A
    `dendrite_zoo.callbacks.SuccessLogger` measures ``val/task_{j}/success`` of every task at each validation, and
    ``ForgettingLogger("val/success")`` makes a matrix of it; of tasks without success it is ``"val/return"``. Rounds of
    DAgger belong to a task: before its second epoch, its third, and so on.

    The normalisation is shared beforehand: a module that normalises by ``observations``, as `BehaviorCloning` does,
    takes mean and scale of all tasks' demonstrations, also of those not learned yet. A result should say so. For a
    sequence without knowledge of later tasks, call ``module.model.fit_normalizer`` with the first task's observations
    before the fit.

    Args:
        tasks: names, or a list of `dendrite_zoo.rl.TaskSpec`, in the order in which they are learned.
        first_task: the index in ``tasks`` of the one that training begins with; those before it, which a pretrained
            policy knows, are validated alone, on ``val_episodes`` of their experts.
        epochs_per_task: of each task; more than ``dagger_rounds``.
        dagger_rounds: rounds of DAgger for each task.
        eval_at: the tasks after which a `dendrite_zoo.callbacks.SuccessLogger` plays all tasks seen so far; after the
            others only the one just trained. All are played after the last. None: all after each.
        replay_per_task: rows of each earlier task of this fit that are kept and learned again (experience replay): a
            batch has ``batch_size_per_task`` rows of them, drawn from all alike, beside those of the current task.
        **options: for `DemonstrationMixture`.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | Sequence[TaskSpec],
        *,
        first_task: int = 0,
        epochs_per_task: int = 1,
        dagger_rounds: int = 0,
        eval_at: Iterable[int] | None = None,
        replay_per_task: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(tasks, epochs=epochs_per_task, dagger_rounds=dagger_rounds, **options)
        check_integers(0, self.num_tasks - 1, first_task=first_task)
        check_integers(0, replay_per_task=replay_per_task)
        self.replay_per_task = replay_per_task
        self.save_hyperparameters({"replay_per_task": replay_per_task or None}, logger=False)
        self.milestones = None if eval_at is None else milestones_of(eval_at, range(first_task, self.num_tasks))
        self.first_task, self.epochs_per_task = first_task, epochs_per_task
        self.max_epochs = epochs_per_task * (self.num_tasks - first_task)
        self.metric = played_metric(self.specs)

    @property
    def current_task(self) -> int:
        """The task being trained; ``first_task`` without a Trainer."""
        return min(self.first_task + self.epoch // self.epochs_per_task, self.num_tasks - 1)

    def schedule(self, epoch: int) -> tuple[int, int]:
        """The number of an epoch within its task, and the task's number of epochs."""
        return epoch % self.epochs_per_task, self.epochs_per_task

    def train_dataloader(self) -> DemonstrationLoader:
        """Return the batches of the current epoch, with the rows of earlier tasks that are learned again."""
        loader = super().train_dataloader()
        if not (kept := self._kept() if self.replay_per_task else []):
            return loader
        counts = [*loader.batch_size_per_task, self.batch_size_per_task]
        return replace(loader, parts=[*loader.parts, Demonstrations.joined(kept)], batch_size_per_task=counts)

    def _kept(self) -> list[Demonstrations]:
        """The rows of each earlier task of this fit that are learned again."""
        kept = []
        for task in range(self.first_task, self.current_task):
            self._collect(self.dagger_rounds, [task])  # a resumed run has not read its rounds
            order = random_state(self.seed, task, key=(2,)).permutation(len(self._parts[task]))
            kept.append(self._parts[task].select(torch.from_numpy(order[: self.replay_per_task])))
        return kept

    def due_tasks(self) -> Iterable[int]:
        """The tasks to play now, see ``eval_at``."""
        if self.milestones is None:
            return range(self.num_tasks)
        return self.due_in_turn(self.current_task, self.epochs_per_task)

    @property
    def _trained(self) -> Sequence[int]:
        return (self.current_task,)
