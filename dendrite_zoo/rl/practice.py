"""What is practised at a time: some tasks, their environments, and what was played in them."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.ranks import num_ranks, sum_over_ranks
from dendrite_zoo.rl.ahead import RemotePlayer
from dendrite_zoo.rl.player import Act, Played, Player
from dendrite_zoo.rl.replay import ReplayBuffer
from dendrite_zoo.rl.spec import TaskSpec
from dendrite_zoo.rl.transitions import Transitions

LATEST = 1000  # observations of a task in a validation
SHORT, LONG = 100, 1000  # actions without the end of an episode, of which is warned at the end, and in between


class Practice:
    """Environments of some tasks in which rounds are played, and a replay buffer.

    Args:
        specs: the tasks.
        first_task: the index of the first among all tasks that are learned; the others follow.
        envs_per_task: environments of each task.
        capacity: steps in the replay buffer.
        normalize_rewards: divide each task's rewards by their root mean square before its first sample.
        solved_every: in every so many rounds a task is practised that is solved; 1 for each.
        save_replay: whether a state holds the buffer; else no task counts as solved when it is continued from.
        replay_per_task: how many of the latest steps of each task before the first are learned again with these.
        device: of the replay buffer.

    Attributes:
        rounds: how many there were.
        passed_over: how many of them all tasks rested in, so that nothing was played.
        places: the tasks that were played in the latest, counted from 0; None for all.
        simulated: how many steps were simulated in the latest, in all environments of all processes.
        player: who plays; None until `open`, and after `close`.
        replay: the buffer, in which tasks count from 0.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        first_task: int,
        *,
        envs_per_task: int,
        capacity: int,
        normalize_rewards: bool,
        solved_every: int = 1,
        save_replay: bool = True,
        replay_per_task: int = 0,
        device: torch.device,
    ) -> None:
        if solved_every > 1 and num_ranks() > 1:
            several = f"1 with {num_ranks()} processes, which learn the same tasks at a time"
            raise wrong_argument("solved_every", several, solved_every)
        self.specs, self.first_task, self.envs_per_task = specs, first_task, envs_per_task
        self.rounds, self.passed_over, self.simulated, self.normalize_rewards = 0, 0, 0, normalize_rewards
        self.solved_every, self.solved, self.save_replay = solved_every, [False] * len(specs), save_replay
        self.places: list[int] | None = None
        sizes = {"observation_size": specs[0].observation_size, "action_size": specs[0].action_size}
        self.replay = ReplayBuffer(len(specs), capacity, envs_per_task=envs_per_task, device=device, **sizes)
        self.earlier: ReplayBuffer | None = None
        if kept := first_task * replay_per_task:
            self.earlier = ReplayBuffer(first_task, kept, envs_per_task=envs_per_task, device=device, **sizes)
        self.reward_rms = torch.zeros(len(specs), device=device)  # 0: not measured yet
        self.player: Player | RemotePlayer | None = None
        self._ahead: Played | None = None  # a round that was played, and not added yet
        self._last_state: dict[str, Any] | None = None  # of a player that was closed
        self._endless: dict[int, int] = {}  # steps in each environment of tasks of which no episode has ended yet

    def open(self, *, collect_ahead: bool = False, **options: Any) -> None:
        """Make the environments.

        Args:
            collect_ahead: whether a process of its own plays.
            **options: further arguments of `dendrite_zoo.rl.player.Player`.
        """
        limits = [options.get("max_steps") or spec.max_steps for spec in self.specs]
        self._endless = {place: 0 for place, limit in enumerate(limits) if limit is None}
        options |= {"envs_per_task": self.envs_per_task}
        if collect_ahead:
            self.player = RemotePlayer(self.specs, self.first_task, **options)
        else:
            self.player = Player(self.specs, self.first_task, device=self.replay.rows.device, **options)

    def close(self, *, keep_state: bool = False) -> None:
        """End the environments.

        Args:
            keep_state: a `state_dict` can still be taken.
        """
        if self.player is not None:
            self._say_what_never_ends(SHORT)
            if keep_state:
                with suppress(RuntimeError):  # they crashed, or were never reset
                    self._last_state = self._state_of(self.player)
            self.player.close()
            self.player = None

    def collect(self, act: Act, steps: int, *, at_random: bool = False) -> dict[str, float]:
        """Play a round, and add every step to the replay buffer; pass it over where all tasks rest.

        Args:
            act: see `Act`.
            steps: actions in every environment.
            at_random: whether these are uniform, in the warm-up.

        Returns:
            As `dendrite_zoo.rl.statistics.EpisodeStatistics.compute`; where solved tasks rest, ``practised``, how many
            tasks were played, too.

        Raises:
            RuntimeError: before `open`, or when a process of the environments crashed.
        """
        if self.player is None:
            raise RuntimeError("There are no environments yet: expected setup() before collect(). Call it once.")
        if (due := self._due()) == [] and self._ahead is None:
            self.rounds, self.passed_over, self.simulated, self.places = self.rounds + 1, self.passed_over + 1, 0, []
            return {"practised": 0.0}
        played = self._ahead or self.player.play(act, steps, at_random=at_random, places=due)
        self._ahead = None
        self.replay.add(*played.transitions)
        self._see_ends(played)
        simulated = torch.tensor(played.simulated, device=self.replay.rows.device)
        sum_over_ranks(simulated)
        self.rounds, self.simulated = self.rounds + 1, int(simulated)
        self.places, self.solved = played.places, played.solved
        if self.solved_every > 1:
            practised = len(self.specs if played.places is None else played.places)
            return {"practised": float(practised), **played.statistics}
        return played.statistics

    def _see_ends(self, played: Played) -> None:
        """Count the steps of tasks of which no episode has ended, where nothing says how long one may be."""
        *_, task, _, ended = played.transitions
        for place in list(self._endless):
            rows = (task == place).cpu()
            self._endless[place] += int(rows.sum()) // self.envs_per_task
            if bool(ended.cpu()[rows].any()):
                del self._endless[place]
        self._say_what_never_ends(LONG)

    def _say_what_never_ends(self, least: int) -> None:
        """Warn once of tasks that were played for so many steps, and no episode has ended."""
        for place in [place for place, steps in self._endless.items() if steps >= least]:
            warnings.warn(
                f"No episode of {self.specs[place].name} has ended in {self._endless.pop(place)} actions of each "
                "environment, which has no limit of time: there is neither train/return nor train/success of it. Give "
                "OnlineTasks(environments={'max_steps': ...}), which cuts an episode off without an end of the task.",
                stacklevel=2,
            )

    def _due(self) -> list[int] | None:
        """The tasks to be practised in the next round: those not solved, and of the others each in its turn."""
        count = len(self.specs)
        turn = [(self.rounds + place) % self.solved_every == 0 for place in range(count)]
        due = [place for place, solved in enumerate(self.solved) if turn[place] or not solved]
        return None if len(due) == count else due

    def begin(self, act: Act, steps: int) -> None:
        """Begin the next round, for which `collect` waits, where a process of its own plays."""
        if self._ahead is None and self.player is not None and (due := self._due()) != []:
            self.player.begin(act, steps, places=due)

    def _state_of(self, player: Player | RemotePlayer) -> dict[str, Any]:
        self._ahead = self._ahead or player.finish()
        return {**player.state_dict(), "ahead": None if self._ahead is None else self._ahead._asdict()}

    def sample(self, per_task: int, generator: torch.Generator | None = None, **options: Any) -> Transitions:
        """Sample as many steps of each task that was played in the latest round, and of each that was kept before.

        Tasks are given by their index among all.

        Args:
            per_task: steps of each task.
            generator: of random numbers.
            **options: further arguments of `dendrite_zoo.rl.replay.ReplayBuffer.sample`.

        Raises:
            RuntimeError: nothing was played in the latest round, for all tasks rest.
        """
        if self.places == []:
            raise RuntimeError(
                "Expected a round that was played, but all tasks rested in the latest: there is nothing to learn from. "
                "Look at OnlineTasks.rests before sample()."
            )
        batch = self.replay.sample(per_task, generator, tasks=self.places, **options)
        if self.normalize_rewards:
            if not self.reward_rms.all():
                self._measure_rewards()
            batch = batch._replace(reward=batch.reward / self.reward_rms[batch.task])
        if not self.first_task:
            return batch
        batch = batch._replace(task=batch.task + self.first_task)
        if self.earlier is None or not (kept := self.earlier.sizes.nonzero().flatten().tolist()):
            return batch
        again = self.earlier.sample(per_task, generator, tasks=kept, **options)
        both = zip(again, batch, strict=True)
        return Transitions(*[x if x is None or y is None else torch.cat([x, y]) for x, y in both])  # type: ignore[arg-type]

    def take_over(self, before: "Practice") -> None:
        """Take over what is learned again of earlier tasks: what another has kept, and its own latest steps."""
        if self.earlier is None:
            return
        if before.earlier is not None:
            for task in range(before.first_task):
                self.earlier.add(*before.earlier.steps(task, self.earlier.capacity))
        for place in range(len(before.specs)):
            seen, action, reward, after, number, *ends = before.replay.steps(place, self.earlier.capacity)
            size = before.reward_size(place + before.first_task)  # rewards as they were learned from
            self.earlier.add(seen, action, reward / size, after, number + before.first_task, *ends)

    def _measure_rewards(self) -> None:
        """Of what all processes have seen; where there was no reward yet, as if it were 1."""
        for place in range(len(self.specs)):
            rewards = self.replay.rewards(place, len(self.replay))
            sums = torch.stack([rewards.square().sum(), rewards.new_tensor(len(rewards))])
            sum_over_ranks(sums)
            size = float((sums[0] / sums[1]).sqrt())
            self.reward_rms[place] = size or 1.0

    def reward_size(self, task: int) -> float:
        """What the rewards of a task, by its index among all, are divided by; 1 where they are not."""
        place = task - self.first_task
        return float(self.reward_rms[place]) or 1.0 if 0 <= place < len(self.specs) else 1.0

    def latest(self, task: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The latest observations ``(<= 1000, O)`` of a task, by its index among all, and its index for each.

        There are none of a task that is not practised.
        """
        place = task - self.first_task
        known = 0 <= place < len(self.specs)
        observation = self.replay.observations(place if known else 0, LATEST if known else 0)
        return observation, torch.full((len(observation),), task, device=observation.device)

    def state_dict(self) -> dict[str, Any] | None:
        """The state of environments and replay buffer, also after `close`; None where environments crashed."""
        running = self.player if self.rounds else None
        played = self._last_state if running is None else self._state_of(running)
        if self.rounds and played is None:
            return None
        normalizer = {"reward_rms": self.reward_rms.cpu()} if self.normalize_rewards else {}
        rest = {"solved_tasks": self.solved, "passed_over": self.passed_over}
        replay = self.replay.state_dict() if self.save_replay else None
        earlier = {} if self.earlier is None else {"earlier": self.earlier.state_dict()}
        return {**(played or {}), "replay": replay, **normalizer, **earlier, **rest}

    def load_state_dict(self, state: dict[str, Any], rounds: int) -> bool:
        """Continue from a state.

        Args:
            state: of `state_dict`.
            rounds: how many there had been.

        Returns:
            Whether it is without what was played, so that the buffer is empty.

        Raises:
            ValueError: steps of earlier tasks are to be learned, and it has none.
        """
        if self.earlier is not None and "earlier" not in state:
            raise ValueError(
                "Expected a checkpoint that has steps of earlier tasks, but got one of a run with replay_per_task=0. "
                "Go on as it was, or start anew."
            )
        self.rounds, self.passed_over = rounds, state.get("passed_over", 0)
        emptied, ahead = state["replay"] is None, state.get("ahead")
        if emptied:
            state = {**state, "latest": (), "solved_tasks": self.solved}
            ahead = ahead and {**ahead, "solved": self.solved}
        self._ahead = None if ahead is None else Played(**{"solved": self.solved, "places": None, **ahead})
        self.solved = list(state.get("solved_tasks", self.solved))  # earlier versions practise all in each round
        if self.player is not None and rounds:
            played = rounds - self.passed_over + (ahead is not None)
            self.player.load_state_dict({**state, "replay": None, "ahead": None}, played)
        if not emptied:
            self.replay.load_state_dict(state["replay"])
        if self.earlier is not None:
            self.earlier.load_state_dict(state["earlier"])
        if self.normalize_rewards:
            self.reward_rms = state["reward_rms"].to(self.reward_rms)
        return emptied and rounds > 0
