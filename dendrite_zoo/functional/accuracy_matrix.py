"""What was learned and what was forgotten, computed from the accuracy matrix.

The accuracy matrix ``R`` has one row and one column for each task: ``R[i, j]`` is the accuracy on task ``j``
after task ``i`` was learned, with absolute task indices from 0. Entries that were not measured are NaN. They
are left out of every mean and maximum; where nothing is left the result is NaN, never 0.

To know how things stood after task ``i``, pass ``R[: i + 1, : i + 1]`` (and ``baseline[: i + 1]``). When
training starts at a task ``f > 0``, the rows above ``f - 1`` are NaN and row ``f - 1`` holds what was
measured before: for the tasks up to ``f - 1``, which were learned by then, forgetting counts from there.

For a loss, an error or a perplexity, pass ``mode="min"``: forgetting is then how much it rose since it was at its
lowest, and a transfer how much it fell. In both modes a positive forgetting is bad and a positive transfer is good.
"""

import math
import reprlib
from typing import Any, Literal

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_choice

__all__ = [
    "average_accuracy",
    "backward_transfer",
    "forgetting",
    "forgetting_per_task",
    "forward_transfer",
    "learned_part",
    "learning_accuracy",
]


def average_accuracy(R: Any) -> Tensor:
    """Mean accuracy over all tasks after the last one was learned: ``mean_j R[T-1, j]``.

    Args:
        R: accuracy matrix, anything that ``torch.as_tensor`` takes, with None, as in ``matrix.json``, or NaN where not
            measured.

    Shape:
        ``R``: ``(T, T)``; result: ``()``, in the unit of ``R``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> average_accuracy([[0.90, 0.12], [0.80, 0.90]])
        tensor(0.8500)
    """
    return _matrix(R)[-1].nanmean()


def forgetting_per_task(R: Any, mode: Literal["max", "min"] = "max") -> Tensor:
    """Each earlier task's best accuracy since it was learned minus its accuracy now.

    ``max_{j<=l<T-1} R[l, j] - R[T-1, j]``: what was not yet learned cannot be forgotten, so rows before ``j`` do not
    count. The last task has had no time to be forgotten: its entry is NaN. Negative entries are tasks that got better.

    Args:
        R: accuracy matrix. Where training started at a task ``f > 0``, row ``f - 1`` was measured before.
        mode: ``"min"`` where less is better.

    Shape:
        ``R``: ``(T, T)``; result: ``(T,)``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> forgetting_per_task([[0.90, 0.92], [0.80, 0.90]])
        tensor([0.1000,    nan])
        >>> forgetting_per_task([[1.5, 9.0], [4.0, 1.0]], mode="min")
        tensor([2.5000,    nan])
    """
    R = _more_is_better(_matrix(R), mode)
    since_learned = (~R.isnan()).tril()
    since_learned[-1] = False
    best = R.where(since_learned, -torch.inf).amax(dim=0)
    return best.where(since_learned.any(dim=0), torch.nan) - R[-1]


def forgetting(R: Any, mode: Literal["max", "min"] = "max") -> Tensor:
    """How much the earlier tasks lost since they were at their best.

    ``mean_{j<T-1} (max_{j<=l<T-1} R[l, j] - R[T-1, j])``; may be negative. Source: Chaudhry et al. 2018, "Riemannian
    Walk for Incremental Learning", equations 2 and 3.

    Args:
        R: accuracy matrix.
        mode: ``"min"`` where less is better.

    Shape:
        ``R``: ``(T, T)``; result: ``()``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> forgetting([[0.90, 0.92, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])
        tensor(0.0300)
    """
    return forgetting_per_task(R, mode).nanmean()


def backward_transfer(R: Any, mode: Literal["max", "min"] = "max") -> Tensor:
    """How learning later tasks changed earlier ones: ``mean_{j<T-1} (R[T-1, j] - R[j, j])``.

    A task that was not measured right after it was learned (every ``j < first_task - 1``) is left out.
    Source: Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning", equation 3.

    Args:
        R: accuracy matrix.
        mode: ``"min"`` where less is better.

    Shape:
        ``R``: ``(T, T)``; result: ``()``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> backward_transfer([[0.90, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])
        tensor(-0.0050)
    """
    R = _more_is_better(_matrix(R), mode)
    return (R[-1] - R.diagonal())[:-1].nanmean()


