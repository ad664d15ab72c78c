"""A linear head that is solved for, not trained, from running sums of its inputs."""

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.batches import labelled_batches
from dendrite_zoo._core.checks import check_integers, check_positive, wrong_argument
from dendrite_zoo._core.environment import memory
from dendrite_zoo._core.finite import LARGEST, unusable_rows
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo._core.torch import KeepsPrecision, full_precision
from dendrite_zoo.functional.ridge import UNSEEN, add_products, ridge_discriminant, triangle_size

__all__ = ["RidgeHead"]

CHUNK = 2048  # rows whose products are summed at once


class RidgeHead(KeepsPrecision):
    r"""Logits of classes by a linear discriminant with a ridge penalty, from running sums of all rows ever seen.

    :math:`G = \sum h h^\top` and, for each class, :math:`\sum h` are buffers. What they give is exact and does not
    depend on the order in which rows, tasks and classes come, so nothing is forgotten, and no data are kept. Each call
    of `learn` adds rows and solves anew, by Cholesky's method: at 6,000 features and a given penalty that takes three
    seconds of a core and 0.4 gigabytes, at 2,000 a tenth of that.

    Sums are float64 and solutions float32, whatever precision a model is cast to.

    Args:
        in_features: size of a row, ``F``; the memory grows as ``4 * F ** 2`` bytes.
        num_classes: number of logits, ``K``.
        penalty: of `dendrite_zoo.functional.ridge_discriminant`, which has the equation. None has each solution choose
            it by the sums, which takes up to five times as long where rows are not few.

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

    def __init__(self, in_features: int, num_classes: int, *, penalty: float | None = None) -> None:
        super().__init__()
        check_integers(1, in_features=in_features, num_classes=num_classes)
        if penalty is not None:
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
        added = RunningSums(self)
        for number, (h, y) in enumerate(labelled_batches(batches)):
            if not added.take(h, y, number):
                break
        self.add(added)
        self.solve()

    @torch.no_grad()
    def add(self, added: "RunningSums") -> None:
        """Add the sums of rows, over all processes, without solving.

        Raises:
            ValueError: as of `learn`; then nothing has changed.
        """
        added.reduce()
        for total in (self.triangle, self.sums, self.counts):
            total.add_(added.parts.pop(0))  # half of the memory that the solution takes

    @torch.no_grad()
    def solve(self) -> None:
        """Set ``weight`` and ``bias`` to the solution of the sums, with the penalty as it is.

        Raises:
            ValueError: the sums were dropped.
        """
        check_has_sums(self)
        weight, bias = ridge_discriminant(self.triangle, self.sums, self.counts, self.penalty)
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    @torch.no_grad()
    def right_without(self, h: Tensor, y: Tensor) -> int:
        """For how many rows that were learned it is right when it is solved without them; it stays as it is.

        Args:
            h: some of the rows that were learned, ``(B, F)``; over all processes, one or more.
            y: their labels, ``(B,)``.

        Raises:
            ValueError: as of `learn`; or no other rows were learned.

        Example:
            >>> h, y = torch.randn(200, 8), torch.arange(200) % 2     # labels that say nothing
            >>> head = RidgeHead(8, 2)
            >>> head.learn([(h, y)])
            >>> head.right_without(h[:50], y[:50]) < 45
            True
        """
        rest = RidgeHead(self.in_features, self.num_classes, penalty=self.penalty).to(self.weight.device)
        added = RunningSums(self)
        added.take(h, y)
        added.reduce()
        for name, part in zip(("triangle", "sums", "counts"), added.parts, strict=True):
            getattr(rest, name).copy_(part.neg_().add_(getattr(self, name)))
        if not rest.counts.any():
            got = f"all {int(self.counts.sum())}"
            raise ValueError(f"Expected some of the rows that were learned, but got {got}. Leave rows to solve by.")
        rest.solve()
        right = (rest(h).argmax(1) == y.to(h.device)).sum()
        sum_over_ranks(right)
        return int(right)

    def drop_sums(self) -> None:
        """Give up the sums, nearly all of the memory and of a file: logits stay, but no more rows can be learned.

        An artifact is written without them; in memory the products are NaN.
        """
        self.triangle.fill_(torch.nan)
        self.sums.zero_()

    def forward(self, h: Tensor) -> Tensor:
        """Logits ``(..., K)``, whose softmax is a probability; a class without rows is far below all others."""
        with full_precision(h.device):
            return F.linear(h.to(self.weight.dtype), self.weight, self.bias)

    def _fill_buffers(self) -> None:
        self.bias.fill_(UNSEEN)


class RunningSums:
    """What rows add to a `RidgeHead`: products, sums and counts, apart from it until all of them are known to be good.

    Args:
        head: that is to learn the rows.
    """

    def __init__(self, head: RidgeHead) -> None:
        check_has_sums(head)
        self.head = head
        self.parts = [torch.zeros_like(part) for part in (head.triangle, head.sums, head.counts)]
        self._wrong, self._waiting = "", list[Tensor]()

    def take(self, h: Tensor, y: Tensor, number: int = 0) -> bool:
        """Add the rows of a batch, if they are good; False as soon as some were not."""
        self._wrong = self._wrong or self._what_is_wrong(h, y, number)
        if not self._wrong:
            _, sums, counts = self.parts
            h, y = h.to(self.head.weight), y.to(sums.device).long()
            sums.index_add_(0, y, h.to(sums))  # beside whose means single precision is coarse
            counts += y.bincount(minlength=self.head.num_classes)
            self._waiting.append(h)
            if sum(map(len, self._waiting)) >= CHUNK:
                self._flush()
        return not self._wrong

    def _flush(self) -> None:
        h = torch.cat(self._waiting)
        exact = h.to(self.parts[1])
        mean = exact.sum(0) / max(1, len(h))  # beside whose square the products would be coarse, too
        with full_precision(self.head.weight.device):
            add_products(self.parts[0], (exact - mean).to(h))
        add_products(self.parts[0], mean[None] * math.sqrt(len(h)))
        self._waiting = []

    def reduce(self) -> None:
        """Sum over all processes.

        Raises:
            ValueError: in all processes, where one has rows that are not good, or none has any.
        """
        if self._waiting and not self._wrong:
            self._flush()
        refused = torch.tensor(float(bool(self._wrong)), device=self.head.weight.device)
        sum_over_ranks(*self.parts, refused)
        if refused:
            raise ValueError(
                self._wrong or "Expected usable rows in every process, but another one got some that are not."
            )
        if not self.parts[2].any():
            raise ValueError("Expected at least one row to learn from, but got none. Check the data loader.")

    def _what_is_wrong(self, h: Tensor, y: Tensor, number: int) -> str:
        if h.ndim != 2 or h.shape[1] != self.head.in_features or y.shape != h.shape[:1]:
            got = f"{tuple(h.shape)} and {tuple(y.shape)} in batch {number} (from 0)"
            remedy = (
                "" if y.shape == h.shape[:1] else " Give one label a row: y.reshape(-1), or y.argmax(1) of one-hot."
            )
            return f"Expected features (batch, {self.head.in_features}) and labels (batch,), but got {got}.{remedy}"
        if y.is_floating_point() or y.is_complex():
            return (
                f"Expected integers as labels, but got {y.dtype} in batch {number} (from 0). Convert them with .long()."
            )
        if bad := unusable_rows(h, LARGEST):
            where = f"batch {number} (from 0), row {bad[0]}"
            remedy = "Nothing was learned from the data. Leave such rows out, or mend them."
            got = f"NaN, infinity or larger numbers in {where}. {remedy}"
            return f"Expected finite features, smaller than {LARGEST:g}, to learn from, but got {got}"
        y = y.long()  # unsigned ones have no minimum
        if len(y) and not y.is_meta and not (0 <= int(y.min()) and int(y.max()) < self.head.num_classes):
            label = int(y.min()) if y.min() < 0 else int(y.max())
            remedy = "Number classes from 0." if label < 0 else "Raise `num_classes`, or number classes from 0."
            return f"Expected labels from 0 to {self.head.num_classes - 1}, but got {label}. {remedy}"
        return ""


def has_dropped(triangle: Tensor) -> bool:
    """Whether products are given up; see `RidgeHead.drop_sums`."""
    return not triangle.is_meta and bool(triangle[0].isnan())


def check_has_sums(head: RidgeHead) -> None:
    """Refuse to learn where products are given up.

    Raises:
        ValueError: they are.
    """
    if has_dropped(head.triangle):
        raise ValueError(
            "Expected running sums to learn from, but got a solution alone, whose sums were dropped. Take an artifact "
            "that was saved before `drop_sums()`."
        )


def without_dropped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model that a file needs to hold: sums that were given up are none of them."""
    heads = [k.removesuffix("triangle") for k, v in state.items() if k.endswith("triangle") and has_dropped(v)]
    left_out = [f"{head}{name}" for head in heads for name in ("triangle", "sums")]
    return {k: v for k, v in state.items() if k not in left_out}


def with_dropped(state: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """The whole state of such a file, with the sums of the `RidgeHead` of this name."""
    weight = state.get(f"{head}.weight")
    if weight is None or weight.ndim != 2 or f"{head}.triangle" in state:
        return dict(state)
    triangle = torch.full((triangle_size(weight.shape[1]),), torch.nan, dtype=torch.float64)
    sums = torch.zeros(weight.shape, dtype=torch.float64)
    return {**state, f"{head}.triangle": triangle, f"{head}.sums": sums}
