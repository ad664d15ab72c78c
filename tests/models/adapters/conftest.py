"""Heads and contexts of fewer random features, whose solution would take most of the time of a test."""

import pytest

from dendrite_zoo.models.adapters import context, head


@pytest.fixture
def all_random_features() -> None:
    """For a test of how many there are, or of one in which other processes have them."""


@pytest.fixture(autouse=True)
def few_random_features(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as suffice for a few dozen rows."""
    if "all_random_features" not in request.fixturenames:
        monkeypatch.setattr(head, "HIDDEN", 256)
        monkeypatch.setattr(head, "HIDDEN_OF_INPUTS", 512)
        monkeypatch.setattr(context, "LEAST", 256)
