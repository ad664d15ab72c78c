"""A linear head that is solved for, not trained, from running sums of its inputs."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.batches import labelled_batches
from dendrite_zoo._core.checks import check_integers, check_positive, wrong_argument
from dendrite_zoo._core.environment import memory
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo._core.torch import full_precision, keep_precision
from dendrite_zoo.functional.ridge import UNSEEN, add_products, ridge_discriminant, triangle_size

__all__ = ["RidgeHead"]

LARGEST = 1e15
"""No feature is as large: the squares of many such numbers still have a sum in float32."""
CHUNK = 2048  # rows whose products are summed at once


class RidgeHead(nn.Module):
    r"""Logits of classes by a linear discriminant with a ridge penalty, from running sums of all rows ever seen.

    :math:`G = \sum h h^\top` and, for each class, :math:`\sum h` are buffers. What they give is exact and does not
    depend on the order in which rows, tasks and classes come, so nothing is forgotten, and no data are kept. Each call
    of `learn` adds rows and solves anew, by Cholesky's method: at 6,000 features that takes three seconds of a core and
    0.4 gigabytes, at 2,000 a tenth of that.

    Sums are float64 and solutions float32, whatever precision a model is cast to.

    Args:
        in_features: size of a row, ``F``; the memory grows as ``4 * F ** 2`` bytes.
        num_classes: number of logits, ``K``.
        penalty: of `dendrite_zoo.functional.ridge_discriminant`, which has the equation.

    Attributes:
        counts: rows of each class, ``(K,)``.
        weight: the solution, ``(K, F)``; zero before anything was learned.
        bias: its offset, ``(K,)``.

    Shape:
        ``(..., F)`` to ``(..., K)``.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> h, y = torch.randn(100, 8), torch.arange(100) % 4
        >>> head = RidgeHead(8, 4)
        >>> for rows in (y < 2, y >= 2):  # two classes, later two more: the same as all at once
        ...     head.learn([(h[rows], y[rows])])
        >>> head(h[:5]).shape, head.counts
        (torch.Size([5, 4]), tensor([25., 25., 25., 25.], dtype=torch.float64))
    """

    def __init__(self, in_features: int, num_classes: int, *, penalty: float = 0.1) -> None:
        super().__init__()
        check_integers(1, in_features=in_features, num_classes=num_classes)
        check_positive(penalty=penalty)
        self.in_features, self.num_classes, self.penalty = in_features, num_classes, penalty
        if torch.empty(0).is_cpu and 8 * in_features**2 > (most := memory()):  # of sums and of their factor
            remedy = "Memory grows with the square: take fewer random features."
            expected = f"at most {math.isqrt(int(most // 8))}, for a machine with {most / 1e9:.0f} GB of memory"
            raise wrong_argument("in_features", expected, in_features, remedy)
        self.triangle = nn.Buffer(torch.zeros(triangle_size(in_features), dtype=torch.float64))
        self.sums = nn.Buffer(torch.zeros(num_classes, in_features, dtype=torch.float64))
        self.counts = nn.Buffer(torch.zeros(num_classes, dtype=torch.float64))
        self.weight = nn.Buffer(torch.zeros(num_classes, in_features, dtype=torch.float32))
        self.bias = nn.Buffer(torch.full((num_classes,), UNSEEN, dtype=torch.float32))

    @torch.no_grad()
    def learn(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Add the rows of all batches, over all processes, and solve.

        Args:
            batches: pairs of features ``(B, F)`` and labels ``(B,)``; gone through once.

        Raises:
            ValueError: in all processes, where there are no rows at all, rows of another size, NaN, infinity or numbers
                too large, or labels out of range: then nothing has changed.
        """
        added = self._sum_up(batches)
        for total in (self.triangle, self.sums, self.counts):
            total.add_(added.pop(0))  # half of the memory that the solution takes
        self.solve()

    def _sum_up(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Products, sums and counts of the rows of all batches, over all processes."""
        triangle, sums, counts = (torch.zeros_like(x) for x in (self.triangle, self.sums, self.counts))
        wrong, waiting, rows = "", list[Tensor](), 0
        with full_precision(self.weight.device):
            for number, (h, y) in enumerate(labelled_batches(batches)):
                if wrong := self._what_is_wrong(h, y, number):
                    break
                h, y = h.to(self.weight), y.to(sums.device).long()
                sums.index_add_(0, y, h.to(sums))  # beside whose means single precision is coarse
                counts += y.bincount(minlength=self.num_classes)
                waiting, rows = [*waiting, h], rows + len(h)
                if rows >= CHUNK:
                    add_products(triangle, torch.cat(waiting))
                    waiting, rows = [], 0
            if waiting and not wrong:
                add_products(triangle, torch.cat(waiting))
        refused = torch.tensor(float(bool(wrong)), device=self.weight.device)
        sum_over_ranks(triangle, sums, counts, refused)
        if refused:
            raise ValueError(wrong or "Expected usable rows in every process, but another one got some that are not.")
        if not counts.any():
            raise ValueError("Expected at least one row to learn from, but got none. Check the data loader.")
        return [triangle, sums, counts]

    @torch.no_grad()
    def solve(self) -> None:
        """Set ``weight`` and ``bias`` to the solution of the sums, as `learn` does."""
        weight, bias = ridge_discriminant(self.triangle, self.sums, self.counts, self.penalty)
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    @torch.no_grad()
    def choose_penalty(self, h: Tensor, y: Tensor, penalties: Sequence[float]) -> None:
        """Solve with the penalty that is best for rows that were learned, when it is solved without them.

        It is the first of which the next one is no better; `penalty` is set to it.

        Args:
            h: some of the rows that were learned, ``(B, F)``; over all processes, one or more.
            y: their labels, ``(B,)``.
            penalties: to try, in this order.

        Example:
            >>> h, y = torch.randn(200, 8), torch.arange(200) % 2     # labels that say nothing
            >>> head = RidgeHead(8, 2)
            >>> head.learn([(h, y)])
            >>> head.choose_penalty(h[:50], y[:50], [0.1, 1.0, 10.0])
            >>> head.penalty in (0.1, 1.0, 10.0)
            True
        """
        rest = RidgeHead(self.in_features, self.num_classes).to(self.weight.device)
        for name, added in zip(("triangle", "sums", "counts"), self._sum_up([(h, y)]), strict=True):
            getattr(rest, name).copy_(added.neg_().add_(getattr(self, name)))
        best, most = self.penalty, -1
        for penalty in penalties:
            rest.penalty = penalty
            rest.solve()
            right = (rest(h).argmax(1) == y.to(h.device)).sum()
            sum_over_ranks(right)
            if int(right) <= most:
                break
            best, most = penalty, int(right)
        if best != self.penalty:
            self.penalty = best
            self.solve()

    def forward(self, h: Tensor) -> Tensor:
        """Logits ``(..., K)``, whose softmax is a probability; a class without rows is far below all others."""
        with full_precision(h.device):
            return F.linear(h.to(self.weight.dtype), self.weight, self.bias)

    def _what_is_wrong(self, h: Tensor, y: Tensor, number: int) -> str:
        if h.ndim != 2 or h.shape[1] != self.in_features or y.shape != h.shape[:1]:
            got = f"{tuple(h.shape)} and {tuple(y.shape)} in batch {number} (from 0)"
            return f"Expected features (batch, {self.in_features}) and labels (batch,), but got {got}."
        if y.is_floating_point():
            return (
                f"Expected integers as labels, but got {y.dtype} in batch {number} (from 0). Convert them with .long()."
            )
        if bad := unusable_rows(h, LARGEST):
            where = f"batch {number} (from 0), row {bad[0]}"
            remedy = "Nothing was learned from the data. Leave such rows out, or mend them."
            got = f"NaN, infinity or larger numbers in {where}. {remedy}"
            return f"Expected finite features, smaller than {LARGEST:g}, to learn from, but got {got}"
        if len(y) and not y.is_meta and not (0 <= int(y.min()) and int(y.max()) < self.num_classes):
            label = int(y.min()) if y.min() < 0 else int(y.max())
            remedy = "Number classes from 0." if label < 0 else "Raise `num_classes`, or number classes from 0."
            return f"Expected labels from 0 to {self.num_classes - 1}, but got {label}. {remedy}"
        return ""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RidgeHead":
        keep_precision(self, super()._apply, fn, recurse)
        return self
