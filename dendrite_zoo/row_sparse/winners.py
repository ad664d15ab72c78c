"""k-winner-take-all among many units, at a third of the cost of a search through all of them."""

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo import functional
from dendrite_zoo._core.torch import runs_eagerly


def k_winners(x: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest of the last dimension, as `dendrite_zoo.functional.k_winners`, which is the equation.

    On a CPU the ``k``-th largest of each row is found first, and what is as large wins; where that is not exactly ``k``
    units, for there are equals or NaN, the equation is computed.

    Example:
        >>> k_winners(torch.arange(16.0), 2)
        tensor([ 0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,  0.,
                14., 15.])
    """
    units = x.shape[-1]
    exact = x.dtype in (torch.float32, torch.float64)  # few are equal
    if not (1 <= k < units and exact and x.device.type == "cpu" and runs_eagerly()):
        return functional.k_winners(x, k)
    rows = x.detach().reshape(-1, units).numpy()
    won = rows >= np.partition(rows, units - k, axis=-1)[:, units - k, None]
    places = np.flatnonzero(won)
    if len(places) != k * len(rows):
        return functional.k_winners(x, k)
    winners = torch.from_numpy(places.reshape(-1, k) - units * np.arange(len(rows))[:, None]).view(*x.shape[:-1], k)
    return torch.zeros_like(x).scatter(-1, winners, x.gather(-1, winners))
