"""Local features: the same as patch by patch, whatever the size of images."""

from __future__ import annotations

import copy

import pytest
import torch

from dendrite_zoo.layers import PatchFeatures


def made(shape, features=64, rows=40, seed=0):
    torch.manual_seed(seed)
    layer, x = PatchFeatures(shape, features), torch.rand(rows, *shape) * 3 + 1
    list(layer.start([(part, part) for part in x.split(16)]))
    return layer, x


@pytest.mark.parametrize("shape", [(1, 10, 13), (3, 12, 12)])
def test_responses_are_those_of_each_patch(shape):
    layer, x = made(shape)
    size, (_, height, width) = layer.patch, shape
    maps = torch.zeros(len(layer.filters) * 2, height - size + 1, width - size + 1)
    for i in range(maps.shape[1]):
        for j in range(maps.shape[2]):
            patch = x[7, :, i : i + size, j : j + size].flatten()
            patch = (patch - patch.mean()) / (patch.var(correction=0) + layer.noise).sqrt()
            answer = layer.filters.flatten(1) @ patch
            maps[:, i, j] = torch.cat([answer - layer.threshold, -answer - layer.threshold]).relu()
    pooled = torch.nn.AdaptiveAvgPool2d(4)(maps).flatten().sqrt()
    torch.testing.assert_close(layer(x)[7], pooled, rtol=1e-4, atol=1e-4)


def test_filters_are_whitened_patches_of_the_first_images_and_stay():
    layer, x = made((1, 10, 10), features=32 * 5)
    patches = torch.nn.functional.unfold(x, layer.patch).transpose(1, 2).flatten(0, 1)
    patches = patches - patches.mean(1, keepdim=True)
    response = patches / (patches.square().mean(1, keepdim=True) + layer.noise).sqrt() @ layer.filters.flatten(1).T
    torch.testing.assert_close(layer.threshold, 0.25 * response.std(), rtol=0.02, atol=0)
    before = copy.deepcopy(layer.state_dict())
    list(layer.start([(torch.zeros(4, 1, 10, 10), torch.zeros(4))]))
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 105, 105), (1, 20, 60), (4, 32, 32)])
def test_images_of_any_size_flat_or_not(shape):
    layer, x = made(shape, features=32, rows=6)
    assert layer(x).shape == (6, 32) and layer(x).isfinite().all()
    assert torch.equal(layer(x.flatten(1)), layer(x)) and layer(x[:0]).shape == (0, 32)
    assert layer.filters.shape[-1] <= 6


def test_images_without_contrast_have_filters_too():
    layer = PatchFeatures((1, 8, 8), 32)
    list(layer.start([(torch.ones(5, 64), torch.zeros(5))]))
    assert layer.is_set and layer(torch.rand(3, 64)).isfinite().all() and layer(torch.ones(3, 64)).eq(0).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Expected `out_features` to be a multiple of 32, but got 100"):
        PatchFeatures((1, 8, 8), 100)
    with pytest.raises(ValueError, match=r"Expected `image_shape` to be \(channels, height, width\), of 4 pixels"):
        PatchFeatures((1, 3, 8), 32)
    with pytest.raises(ValueError, match=r"Expected `x` to be images of shape \(1, 8, 8\), but got \(2, 63\)"):
        PatchFeatures((1, 8, 8), 32)(torch.rand(2, 63))
