"""Fixed local features of images: how strongly patches of an image are like those that were seen first."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo._core.rng import random_state
from dendrite_zoo._core.torch import full_precision, runs_eagerly
from dendrite_zoo.layers.random_features import FixedFeatures

__all__ = ["PatchFeatures"]

SIDE = 32  # of the largest images whose pixels are taken as they are
GRID = 4  # places along a side, in each of which responses are averaged
PER_FILTER = 2 * GRID * GRID  # features
PATCHES, NUMBERS = 40_000, 1 << 24  # by which filters are whitened; of the images that they are taken from
NOISE = 0.1  # of the spread of all pixels: contrast below it counts as none
WHITENING = 0.1  # of the mean variance, added to that in each direction
THRESHOLD = 0.25  # standard deviations that a response must exceed


class PatchFeatures(FixedFeatures):
    r"""Responses of an image's patches to filters that are patches of the first images (Coates and Ng 2011).

    A patch :math:`p`, less its mean and over its contrast, meets each filter :math:`w` in whitened coordinates; with
    the threshold :math:`t`, :math:`\max(0, w^\top p - t)` and :math:`\max(0, -w^\top p - t)` are averaged over each of
    4 x 4 parts of the image; features are the square roots. Nothing is trained: filters are patches drawn, by the seed,
    from the first images that `start` sees.

    Args:
        image_shape: channels, height and width of an image. Images with a side above 32 are reduced to it.
        out_features: number of features, a multiple of 32: 32 for each filter.
        seed: of the choice of filters.

    Attributes:
        filters: ``(out_features / 32, C, P, P)``, ``P`` of 6 pixels, fewer for images below 20.

    Shape:
        x ``(B, ...)`` of as many pixels, to ``(B, out_features)``, float32.

    Raises:
        ValueError: an argument out of range; in the forward pass, images of another size.

    Example:
        >>> features, x = PatchFeatures((1, 12, 12), 64), torch.rand(30, 1, 12, 12)
        >>> batches = features.start([(x, torch.zeros(30))])
        >>> features(x).shape, features.filters.shape
        (torch.Size([30, 64]), torch.Size([2, 1, 4, 4]))
    """

    def __init__(self, image_shape: Sequence[int], out_features: int, *, seed: int = 0) -> None:
        for size in image_shape:
            check_integers(1, image_shape=size)
        if len(image_shape) != 3 or min(image_shape[1:]) < 4:
            raise wrong_argument("image_shape", "(channels, height, width), of 4 pixels or more", tuple(image_shape))
        check_integers(PER_FILTER, out_features=out_features)
        if out_features % PER_FILTER:
            raise wrong_argument("out_features", f"a multiple of {PER_FILTER}", out_features)
        super().__init__(out_features)
        self.image_shape, self.seed = tuple(image_shape), seed
        channels, *sides = self.image_shape
        largest = max(sides)
        height, width = (max(4, round(side * min(1.0, SIDE / largest))) for side in sides)
        self.size = height, width
        self.patch = min(6, max(3, round(0.3 * min(self.size))))
        self.filters = nn.Buffer(torch.zeros(out_features // PER_FILTER, channels, self.patch, self.patch))
        self.threshold = nn.Buffer(torch.zeros((), dtype=torch.float32))
        self.mean = nn.Buffer(torch.zeros((), dtype=torch.float32))
        self.noise = nn.Buffer(torch.zeros((), dtype=torch.float32))

    @property
    def is_set(self) -> bool:
        """Whether the features are set."""
        return bool(self.noise > 0)

    @property
    def typical(self) -> Tensor:
        """See `FixedFeatures`."""
        return (self.mean.square() + self.noise / NOISE**2).sqrt()

    def set_by(self, x: Tensor) -> None:
        """Draw the filters from images ``(N, ...)``."""
        x = x.unflatten(1, self.image_shape) if x.ndim == 2 else x.reshape(len(x), *self.image_shape)
        self.mean.copy_(x.mean())
        self.noise.copy_((NOISE * x.std(correction=0)).square().clamp(min=1e-12))
        x = self._resized(x[: max(1, NUMBERS // (x[0].numel() * self.patch**2))])
        generator = random_state(self.seed)
        patches = F.unfold(x, self.patch).transpose(1, 2).flatten(0, 1)
        patches = patches[torch.from_numpy(generator.permutation(len(patches))[:PATCHES])]
        patches = patches - patches.mean(1, keepdim=True)
        contrast = patches.square().mean(1) + self.noise.to(patches)
        patches = patches / contrast.sqrt()[:, None]
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        whitening = vectors * (values.clamp(min=0) + WHITENING * values.mean().clamp(min=1e-6)).rsqrt() @ vectors.T
        count = len(self.filters)
        drawn = torch.from_numpy(generator.standard_normal((count, patches.shape[1]))).to(patches)
        seen = (patches @ whitening)[contrast > 4 * self.noise.to(contrast)][:count]
        chosen = torch.cat([seen, drawn[len(seen) :]])  # random ones where there are too few patches with contrast
        weight = chosen / torch.linalg.vector_norm(chosen, dim=1, keepdim=True) @ whitening
        self.threshold.copy_(THRESHOLD * (patches @ weight.T).std())
        self.filters.copy_((weight - weight.mean(1, keepdim=True)).view_as(self.filters))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x``, which have no gradient."""
        if math.prod(x.shape[1:]) != math.prod(self.image_shape):
            raise wrong_argument("x", f"images of shape {self.image_shape}", tuple(x.shape))
        with full_precision(x.device):
            x = x.reshape(-1, *self.image_shape)
            if not runs_eagerly():  # a network that is exported takes any number of rows
                return self._responses(self._resized(x.float()))
            parts = x.split(self._rows_at_once(x.device))
            return torch.cat([self._responses(self._resized(part.float())) for part in parts])

    def _rows_at_once(self, device: torch.device) -> int:
        """So many that the maps of all filters stay in a processor's cache, or in the memory of another device."""
        numbers = len(self.filters) * math.prod(side - self.patch + 1 for side in self.size)
        return max(1, (1 << 20 if device.type == "cpu" else 1 << 26) // numbers)

    def _responses(self, x: Tensor) -> Tensor:
        x = x - self.mean
        mean, square = (F.avg_pool2d(part, self.patch, 1).mean(1, keepdim=True) for part in (x, x.square()))
        contrast = (square - mean.square()).clamp_(min=0) + self.noise
        response = F.conv2d(x, self.filters).mul_(contrast.rsqrt_())
        above = F.adaptive_avg_pool2d((response - self.threshold).relu_(), GRID)
        below = F.adaptive_avg_pool2d(response.neg_().sub_(self.threshold).relu_(), GRID)
        return torch.cat([above, below], 1).flatten(1).sqrt_()

    def _resized(self, x: Tensor) -> Tensor:
        return x if tuple(x.shape[2:]) == self.size else F.adaptive_avg_pool2d(x, self.size)
