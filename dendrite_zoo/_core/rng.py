"""Random numbers that stay the same for ever, everywhere.

`numpy.random.RandomState` over `MT19937` and `SeedSequence` gives the same numbers in every release (NEP 19), which
`torch.randperm` does not promise. Pretrained weights, goals of robots and resumed runs rest on that.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import MT19937, RandomState, SeedSequence

__all__ = ["frozen_generator"]


def frozen_generator(*entropy: int, key: Sequence[int] = ()) -> RandomState:
    """Give a generator whose numbers NumPy has frozen.

    Args:
        entropy: what the numbers depend on, such as a seed and a task.
        key: sets numbers of another kind apart, which depend on the same.

    Example:
        >>> frozen_generator(0, 1).randint(100, size=3).tolist()
        [82, 74, 82]
    """
    return RandomState(MT19937(SeedSequence(entropy, spawn_key=key)))
