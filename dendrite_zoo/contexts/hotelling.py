"""The paper's own way to find contexts while training: Hotelling's test of each batch against each cluster."""

import math

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.finite import LARGEST, unusable_rows
from dendrite_zoo._core.ranks import num_ranks
from dendrite_zoo.contexts.base import flat_rows, refuse_inputs
from dendrite_zoo.contexts.clustering import FoundContext
from dendrite_zoo.contexts.prototype import nearest_prototype

__all__ = ["HotellingContext"]


def f_cdf(x: float, d1: float, d2: float) -> float:
    """The cumulative distribution of Fisher's F with ``d1`` and ``d2`` degrees of freedom.

    It is the regularised incomplete beta function, here by its continued fraction (Lentz's method).

    Example:
        >>> round(f_cdf(4.0, 2, 10), 4)    # 1 - (1 + 2 x / d2) ** (-d2 / 2)
        0.9471
    """
    if x <= 0:
        return 0.0
    a, b, z = d1 / 2, d2 / 2, d1 * x / (d1 * x + d2)
    if z > (a + 1) / (a + b + 2):  # where the fraction converges slowly, take the other tail
        return 1 - f_cdf(1 / x, d2, d1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(z) + b * math.log1p(-z)) / a
    c, d = 1.0, 1 / (1 - (a + b) * z / (a + 1))
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * z / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * z / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / (1 + term * d), 1 + term / c
            fraction *= d * c
        if abs(d * c - 1) < 1e-12:
            break
    return front * fraction


def hotelling_test(x: Tensor, y: Tensor) -> float:
    r"""How surely two samples have different means: the share of the F distribution below Hotelling's statistic.

    :math:`T^2 = \frac{nm}{n + m} (\bar x - \bar y)^\top S^+ (\bar x - \bar y)` with the pooled covariance ``S``;
    :math:`\frac{n + m - p - 1}{(n + m - 2) p} T^2` is distributed as :math:`F(p, n + m - p - 1)` where they are equal.

    Shape:
        x ``(n, p)``, y ``(m, p)``.

    Raises:
        ValueError: the samples have no more than ``p + 1`` rows together.

    Example:
        >>> x = torch.arange(12.0).reshape(6, 2).square() % 7
        >>> hotelling_test(x, x), round(hotelling_test(x, x + 1), 4)
        (0.0, 0.6055)
    """
    (n, p), m = x.shape, len(y)
    if n + m - p - 1 < 1:
        expected = f"more than {p + 1} rows of {p} features for Hotelling's test"
        raise ValueError(f"Expected {expected}, but got {n} and {m}. Take a larger batch, or a smaller `context_dim`.")
    apart = (x.mean(0) - y.mean(0)).double()
    scatter = sum((s - s.mean(0)).double().T @ (s - s.mean(0)).double() for s in (x, y))
    rtol = p * torch.finfo(torch.float32).eps
    inverse = torch.linalg.pinv(scatter / (n + m - 2), rtol=rtol, hermitian=True)
    t2 = n * m / (n + m) * float(apart @ inverse @ apart)
    return f_cdf((n + m - p - 1) / ((n + m - 2) * p) * t2, p, n + m - p - 1)


class HotellingContext(FoundContext):
    """Prototypes found while training as in Iyer et al. 2022 (section on clusters of contexts): for comparison.

    A batch joins the first cluster from whose exemplars Hotelling's test does not tell it apart, and moves its
    prototype, the running mean of its rows; if there is none, it starts a cluster. Each test inverts a matrix:
    `ClusterContext` does without, and finds fewer clusters that are none. For one process.

    Args:
        num_features: size of an input row.
        max_tasks: capacity, in clusters; once they are used up, each batch joins the one it is least unlike.
        context_dim: how many features, drawn at random once, are the context.
        num_exemplars: rows of each cluster that are remembered.
        level: a batch is of another cluster where the test's value lies above it.

    Attributes:
        features: which features are the context, ``(context_dim,)``.
        exemplars: the first rows of each cluster, ``(max_tasks, num_exemplars, context_dim)``.

    Example:
        >>> context = HotellingContext(num_features=8, max_tasks=5, context_dim=4, num_exemplars=64)
        >>> [context.observe(torch.randn(64, 8) + shift) for shift in (0.0, 3.0)]
        [0, 1]
        >>> context(torch.full((1, 8), 2.5))[1]
        tensor([1])
    """

    def __init__(
        self, num_features: int, max_tasks: int, *, context_dim: int = 256, num_exemplars: int = 256, level: float = 0.9
    ) -> None:
        check_integers(1, num_exemplars=num_exemplars)
        check_integers(1, num_features, context_dim=context_dim)
        if not 0 < level < 1:
            raise ValueError(f"Expected `level` to be a share in (0, 1), such as 0.9, but got {level}.")
        super().__init__(context_dim, max_tasks)
        self.num_features, self.level = num_features, level
        self.features = nn.Buffer(torch.randperm(num_features)[:context_dim].sort().values)
        self.exemplars = nn.Buffer(torch.zeros(max_tasks, num_exemplars, context_dim, dtype=torch.float32))

    def _fill_buffers(self) -> None:
        self.features.copy_(torch.randperm(self.num_features)[: self.context_dim].sort().values)

    @torch.no_grad()
    def observe(self, x: Tensor) -> int:
        """Find the cluster of a training batch, and learn from it.

        Shape:
            x ``(B, ...)``, flattened to ``(B, num_features)``. A batch that is too small to be tested against any
            cluster (their rows together do not outnumber ``context_dim + 1``) joins the nearest.

        Raises:
            ValueError: rows of another size, or with NaN, infinity or numbers too large, or several processes.
        """
        if num_ranks() > 1:
            raise ValueError(f"Expected one process, but got {num_ranks()}. Use ClusterContext instead.")
        bad = unusable_rows(x := self._part(x), LARGEST)
        refuse_inputs(f"rows {bad[:8]} of the batch" if bad else "")
        task = self._find(x)
        seen, room = int(self.counts[task]), self.exemplars.shape[1]
        new = x[: max(room - seen, 0)]
        self.exemplars[task, seen : seen + len(new)] = new
        self.prototypes[task] = torch.lerp(self.prototypes[task], x.mean(0), len(x) / (seen + len(x)))
        self.counts[task] += len(x)
        return task

    @torch.no_grad()
    def infer(self, x: Tensor) -> Tensor:
        """The cluster with the nearest prototype for each row of ``x`` ``(B, features)``, as ``(B,)`` integers."""
        return nearest_prototype(self._part(x), self.prototypes, self.counts > 0)

    def _part(self, x: Tensor) -> Tensor:
        return flat_rows(x, self.num_features)[:, self.features]

    def _find(self, x: Tensor) -> int:
        unlike: dict[int, float] = {}
        for task in range(self.num_tasks):
            exemplars = self.exemplars[task, : int(self.counts[task].clamp(max=self.exemplars.shape[1]))]
            if len(exemplars) + len(x) > self.context_dim + 1:
                unlike[task] = hotelling_test(exemplars, x)
                if unlike[task] < self.level:
                    return task
        if unlike or self.num_tasks == 0:
            return self.new_task(min(unlike, key=lambda task: unlike[task], default=0))
        return int(nearest_prototype(x.mean(0, keepdim=True), self.prototypes, self.counts > 0))
