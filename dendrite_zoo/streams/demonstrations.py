"""Robot tasks to be learned by imitation: all at once, or one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl import Demonstrations, Disturbance, collect_demonstrations, task_names
from dendrite_zoo.rl.collection import collection_config
from dendrite_zoo.streams.stream import check_trainer, fitting_trainer, resume_fit

__all__ = ["DemonstrationLoader", "DemonstrationMixture", "DemonstrationSequence"]

Batch = tuple[Tensor, Tensor, Tensor]


class DemonstrationLoader:
    """A fixed number of batches ``(observation, action, task)`` with as many rows of each task, drawn anew each time.

    Which rows depends on seed and epoch alone. It resumes as `TaskLoader` does; under DDP every process takes its share
    of each task's rows.

    Args:
        parts: the rows of each task.
        updates: number of batches.
        batch_size_per_task: of a batch, over all processes; one number, or one for each task.
        seed: of the draws.
        epoch: which epoch this is.
        rank: which share is taken.
        world_size: how many processes share a batch.

    Raises:
        ValueError: the rows do not divide into equal shares, or a task has none.
    """

    def __init__(
        self,
        parts: Sequence[Demonstrations],
        *,
        updates: int,
        batch_size_per_task: int | Sequence[int],
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        counts = (
            [batch_size_per_task] * len(parts) if isinstance(batch_size_per_task, int) else list(batch_size_per_task)
        )
        if any(count % world_size for count in counts):
            raise ValueError(
                f"batch_size_per_task={batch_size_per_task} came for {world_size} processes; expected multiples."
            )
        for number, part in enumerate(parts):
            if len(part) == 0:
                raise ValueError(f"parts[{number}] came without rows; expected one or more of each task. Leave it out.")
        self.parts, self.updates, self.counts = list(parts), updates, counts
        self.seed, self.epoch, self.rank, self.world_size = seed, epoch, rank, world_size
        self._start = self._done = 0

    def __len__(self) -> int:
        return self.updates

    def __iter__(self) -> Iterator[Batch]:
        start, self._start = self._start, 0
        draws = random_state(self.seed, self.epoch, key=(1,)).random_sample
        lengths = np.repeat([len(part) for part in self.parts], self.counts)
        share = slice(self.rank, None, self.world_size)
        for batch in range(self.updates):
            rows = torch.from_numpy((draws(len(lengths)) * lengths).astype(np.int64)).split(self.counts)
            if batch < start:
                continue
            self._done = batch + 1
            chosen = [(part, own[share]) for part, own in zip(self.parts, rows, strict=True)]
            yield (
                torch.cat([part.observation[own] for part, own in chosen]),
                torch.cat([part.action[own] for part, own in chosen]),
                torch.cat([part.task[own] for part, own in chosen]),
            )

    def state_dict(self) -> dict[str, Any]:
        """How far this epoch got."""
        return {"epoch": self.epoch, "batch": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next pass after the batches that were handed out, if they were of this epoch."""
        if state["epoch"] == self.epoch:
            self._start = self._done = state["batch"]


