"""Success and return of whole episodes, while many environments are stepped at once."""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dendrite_zoo.rl.environments import Step

LATEST = 20  # episodes of a task
SOLVED = 0.95  # of these, where a task counts as solved


class EpisodeStatistics:
    """Sums over the steps of each episode, and their means over the latest 20 episodes of each task.

    Args:
        tasks: names of the tasks.
        task_index: ``(N,)``, the task of each environment.
        without_success: tasks that do not say what success is.
    """

    def __init__(self, tasks: Sequence[str], task_index: Sequence[int], without_success: Collection[str] = ()) -> None:
        self._names = [tasks[task] for task in task_index]
        self._without_success = without_success
        self.solved = np.zeros(len(self._names), dtype=bool)
        self.returns = np.zeros(len(self._names))
        # of episodes: success at any step, success at the last, and return
        self._latest: dict[str, deque[list[float]]] = {task: deque(maxlen=LATEST) for task in tasks}
        self._at_random = False  # in the latest round

    def begin_round(self, at_random: bool) -> None:
        """Leave out what was played at random, in the warm-up, once a policy plays."""
        if self._at_random and not at_random:
            for episodes in self._latest.values():
                episodes.clear()
        self._at_random = at_random

    def update(self, step: Step, counts: NDArray[np.bool_] | None = None) -> None:
        """Add one step of all environments.

        Args:
            step: what they returned.
            counts: ``(N,)``, whose episodes are counted; None for all.
        """
        self.solved |= step.success
        self.returns += step.reward
        for env in np.flatnonzero(step.ended if counts is None else step.ended & counts):
            episode = [float(of[env]) for of in (self.solved, step.success_at_end, self.returns)]
            self._latest[self._names[env]].append(episode)
        self.solved[step.ended], self.returns[step.ended] = False, 0.0

    def compute(self) -> dict[str, float]:
        """Means over the latest 20 episodes of each task, or as many as there were.

        Returns:
            ``success/{task}``, the share of episodes with a success at any step, ``success_at_end/{task}``, that of
            those with success at the last step, ``return/{task}``, the mean sum of rewards, and ``return/mean`` over
            the tasks; nothing of tasks without an episode that ended.
        """
        means = {name: np.mean(episodes, axis=0).tolist() for name, episodes in self._latest.items() if episodes}
        solvable = [name for name in means if name not in self._without_success]
        values = {f"success/{name}": means[name][0] for name in solvable}
        values |= {f"success_at_end/{name}": means[name][1] for name in solvable}
        values |= {f"return/{name}": total for name, (_, _, total) in means.items()}
        if means:
            values["return/mean"] = float(np.mean([total for _, _, total in means.values()]))
        return values

    def which_are_solved(self) -> list[bool]:
        """Of each task, whether 19 of the latest 20 episodes that a policy played ended with success."""
        if self._at_random:
            return [False] * len(self._latest)
        full = [episodes if len(episodes) == LATEST else () for episodes in self._latest.values()]
        return [sum(at_end for _, at_end, _ in episodes) >= SOLVED * LATEST for episodes in full]

    def state_dict(self) -> dict[str, Any]:
        """The sums of the episodes that have not ended, and the latest that have."""
        latest = [
            torch.tensor(list(episodes), dtype=torch.float64).reshape(-1, 3) for episodes in self._latest.values()
        ]
        sums = {"solved": torch.from_numpy(self.solved.copy()), "return": torch.from_numpy(self.returns.copy())}
        return {**sums, "latest": latest, "at_random": self._at_random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; those of earlier versions have no latest episodes."""
        self.solved, self.returns = state["solved"].numpy().copy(), state["return"].numpy().copy()
        for name, episodes in zip(self._latest, state.get("latest", ()), strict=False):
            self._latest[name] = deque(episodes.tolist(), maxlen=LATEST)
        self._at_random = state.get("at_random", False)
