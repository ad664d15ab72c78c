"""One small artifact of each format version, which must load and give the same for ever.

These files are never made anew: a change that breaks this test breaks everybody's published models, and needs a new
format version with a migration (`dendrite_zoo.hub.config.MIGRATIONS`).
"""

import json
from pathlib import Path

import pytest
import torch

import dendrite_zoo.models
from dendrite_zoo.hub.config import FORMAT_VERSION, MIGRATIONS

ARTIFACTS = Path(__file__).parent / "artifacts"


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_every_format_ever_written_still_loads(version):
    folder = ARTIFACTS / f"format-{version}"
    assert json.loads((folder / "config.json").read_text())["format_version"] == version
    expected = json.loads((folder / "expected.json").read_text())
    model = dendrite_zoo.models.load(folder)
    x = torch.tensor(expected["x"])
    assert model.num_tasks == expected["num_tasks"]
    torch.testing.assert_close(model(x), torch.tensor(expected["inferred"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(model(x, task=1), torch.tensor(expected["given"]), rtol=0, atol=1e-6)


def test_every_older_format_has_its_migration():
    assert sorted(MIGRATIONS) == list(range(1, FORMAT_VERSION))
