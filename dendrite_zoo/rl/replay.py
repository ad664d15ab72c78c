"""A replay buffer of several tasks: one packed tensor."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_integers, check_range, wrong_argument
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo._core.torch import full_precision
from dendrite_zoo.rl.transitions import Transitions


class ReplayBuffer:
    """The latest steps of each task, float32, in one tensor: a batch is a single ``index_select``.

    Where an episode ends by its length, values are bootstrapped through the truncation (Pardo et al. 2018); where the
    task itself ends, as when a robot fell, they are not. Returns of n steps are summed when they are sampled, of steps
    that followed one another in one environment: shorter where an episode ended, and at the latest step.

    Args:
        num_tasks: how many tasks share the capacity, in equal parts.
        capacity: steps in all, rounded up to a multiple of ``num_tasks``.
        observation_size: O, the length of an observation.
        action_size: A, the length of an action.
        envs_per_task: how many environments of each task are stepped in turn: the next step in the same environment is
            as many rows of its task later.
        device: of the tensor.

    Attributes:
        sizes: ``(T,)`` integers, the number of steps of each task in the buffer.

    Raises:
        ValueError: a size below one; a batch of another shape, with an unknown task, or with NaN or infinity.

    Example:
        >>> replay = ReplayBuffer(2, 8, observation_size=3, action_size=1)
        >>> replay.add(torch.zeros(4, 3), torch.zeros(4, 1), torch.arange(4.0), torch.zeros(4, 3),
        ...            torch.tensor([0, 1, 0, 1]))
        >>> replay.sizes
        tensor([2, 2])
        >>> replay.sample(3).task
        tensor([0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        num_tasks: int,
        capacity: int,
        *,
        observation_size: int,
        action_size: int,
        envs_per_task: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        check_integers(1, num_tasks=num_tasks, capacity=capacity, envs_per_task=envs_per_task)
        check_integers(1, observation_size=observation_size, action_size=action_size)
        self.num_tasks, self.capacity, self.envs_per_task = num_tasks, -(-capacity // num_tasks), envs_per_task
        self.widths = [observation_size, action_size, 1, observation_size]
        # `empty` touches no memory: usage grows with the steps
        self.rows = torch.empty(num_tasks * self.capacity, sum(self.widths), device=device)
        self.terminated, self.ended = torch.zeros(2, len(self.rows), dtype=torch.bool, device=device)
        self.seen = torch.zeros(num_tasks, dtype=torch.long)

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @property
    def sizes(self) -> Tensor:
        """The number of steps of each task in the buffer, ``(T,)``."""
        return self.seen.clamp(max=self.capacity)

    @torch.no_grad()
    def add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        task: Tensor,
        terminated: Tensor | None = None,
        ended: Tensor | None = None,
    ) -> None:
        """Add steps in the order in which they were made; they replace the oldest steps of their tasks.

        Args:
            observation: ``(N, O)``.
            action: ``(N, A)``.
            reward: ``(N,)``.
            next_observation: ``(N, O)``, of the same episode.
            task: ``(N,)`` integers.
            terminated: ``(N,)``, where the task itself ended; None for nowhere.
            ended: ``(N,)``, where an episode ended, whatever ended it; None for where the task itself did.
        """
        parts = [observation, action, reward.unsqueeze(-1), next_observation]
        shapes = [list(part.shape) for part in parts]
        if shapes != [[len(task), width] for width in self.widths]:
            expected = f"observations, actions, rewards and next observations with {self.widths} columns"
            raise ValueError(f"Expected {expected} and {len(task)} rows, as many as tasks, but got {shapes}.")
        packed = torch.cat([part.to(self.rows) for part in parts], dim=1)
        if rows := unusable_rows(packed):
            spoilt = [name for name, part in zip(Transitions._fields, parts, strict=False) if unusable_rows(part)]
            got = f"NaN or infinity in {' and '.join(spoilt)} of rows {rows[:8]}, of task {int(task[rows[0]])}"
            raise ValueError(f"Expected finite steps, but got {got}. None was added; look for what the simulation did.")
        task = task.cpu()
        counts = task.bincount(minlength=self.num_tasks)
        if (most := len(counts) - 1) >= self.num_tasks:
            raise ValueError(f"Expected tasks from 0 to {self.num_tasks - 1}, but got a step of task {most}.")
        ends = torch.zeros(len(task), dtype=torch.bool) if terminated is None else terminated
        ends = ends.to(self.terminated)
        closing = ends if ended is None else ends | ended.to(ends)
        for j, count in enumerate(counts.tolist()):
            mine = (task == j).nonzero().squeeze(1)[-self.capacity :]
            last = int(self.seen[j]) + count
            slots = torch.arange(last - len(mine), last) % self.capacity + j * self.capacity
            slots, mine = slots.to(packed.device), mine.to(packed.device)
            self.rows.index_copy_(0, slots, packed[mine])
            self.terminated.index_copy_(0, slots, ends[mine])
            self.ended.index_copy_(0, slots, closing[mine])
        self.seen += counts

    def sample(
        self,
        per_task: int,
        generator: torch.Generator | None = None,
        *,
        tasks: Sequence[int] | None = None,
        n_step: int = 1,
        discount: float | None = None,
    ) -> Transitions:
        """Sample the same number of steps of every task, with replacement.

        With a ``discount`` a step's reward is ``r_0 + discount r_1 + ... + discount^(n-1) r_(n-1)``, its
        ``next_observation`` the one after ``n`` steps, and its ``discount`` what to multiply the value of that by:
        ``discount^n``, or 0 where the task itself ended. ``n`` is ``n_step``, or less where an episode ended before, or
        no more has been played yet.

        Args:
            per_task: steps of each task.
            generator: of random numbers, on the buffer's device.
            tasks: the tasks to sample of; None for all.
            n_step: how many rewards a return has.
            discount: of the reward, per step, from 0 to 1; None leaves ``discount`` of the steps to the learner.

        Raises:
            ValueError: there is no step of a task yet; a number out of range, or ``n_step`` without ``discount``.
        """
        check_integers(1, n_step=n_step)
        chosen = list(range(self.num_tasks) if tasks is None else tasks)
        sizes = self.sizes[chosen]
        if not sizes.all():
            empty = chosen[int(sizes.argmin())]
            raise ValueError(f"Expected steps of every task, but got none of task {empty}. Call `add` before `sample`.")
        device = self.rows.device
        # float64: with float32 some rows of a large buffer would never be sampled
        wide = torch.float32 if device.type == "mps" else torch.float64
        draws = torch.rand(len(chosen), per_task, generator=generator, device=device, dtype=wide)
        sizes = sizes.to(device).unsqueeze(1)
        index = (draws * sizes).long().clamp_(max=sizes - 1)
        task = torch.tensor(chosen, device=device).unsqueeze(1)
        places = (index + task * self.capacity).flatten()
        observation, action, reward, next_observation = self.rows.index_select(0, places).split(self.widths, dim=1)
        task = task.expand(-1, per_task).flatten()
        if discount is None:
            if n_step > 1:
                raise wrong_argument("discount", "a number from 0 to 1 with n_step above 1", discount)
            ends = self.terminated.index_select(0, places)
            return Transitions(observation, action, reward.squeeze(1), next_observation, task, ends)
        check_range(0, 1, discount=discount)
        returns, last, factor = self._returns(places, task, n_step, discount)
        next_observation = self.rows.index_select(0, last)[:, -self.widths[-1] :]
        ends = self.terminated.index_select(0, last)
        return Transitions(observation, action, returns, next_observation, task, ends, factor.masked_fill(ends, 0.0))

    def _returns(self, places: Tensor, task: Tensor, n_step: int, discount: float) -> tuple[Tensor, Tensor, Tensor]:
        """Of some rows ``(B,)`` the sum of n rewards, the row of the last of these, and the discount after it."""
        powers = torch.tensor([discount**n for n in range(n_step + 1)], device=places.device)
        start, steps = task * self.capacity, torch.arange(n_step, device=places.device) * self.envs_per_task
        later = (self.seen.to(places.device)[task] - 1 - (places - start)) % self.capacity  # rows that are newer
        rows = ((places - start).unsqueeze(1) + steps) % self.capacity + start.unsqueeze(1)
        follows = steps <= later.unsqueeze(1)
        follows[:, 1:] &= ~self.ended[rows[:, :-1]].cumsum(1).bool()
        count = follows.sum(1)
        rewards = self.rows[rows, sum(self.widths[:2])].where(follows, 0.0)
        with full_precision(places.device):
            returns = rewards @ powers[:-1]
        return returns, rows.gather(1, count.unsqueeze(1) - 1).squeeze(1), powers[count]

    def steps(self, task: int, count: int) -> tuple[Tensor, ...]:
        """The latest steps of a task, oldest first, ``count`` at most, as `add` takes them."""
        slots = self._slots(task, count)
        observation, action, reward, after = self.rows.index_select(0, slots).split(self.widths, dim=1)
        tasks, ends = torch.full((len(slots),), task), (self.terminated[slots], self.ended[slots])
        return observation, action, reward.squeeze(1), after, tasks, *ends

    def observations(self, task: int, count: int) -> Tensor:
        """The latest observations of a task, oldest first.

        Args:
            task: its index.
            count: how many at most.

        Shape:
            Result ``(<= count, O)``.
        """
        return self.rows.index_select(0, self._slots(task, count))[:, : self.widths[0]]

    def rewards(self, task: int, count: int) -> Tensor:
        """The latest rewards of a task, oldest first, ``(<= count,)``."""
        return self.rows.index_select(0, self._slots(task, count))[:, sum(self.widths[:2])]

    def _slots(self, task: int, count: int) -> Tensor:
        seen, count = int(self.seen[task]), min(count, int(self.sizes[task]))
        slots = torch.arange(seen - count, seen) % self.capacity + task * self.capacity
        return slots.to(self.rows.device)

    def state_dict(self) -> dict[str, Any]:
        """The rows in use, where tasks and episodes ended, and how many steps of each task were added."""
        used = {name: self._used(getattr(self, name)) for name in ("rows", "terminated", "ended")}
        return {"seen": self.seen.clone(), **used}

    def _used(self, column: Tensor) -> Tensor:
        return torch.cat([column[j * self.capacity :][:size] for j, size in enumerate(self.sizes.tolist())]).cpu()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from such a state.

        Raises:
            ValueError: it is of a buffer of another size.
        """
        seen, rows = state["seen"], state["rows"]
        sizes = seen.clamp(max=self.capacity).tolist()
        if len(seen) != self.num_tasks or rows.shape != (sum(sizes), sum(self.widths)):
            expected = f"{self.num_tasks} tasks with at most {self.capacity} steps of {sum(self.widths)} numbers"
            got = f"{len(seen)} tasks and steps of shape {tuple(rows.shape)}. Use the same tasks and `capacity`"
            raise ValueError(f"Expected the state of a buffer of {expected}, but got {got} as before.")
        # earlier versions have no ends: then a return has one reward alone
        ends = (state.get(name, torch.full((len(rows),), name == "ended")) for name in ("terminated", "ended"))
        for column, values in zip((self.rows, self.terminated, self.ended), (rows, *ends), strict=True):
            for j, used in enumerate(values.split(sizes)):
                column[j * self.capacity :][: len(used)] = used.to(column.device)
        self.seen = seen.clone()
