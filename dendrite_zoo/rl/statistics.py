"""Success and return of whole episodes, while many environments are stepped at once."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo.rl.environments import Step


class EpisodeStatistics:
    """Sums over the steps of each episode, and their means over the episodes that ended.

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
        self._ended: dict[str, list[tuple[float, float]]] = {}  # success and return of episodes, by task

    def update(self, step: Step) -> None:
        """Add one step of all environments."""
        self.solved |= step.success
        self.returns += step.reward
        for env in np.flatnonzero(step.ended):
            episode = float(self.solved[env]), float(self.returns[env])
            self._ended.setdefault(self._names[env], []).append(episode)
        self.solved[step.ended], self.returns[step.ended] = False, 0.0

    def compute(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call.

        Returns:
            ``success/{task}``, the share of episodes with a success at any step, ``return/{task}``, the mean sum of
            rewards, and ``return/mean`` over the tasks; empty where no episode ended.
        """
        means = {name: np.mean(episodes, axis=0).tolist() for name, episodes in self._ended.items()}
        self._ended = {}
        solvable = [name for name in means if name not in self._without_success]
        values = {f"success/{name}": means[name][0] for name in solvable}
        values |= {f"return/{name}": total for name, (_, total) in means.items()}
        if means:
            values["return/mean"] = float(np.mean([total for _, total in means.values()]))
        return values

    def state_dict(self) -> dict[str, Tensor]:
        """The sums of the episodes that have not ended."""
        return {"solved": torch.from_numpy(self.solved.copy()), "return": torch.from_numpy(self.returns.copy())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue with the sums of `state_dict`."""
        self.solved, self.returns = state["solved"].numpy().copy(), state["return"].numpy().copy()
