"""How the learning rate falls while a task is learned."""

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["cosine", "inverse"]

HALVED = 200  # batches after which "inverse" has halved the rate; better than 100 on held-out rows of four permutations


def cosine(progress: float) -> float:
    """The factor of a learning rate that falls from 1 to 0 along half a cosine.

    Args:
        progress: share of the training that is done, in [0, 1].

    Example:
        >>> [round(cosine(progress), 2) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * progress)) / 2


def inverse(batches: int) -> float:
    """The factor of a learning rate that falls as ``1 / (1 + batches / 200)``, for which no end must be known.

    Args:
        batches: number of batches of the task that were learned before.

    Example:
        >>> [round(inverse(batches), 2) for batches in (0, 200, 600)]
        [1.0, 0.5, 0.25]
    """
    return HALVED / (HALVED + batches)
