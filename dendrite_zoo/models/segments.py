"""Segments that are never trained: drawn from one seed, which an artifact holds in their place."""

from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from dendrite_zoo._core.rng import random_state
from dendrite_zoo.hub import HubModel
from dendrite_zoo.models.config import MLPConfig
from dendrite_zoo.models.overlap import set_apart

CHUNK = 1 << 20
"""Numbers drawn at once, in float64."""

STATE_FOLLOWS: ContextVar[bool] = ContextVar("STATE_FOLLOWS", default=False)
"""Whether models are being built for a state that holds their segments already."""

D = TypeVar("D", bound="DendriteModel")


def draw_segments(seed: int, layer: int, shape: tuple[int, ...], bound: float) -> Tensor:
    """Segments uniform in ±bound, the same on every machine and with every release.

    Args:
        seed: what they are drawn from.
        layer: the number of their hidden layer, which has numbers of its own.
        shape: ``(U, S, C)``.
        bound: the largest.

    Returns:
        ``(U, S, C)`` float32, on the CPU.

    Example:
        >>> draw_segments(seed=0, layer=1, shape=(1, 2, 3), bound=0.5)
        tensor([[[ 0.0983,  0.2370,  0.4507],
                 [-0.0174,  0.0638, -0.0999]]])
    """
    generator = random_state(seed, layer, key=(2,))
    segments = torch.empty(shape, dtype=torch.float32, device="cpu")
    for part in segments.view(-1).split(CHUNK):
        # Each operation is rounded by itself, as IEEE 754 says: `uniform` may be compiled to a fused one.
        numbers = generator.random_sample(len(part))
        numbers *= 2 * bound
        numbers -= bound
        part.copy_(torch.from_numpy(numbers))
    return segments


class DendriteModel(HubModel, nn.Module):
    """A model of networks with active dendrites: it captures its config, and its file holds no segments of a seed.

    Args:
        config: its arguments; a seed of segments is added where one is needed.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        if config.winners == "context" and config.segment_seed is None:
            config.segment_seed = int(torch.randint(2**31, (), device="cpu"))
        self.config = config.as_config()

    @classmethod
    def blank(cls: type[D], config: Mapping[str, Any]) -> D:
        """A new model for a state that holds its segments: none are drawn."""
        token = STATE_FOLLOWS.set(True)
        try:
            return cls(**config)
        finally:
            STATE_FOLLOWS.reset(token)

    @classmethod
    def to_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a state without the segments that the seed gives, bit for bit."""
        left = dict(state)
        for name, segments in cls._drawn(config, state):
            present = state[name].detach().cpu().contiguous()
            if present.dtype == segments.dtype and torch.equal(present.view(torch.uint8), segments.view(torch.uint8)):
                del left[name]
        return left

    @classmethod
    def from_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole state: segments that the file leaves out are drawn again."""
        return {**dict(cls._drawn(config, state, but=state)), **state}

    @classmethod
    def _drawn(
        cls, config: Mapping[str, Any], state: Mapping[str, Tensor], but: Collection[str] = ()
    ) -> Iterator[tuple[str, Tensor]]:
        if config.get("segment_seed") is not None:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                model = cls(**config)
            yield from drawn_segments(model, state, but)


def drawn_segments(
    model: nn.Module, state: Mapping[str, Tensor], but: Collection[str] = ()
) -> Iterator[tuple[str, Tensor]]:
    """What the seed gives the layers of a model, by name: in the precision of their weights, and zero where masked.

    Where an ``overlap`` of subnetworks is asked for, their columns are permuted by `set_apart`.

    Args:
        model: with networks that have ``segment_draws``; it may lie on the meta device.
        state: has the weights and masks.
        but: names that are left out.
    """
    for prefix, part in model.named_modules():
        for layer, arguments in getattr(part, "segment_draws", {}).items():
            layer = f"{prefix}.{layer}".lstrip(".")
            if f"{layer}.segments" in but:
                continue
            weight, mask = state.get(f"{layer}.weight"), state.get(f"{layer}.segment_mask")
            segments, config = draw_segments(*arguments), cast(Any, part).config
            if config["overlap"] is not None:
                segments = set_apart(segments, config["overlap"], config["activation_density"], config["gate"])
            segments = segments if weight is None else segments.to(weight.dtype)
            if mask is not None and mask.dtype == torch.bool and mask.shape == segments.shape:
                segments.masked_fill_(~mask.cpu(), 0.0)
            yield f"{layer}.segments", segments
