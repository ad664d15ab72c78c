"""Contexts found while training, without task ids: each batch joins a cluster or starts one."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from statistics import NormalDist

import torch
from torch import Tensor, nn

from dendrite_zoo._core.finite import LARGEST, unusable_rows
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.ranks import num_ranks, sum_over_ranks
from dendrite_zoo._core.torch import full_precision
from dendrite_zoo.contexts.base import flat_rows, refuse_inputs
from dendrite_zoo.contexts.prototype import PrototypeContext, nearest_prototype

__all__ = ["ClusterContext", "FoundContext"]

ALIKE = 100.0
"""Batches of one task have spreads whose ratio is smaller."""


class FoundContext(PrototypeContext, ABC):
    """Prototypes of tasks that nobody announces: what ways to find them have in common.

    Args:
        context_dim: size of the context.
        max_tasks: capacity, in clusters; once they are used up, each batch joins the nearest.
    """

    @abstractmethod
    def observe(self, x: Tensor) -> int:
        """Find the cluster of a training batch ``(B, features)``, and learn from it."""

    def start_task(self, task: int, batches: Iterable[Tensor]) -> None:
        """Raise a ValueError: tasks are found, not given."""
        raise ValueError(f"{type(self).__name__} finds tasks by itself. Call observe(x) with each training batch.")

    def new_task(self, nearest: int) -> int:
        """The next free cluster; the nearest where there is none."""
        if self.num_tasks < self.max_tasks:
            return self.num_tasks
        full = f"All {self.max_tasks} clusters are in use, so a batch that fits none of them joins the nearest."
        warnings.warn(f"{full} Build the context with a larger `max_tasks`.", stacklevel=3)
        return nearest


@say_new_names
class ClusterContext(FoundContext):
    r"""Prototypes of tasks that nobody announces, found by Dempster's test of two means (1958).

    A batch of ``n`` rows with mean :math:`\bar x` is compared with the mean :math:`m` of each cluster's ``N`` rows:

    .. math:: q = \frac{\lVert \bar x - m \rVert^2}{(1/n + 1/N) \operatorname{tr} \Sigma}

    is 1 on average where both are of one task, and follows :math:`\chi^2_r / r` closely, with the effective rank
    :math:`r = (\operatorname{tr} \Sigma)^2 / \operatorname{tr} \Sigma^2`. The cluster of the smallest ``q`` takes the
    batch, unless a value as large is rarer than ``significance``: then a new cluster is started. No matrix is inverted,
    and none is stored: a cluster is its mean and two numbers.

    The context of a cluster is the mean of the batch that started it, and stays: a moving context would move the
    winners. The mean of all its rows serves to recognise it, in training and, row by row, at test.

    Args:
        num_features: size of an input row, and of the context.
        max_tasks: capacity, in clusters; once they are used up, each batch joins the nearest.
        significance: how often a batch of a known task may start a cluster.

    Attributes:
        means: mean of all rows of each cluster, ``(max_tasks, num_features)``.
        spread: the trace of each cluster's covariance, ``(max_tasks,)``.
        rank: its effective rank, ``(max_tasks,)``.

    Example:
        >>> context = ClusterContext(num_features=8, max_tasks=5)
        >>> [context.observe(torch.randn(64, 8) + shift) for shift in (0.0, 0.0, 3.0, 0.0, 3.0)]
        [0, 0, 1, 0, 1]
        >>> context.infer(torch.full((1, 8), 2.5)), context.num_tasks
        (tensor([1]), 2)
    """

    def __init__(self, num_features: int, max_tasks: int, *, significance: float = 1e-9) -> None:
        super().__init__(num_features, max_tasks)
        if not 0 < significance < 1:
            raise ValueError(f"Expected `significance` to be a probability in (0, 1), but got {significance}.")
        self.significance = significance
        self.means = nn.Buffer(torch.zeros(max_tasks, num_features, dtype=torch.float32))
        self.spread = nn.Buffer(torch.zeros(max_tasks, dtype=torch.float32))
        self.rank = nn.Buffer(torch.zeros(max_tasks, dtype=torch.float32))

    @torch.no_grad()
    def observe(self, x: Tensor) -> int:
        """Find the cluster of a training batch, and learn from it.

        Under DDP all processes see their share of one batch, and find the same.

        Shape:
            x ``(B, ...)``, flattened to ``(B, num_features)``. A single row (over all processes)
            joins the nearest, by ``q``.

        Raises:
            ValueError: rows of another size, or with NaN, infinity or numbers too large, or a single row to start the
                first cluster; then nothing has changed.
        """
        x = flat_rows(x, self.context_dim)
        with full_precision(x.device):
            exact = x.double()  # an offset far above the spread would drown it in float32
            total, square, rows = exact.sum(0), exact.square().sum(), exact.new_tensor(len(x))
            wrong = torch.tensor(float(bool(bad := unusable_rows(x, LARGEST))), device=x.device)
            sum_over_ranks(total, square, rows, wrong)
            refuse_inputs(f"rows {bad[:8]} of the batch" if bad else "another process" if wrong else "")
            n, mean = float(rows), total / rows
            if n < 2 and self.num_tasks == 0:
                remedy = "Raise the batch size: it takes two to know how far rows lie apart."
                raise ValueError(f"Expected the first batch to have two rows or more, but got {n:.0f}. {remedy}")
            spread = (square - n * mean.square().sum()).clamp(min=0) / max(n - 1, 1)
            task = self._find(mean, spread, n)
            if self.counts[task] == 0:
                self.prototypes[task], self.rank[task] = mean, _mean_rank(x)
            self._join(task, mean, spread, n)
        return task

    @torch.no_grad()
    def infer(self, x: Tensor) -> Tensor:
        """The cluster with the nearest mean for each row of ``x`` ``(B, features)``, as ``(B,)`` integers."""
        return nearest_prototype(x, self.means, self.counts > 0)

    def _find(self, mean: Tensor, spread: Tensor, n: float) -> int:
        """The cluster that takes a batch of this mean and spread."""
        known = self.num_tasks
        if known == 0:
            return 0
        counts = self.counts[:known].double()
        pooled = ((n - 1) * spread + (counts - 1) * self.spread[:known]) / (n + counts - 2)
        distance = (self.means[:known] - mean).square().sum(1)
        q = distance / ((1 / n + 1 / counts) * pooled.clamp(min=1e-30))
        if n < 2:
            return int(q.argmin())
        # An outlier in a batch, or in a cluster, is a spread in which all distances drown.
        alike = (self.spread[:known] / ALIKE <= spread) & (spread <= self.spread[:known] * ALIKE)
        best, task = q.where(alike, torch.inf).min(0)
        return int(task) if best <= self._largest(float(self.rank[task])) else self.new_task(int(q.argmin()))

    def _largest(self, rank: float) -> float:
        """The quantile of chi-squared / rank by Wilson and Hilferty's cube root."""
        z = NormalDist().inv_cdf(1 - self.significance)
        return (1 - 2 / (9 * rank) + z * math.sqrt(2 / (9 * rank))) ** 3

    def _join(self, task: int, mean: Tensor, spread: Tensor, n: float) -> None:
        """Merge a batch's mean and spread into a cluster's."""
        N = float(self.counts[task])
        drift = (self.means[task] - mean).square().sum()
        scatter = (n - 1) * spread + max(N - 1, 0) * self.spread[task] + N * n / (N + n) * drift
        self.means[task] = torch.lerp(self.means[task].double(), mean, n / (N + n)).to(self.means)
        self.spread[task] = scatter / (N + n - 1)
        self.counts[task] += n


