"""How sure a mean over tasks is, given that goals and training seeds are samples."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from dendrite_zoo._core.rng import random_state

__all__ = ["bootstrap_interval"]


def bootstrap_interval(
    success: ArrayLike, *, level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a mean over tasks, goals being drawn again with replacement within each task.

    Where every goal was reached, or none, drawing again says nothing: the interval is then that of Wilson's score for
    so many goals in all, which has a width.

    Where there are several training seeds, seeds are drawn again, too; the goals drawn are the same for each, as seeds
    are compared on the same goals.

    Args:
        success: of each goal, ``(T, G)``, or of each seed and goal, ``(S, T, G)``.
        level: share of the resampled means inside.
        samples: how often all is drawn again.
        seed: of the drawing.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: another number of dimensions.

    Example:
        >>> low, high = bootstrap_interval([[1, 1, 1, 0], [1, 1, 1, 1]])
        >>> round(low, 3), round(high, 3)
        (0.625, 1.0)
        >>> low, high = bootstrap_interval([[1, 1, 1, 1, 1]])  # five of five
        >>> round(low, 3), high
        (0.566, 1.0)

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; over seeds and tasks as in Agarwal et
        al. 2021, https://arxiv.org/abs/2108.13264. Wilson 1927, Probable inference, the law of succession, and
        statistical inference.
    """
    values = np.asarray(success, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or 0 in values.shape:
        expected = "of shape (tasks, goals) or (seeds, tasks, goals)"
        raise ValueError(f"Expected successes {expected}, but got {values.shape}.")
    num_seeds, num_tasks, num_goals = values.shape
    if values.min() == values.max() and values.min() in (0.0, 1.0):  # seeds are compared on the same goals
        reach = NormalDist().inv_cdf((1 + level) / 2) ** 2 / (num_tasks * num_goals)
        width = reach / (1 + reach)
        return (1 - width, 1.0) if values.min() else (0.0, width)
    generator = random_state(seed, samples)
    total = np.zeros(samples)
    chosen = generator.randint(num_seeds, size=(samples, num_seeds))
    for task in range(num_tasks):
        goals = generator.randint(num_goals, size=(samples, num_goals))
        for seeds in chosen.T[..., None]:
            total += values[seeds, task, goals].mean(axis=1)
    low, high = np.quantile(total / (num_seeds * num_tasks), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
