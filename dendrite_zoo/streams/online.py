"""Tasks to be learned online, at once or one after another: the policy that learns from the data also collects them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch

from dendrite_zoo._core.checks import check_choice, check_flags, check_integers
from dendrite_zoo._core.ranks import gather_states, state_of_rank
from dendrite_zoo.rl import Acting, Exploration, TaskSpec, Transitions, task_specs
from dendrite_zoo.rl.player import Act
from dendrite_zoo.rl.practice import Practice
from dendrite_zoo.rl.replay import ReplayBuffer
from dendrite_zoo.rl.task_list import equal_sizes, played_metric
from dendrite_zoo.streams.loader import SingleBatch
from dendrite_zoo.streams.online_options import check_replay, check_rests, environment_options
from dendrite_zoo.streams.rounds import PlayedTasks, RoundLoader

__all__ = ["OnlineTasks"]

Order = Literal["mixed", "sequential"]
COUNTS = ("rounds", "_earlier_rounds", "_cut_steps", "_refills")  # attributes that a checkpoint holds
# arguments of `Practice`
PRACTISED = ("envs_per_task", "capacity", "normalize_rewards", "solved_every", "save_replay", "replay_per_task")


class OnlineTasks(PlayedTasks):
    """Tasks to be learned by reinforcement, with environments and a replay buffer.

    The training loader gives one `Round` after another, for which `MultiTaskSAC` calls `collect` and `sample`. An epoch
    is a number of rounds and a validation on the latest 1,000 observations of each task, one loader a task. A
    checkpoint holds the buffer and the state of each environment; under DDP each process has environments and a buffer
    of its own, with the same goals in another order.

    With ``order="sequential"`` tasks are learned one after another in the one fit, each for an equal share of the steps
    and epochs, with environments, a warm-up and a buffer of its own. ``current_task`` says which;
    `dendrite_zoo.callbacks.SuccessLogger` measures all of them at each validation, and
    ``ForgettingLogger("val/success")``, or ``"val/return"`` of tasks without success, makes a matrix of it.

    Args:
        tasks: ``"mt10"``, ``"mt50"``, ``"cw10"`` or names of Meta-World's, or a list of `dendrite_zoo.rl.TaskSpec`.
        order: ``"mixed"``, all tasks at once, or ``"sequential"``, one after another.
        env_steps: number of steps that are simulated, of all environments in all processes, rounded up to whole rounds;
            they are fewer where solved tasks rest, or an episode cuts an action.
        epochs: each ends with a validation and a checkpoint; rounded up to as many for each task of ``"sequential"``.
        steps_per_round: actions in every environment in a round, a step each unless ``environments`` has an
            ``action_repeat``; the paper's by default.
        updates_per_round: updates after them.
        warmup_steps: steps of all environments with uniform actions before the first update, of each task where these
            are learned one after another; by default a tenth of the steps that it has, 10,000 at most.
        capacity: steps in the replay buffer of a process.
        envs_per_task: environments of each task in a process.
        normalize_rewards: divide each task's rewards, for learning alone, by their root mean square in what was played
            before its first update, so that tasks with rewards of other scales count alike. `MultiTaskSAC` then begins
            with a lower entropy coefficient.
        solved_every: a task of which 19 of the latest 20 episodes (without those with bursts) ended with success is
            practised in every so many rounds alone: time goes to the others (cf. Sharma et al. 2018, arXiv 1702.06053).
            Rounds in which all rest are passed over; where one is learned at a time, the next begins the sooner.
        collect_ahead: play the next round in a process of its own, by the policy as it is before this round's updates,
            at the same time as these. Runs are as reproducible, and resume as exactly, as without.
        save_replay: whether checkpoints hold the replay buffer. Without it they are small; a run that is resumed plays
            as many steps as a warm-up, by its own policy, before it learns on, and does not give what it would have.
        replay_per_task: the latest steps of each earlier task that are kept and learned again (experience replay), with
            ``order="sequential"``: a batch has as many of each as of the current task.
        exploration: random actions that last, in the warm-up and in bursts after it, see
            `dendrite_zoo.rl.Exploration`; None for none.
        environments: further arguments of `dendrite_zoo.rl.TaskEnvironments`: any of ``action_repeat``, ``fast``,
            ``max_steps``, ``num_goals``, ``num_processes``, ``reward_version`` and ``timeout``.
        seed: of goals and their order, from 0.

    Attributes:
        specs: the `dendrite_zoo.rl.TaskSpec` of each task.
        observation_size: numbers in an observation.
        action_size: numbers in an action.
        fast: whether the environments take their faster Python paths.
        action_repeat: steps that each action is played for.
        num_envs: number of environments that a process plays at a time.
        rounds: number of rounds so far.

    Raises:
        ValueError: an unknown task or argument, or a number out of range; at fit, a Trainer without the arguments of
            `trainer_kwargs`; at resume, another number of processes or other environments.
        ImportError: at setup, the ``[metaworld]`` extra is missing.

    Example:
        >>> data = OnlineTasks(["reach-v3", "push-v3"], env_steps=100_000, epochs=10)
        >>> data.trainer_kwargs()
        {'max_epochs': 10, 'reload_dataloaders_every_n_epochs': 1, 'num_sanity_val_steps': 0}
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | Sequence[TaskSpec] = "mt10",
        *,
        order: Order = "mixed",
        env_steps: int,
        epochs: int = 20,
        steps_per_round: int = 500,
        updates_per_round: int = 250,
        warmup_steps: int | None = None,
        capacity: int = 1_000_000,
        envs_per_task: int = 1,
        normalize_rewards: bool = False,
        solved_every: int = 1,
        collect_ahead: bool = False,
        save_replay: bool = True,
        replay_per_task: int = 0,
        exploration: Exploration | None = None,
        environments: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.specs = task_specs(tasks)
        self.tasks, self.num_tasks = tuple(spec.name for spec in self.specs), len(self.specs)
        self.observation_size, self.action_size = equal_sizes(self.specs)
        check_choice(get_args(Order), order=order)
        check_flags(normalize_rewards=normalize_rewards, collect_ahead=collect_ahead, save_replay=save_replay)
        check_integers(1, env_steps=env_steps, epochs=epochs, steps_per_round=steps_per_round)
        check_integers(1, capacity=capacity, envs_per_task=envs_per_task)
        check_rests(self.specs, solved_every)
        check_replay(replay_per_task, order, save_replay)
        self.order, self.total_env_steps, self.capacity, self.collect_ahead = order, env_steps, capacity, collect_ahead
        self._turns = turns = self.num_tasks if order == "sequential" else 1  # how often something else is played
        self.num_envs, self.epochs_per_task = self.num_tasks // turns * envs_per_task, -(-epochs // turns)
        self.epochs = self.max_epochs = self.epochs_per_task * turns
        if order == "sequential":
            self.metric = played_metric(self.specs)
        self.steps_per_round, self.updates_per_round, self.seed = steps_per_round, updates_per_round, seed
        self.warmup_steps = min(10_000, env_steps // turns // 10) if warmup_steps is None else warmup_steps
        check_integers(0, updates_per_round=updates_per_round, warmup_steps=self.warmup_steps, seed=seed)
        self.envs_per_task, self.solved_every, self.exploration = envs_per_task, solved_every, exploration
        self.normalize_rewards, self.save_replay, self.replay_per_task = normalize_rewards, save_replay, replay_per_task
        self._options = environment_options(environments, collect_ahead, exploration)
        given = {"env_steps": env_steps, "environments": self._options, "replay_per_task": replay_per_task or None}
        self.save_hyperparameters(given, logger=False)
        self.fast, self.action_repeat = bool(self._options.get("fast")), self._options.get("action_repeat", 1)
        self._restart(torch.device("cpu"))

    def _restart(self, device: torch.device) -> None:
        """Begin with nothing played."""
        self.rounds, self._cut_steps, self._refills, self._device = 0, 0, 0, device
        self._begin(0)

    def _begin(self, task: int) -> None:
        """Begin with nothing played of a task, or of all of them."""
        self._earlier_rounds = self.rounds
        specs = self.specs if self.order == "mixed" else self.specs[task : task + 1]
        options: Any = {name: getattr(self, name) for name in PRACTISED}
        self.practice = Practice(specs, task, device=self._device, **options)

    @property
    def replay(self) -> ReplayBuffer:
        """The replay buffer."""
        return self.practice.replay

    @property
    def current_task(self) -> int:
        """The task being trained, where they are learned one after another; else there is none."""
        if self.order == "mixed":
            raise AttributeError("There is no current task where all are learned at once, with order='mixed'.")
        return min(self.epoch // self.epochs_per_task, self.num_tasks - 1)

    @property
    def rests(self) -> bool:
        """Whether nothing was played in the latest round, for all tasks rest."""
        return self.practice.places == []

    @property
    def description(self) -> str:
        """How a policy learns from these data, for its card."""
        module = getattr(self.trainer, "lightning_module", None)
        start = "from a trained policy" if getattr(module, "began_trained", False) else "without demonstrations"
        learned = f"Learned by reinforcement, {start}: {self.env_steps:,} steps of the simulation."
        return learned + f" Times resumed with an empty replay buffer: {self._refills}." * (self._refills > 0)

    @property
    def env_steps(self) -> int:
        """Number of steps that were simulated, of all environments in all processes."""
        return self.rounds * self.env_steps_per_round - self._cut_steps

    @property
    def task_env_steps(self) -> int:
        """The same of the current task alone, where tasks are learned one after another; each action counts in full."""
        return (self.rounds - self._earlier_rounds) * self.env_steps_per_round

    @property
    def env_steps_per_round(self) -> int:
        """Number of steps in a round, of all environments in all processes, at most."""
        return self.steps_per_round * self.action_repeat * self.num_envs * self.world_size

    @property
    def rounds_per_epoch(self) -> int:
        """Number of rounds in an epoch."""
        return -(-self.total_env_steps // (self.env_steps_per_round * self.epochs))

    @property
    def total_updates(self) -> int:
        """Number of updates in a fit, fewer where all tasks rest: none before the round that completes the warm-up."""
        rounds = self.epochs_per_task * self.rounds_per_epoch
        warm = max(0, -(-self.warmup_steps // self.env_steps_per_round) - 1)
        return max(0, rounds - warm) * self.updates_per_round * self._turns

    def setup(self, stage: str | None = None) -> None:
        """Make the environments, each process its own, and begin with nothing played."""
        super().setup(stage)
        if stage in (None, "fit"):
            self.practice.close()
            self._restart(torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device)
            self._open()

    def _open(self) -> None:
        own: Any = {name: getattr(self, name) for name in ("collect_ahead", "exploration", "seed")}
        self.practice.open(first_env=self.rank * self.num_envs, **own, **self._options)

    def _go_on_to(self, task: int) -> None:
        """Practise a task where tasks are learned one after another; the one before is left."""
        if task != self.practice.first_task:
            before, opened = self.practice, self.practice.player is not None
            before.close()
            self._begin(task)
            self.practice.take_over(before)
            if opened:
                self._open()

    def teardown(self, stage: str | None = None) -> None:
        """End the environments' processes; a checkpoint can still be taken, until the next `setup`."""
        self.practice.close(keep_state=True)
        super().teardown(stage)

    def on_exception(self, exception: BaseException) -> None:
        """End the environments' processes: they may have crashed, and cannot be asked for their state."""
        self.practice.close()

    def collect(self, act: Act, steps: int, *, at_random: bool = False) -> dict[str, float]:
        """Play, and add every step to the replay buffer.

        Args:
            act: maps observations ``(N, O)``, float32, and tasks ``(N,)`` to actions ``(N, A)``; with ``collect_ahead``
                a `dendrite_zoo.rl.Acting`.
            steps: actions in every environment.
            at_random: whether they are uniform, in the warm-up, where `Exploration` holds them.

        Returns:
            See `dendrite_zoo.rl.practice.Practice.collect`; episodes with bursts are left out.

        Raises:
            RuntimeError: before `setup`, or when a process of the environments crashed.
        """
        played = self.practice.collect(act, steps, at_random=at_random)
        self.rounds += 1
        self._cut_steps += steps * self.action_repeat * self.num_envs * self.world_size - self.practice.simulated
        return played

    def begin_next(self, act: Acting, steps: int) -> None:
        """With ``collect_ahead`` begin the round after this one, if the task has one; `collect` waits for it."""
        if self.collect_ahead and self.rounds - self._earlier_rounds < self.epochs_per_task * self.rounds_per_epoch:
            self.practice.begin(act, steps)

    def sample(self, per_task: int, generator: torch.Generator | None = None, **returns: Any) -> Transitions:
        """Sample as `dendrite_zoo.rl.practice.Practice.sample` does: ``per_task`` steps of each task."""
        return self.practice.sample(per_task, generator, **returns)

    def train_dataloader(self) -> RoundLoader:
        """Return the rounds of an epoch."""
        self.resume_fit()
        if self.order == "sequential":
            self._go_on_to(self.current_task)
        each, steps = self.action_repeat * self.world_size, self.env_steps_per_round  # of a row; to come
        counts = self.rounds_per_epoch, lambda: int(self.replay.seen.sum()) * each + steps >= self.warmup_steps
        return RoundLoader(*counts, self.steps_per_round, self.updates_per_round, epoch=self.epoch)

    def val_dataloader(self) -> list[SingleBatch]:
        """Return the latest observations of each task, ``(observation (B, O), task (B,))``, that are in the buffer."""
        self.resume_fit()
        return [SingleBatch(partial(self._latest, task)) for task in range(self.num_tasks)]

    def _latest(self, task: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.practice.latest(task)

    def state_dict(self) -> dict[str, Any]:
        """The state of environments and replay buffer, of all processes; also after the environments were closed."""
        if not self.rounds or (own := self.practice.state_dict()) is None:
            return {}
        counts = {name.strip("_"): getattr(self, name) for name in COUNTS}
        return {**counts, "task": self.practice.first_task, "processes": gather_states(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: it is of another number of processes, or of other environments.
        """
        own = state_of_rank(state_dict["processes"], self.rank, self.world_size, "environments and a replay buffer")
        if self.practice.player is not None:
            self._go_on_to(state_dict.get("task", 0))  # of earlier versions, which knew all at once alone
            for name in COUNTS:
                setattr(self, name, state_dict.get(name.strip("_"), 0))  # of which earlier versions know fewer
            self._refills += self.practice.load_state_dict(own, self.rounds - self._earlier_rounds)
            self.hparams.update({"refills": self._refills} if self._refills else {})  # which make another recipe
