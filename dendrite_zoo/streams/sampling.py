"""All random choices of a stream, which are the same in every release of NumPy."""

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo._core.rng import random_state

__all__ = ["permutation", "rotation_angle"]


def permutation(seed: int, task: int, num_features: int) -> Tensor:
    """Return the order of a task's features: the identity for task 0, for others a fixed permutation.

    It depends on neither the number of tasks nor the platform nor the release of NumPy.

    Shape:
        ``(num_features,)``, int64.

    Example:
        >>> permutation(seed=0, task=0, num_features=4).tolist()
        [0, 1, 2, 3]
        >>> permutation(seed=0, task=1, num_features=4).tolist()
        [1, 0, 3, 2]
    """
    return torch.arange(num_features) if task == 0 else _order(random_state(seed, task), num_features)


def rotation_angle(seed: int, task: int) -> float:
    """Return the angle of a task in degrees: 0 for task 0, for the others a fixed one from 0 to 180.

    Example:
        >>> rotation_angle(seed=0, task=0)
        0.0
    """
    return 0.0 if task == 0 else float(random_state(seed, task).uniform(0, 180))


def task_share(seed: int, task: int) -> float:
    """Return a number of a task: 0 for task 0, for the others a fixed one from 0 to 1.

    Example:
        >>> task_share(seed=0, task=0)
        0.0
    """
    return 0.0 if task == 0 else float(random_state(seed, task).uniform(0, 1))


def class_order(seed: int, num_classes: int) -> Tensor:
    """Return the order in which tasks take classes: that of the labels for seed 0, for others a fixed permutation.

    Shape:
        ``(num_classes,)``, int64.
    """
    return torch.arange(num_classes) if seed == 0 else _order(random_state(seed), num_classes)


def epoch_order(seed: int, task: int, epoch: int, num_rows: int) -> Tensor:
    """Return the order of the rows in an epoch of a task; epochs are counted from the task's start.

    Shape:
        ``(num_rows,)``, int64.
    """
    return _order(random_state(seed, task, key=(epoch,)), num_rows)


def hold_out(
    targets: Tensor, share: float, seed: int, *, name: str = "`val_fraction`", remedy: str = "Change it."
) -> Tensor:
    """Choose a share of the rows of each class; of all rows alike, where the targets are floats and so no classes.

    Args:
        targets: ``(N,)`` labels, or ``(N, ...)`` floats.
        share: between 0 and 1; in each class rounded to whole rows, one or more. Of a class that has but one, none.
        seed: other seeds choose other rows.
        name: of the share, for the message.
        remedy: what to do where it is impossible.

    Returns:
        A mask ``(N,)``, True where a row is held out.

    Raises:
        ValueError: no class has two rows.
    """
    generator, mask = random_state(seed, key=(0,)), torch.zeros(len(targets), dtype=torch.bool)
    classes = not targets.is_floating_point()
    labels = targets.cpu() if classes else torch.zeros(len(targets))
    for label in labels.unique():
        rows = torch.nonzero(labels == label).flatten()
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        mask[rows[_order(generator, len(rows))[:count]]] = True
    if not mask.any():
        each = " of each class" if classes else ""
        raise ValueError(f"Expected {name}, {share}, to split two rows{each} or more, but got one{each}. {remedy}")
    return mask


def _order(generator: np.random.RandomState, length: int) -> Tensor:
    return torch.from_numpy(generator.permutation(length)).long()
