"""Linear layers with a fixed sparse weight."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_density, check_integers
from dendrite_zoo._core.torch import off_meta, runs_eagerly
from dendrite_zoo.row_sparse.activation_cache import stamp

__all__ = ["SparseLinear"]


class SparseLinear(nn.Module):
    """A linear layer whose units each see the same fixed number of inputs, drawn at random once.

    ``weight`` itself holds zeros where masked: the gradient is zero there, so no element-wise optimizer, with or
    without weight decay, ever moves them, and neither loading nor copying brings them back. Optimizers that mix
    entries, such as `torch.optim.Muon`, do: then they are zeroed at the next use.

    Args:
        in_features: size of each input row.
        out_features: number of units.
        density: share of inputs each unit sees, in (0, 1]; 1 makes a dense layer without a mask.
        bias: learn an additive bias.

    Shape:
        ``(..., in_features)`` to ``(..., out_features)``; ``weight`` ``(U, I)``, ``bias`` ``(U,)``, buffer ``mask``
        ``(U, I)`` of bool, or None where dense.

    Raises:
        ValueError: a size below 1, or a density outside (0, 1].

    Example:
        >>> layer = SparseLinear(10, 4, density=0.5)
        >>> (layer.weight != 0).sum(dim=1)
        tensor([5, 5, 5, 5])
    """

    mask: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, density: float, bias: bool = True) -> None:
        super().__init__()
        check_integers(1, in_features=in_features, out_features=out_features)
        check_density(density=density)
        self.in_features, self.out_features, self.density = in_features, out_features, density
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.register_buffer("mask", random_mask((out_features, in_features), density))
        self._factor: Tensor | None = None
        self._made_for: tuple[Any, ...] = ()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, input_density: float = 1.0) -> None:
        """Draw weights anew, uniform in ±1/sqrt(input_density · density · in_features); the mask stays.

        Args:
            input_density: share of this layer's inputs that are active (k / units after a k-winners layer).
        """
        uniform_(self.weight, fan_in=input_density * self.density * self.in_features)
        if self.bias is not None:
            uniform_(self.bias, fan_in=self.in_features)
        self._zero_masked()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` of shape ``(..., in_features)``."""
        if self.mask is None or not _plainly_trained(self.weight):
            return F.linear(x, self.masked_weight(), self.bias)
        self._zero_masked()  # whoever wrote there: an optimizer that mixes entries, a write through `.data`
        return F.linear(x, _MaskGradient.apply(self.weight, self._mask_factor()), self.bias)

    def masked_weight(self) -> Tensor:
        """The weight ``(U, I)``, zero where masked, as is its gradient."""
        return self.weight if self.mask is None else self.weight * self.mask.to(self.weight.dtype)

    def extra_repr(self) -> str:
        """The arguments, as ``print(model)`` shows them."""
        return f"{self.in_features}, {self.out_features}, density={self.density}, bias={self.bias is not None}"

    def _zero_masked(self) -> None:
        if self.mask is not None:
            self.weight.data.mul_(self._mask_factor())

    def _mask_factor(self) -> Tensor:
        """The mask as numbers, which multiply three times as fast as bools."""
        assert self.mask is not None
        made_for = stamp(self.mask), self.weight.dtype, self.weight.device
        if self._factor is None or self._made_for != made_for:
            with torch.inference_mode(False), torch.no_grad():  # it outlives the pass that makes it
                self._factor, self._made_for = self.mask.clone().to(self.weight), made_for
        return self._factor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SparseLinear":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        if "mask" in off_meta(before, self):  # by `to_empty`, which leaves random memory
            mask = random_mask((self.out_features, self.in_features), self.density)
            self.mask = None if mask is None else mask.to(self.weight.device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._factor = None
        self._zero_masked()


def _plainly_trained(weight: Tensor) -> bool:
    """Whether a weight is a parameter that may be written to, in code that is neither traced nor transformed."""
    return runs_eagerly() and isinstance(weight, nn.Parameter) and not weight.is_inference()


class _MaskGradient(torch.autograd.Function):
    """A weight that is zero where masked already, for one `F.linear`: only its fresh gradient needs the mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (grad * mask if torch.is_grad_enabled() else grad.mul_(mask)), None


def random_mask(shape: tuple[int, ...], density: float) -> Tensor | None:
    """A bool mask with the same number of entries in each row of the last dimension; None where dense."""
    if density == 1.0:
        return None
    kept = max(1, round(density * shape[-1]))
    return torch.zeros(shape, dtype=torch.bool).scatter(-1, torch.rand(shape).topk(kept, dim=-1).indices, True)


def uniform_(tensor: Tensor, fan_in: float) -> None:
    """Fill with numbers uniform in ±1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(tensor, -bound, bound)
