"""A linear classifier from running sums: exact, whatever the order of the rows; what was summed is not forgotten.

Symbols: ``N`` rows of ``F`` features, ``K`` classes.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

__all__ = ["ridge_discriminant"]

TRIES = 12
UNSEEN = -1e6  # the logit of a class without rows
PENALTIES = 0.1, 0.3, 1.0, 3.0, 10.0  # of which one is chosen, where none is given
WORTH = 0.03  # by which share of the error a larger one must be better
EXACT, PROBES = 512, 128  # features of which a trace is exact; random signs by which that of more is estimated
FEW, MORE_DIRECTIONS = 8, 8  # rows are few where there are more features for each; random vectors beyond their number
MISSED = 1e-3  # by what share of a penalty, in each direction, few directions may differ from all
ROUNDING = 1e-12  # of the squares of rows: what is less is no spread
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


def block_rows(triangle: Tensor, size: int) -> list[tuple[slice, Tensor]]:
    """Which rows each block of `triangle_blocks` has, and those rows up to the end of their diagonal, as views."""
    return [
        (rows, triangle[place].view(rows.stop - rows.start, columns.stop))
        for place, rows, columns in triangle_blocks(size)
    ]


def add_products(triangle: Tensor, h: Tensor, alpha: float = 1.0) -> None:
    """Add ``alpha * h.T @ h`` of rows ``(N, F)`` to a matrix that lies as in `triangle_blocks`, in place."""
    for rows, block in block_rows(triangle, h.shape[1]):
        block.add_((h[:, rows].T @ h[:, : rows.stop]).to(triangle), alpha=alpha)


def diagonals(triangle: Tensor, size: int) -> list[Tensor]:
    """The diagonal of such a matrix, block by block, as views."""
    return [block[:, rows].diagonal() for rows, block in block_rows(triangle, size)]


def times(triangle: Tensor, x: Tensor) -> Tensor:
    """Such a matrix ``(F, F)`` times ``x`` ``(F, K)``.

    Example:
        >>> triangle = torch.tensor([4.0, 2.0, 2.0, 5.0])     # (2, 2): one block
        >>> times(triangle, torch.tensor([[1.0], [2.0]])).flatten()
        tensor([ 8., 12.])
    """
    y = torch.zeros_like(x)
    for rows, block in block_rows(triangle, len(x)):
        y[rows].addmm_(block, x[: rows.stop])
        y[: rows.start].addmm_(block[:, : rows.start].T, x[rows])
    return y


def factor(triangle: Tensor, size: int) -> bool:
    """Turn such a matrix into its Cholesky factor, in its own memory; False where it has none.

    Example:
        >>> triangle = torch.tensor([4.0, 2.0, 2.0, 5.0])     # (2, 2): one block
        >>> factor(triangle, 2), triangle
        (True, tensor([2., 0., 1., 2.]))
    """
    blocks = block_rows(triangle, size)
    for number, (rows, block) in enumerate(blocks):
        for left, other in blocks[:number]:
            block[:, left].addmm_(block[:, : left.start], other[:, : left.start].T, alpha=-1)
            block[:, left] = torch.linalg.solve_triangular(other[:, left].T, block[:, left], upper=True, left=False)
        own = block[:, rows].addmm_(block[:, : rows.start], block[:, : rows.start].T, alpha=-1)
        found, info = torch.linalg.cholesky_ex(own)
        if int(info):
            return False
        own.copy_(found)
    return True


def solve(triangle: Tensor, x: Tensor) -> Tensor:
    """Solve ``L @ L.T @ y = x`` for ``x`` ``(F, K)``, in its place, by a factor ``L`` as `factor` gives it."""
    blocks = block_rows(triangle, len(x))
    for rows, block in blocks:
        right = x[rows].addmm_(block[:, : rows.start], x[: rows.start], alpha=-1)
        right.copy_(torch.linalg.solve_triangular(block[:, rows], right, upper=False))
    for rows, block in reversed(blocks):
        right = x[rows].copy_(torch.linalg.solve_triangular(block[:, rows].T, x[rows], upper=True))
        x[: rows.start].addmm_(block[:, : rows.start].T, right, alpha=-1)
    return x


def ridge_discriminant(
    triangle: Tensor, sums: Tensor, counts: Tensor, penalty: float | None = None
) -> tuple[Tensor, Tensor]:
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
        penalty: so many rows as long as the average lie in each direction, beside those seen. None chooses the
            smallest, from 0.1 on, whose generalised cross-validation (Golub et al. 1979) of those least squares is
            within three per cent of the best one's. Each one tried takes as long as one that is given: two or three,
            and more where labels are noisy; but nearly nothing where there are eight features for each row.

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
    numbers = counts.where(seen, 1.0)[:, None]  # of rows that stand for others there may be less than one
    mean, means = sums.sum(0) / rows, sums / numbers
    offsets = (means - mean) * seen[:, None]
    within = triangle, sums / numbers.sqrt(), float(rows)
    directions, solve_by = few_rows(*within) or (None, partial(_solve_within, *within))
    x = offsets.T if directions is None else directions.T @ offsets.T
    if penalty is not None:
        found = solve_by(x, penalty)[0]
    else:
        shares = (counts / rows).where(seen, 0.0)
        found = _solve_with_chosen_penalty(solve_by, x, shares, float(rows))
    weight = (found if directions is None else directions @ found).T
    bias = -(weight * (mean + offsets / 2)).sum(1)
    return weight, bias.where(seen, UNSEEN)


Solve = Callable[[Tensor, float], tuple[Tensor, float]]
"""`_solve_within` of one covariance."""


def _solve_within(triangle: Tensor, scaled: Tensor, rows: float, x: Tensor, penalty: float) -> tuple[Tensor, float]:
    """``(S + lambda I)^-1 x`` for ``x`` ``(F, K)``, and the number that was added to the diagonal.

    S is made anew for each penalty, for it takes as much memory as the sums.

    Args:
        triangle: as of `ridge_discriminant`.
        scaled: the means of the classes times the roots of their numbers of rows, ``(K, F)``.
        rows: how many there are.
        x: right-hand sides.
        penalty: as of `ridge_discriminant`.

    Raises:
        ValueError: the sums are not finite, or those of no rows.
    """
    least = ROUNDING * float(sum(part.sum() for part in diagonals(triangle, len(x)))) / rows
    for _ in range(TRIES):  # a penalty below the rounding of the sums may leave a matrix that is not definite
        matrix = triangle.clone()
        add_products(matrix, scaled, alpha=-1)
        diagonal = diagonals(matrix.div_(rows), len(x))
        spread = float(sum(part.sum() for part in diagonal))
        if not math.isfinite(spread):
            raise ValueError("Expected finite sums for a discriminant, but got NaN or infinity. Start again.")
        more = (max(spread, least) or rows) * penalty / rows  # where the rows of each class are equal
        for part in diagonal:
            part.add_(more)
        if factor(matrix, len(x)):
            return solve(matrix, x.contiguous()), more
        penalty *= 10
        del matrix, diagonal, part  # before the next one takes as much memory
    raise ValueError("Expected sums of products of rows for a discriminant, but got others. Start again.")


def few_rows(triangle: Tensor, scaled: Tensor, rows: float) -> tuple[Tensor, Solve] | None:
    """The few directions ``(F, D)`` in which there is anything, and how to solve along them; None where there are many.

    So many random vectors as there are rows span them (Halko et al. 2011), and one eigenvalue problem of their size
    serves all penalties. That they hold all of the trace is seen to, for rows may stand for others.

    Args:
        triangle: as of `_solve_within`.
        scaled: likewise.
        rows: likewise.
    """
    size, count = scaled.shape[1], math.ceil(rows) + MORE_DIRECTIONS
    total = float(sum(part.sum() for part in diagonals(triangle, size)))
    if FEW * count > size or not math.isfinite(total):
        return None
    start = torch.randn(size, count, generator=torch.Generator().manual_seed(0), dtype=triangle.dtype)
    basis = torch.linalg.qr(times(triangle, start.to(triangle.device))).Q
    inside, means = basis.T @ times(triangle, basis), basis.T @ scaled.T
    values, vectors = torch.linalg.eigh((inside - means @ means.T) / rows)
    values, directions = values.clamp(min=0), basis @ vectors
    spread = float(values.sum())
    if abs(total - float(inside.trace())) > MISSED * spread * size or spread <= ROUNDING * total / rows:
        return None

    def solve_by(x: Tensor, penalty: float) -> tuple[Tensor, float]:
        more = spread * penalty / rows
        return x / (values + more)[:, None], more

    return directions, solve_by


def _solve_with_chosen_penalty(solve_by: Solve, offsets: Tensor, shares: Tensor, rows: float) -> Tensor:
    """The solution ``(F, K)`` with the penalty that generalised cross-validation finds worth its size."""
    if (size := len(offsets)) <= EXACT:
        probes = torch.eye(size).to(offsets) * math.sqrt(size)
    else:
        probes = torch.randint(2, (size, PROBES), generator=torch.Generator().manual_seed(0)).to(offsets) * 2 - 1
    solutions, errors = list[Tensor](), list[float]()
    for penalty in PENALTIES:
        found, more = solve_by(torch.cat([offsets, probes], 1), penalty)
        solutions.append(found[:, : len(shares)])
        errors.append(_cross_validation(offsets, found, probes, shares, more, rows))
        if errors[-1] > min(errors):
            break
    return next(one for one, error in zip(solutions, errors, strict=True) if error <= min(errors) * (1 + WORTH))


def _cross_validation(
    offsets: Tensor, found: Tensor, probes: Tensor, shares: Tensor, more: float, rows: float
) -> float:
    """Generalised cross-validation of ridge regression on one-hot labels, from the solution of the discriminant.

    The covariance of all rows is ``S + U U'``, where ``U`` are the offsets of the means by the roots of the classes'
    shares; so Woodbury's identity turns solutions with ``S`` into those of least squares. The trace that gives the
    degrees of freedom is estimated by random signs (Hutchinson 1990); unit vectors in their place give it exactly.
    """
    root = shares.sqrt()
    own, noise = found[:, : len(shares)] * root, found[:, len(shares) :]
    inner = (offsets * root).T @ own
    least_squares = own @ torch.linalg.inv(inner + torch.eye(len(inner)).to(inner))
    explained = ((offsets * root * least_squares).sum(0) * shares).sum()
    unexplained = 1 - shares.square().sum() - explained - more * (least_squares.square().sum(0) * shares).sum()
    trace = (probes * noise).sum() / probes.shape[1] - (own * least_squares).sum()
    free = max(rows - 1 - len(offsets) + more * float(trace), 1.0)
    return max(float(unexplained), 0.0) * (rows / free) ** 2
