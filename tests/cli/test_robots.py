"""The dendrite-zoo command and robots."""

from __future__ import annotations

import sys

import pytest

from dendrite_zoo.cli.main import main


@pytest.fixture(autouse=True)
def lightnings_own(monkeypatch):
    """Lightning 2.6 calls what jsonargparse 4.53 deprecates."""
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


@pytest.mark.parametrize("recipe", ["metaworld-mt3", "metaworld-continual-5"])
def test_a_fit_without_metaworld_is_refused_before_it_leaves_anything(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", recipe])
    assert "pip install 'dendrite-zoo[metaworld]'" in str(end.value.code)
    assert not list(tmp_path.iterdir())