class DemonstrationMixture(LightningDataModule):
    """Several tasks of Meta-World at once, each by imitating its scripted expert, in a fixed number of updates.

    Before the first epoch the experts play: on ``episodes_per_task`` goals, every second episode disturbed, so that the
    way back is shown, too. Before each of the next ``dagger_rounds`` epochs the policy that is being trained plays
    ``dagger_episodes`` of each task in turn with the experts, who say what they would have done (DAgger): the module is
    asked for ``act_batch``, within its context ``averaged()`` where it has one. Episodes that did not reach their goal
    are left out: there the expert may be at a loss.

    What was collected lies in ``folder``, in one file for the experts and one for each round. A checkpoint names the
    folder, so that a resumed run finds it there. Validation has one loader a task, of the expert's steps on validation
    goals that it reached, each once.

    Args:
        tasks: ``"mt10"``, ``"mt50"`` or names; their order is that of the indices in a batch.
        episodes_per_task: goals that the experts show.
        dagger_rounds: rounds of DAgger.
        dagger_episodes: episodes of each task in a round.
        epochs: how often is validated, and how often a round may begin; more than ``dagger_rounds``.
        updates_per_epoch: batches of an epoch.
        batch_size_per_task: rows of each task in a batch.
        task_weights: for tasks that are harder, by name, how many times as many, 1 or more.
        val_episodes: episodes of each task to validate on.
        demonstrations: a file of the experts' demonstrations, made where missing; by default in ``folder``.
        folder: where what is collected lies; by default ``demonstrations/`` where the Trainer's logger writes.
        num_processes: of environments.
        fast: faster Python paths of the environments.
        seed: of goals, chance and order; of everything but the weights.

    Raises:
        ValueError: an argument out of range, an unknown task, a task whose expert solved no episode, or a file of other
            tasks or collected otherwise; at fit, a Trainer without the arguments of `trainer_kwargs`.
        FileExistsError: a fit that starts anew finds the rounds of an earlier one.
        FileNotFoundError: a resumed run does not find a round that it collected.
        ImportError: the ``[metaworld]`` extra is missing.
    """

    metric: str | None = None
    """What a ForgettingLogger would read: nothing, where all tasks are learned at once."""

    def __init__(
        self,
        tasks: str | Sequence[str],
        *,
        episodes_per_task: int = 200,
        dagger_rounds: int = 4,
        dagger_episodes: int = 20,
        epochs: int = 5,
        updates_per_epoch: int = 2000,
        batch_size_per_task: int = 64,
        task_weights: Mapping[str, int] | None = None,
        val_episodes: int = 5,
        demonstrations: str | Path | None = None,
        folder: str | Path | None = None,
        num_processes: int = 2,
        fast: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = task_names(tasks)
        if not 0 <= dagger_rounds < epochs:
            raise ValueError(
                f"dagger_rounds={dagger_rounds} came with epochs={epochs}; expected fewer rounds than epochs."
            )
        for name, value in {
            "episodes_per_task": episodes_per_task,
            "dagger_episodes": dagger_episodes,
            "updates_per_epoch": updates_per_epoch,
            "batch_size_per_task": batch_size_per_task,
            "val_episodes": val_episodes,
        }.items():
            if value < 1:
                raise ValueError(f"{name}={value} came; expected 1 or more.")
        self.episodes_per_task, self.dagger_rounds, self.dagger_episodes = (
            episodes_per_task,
            dagger_rounds,
            dagger_episodes,
        )
        self.epochs, self.updates_per_epoch, self.batch_size_per_task = epochs, updates_per_epoch, batch_size_per_task
        self.task_weights = dict(task_weights or {})
        if unknown := sorted(set(self.task_weights) - set(self.tasks)):
            raise ValueError(f"task_weights came for {', '.join(unknown)}; expected some of {', '.join(self.tasks)}.")
        for name, times in self.task_weights.items():
            if not isinstance(times, int) or times < 1:
                raise ValueError(
                    f"task_weights={{{name!r}: {times!r}}} came; expected a whole number from 1. Change it."
                )
        self.val_episodes, self.num_processes, self.fast, self.seed = val_episodes, num_processes, fast, seed
        self.file = None if demonstrations is None else Path(demonstrations)
        self.folder = None if folder is None else Path(folder)
        self._parts: list[Demonstrations] = []
        self._validation: list[Demonstrations] = []
        self._collected: list[str] = []  # the rounds of DAgger that are in the parts
        self._place: Path | None = None
        self._resumed: dict[str, Any] = {}  # the state of the checkpoint that a fit goes on from
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.tasks)

    @property
    def method(self) -> str:
        """How a policy is made of these data, for its card."""
        rounds = f", then {self.dagger_rounds} rounds of DAgger with {self.dagger_episodes} episodes a task each"
        return (
            f"Distilled from Meta-World's scripted experts: {self.episodes_per_task} episodes a task, every second one "
            f"disturbed{rounds if self.dagger_rounds else ''}. Nothing was learned by reinforcement."
        )

    @property
    def observations(self) -> Tensor:
        """All observations of the experts' episodes, ``(N, 39)``: to normalise by."""
        self._read()
        return torch.cat([part.observation for part in self._parts])

    def trainer_kwargs(self) -> dict[str, Any]:
        """Give the arguments that the Trainer must have."""
        return {"max_epochs": self.epochs, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}

    def schedule(self, epoch: int) -> tuple[int, int]:
        """Where an epoch stands in what is learned at one stretch: its number there, and how many there are."""
        return epoch, self.epochs

    def setup(self, stage: str | None = None) -> None:
        """Collect the experts' demonstrations, or read them; a Trainer first reads where in a checkpoint."""
        trainer = self.trainer
        if trainer is None:
            self._read()
        elif stage == TrainerFn.FITTING:
            check_trainer(trainer, self)
            if self._collected:  # by an earlier fit
                self._parts, self._collected = [], []
            self._place, self._resumed = None, {}

    def state_dict(self) -> dict[str, Any]:
        """Where what was collected lies, and which rounds of DAgger there are."""
        return {} if self._place is None else {"folder": str(self._place), "rounds": list(self._collected)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was collected."""
        self._resumed = dict(state)

    def _read(self) -> None:
        """Collect the experts' demonstrations, or read them, once."""
        if self._place is None:
            self._place = self._find_place()
            self._refuse_earlier_rounds(self._place)
        if self._parts:
            return
        shown = self._kept(
            self.file or self._place / "experts.safetensors",
            self.tasks,
            episodes_per_task=self.episodes_per_task,
            disturbance=Disturbance(),
            seed=self.seed,
        )
        held_out = self._kept(
            self._place / "val.safetensors",
            self.tasks,
            episodes_per_task=self.val_episodes,
            split="val",
            seed=self.seed,
        )
        parts, validation = ([_solved(rows.of(task)) for task in range(self.num_tasks)] for rows in (shown, held_out))
        if unsolved := [name for name, part in zip(self.tasks, parts, strict=True) if len(part) == 0]:
            raise ValueError(
                f"No episode of {', '.join(unsolved)} was solved by its expert; expected one or more to learn from. "
                "Give more episodes_per_task, or leave the task out."
            )
        self._parts, self._validation = parts, validation

    def train_dataloader(self) -> DemonstrationLoader:
        """Give the batches of the current epoch, after the round of DAgger that is due before it."""
        resume_fit(self)
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        self._collect(epoch, range(self.num_tasks))
        return self._loader(range(self.num_tasks), epoch)

    def val_dataloader(self) -> list[_Whole]:
        """Give a loader for each task: what its expert did where it reached its goal, every step once, in one batch."""
        resume_fit(self)
        self._read()
        return [_Whole(part) for part in self._validation]

    def _loader(self, tasks: Sequence[int], epoch: int) -> DemonstrationLoader:
        trainer = self.trainer
        return DemonstrationLoader(
            [self._parts[task] for task in tasks],
            updates=self.updates_per_epoch,
            batch_size_per_task=[
                self.batch_size_per_task * self.task_weights.get(self.tasks[task], 1) for task in tasks
            ],
            seed=self.seed,
            epoch=epoch,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def _collect(self, epoch: int, tasks: Sequence[int]) -> None:
        """Have the rounds of DAgger that some tasks need in an epoch of theirs: read them, and play the newest."""
        self._read()
        prefix = "" if len(tasks) == self.num_tasks else f"task-{tasks[0]}-"
        for round in range(1, min(epoch, self.dagger_rounds) + 1):
            name = f"{prefix}round-{round}.safetensors"
            if name not in self._collected:
                earlier = round < epoch or name in self._resumed.get("rounds", [])
                self._add_round(round, tasks, name, must_exist=earlier)
                self._collected.append(name)

    def _add_round(self, round: int, tasks: Sequence[int], name: str, *, must_exist: bool) -> None:
        assert self._place is not None
        path = self._place / name
        if must_exist and not path.is_file():
            raise FileNotFoundError(
                f"There is no {path}, which the run to be resumed collected with a policy that is gone. Expected the "
                "folder where that run collected: put the file back, or give folder=; else start anew."
            )
        module: Any = None if self.trainer is None else self.trainer.lightning_module
        indices = np.array(tasks)
        with getattr(module, "averaged", nullcontext)():  # once, and not for every action
            new = self._kept(
                path,
                [self.tasks[task] for task in tasks],
                episodes_per_task=self.dagger_episodes,
                policy=module and (lambda observations, index: module.act_batch(observations, indices[index])),
                expert_share=0.5**round,
                seed=self.seed + 1000 * round,
            )
        for position, task in enumerate(tasks):
            part = _solved(new.of(position))
            self._parts[task] += replace(part, tasks=self.tasks, task=torch.full_like(part.task, task))

    def _kept(self, path: Path, tasks: Sequence[str], **arguments: Any) -> Demonstrations:
        """Read what was collected before, else collect it; the first process does, the others wait for it."""
        trainer = self.trainer
        if (trainer is None or trainer.is_global_zero) and not path.is_file():
            collect_demonstrations(
                tasks, num_processes=self.num_processes, fast=self.fast, progress=True, **arguments
            ).save(path)
        if trainer is not None:
            trainer.strategy.barrier()
        kept = Demonstrations.load(path)
        if kept.tasks != tuple(tasks):
            raise ValueError(f"{path} holds demonstrations of {', '.join(kept.tasks)}; expected {', '.join(tasks)}.")
        _check_config(path, kept.config, collection_config(**arguments))
        return kept

    def _refuse_earlier_rounds(self, place: Path) -> None:
        """What another policy played in an earlier fit is not what this one would have to learn."""
        trainer, rounds = fitting_trainer(self), sorted(place.glob("*round-*.safetensors"))
        if trainer is not None and trainer.ckpt_path is None and self.dagger_rounds and rounds:
            raise FileExistsError(
                f"{rounds[0]} was collected in an earlier fit; expected a folder without rounds of DAgger. Give "
                "another folder=, remove the rounds, or go on from a checkpoint of that fit with ckpt_path=."
            )

    def _find_place(self) -> Path:
        if self.folder is not None:
            return self.folder
        if self.trainer is not None:
            place = Path(self.trainer.log_dir or self.trainer.default_root_dir) / "demonstrations"
            earlier = Path(self._resumed.get("folder", place))
            return Path(self.trainer.strategy.broadcast(str(earlier if earlier.is_dir() else place)))
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory()
        return Path(self._temporary.name)


class DemonstrationSequence(DemonstrationMixture):
    """Tasks of Meta-World learned one after another, each by imitating its expert, in a single ``Trainer.fit``.

    Task ``epoch // epochs_per_task`` is trained in epoch ``epoch``, on its own demonstrations alone. A
    `dendrite_zoo.callbacks.SuccessLogger` measures ``val/task_{j}/success`` of every task at each validation, and
    ``ForgettingLogger("val/success")`` makes the matrix of it. Rounds of DAgger belong to a task: before its second
    epoch, its third, and so on.

    One thing is shared beforehand: a module that normalises by ``observations``, as `BehaviorCloning` does, takes mean
    and scale of all tasks' demonstrations, also of those not learned yet. A result should say so. For a sequence that
    knows nothing of what comes, call ``module.model.fit_normalizer`` with the first task's observations before the fit.

    Args:
        tasks: names, in the order in which they are learned.
        epochs_per_task: of each task; more than ``dagger_rounds``.
        dagger_rounds: rounds of DAgger for each task.
        **options: for `DemonstrationMixture`.
    """

    metric = "val/success"

    def __init__(
        self, tasks: str | Sequence[str], *, epochs_per_task: int = 1, dagger_rounds: int = 0, **options: Any
    ) -> None:
        self.epochs_per_task = epochs_per_task
        super().__init__(tasks, epochs=epochs_per_task, dagger_rounds=dagger_rounds, **options)

    @property
    def current_task(self) -> int:
        """The task being trained; 0 without a Trainer."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        return min(epoch // self.epochs_per_task, self.num_tasks - 1)

    def trainer_kwargs(self) -> dict[str, Any]:
        """Give the arguments that the Trainer must have."""
        return {**super().trainer_kwargs(), "max_epochs": self.epochs_per_task * self.num_tasks}

    def schedule(self, epoch: int) -> tuple[int, int]:
        """Where an epoch stands in its task."""
        return epoch % self.epochs_per_task, self.epochs_per_task

    def train_dataloader(self) -> DemonstrationLoader:
        """Give the batches of the current epoch, all of the current task."""
        resume_fit(self)
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        task = self.current_task
        self._collect(epoch % self.epochs_per_task, [task])
        return self._loader([task], epoch)


class _Whole:
    """One batch with every row, or none where there are none."""

    def __init__(self, part: Demonstrations) -> None:
        self.part = part

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Batch]:
        if len(self.part):
            yield self.part.observation, self.part.action, self.part.task


def _solved(part: Demonstrations) -> Demonstrations:
    return Demonstrations(
        part.tasks, *(tensor[part.solved] for tensor in (part.observation, part.action, part.task, part.solved))
    )


def _check_config(path: Path, came: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> None:
    if came is None:
        rank_zero_warn(
            f"{path} does not say how it was collected, as files of earlier versions do not. It is taken for what is "
            f"expected here: {_words(expected)}. If it is not, remove it to have it collected anew."
        )
        return
    other = [name for name in expected if came.get(name) != expected[name]]
    if other:
        raise ValueError(
            f"{path} was collected with {_words({name: came.get(name) for name in other})}; expected "
            f"{_words({name: expected[name] for name in other})}. Give the arguments that it was collected with, give "
            "another file or folder, or remove it to have it collected anew."
        )


def _words(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in config.items())
