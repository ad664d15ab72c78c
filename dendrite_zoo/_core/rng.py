"""Random numbers that are the same in every release of NumPy and on every machine.

`numpy.random.RandomState` over `MT19937` and `SeedSequence` gives the same numbers in every release (NEP 19), which
`torch.randperm` does not promise. Pretrained weights, goals of robots and resumed runs rest on that.
"""

from collections.abc import Sequence

from numpy.random import MT19937, RandomState, SeedSequence


def random_state(*entropy: int, key: Sequence[int] = ()) -> RandomState:
    """Return a generator whose numbers NumPy guarantees to stay the same.

    Args:
        entropy: the integers that seed it, such as a seed and a task.
        key: separates streams of numbers that are seeded alike, such as the epochs of a task.

    Example:
        >>> random_state(0, 1).randint(100, size=3).tolist()
        [82, 74, 82]
    """
    return RandomState(MT19937(SeedSequence(entropy, spawn_key=key)))
