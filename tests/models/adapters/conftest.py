"""Heads and contexts of fewer random features, whose solution would take most of the time of a test."""

import pytest

from tests.models.adapters.networks import set_few_random_features


@pytest.fixture
def all_random_features() -> None:
    """For a test of how many there are."""


@pytest.fixture(autouse=True)
def few_random_features(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "all_random_features" not in request.fixturenames:
        set_few_random_features(monkeypatch.setattr)