def forward_transfer(R: Any, baseline: Any, mode: Literal["max", "min"] = "max") -> Tensor:
    """What earlier tasks gave to one not yet learned: ``mean_{j>0} (R[j-1, j] - baseline[j])``.

    Source: Lopez-Paz & Ranzato 2017, equation 4.

    Args:
        R: accuracy matrix.
        baseline: accuracy of the untrained model on each task.
        mode: ``"min"`` where less is better.

    Shape:
        ``R``: ``(T, T)``; ``baseline``: ``(T,)``; result: ``()``.

    Raises:
        ValueError: ``R`` is not a square matrix, or ``baseline`` has another number of tasks.

    Example:
        >>> forward_transfer([[0.90, 0.30], [0.80, 0.90]], baseline=[0.10, 0.10])
        tensor(0.2000)
    """
    R = _matrix(R)
    baseline = as_values(baseline).to(R)
    if baseline.shape != R.shape[:1]:
        expected = f"({len(R)},), one entry a task of R"
        raise ValueError(f"Expected `baseline` of shape {expected}, but got {tuple(baseline.shape)}.")
    return _more_is_better(R.diagonal(1) - baseline[1:], mode).nanmean()


def learning_accuracy(R: Any) -> Tensor:
    """How well each task was learned at the time: ``mean_j R[j, j]``.

    Source: Riemer et al. 2019, "Learning to Learn without Forgetting by Maximizing Transfer and Minimizing
    Interference", section 5.

    Args:
        R: accuracy matrix.

    Shape:
        ``R``: ``(T, T)``; result: ``()``.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> learning_accuracy([[0.90, 0.12], [0.80, 0.70]])
        tensor(0.8000)
    """
    return _matrix(R).diagonal().nanmean()


def learned_part(R: Any) -> Tensor:
    """The part ``R[: i + 1, : i + 1]`` up to the last row ``i`` in which anything was measured.

    A matrix allocated for the whole stream has empty rows until its end; this is what the metrics are taken
    of.

    Args:
        R: accuracy matrix.

    Shape:
        ``R``: ``(T, T)``; result: ``(i + 1, i + 1)``, a view; ``(1, 1)`` where nothing was measured yet.

    Raises:
        ValueError: ``R`` is not a square matrix.

    Example:
        >>> nan = float("nan")
        >>> learned_part([[0.9, 0.1, 0.1], [0.8, 0.9, 0.2], [nan, nan, nan]])
        tensor([[0.9000, 0.1000],
                [0.8000, 0.9000]])
    """
    R = _matrix(R)
    measured = (~R.isnan()).any(dim=1).nonzero()
    end = int(measured[-1]) + 1 if len(measured) else 1
    return R[:end, :end]


def as_values(x: Any) -> Tensor:
    """Values as a tensor; None, which JSON has for what was not measured, is NaN.

    Raises:
        ValueError: something is no number, or rows have different lengths.

    Example:
        >>> as_values([[0.5, None], [0.25, 1.0]])
        tensor([[0.5000,    nan],
                [0.2500, 1.0000]])
    """
    try:
        return torch.as_tensor(_with_nan(x))
    except (TypeError, ValueError, RuntimeError):
        got = reprlib.repr(x)
        raise ValueError(f"Expected numbers, None where not measured, in rows of one length, but got {got}.") from None


def _with_nan(x: Any) -> Any:
    return [*map(_with_nan, x)] if isinstance(x, list | tuple) else math.nan if x is None else x


def _matrix(R: Any) -> Tensor:
    R = as_values(R)
    if R.ndim != 2 or R.shape[0] != R.shape[1] or R.shape[0] == 0:
        remedy = "Pass R[: i + 1, : i + 1] for the state after task i."
        raise ValueError(f"Expected an accuracy matrix of shape (T, T), but got {tuple(R.shape)}. {remedy}")
    return R if R.is_floating_point() else R.to(torch.get_default_dtype())


def _more_is_better(values: Tensor, mode: str) -> Tensor:
    check_choice(("max", "min"), mode=mode)
    return values if mode == "max" else -values
