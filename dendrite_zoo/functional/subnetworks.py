"""How far the sub-networks of tasks go into each other."""

from torch import Tensor

__all__ = ["task_overlap", "unit_order"]


def task_overlap(win_rates: Tensor) -> Tensor:
    r"""The share of active units that two tasks have in common (Iyer et al. 2022, on overlap of sub-networks).

    :math:`O_{ij} = \sum_u f_{iu} f_{ju} / \sqrt{n_i n_j}`, where unit ``u`` is active for a share :math:`f_{iu}` of the
    inputs of task ``i``, and :math:`n_i = \sum_u f_{iu}` units are active on average: how many units an input of task
    ``i`` and one of task ``j`` have in common, of as many as are active. On the diagonal it is 1 where all inputs of a
    task activate the same units. Tasks that know nothing of each other share as many as are active at all:
    :math:`\sqrt{n_i n_j} / U`.

    Args:
        win_rates: :math:`f`, in [0, 1]; NaN in the rows of tasks not measured.

    Shape:
        ``(T, U)`` to ``(T, T)``, NaN for tasks not measured or without an active unit.

    Example:
        >>> import torch
        >>> task_overlap(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.5, 0.5]]))
        tensor([[1.0000, 0.5000],
                [0.5000, 0.7500]])
    """
    rates = win_rates.double()
    active = rates.sum(1)
    return (rates @ rates.T / (active[:, None] * active).sqrt()).to(win_rates.dtype)


def unit_order(win_rates: Tensor) -> Tensor:
    """Units in the order of the tasks that they are most active for, the most active first; idle ones at the end.

    Args:
        win_rates: as for `task_overlap`.

    Shape:
        ``(T, U)`` to ``(U,)`` integers.

    Example:
        >>> import torch
        >>> unit_order(torch.tensor([[0.0, 0.2, 0.9, 0.0], [0.7, 0.1, 0.0, 0.0]]))
        tensor([2, 1, 0, 3])
    """
    most, task = win_rates.nan_to_num(nan=-1.0).max(0)
    task = task.masked_fill(most <= 0, len(win_rates))
    by_rate = most.argsort(descending=True, stable=True)
    return by_rate[task[by_rate].argsort(stable=True)]