def spread_and_rank(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The trace of the covariance of rows, and its effective rank.

    The rank is :math:`(\operatorname{tr} \Sigma)^2 / \operatorname{tr} \Sigma^2`, the latter estimated without bias
    (Bai and Saranadasa 1996).

    Shape:
        ``(B, C)`` to two scalars, the rank in ``[1, C]``.

    Example:
        >>> x = torch.randn(2000, 10) * torch.tensor([1.0] * 4 + [0.0] * 6)    # four dimensions of equal variance
        >>> [round(float(value)) for value in spread_and_rank(x)]
        [4, 4]
    """
    n, size = x.shape
    x = x.double() - x.double().mean(0)
    gram = x @ x.T if n < size else x.T @ x
    trace = gram.diagonal().sum() / (n - 1)
    square = (gram.square().sum() / (n - 1) ** 2 - trace.square() / (n - 1)) * (n - 1) ** 2 / max((n - 2) * (n + 1), 1)
    return trace, (trace.square() / square).nan_to_num(nan=1.0).where(square > 0, float(size)).clamp(1, size)


def _mean_rank(x: Tensor) -> Tensor:
    rank = spread_and_rank(x)[1] if len(x) > 2 else torch.ones((), dtype=torch.float64, device=x.device)
    sum_over_ranks(rank)
    return rank / num_ranks()
