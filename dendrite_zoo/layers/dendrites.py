"""Layers whose units are gated by active dendrites."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_choice, check_density, check_integers
from dendrite_zoo._core.torch import off_meta
from dendrite_zoo.functional import GATES, Context, Gate, apply_gate
from dendrite_zoo.layers.sparse import SparseLinear, random_mask, uniform_
from dendrite_zoo.row_sparse.parameter import RowParameter
from dendrite_zoo.row_sparse.segments import winning_activations

__all__ = ["ActiveDendriteConv2d", "ActiveDendriteLinear"]


class _ActiveDendrites(nn.Module):
    """What layers with active dendrites have in common: segments, and the gate that they set."""

    segments: Tensor | None
    segment_mask: Tensor | None

    def extra_repr(self) -> str:
        """The arguments, as ``print(model)`` shows them."""
        own = f"context_dim={self.context_dim}, num_segments={self.num_segments}, gate={self.gate!r}"
        return f"{super().extra_repr()}, {own}, segment_density={self.segment_density}"

    def _add_segments(self, num_units: int, context_dim: int, num_segments: int, gate: Gate, density: float) -> None:
        check_density(segment_density=density)
        check_choice(GATES, gate=gate)
        check_integers(0, num_segments=num_segments)
        if num_segments:
            check_integers(1, context_dim=context_dim)
        self.context_dim, self.num_segments = context_dim, num_segments
        self.gate, self.segment_density = gate, density
        shape = (num_units, num_segments, context_dim)
        self.register_parameter("segments", RowParameter(torch.empty(shape), row_dims=2) if num_segments else None)
        self.register_buffer("segment_mask", random_mask(shape, density) if num_segments else None)
        self._reset_segments()

    @torch.no_grad()
    def _reset_segments(self, context_density: float = 1.0) -> None:
        segments: Tensor | None = getattr(self, "segments", None)  # absent while the base class is set up
        if segments is not None:
            uniform_(segments, fan_in=context_density * self.segment_density * self.context_dim)
            self._zero_masked_segments()

    @torch.no_grad()
    def _zero_masked_segments(self) -> None:
        if self.segments is not None and self.segment_mask is not None:
            self.segments.masked_fill_(~self.segment_mask, 0.0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        if "segment_mask" in off_meta(before, self) and self.segments is not None:  # by `to_empty`: random memory
            mask = random_mask(tuple(self.segments.shape), self.segment_density)
            self.segment_mask = None if mask is None else mask.to(self.segments.device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._zero_masked_segments()

    def _modulate(self, drive: Tensor, context: Context | None, unit_dim: int) -> Tensor:
        if self.segments is None:
            return drive
        if context is None:
            remedy = "Call layer(x, context), or build it with num_segments=0 for a layer without dendrites."
            raise TypeError(f"Expected a context for a layer with dendrites, but got None. {remedy}")
        strength = winning_activations(self.segments, context, self.gate, self.segment_mask)
        if strength.ndim == 2:  # one gate a row: (B, U) meets (B, ..., U, ...)
            num_rows = drive.shape[0]  # of a traced program `len` would be a constant
            if strength.shape[0] != num_rows:
                expected = f"one context for each of the {num_rows} rows, or one of shape (C,) for all"
                raise ValueError(f"Expected {expected}, but got {len(strength)}.")
            strength = strength.reshape(num_rows, *[1] * (drive.ndim + unit_dim - 1), *strength.shape[1:])
        trailing = -1 - unit_dim
        return apply_gate(drive, strength.reshape(*strength.shape, *[1] * trailing), self.gate)


class ActiveDendriteLinear(_ActiveDendrites, SparseLinear):
    r"""A linear layer of units with active dendrites (Iyer et al. 2022, eq. 1-4; figure 3).

    Each unit has ``num_segments`` dendritic segments that recognise contexts; the strongest one gates the unit:
    :math:`y = (w \cdot x + b) \cdot \sigma(u_{s^*} \cdot c)` with :math:`s^* = \arg\max_s |u_s \cdot c|`.

    Args:
        in_features: size of each input row, ``I``.
        out_features: number of units, ``U``.
        context_dim: size of the context, ``C``.
        num_segments: segments a unit, ``S``; 0 makes a plain (sparse) linear layer that ignores the context.
        gate: ``abs_max`` (the paper's), ``max``, ``abs_max_unsigned`` or ``bias``
            (see `dendrite_zoo.functional.select_winners`).
        weight_density: share of inputs each unit sees, in (0, 1].
        segment_density: share of the context each segment sees, in (0, 1].
        bias: learn an additive bias.

    Shape:
        x ``(B, ..., I)`` and a context of any form of `dendrite_zoo.functional` to ``(B, ..., U)``; ``weight``
        ``(U, I)``, ``segments`` ``(U, S, C)``.

    Raises:
        ValueError: a size or density out of range, an unknown gate, or a context of another size.

    Example:
        >>> layer = ActiveDendriteLinear(8, 4, context_dim=3, num_segments=5)
        >>> x = torch.randn(2, 8)
        >>> layer(x, torch.randn(3)).shape                      # one context for the batch
        torch.Size([2, 4])
        >>> layer(x, torch.tensor([0, 2])).shape                # ids of one-hot contexts
        torch.Size([2, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        context_dim: int,
        num_segments: int,
        gate: Gate = "abs_max",
        weight_density: float = 1.0,
        segment_density: float = 1.0,
        bias: bool = True,
    ) -> None:
        check_density(weight_density=weight_density)
        super().__init__(in_features, out_features, density=weight_density, bias=bias)
        self._add_segments(out_features, context_dim, num_segments, gate, segment_density)

    @torch.no_grad()
    def reset_parameters(self, *, input_density: float = 1.0, context_density: float = 1.0) -> None:
        """Draw weights and segments anew; the masks stay.

        Args:
            input_density: share of this layer's inputs that are active (k / units after a k-winners layer).
            context_density: share of the context that is active; the paper takes 0.1 for prototypes, 1 for one-hot.
        """
        super().reset_parameters(input_density=input_density)
        self._reset_segments(context_density)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Apply the layer to ``x`` ``(B, ..., I)`` in a context; without segments the context is ignored."""
        drive = super().forward(x)
        return self._modulate(drive, context, unit_dim=-1)


class ActiveDendriteConv2d(_ActiveDendrites, nn.Conv2d):
    r"""A 2-d convolution whose output channels are units with active dendrites: one gate a channel.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output: the units, ``U``.
        kernel_size: as in `torch.nn.Conv2d`, as are stride, padding, dilation, groups, bias and padding_mode.
        context_dim: size of the context, ``C``.
        num_segments: segments a channel, ``S``; 0 makes a plain convolution.
        gate: see `ActiveDendriteLinear`.
        segment_density: share of the context each segment sees, in (0, 1].

    Shape:
        x ``(B, in_channels, H, W)`` to ``(B, U, H', W')``; ``segments`` ``(U, S, C)``.

    Raises:
        ValueError: as for `ActiveDendriteLinear`.

    Example:
        >>> layer = ActiveDendriteConv2d(1, 4, 3, context_dim=2, num_segments=5)
        >>> layer(torch.randn(2, 1, 8, 8), torch.tensor([0, 1])).shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        context_dim: int,
        num_segments: int,
        gate: Gate = "abs_max",
        segment_density: float = 1.0,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self._add_segments(out_channels, context_dim, num_segments, gate, segment_density)

    def reset_parameters(self) -> None:
        """Draw weights and segments anew; the mask stays."""
        super().reset_parameters()
        self._reset_segments()

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Convolve ``x`` ``(B, in_channels, H, W)`` and gate each output channel by the context."""
        drive = super().forward(x)
        return self._modulate(drive, context, unit_dim=-3)
