"""Segments that are never trained: drawn from one seed, which an artifact holds in their place."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.rng import random_state
from dendrite_zoo.hub import HubModel
from dendrite_zoo.models.config import MLPConfig

CHUNK = 1 << 20
"""Numbers drawn at once, in float64."""


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

    def draw_segments(self) -> Iterator[tuple[str, Tensor]]:
        """Draw anew what the seed gives: the name of each parameter of segments, with its numbers; see `draw_segments`.

        The model may lie on the meta device.
        """
        for prefix, module in self.named_modules():
            if module is not self and isinstance(module, DendriteModel):
                yield from ((f"{prefix}.{name}", segments) for name, segments in module.draw_segments())

    @classmethod
    def to_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a state without the segments that the seed gives, bit for bit."""
        left = dict(state)
        for name, segments in cls._drawn(config, state):
            held = state[name].detach().cpu().contiguous()
            if held.dtype == segments.dtype and torch.equal(held.view(torch.uint8), segments.view(torch.uint8)):
                del left[name]
        return left

    @classmethod
    def from_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole state: segments that the file leaves out are drawn again."""
        return {**dict(cls._drawn(config, state)), **state}

    @classmethod
    def _drawn(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        if config.get("segment_seed") is not None:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                model = cls(**config)
            yield from model._drawn_for(state)

    def _drawn_for(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """What the seed gives, in the precision of the layer's weights, and zero where masked."""
        for name, segments in self.draw_segments():
            layer = name.removesuffix(".segments")
            weight, mask = state.get(f"{layer}.weight"), state.get(f"{layer}.segment_mask")
            segments = segments if weight is None else segments.to(weight.dtype)
            if mask is not None and mask.dtype == torch.bool and mask.shape == segments.shape:
                segments.masked_fill_(~mask.cpu(), 0.0)
            yield name, segments
