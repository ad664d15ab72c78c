"""Fixed random features: what a linear head needs to separate what is not linearly separable."""

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo._core.ranks import all_gather
from dendrite_zoo._core.rng import random_state
from dendrite_zoo._core.torch import KeepsPrecision, full_precision, runs_eagerly

__all__ = ["RandomFeatures"]

ROWS, NUMBERS = 2048, 1 << 24  # of the first rows, by which inputs are standardised
OUTLIER = 100.0  # times the largest number of a typical row: such a row is left out of them
DIRECTIONS, ITERATIONS = 256, 4  # along which rows vary most; of the search for them
FEW, ROUNDING = 4, 1e-6  # rows by which nothing is known of a column; of its mean, which is no spread
SHRINKAGE, FEW_ROWS = 0.01, 0.1  # of the mean variance, added to that along each; and more of it where rows are few
OTHER_SCALE, NUMBERS_TO_TELL = 50.0, 64  # by how much inputs are larger or smaller; from so many numbers on
FAR = 10.0  # standard deviations, beyond which standardised inputs grow as a logarithm: one row cannot outweigh all

Batch = tuple[Tensor, Tensor]


class FixedFeatures(KeepsPrecision):
    """What features have in common that are set by the first rows they see, and stay.

    The buffers stay float32, whatever precision a model is cast to.

    Args:
        out_features: size of a row of features.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self._said = False

    @property
    def is_set(self) -> bool:
        """Whether the features are set."""
        raise NotImplementedError

    @property
    def typical(self) -> Tensor:
        """The root mean square of the numbers that the features were set by."""
        raise NotImplementedError

    @torch.no_grad()
    def warn_of_scale(self, x: Tensor) -> None:
        """Warn once of rows ``(B, ...)`` far larger, or all far smaller, than those that the features were set by."""
        if self._said or x.numel() < NUMBERS_TO_TELL or x.is_meta or not runs_eagerly() or not self.is_set:
            return
        ratio = float(x.flatten(1).float().square().mean(1).sqrt().median() / self.typical)
        if ratio > OTHER_SCALE or 0 < ratio < 1 / OTHER_SCALE:
            self._said = True
            by = f"{ratio:.0f} times larger" if ratio > 1 else f"{1 / ratio:.0f} times smaller"
            warnings.warn(
                f"The inputs are about {by} than the first ones that were learned, on whose scale all are read: "
                "what is said of them is worth little. Scale all alike; uint8 pixels are scaled from 0 .. 255 to "
                "0 .. 1, floats are taken as they are.",
                stacklevel=3,
            )

    def set_by(self, x: Tensor) -> None:
        """Set the features by rows ``(N, ...)``, N of 1 or more."""
        raise NotImplementedError

    @torch.no_grad()
    def start(self, batches: Iterable[Batch], largest: float = math.inf) -> Iterator[Batch]:
        """Set the features by the first rows (of all processes), unless they are set; give all batches, from the first.

        Args:
            batches: inputs and labels.
            largest: rows with larger numbers, NaN or infinity have no part in it, nor have outliers.
        """
        if self.is_set:
            return iter(batches)
        rest, first, rows, numbers = iter(batches), list[Batch](), 0, 0
        for batch in rest:
            first.append(batch)
            rows, numbers = rows + len(batch[0]), numbers + batch[0].numel()
            if rows >= ROWS or numbers >= NUMBERS:
                break
        own = torch.cat([x for x, _ in first]).float().cpu() if first else None
        if parts := [part for part in all_gather(own) if part is not None]:
            x = torch.cat(parts)
            keep = torch.ones(len(x), dtype=torch.bool)
            keep[unusable_rows(x, largest)] = False
            if keep.any():
                self.set_by(without_outliers(x[keep]))
        return itertools.chain(first, rest)

    @contextmanager
    def set_by_accepted_rows(self) -> Iterator[None]:
        """Have rows that are refused meanwhile, by a TypeError or a ValueError, not set the features."""
        was_set = self.is_set
        try:
            yield
        except (TypeError, ValueError):
            if not was_set:
                for buffer in self.buffers():
                    buffer.zero_()
            raise


def without_outliers(x: Tensor) -> Tensor:
    """The rows ``(N, ...)``, of which there are some, but for those that are far larger than a typical one.

    Example:
        >>> without_outliers(torch.tensor([[1.0], [2.0], [1e9]])).flatten()
        tensor([1., 2.])
    """
    size = x.flatten(1).abs().amax(1)
    return x[size <= OUTLIER * size.median()]


def principal_directions(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances along the principal directions of centred rows ``(N, I)``, and those directions ``(I, count)``."""
    start = torch.from_numpy(random_state(0).standard_normal((z.shape[1], count))).to(z)
    found = torch.linalg.qr(start).Q
    for _ in range(ITERATIONS if count < z.shape[1] else 0):
        found = torch.linalg.qr(z.T @ (z @ found)).Q
    along = z @ found
    values, vectors = torch.linalg.eigh(along.T @ along / len(z))
    return values.clamp(min=0), found @ vectors


def spreads(mean: Tensor, variance: Tensor, far: Tensor, rows: int) -> Tensor:
    """Over which each column of rows is taken to standardise it: its spread, and that of a typical column.

    Of one in smaller units the latter is less; not where it varies in a few rows alone, as the edges of images do, or
    by rounding.

    Args:
        mean: of each column.
        variance: of each column.
        far: the square of how far it lies from its mean at most.
        rows: how many there are.

    Shape:
        ``(I,)`` each, as is the result.

    Example:
        >>> x = torch.tensor([[-1.0, 100.0], [1.0, 300.0]])
        >>> z = (x - x.mean(0)) / spreads(x.mean(0), x.var(0, correction=0), (x - x.mean(0)).square().amax(0), rows=8)
        >>> z.abs().round(decimals=2)
        tensor([[0.7100, 1.0000],
                [0.7100, 1.0000]])
    """
    typical = _typical(variance)
    has_own = (FEW * far <= rows * variance) & (far > (ROUNDING * mean).square())
    return (variance + typical.where(~has_own, far.clamp(max=typical))).sqrt()


