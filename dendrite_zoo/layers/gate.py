"""Gates on the channels of somebody else's layers, as adapters put them there."""

import copy
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dendrite_zoo._core.torch import in_backward, runs_eagerly

__all__ = ["ChannelGate", "channels_of", "fold_gate"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class Channels(NamedTuple):
    """The channels of a layer's output.

    Attributes:
        number: how many.
        dim: the dimension of the output that counts them.
        is_norm: whether the layer normalises.
    """

    number: int
    dim: int
    is_norm: bool = False


def channels_of(layer: nn.Module) -> Channels | None:
    """The channels of a layer that can be gated; None for any other module.

    Layers with channels are linear layers, convolutions, transposed ones too, and `torch.nn.MultiheadAttention` (those
    of its last linear layer), and batch, group, instance, layer and RMS norms; of norms the classes of torch alone, for
    those of others may do more than normalise. An instance norm counts among the layers with weights: it takes back
    what a gate before it does.

    Example:
        >>> channels_of(nn.Conv2d(3, 16, 3))
        Channels(number=16, dim=-3, is_norm=False)
    """
    if isinstance(layer, nn.Linear):
        return Channels(layer.out_features, -1)
    for size, kinds in enumerate(zip(CONVOLUTIONS, TRANSPOSED, strict=True), 1):
        if isinstance(layer, kinds):
            return Channels(layer.out_channels, -size - 1)
    if isinstance(layer, nn.MultiheadAttention):
        return Channels(layer.embed_dim, -1)
    own, numbers = type(layer), vars(layer)
    if own in BATCH_NORMS:
        return Channels(numbers["num_features"], 1, is_norm=True)
    if own in INSTANCE_NORMS:
        return Channels(numbers["num_features"], 1)
    if own is nn.GroupNorm:
        return Channels(numbers["num_channels"], 1, is_norm=True)
    if own in (nn.LayerNorm, nn.RMSNorm) and len(numbers["normalized_shape"]) == 1:
        return Channels(numbers["normalized_shape"][0], -1, is_norm=True)
    if own.__name__ == "Conv1D" and isinstance(numbers.get("nf"), int):  # of GPT-2 in transformers
        return Channels(numbers["nf"], -1)
    return None


class ChannelGate:
    r"""A forward hook that scales each channel of a layer's output, and may shift it.

    .. math:: y'_c = y_c \cdot g_c + b_c

    Args:
        dim: the dimension of the output that counts channels (`channels_of`).

    Attributes:
        factor: the gates ``(C,)`` for the forward passes to come; None leaves outputs as they are.
        shift: what is added ``(C,)``, or None.

    Example:
        >>> layer, gate = nn.Linear(2, 3), ChannelGate(dim=-1)
        >>> handle = layer.register_forward_hook(gate)
        >>> x, before = torch.ones(1, 2), layer(torch.ones(1, 2))
        >>> gate.factor = torch.tensor([0.0, 1.0, 2.0])
        >>> torch.equal(layer(x), before * gate.factor)
        True
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.factor: Tensor | None = None
        self.shift: Tensor | None = None

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """What the layer gives, gated."""
        if self.factor is None:
            if in_backward():
                raise RuntimeError(
                    "Expected the layers of a backbone with dendrites to run once a step, but one is computed again in "
                    "the backward pass, where its gate is not known. Turn gradient checkpointing off."
                )
            return output
        if isinstance(output, tuple):  # of attention, its weights come second
            return (self.apply(output[0]), *output[1:])
        return self.apply(output)

    def apply(self, output: Tensor) -> Tensor:
        """The gated output of a layer."""
        assert self.factor is not None
        dim = self.dim if self.dim >= 0 else output.ndim + self.dim
        shape = [-1] + [1] * (output.ndim - dim - 1)
        if self.factor.requires_grad and runs_eagerly():
            if torch.is_grad_enabled():
                scaled: Tensor = _Scaled.apply(output, self.factor, self.shift, dim)
                return scaled
            warnings.warn(
                "A gate that is to learn is in a part of the backbone that computes no gradients, under "
                "torch.no_grad() or by reentrant gradient checkpointing: it stays as it is. Let that part compute "
                "gradients, or leave its layers out of `layers`.",
                stacklevel=2,
            )
        gated = output * self.factor.to(output.dtype).view(shape)
        return gated if self.shift is None else gated + self.shift.to(output.dtype).view(shape)


class _Scaled(torch.autograd.Function):
    """Scales and shifts channels; what the gradient of the gates needs is kept in half the memory.

    That gradient is a sum over batch and positions, in which the rounding of bfloat16 is lost; what goes on to earlier
    layers is not rounded.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, factor: Tensor, shift: Tensor | None, dim: int) -> Tensor:
        ctx.others = [other for other in range(output.ndim) if other != dim]
        ctx.shape = [-1] + [1] * (output.ndim - dim - 1)
        ctx.save_for_backward(output.to(torch.bfloat16) if output.dtype == torch.float32 else output, factor)
        gated = output * factor.to(output.dtype).view(ctx.shape)
        return gated if shift is None else gated.add_(shift.to(output.dtype).view(ctx.shape))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (output, factor) = grads, ctx.saved_tensors
        earlier = grad * factor.to(grad.dtype).view(ctx.shape) if ctx.needs_input_grad[0] else None
        own = (grad * output).sum(ctx.others, dtype=torch.float32).to(factor.dtype)
        added = grad.sum(ctx.others, dtype=torch.float32).to(factor.dtype) if ctx.needs_input_grad[2] else None
        return earlier, own, added, None


