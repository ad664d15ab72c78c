"""k-winner-take-all."""

from torch import Tensor, nn

from dendrite_zoo._core.checks import check_density, check_integers
from dendrite_zoo.row_sparse.winners import k_winners

__all__ = ["KWinners"]


class KWinners(nn.Module):
    """Let the ``k`` most active units of each row pass, zero the others (Iyer et al. 2022, eq. 5).

    All winners pass, negative ones included; there is no ReLU and no boosting.

    Args:
        k: how many win; or
        density: the share that wins, in (0, 1].
        dim: the dimension of the units. After a convolution 1: the channels of each position compete.

    Shape:
        ``(..., U)`` to ``(..., U)``, or with units along ``dim``; exactly ``k`` winners a row.

    Raises:
        ValueError: neither or both were given, or out of range; in the forward pass, ``k`` above ``U``.
        IndexError: the input has no such dimension.

    Example:
        >>> import torch
        >>> KWinners(density=0.5)(torch.tensor([[0.1, -3.0, 0.7, 0.2]]))
        tensor([[0.0000, 0.0000, 0.7000, 0.2000]])
    """

    def __init__(self, k: int | None = None, density: float | None = None, *, dim: int = -1) -> None:
        super().__init__()
        if (k is None) == (density is None):
            raise ValueError(f"Expected either `k` or `density`, but got k={k} and density={density}.")
        if k is not None:
            check_integers(1, k=k)
        if density is not None:
            check_density(density=density)
        self.k, self.density, self.dim = k, density, dim

    def forward(self, x: Tensor) -> Tensor:
        """Keep the winners of each row of ``x`` ``(..., U)``."""
        rows = x.movedim(self.dim, -1)
        k = self.k if self.density is None else max(1, round(self.density * int(rows.shape[-1])))
        assert k is not None
        return k_winners(rows, k).movedim(-1, self.dim)

    def extra_repr(self) -> str:
        """The arguments, as ``print(model)`` shows them."""
        number = f"k={self.k}" if self.k is not None else f"density={self.density}"
        return number if self.dim == -1 else f"{number}, dim={self.dim}"
