"""Goals: the positions of objects and target in an episode, which never change."""

import pickle
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_choice, check_integers
from dendrite_zoo._core.rng import random_state
from dendrite_zoo.rl.episodes import SPLIT_SEEDS, Split
from dendrite_zoo.rl.metaworld.tasks import MT50, metaworld, task_names

__all__ = ["Goal", "Split", "goals"]


@dataclass(frozen=True)
class Goal:
    """One goal of one task: what identifies it, from which everything else follows.

    Attributes:
        task: its name.
        split: ``"train"``, ``"val"`` or ``"test"``; no two splits share a goal.
        index: its number within the split.
        seed: other seeds have other goals.
    """

    task: str
    split: Split
    index: int
    seed: int = 0

    def vector(self, env: Any) -> NDArray[np.float64]:
        """Draw the numbers that Meta-World calls ``rand_vec``, as its benchmarks do: again until the task accepts them.

        The environment is reset by this.

        Args:
            env: Meta-World's environment of the task.

        Shape:
            ``(3,)`` or ``(6,)``, as the task asks for.
        """
        generator = random_state(self.seed, SPLIT_SEEDS[self.split], MT50.index(self.task), self.index)
        space, drawn = env._random_reset_space, []

        def draw() -> NDArray[np.float64]:
            drawn.append(generator.uniform(space.low, space.high))
            return drawn[-1].copy()

        env._get_state_rand_vec = draw  # the task's own code refuses goals too near the object
        try:
            env.reset_model()
        finally:
            del env._get_state_rand_vec
        return drawn[-1]

    def official(self, env: Any) -> Any:
        """Return Meta-World's own ``Task`` for ``env.set_task``, with the goal visible as in MT10 and MT50."""
        environment = metaworld().env_dict.ALL_V3_ENVIRONMENTS[self.task]
        data = {"rand_vec": self.vector(env), "env_cls": environment, "partially_observable": False}
        return metaworld().Task(env_name=self.task, data=pickle.dumps(data))


def goals(task: str, split: Split, *, count: int = 50, seed: int = 0) -> tuple[Goal, ...]:
    """Return the first goals of a task.

    Each goal has a random generator of its own, the same in every release of NumPy: a goal depends neither on
    ``count`` nor on other goals. Nothing is simulated yet.

    Args:
        task: its name.
        split: ``"train"``, ``"val"`` to choose models on, or ``"test"`` to report.
        count: how many.
        seed: other seeds have other goals.

    Raises:
        ValueError: there is no such task or split, or no goal is asked for.

    Example:
        >>> goals("reach-v3", "test", count=2)[1]
        Goal(task='reach-v3', split='test', index=1, seed=0)
    """
    [task] = task_names([task])
    check_choice(get_args(Split), split=split)
    check_integers(1, count=count)
    check_integers(0, seed=seed)
    return tuple(Goal(task, split, index, seed) for index in range(count))