def _typical(variance: Tensor) -> Tensor:
    varied = variance[variance > 0]
    return varied.median() if len(varied) else variance.new_tensor(1.0)


class RandomFeatures(FixedFeatures):
    r"""Random ReLU features of standardised inputs, :math:`h = \max(0, R z + b)` (Rahimi and Recht 2008).

    Inputs are standardised by the first rows that `start` sees: less the mean of each, over a spread that is at least
    that of a typical one, or as far as it ever lies from its mean, where that is less and not due to a few rows; what
    lies more than ten of it away, as rows of later tasks may, is drawn near by a logarithm.
    The random numbers depend on the seed alone, in every release of NumPy, and no file holds them.

    Args:
        in_features: size of a row, ``I``.
        out_features: number of features, ``F``.
        seed: of the random numbers.
        whiten: whether the directions in which the first rows vary most are made to vary as the others: right for
            features of a network, which are correlated.

    Shape:
        x ``(B, ...)``, flattened to ``(B, I)``, to ``(B, F)``, float32.

    Before they are set, features are those of inputs as they are.

    Raises:
        ValueError: an argument out of range; in the forward pass, rows of another size.

    Example:
        >>> features, x = RandomFeatures(8, 100), torch.randn(64, 8)
        >>> batches = features.start([(x, torch.zeros(64))])
        >>> features(x).shape
        torch.Size([64, 100])
    """

    def __init__(self, in_features: int, out_features: int, *, seed: int = 0, whiten: bool = False) -> None:
        check_integers(1, in_features=in_features, out_features=out_features)
        check_integers(0, seed=seed)
        super().__init__(out_features)
        self.in_features, self.seed = in_features, seed
        self.mean = nn.Buffer(torch.zeros(in_features, dtype=torch.float32))
        self.scale = nn.Buffer(torch.zeros(in_features, dtype=torch.float32))
        self.whiten = whiten
        if whiten:
            count = min(DIRECTIONS, in_features)
            self.directions = nn.Buffer(torch.zeros(in_features, count, dtype=torch.float32))
            self.reduced = nn.Buffer(torch.zeros(count, dtype=torch.float32))
        self._drawn: tuple[Tensor, Tensor] | None = None

    @property
    def is_set(self) -> bool:
        """Whether the features are set."""
        return bool(self.scale.any())

    @property
    def typical(self) -> Tensor:
        """See `FixedFeatures`."""
        return (self.mean.square() + self.scale.square()).mean().sqrt()

    def set_by(self, x: Tensor) -> None:
        """Take mean and spread of rows ``(N, I)``."""
        x = x.flatten(1).double()
        mean, variance = x.mean(0), x.var(0, correction=0)
        if self.whiten:  # of a network all have one unit
            scale = (variance + _typical(variance)).sqrt()
        else:
            scale = spreads(mean, variance, (x - mean).square().amax(0), len(x))
        z = (x - mean) / scale
        if self.whiten and bool(z.any()):
            z = self._whiten_by(z)
        length = z.square().mean().sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(scale * (length if length > 0 else 1.0))

    def _whiten_by(self, z: Tensor) -> Tensor:
        """Note the principal directions of rows ``(N, I)`` and by how much rows are made shorter along each."""
        count, total = self.directions.shape[1], z.square().mean(0).sum()
        values, directions = principal_directions(z, count)
        rest = (total - values.sum()) / (self.in_features - count) if count < self.in_features else values.min()
        added = total / self.in_features * (SHRINKAGE + FEW_ROWS * self.in_features / len(z))
        reduced = 1 - ((rest + added) / (values + added)).clamp(0, 1).sqrt()
        self.directions.copy_(directions)
        self.reduced.copy_(reduced)
        return z - z @ directions * reduced @ directions.T

    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x``."""
        x = x.flatten(1)
        if x.shape[1] != self.in_features:
            raise wrong_argument("x", f"rows of {self.in_features} numbers", tuple(x.shape))
        with full_precision(x.device):
            weight, bias = self._random(x.device)
            return torch.addmm(bias, self.standardise(x), weight).relu_()

    def standardise(self, x: Tensor) -> Tensor:
        """Rows ``(B, I)`` less the mean, over the spread; beyond ten of it the logarithm of what is more."""
        z = (x.float() - self.mean) / self.scale.where(self.scale > 0, 1.0)
        if self.whiten:
            z = torch.addmm(z, z @ self.directions * self.reduced, self.directions.T, alpha=-1)
        near = z.clamp(-FAR, FAR)
        return near + (z - near).abs().log1p() * z.sign()

    def random_weight(self, device: torch.device) -> Tensor:
        """The random matrix ``(I, F)``, whose columns have a length of about 1."""
        return self._random(device)[0]

    def _random(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weights ``(I, F)`` and offsets ``(F,)``, drawn once."""
        if self._drawn is None or self._drawn[0].device != device:
            with torch.inference_mode(False), torch.device("cpu"):
                generator, weight = random_state(self.seed), torch.empty(self.in_features, self.out_features)
                for rows in weight.split(1024):  # drawn in double precision
                    rows.copy_(torch.from_numpy(generator.standard_normal(tuple(rows.shape))))
                bias = torch.from_numpy(generator.standard_normal(self.out_features)).float()
                self._drawn = weight.div_(math.sqrt(self.in_features)).to(device), bias.to(device)
        return self._drawn
