"""Random features: what lies far from the first rows still counts, and correlated inputs are whitened."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.layers import RandomFeatures, RidgeHead
from dendrite_zoo.models import RidgeClassifier


def test_far_inputs_are_drawn_near_by_a_logarithm():
    features = RandomFeatures(2, 4)
    features.scale.fill_(1.0)
    z = features.standardise(torch.tensor([[9.0, -3.0], [11.0, -11.0], [1e9, -110.0]]))
    expected = [[9.0, -3.0], [10.6931, -10.6931], [10 + 20.7233, -10 - 4.6151]]  # 10 + log(1 + what is more than 10)
    torch.testing.assert_close(z, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [2, 3])
def test_classes_far_from_the_first_one_are_told_apart(size):
    torch.manual_seed(0)
    centers, y = 200 * torch.rand(8, size) - 100, torch.arange(800) % 8
    x, model = centers[y] + torch.randn(800, size), RidgeClassifier(size, 8, random_features=256)
    for label in range(8):  # the scale is that of the first, 1
        model.learn([(x[y == label], y[y == label])])
    nearest = torch.cdist(x, centers).argmin(1)
    assert (model(x).argmax(1) == nearest).float().mean() > 0.98


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 0.1, 1e3, 1e6])
def test_a_column_in_another_unit_says_as_much(unit):
    torch.manual_seed(0)
    y, scale = torch.arange(1000) % 2, torch.tensor([unit, 1.0, 1.0, 5.0, 5.0, 1.0])
    x = (torch.randn(1000, 6) + 4 * y[:, None] * (torch.arange(6) == 0)) * scale
    model = RidgeClassifier(6, 2, random_features=256)
    model.learn([(x[:500], y[:500])])
    assert (model(x[500:]).argmax(1) == y[500:]).float().mean() > 0.9


def test_what_varies_in_a_few_rows_or_by_rounding_is_not_made_large():
    torch.manual_seed(0)
    x = torch.randn(500, 5) * torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0])
    x[:3, 3], x[:, 4] = 0.1, 1e3 + 1e-4 * (torch.arange(500) % 2)  # which is the nearest number to some
    features = RandomFeatures(5, 8)
    features.set_by(x)
    assert (features.standardise(x)[:, 3:].abs() < 0.3).all()


@pytest.mark.parametrize("size", [20, 300])
def test_whitened_rows_vary_alike_in_all_directions(size):
    torch.manual_seed(0)
    mixing = torch.randn(size, size) * torch.logspace(0, -1, size)
    x = torch.randn(4096, size) @ mixing.T + 5
    ratios = []
    for whiten in (False, True):
        features = RandomFeatures(size, 8, whiten=whiten)
        features.set_by(x)
        z = features.standardise(x).double()
        assert abs(float(z.square().mean()) - 1) < 0.01
        values = torch.linalg.eigvalsh(torch.cov(z.T))
        ratios.append(float(values[-1] / values.median()))
    assert ratios[1] < 2 < 4 < ratios[0], ratios


def test_whitening_is_that_of_all_directions():
    """Against the eigenvectors of the covariance."""
    torch.manual_seed(0)
    x = torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    features = RandomFeatures(6, 8, whiten=True)
    features.set_by(x)
    variance = x.var(0, correction=0)
    z = (x - x.mean(0)) / (variance + variance.median()).sqrt()
    values, vectors = torch.linalg.eigh(z.T @ z / 500)
    expected = z @ vectors / (values + values.mean() * (0.01 + 0.1 * 6 / 500)).sqrt() @ vectors.T
    expected /= expected.square().mean().sqrt()
    torch.testing.assert_close(features.standardise(x), expected.float(), rtol=1e-4, atol=1e-4)


def test_rows_that_are_equal_or_few_are_no_trouble():
    for x in (torch.ones(5, 7), torch.randn(1, 7), torch.randn(3, 7)):
        features = RandomFeatures(7, 16, whiten=True)
        features.set_by(x)
        assert features(torch.randn(4, 7)).isfinite().all() and features.is_set


def test_more_features_than_memory_are_refused():
    with pytest.raises(
        ValueError, match=r"`in_features` to be at most \d+, for a machine with \d+ GB .* got 100000000"
    ):
        RidgeHead(10**8, 2)