class FrozenNorm:
    """Hooks of a batch norm that learns nothing: its gradient is a product by constants, and takes no memory."""

    def __init__(self) -> None:
        self.input: Tensor | None = None

    def before(self, norm: nn.Module, args: tuple[Any, ...]) -> Any:
        """Take the input out of the graph, for the norm would keep it."""
        x = args[0] if args else None
        frozen = not norm.training and getattr(norm, "running_var", None) is not None
        frozen = frozen and not any(p.requires_grad for p in norm.parameters())
        if frozen and isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled() and runs_eagerly():
            self.input = x
            return (x.detach(), *args[1:])
        return None

    def __call__(self, norm: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Put the output into the graph."""
        x, self.input = self.input, None
        if x is None:
            return None
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = (scale if norm.weight is None else scale * norm.weight).view(-1, *[1] * (output.ndim - 2))
        normal: Tensor = _Normal.apply(x, scale.to(output.dtype), [output])
        return normal


class _Normal(torch.autograd.Function):
    """What a batch norm gave, as a function of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, computed: list[Tensor]) -> Tensor:
        ctx.save_for_backward(scale)
        return computed.pop()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (scale,) = ctx.saved_tensors
        return grads[0] * scale, None, None


class ChannelAffine(nn.Module):
    """Scales and shifts each channel of what a layer gives, where its own weights cannot do so.

    Args:
        layer: any module.
        gate: with its factors.
    """

    def __init__(self, layer: nn.Module, gate: ChannelGate) -> None:
        super().__init__()
        self.layer, self.dim = layer, gate.dim
        assert gate.factor is not None
        self.factor = nn.Buffer(gate.factor)
        self.shift = None if gate.shift is None else nn.Buffer(gate.shift)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer gives, gated."""
        gate = ChannelGate(self.dim)
        gate.factor, gate.shift = self.factor, self.shift
        return gate(self.layer, args, self.layer(*args, **kwargs))


@torch.no_grad()
def fold_gate(layer: nn.Module, gate: ChannelGate) -> nn.Module:
    """A copy of a layer that computes what the layer with its gate does, without a gate.

    The gate goes into weight and bias, where the layer computes with them as its class in torch does; else a module
    that scales stands around the layer.

    Example:
        >>> layer, gate = nn.Conv2d(1, 2, 3), ChannelGate(dim=-3)
        >>> gate.factor, gate.shift = torch.tensor([0.5, 2.0]), torch.tensor([1.0, 0.0])
        >>> x = torch.rand(4, 1, 5, 5)
        >>> torch.allclose(fold_gate(layer, gate)(x), gate.apply(layer(x)), atol=1e-6)
        True
    """
    folded = copy.deepcopy(layer)
    inner: Any = folded.out_proj if isinstance(folded, nn.MultiheadAttention) else folded
    base: Any = next((kind for kind in (nn.Linear, *CONVOLUTIONS, *TRANSPOSED) if isinstance(inner, kind)), type(inner))
    plain = type(inner).forward is base.forward
    own = dict(inner.named_parameters(recurse=False))
    weight, bias, factor = own.get("weight"), own.get("bias"), gate.factor
    no_bias = not hasattr(inner, "bias")  # as RMS norms
    if not plain or weight is None or factor is None or (no_bias and gate.shift is not None):
        return ChannelAffine(folded, gate)
    factor = factor.to(weight)
    inner.weight = nn.Parameter(_scaled_weight(inner, weight, factor))
    if bias is not None or gate.shift is not None:
        new = torch.zeros_like(factor) if bias is None else bias * factor
        inner.bias = nn.Parameter(new if gate.shift is None else new + gate.shift.to(new))
    return folded


def _scaled_weight(layer: nn.Module, weight: Tensor, factor: Tensor) -> Tensor:
    """The weight of a layer whose output channels are scaled."""
    if isinstance(layer, TRANSPOSED):  # (inputs, outputs of a group, ...), the inputs of one group after another
        by_group = factor.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        return (weight.unflatten(0, (layer.groups, -1)) * by_group).flatten(0, 1)
    if weight.ndim == 2 and type(layer).__name__ == "Conv1D":
        return weight * factor
    return weight * factor.view(-1, *[1] * (weight.ndim - 1))
