"""A linear classifier from running sums: exact, whatever the order of the rows; what was summed is not forgotten.

Symbols: ``N`` rows of ``F`` features, ``K`` classes.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["ridge_discriminant"]

TRIES = 12
UNSEEN = -1e6  # the logit of a class without rows
BLOCK = 512  # rows of the triangle that are summed, stored and read together


def triangle_blocks(size: int) -> Iterator[tuple[slice, slice, slice]]:
    """How a symmetric matrix ``(size, size)`` lies in a flat tensor, in blocks of rows that end at the diagonal.

    Returns:
        For each block its place in the flat tensor, its rows and its columns.

    Example:
        >>> [(place.stop - place.start, rows.stop, columns.stop) for place, rows, columns in triangle_blocks(600)]
        [(262144, 512, 512), (52800, 600, 600)]
    """
    start = 0
    for row in range(0, size, BLOCK):
        end = min(row + BLOCK, size)
        yield slice(start, start := start + (end - row) * end), slice(row, end), slice(0, end)


def triangle_size(size: int) -> int:
    """How many numbers `triangle_blocks` has, a little over half of ``size ** 2``."""
    return sum(place.stop - place.start for place, _, _ in triangle_blocks(size))


def add_products(triangle: Tensor, h: Tensor) -> None:
    """Add ``h.T @ h`` of rows ``(N, F)`` to a matrix that lies as in `triangle_blocks`, in place."""
    for place, rows, columns in triangle_blocks(h.shape[1]):
        triangle[place] += (h[:, rows].T @ h[:, columns]).flatten().to(triangle)


def lower_triangle(triangle: Tensor, size: int) -> Tensor:
    """The matrix ``(size, size)`` that lies as in `triangle_blocks`; only its lower triangle is filled."""
    matrix = triangle.new_zeros(size, size).mT  # column by column, as LAPACK works in without a copy
    for place, rows, columns in triangle_blocks(size):
        matrix[rows, columns] = triangle[place].view(rows.stop - rows.start, columns.stop)
    return matrix


def ridge_discriminant(triangle: Tensor, sums: Tensor, counts: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    r"""Fisher's linear discriminant with a ridge penalty, from sums over all rows.

    With the means :math:`m_k` of the classes, their mean :math:`m` over rows, and the covariance within classes

    .. math:: S = \frac{1}{N} \left(\sum h h^\top - \sum_k n_k m_k m_k^\top\right), \quad
        \lambda = \frac{\text{penalty}}{N} \operatorname{tr} S,

    the logits are :math:`w_k^\top (h - m) - \tfrac12 w_k^\top (m_k - m)`, :math:`w_k = (S + \lambda I)^{-1} (m_k - m)`:
    those of classes that are equally frequent, normal and equally wide. Least squares on one-hot labels,
    :math:`(H^\top H + \lambda I)^{-1} H^\top Y`, has the same matrices, but where classes lie in a row (images more and
    more blurred) those between others are hardly ever the largest.

    Args:
        triangle: the sum of :math:`h h^\top` as in `triangle_blocks`.
        sums: of the rows of each class.
        counts: rows of each class, of which there are some.
        penalty: so many rows as long as the average lie in each direction, beside those seen.

    Shape:
        sums ``(K, F)``, counts ``(K,)``; result ``(K, F)`` and ``(K,)``, float64. A class without rows has the bias
        ``-1e6``.

    Raises:
        ValueError: the sums are not finite.

    Example:
        >>> h = torch.tensor([[0.0, 1.0], [1.0, 0.0], [3.0, 1.0], [2.0, 0.0]]).double()
        >>> y = torch.eye(2).double()[[0, 0, 1, 1]]
        >>> triangle = torch.zeros(triangle_size(2)).double()
        >>> add_products(triangle, h)
        >>> weight, bias = ridge_discriminant(triangle, y.T @ h, y.sum(0), penalty=0.01)
        >>> (h @ weight.T + bias).argmax(1)
        tensor([0, 0, 1, 1])
    """
    rows, seen = counts.sum(), counts > 0
    mean, means = sums.sum(0) / rows, sums / counts.clamp(min=1)[:, None]
    offsets = (means - mean) * seen[:, None]
    weight, scaled = torch.zeros_like(sums), sums / counts.clamp(min=1).sqrt()[:, None]
    for _ in range(TRIES):  # a penalty below the rounding of the sums may leave a matrix that is not definite
        matrix = lower_triangle(triangle, len(mean)).addmm_(scaled.T, scaled, alpha=-1).div_(rows)
        spread = float(matrix.diagonal().sum())
        if not math.isfinite(spread):
            raise ValueError("Expected finite sums for a discriminant, but got NaN or infinity. Start again.")
        if spread <= 0:  # the rows of each class are equal
            matrix.diagonal().add_(1.0)
        matrix.diagonal().add_(spread * penalty / rows)
        if _factor(matrix):
            half = torch.linalg.solve_triangular(matrix, offsets.T, upper=False)
            weight = torch.linalg.solve_triangular(matrix.mT, half, upper=True).T
            break
        penalty *= 10
        del matrix  # before the next one takes as much memory
    bias = -(weight * (mean + offsets / 2)).sum(1)
    return weight, bias.where(seen, UNSEEN)


def _factor(matrix: Tensor) -> bool:
    """Turn the lower triangle of a matrix into its Cholesky factor, in its own memory; False where it has none."""
    info = torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(matrix, out=(matrix, info))
    return int(info) == 0
