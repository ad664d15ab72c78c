"""One small artifact of each format version, which must load and give the same for ever.

These files are never made anew: a change that breaks this test breaks everybody's published models, and needs a new
format version with a migration (`dendrite_zoo.hub.migrations.MIGRATIONS`).
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import dendrite_zoo.models
from dendrite_zoo import add_dendrites
from dendrite_zoo.hub import artifact, build, full_config
from dendrite_zoo.hub.config import FORMAT_VERSION
from dendrite_zoo.hub.migrations import MIGRATIONS
from dendrite_zoo.models import ActiveDendriteClassifier, AdaptedBackbone

ARTIFACTS = Path(__file__).parent / "artifacts"


def plain_network():
    """That which the dendrites of an artifact were learned on."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).sub(5).remainder(7 - number).sub(2).view_as(parameter) / 4)
    return network


@pytest.mark.parametrize("folder", sorted(ARTIFACTS.iterdir()), ids=lambda folder: folder.name)
def test_every_format_ever_written_still_loads(folder):
    version = json.loads((folder / "config.json").read_text())["format_version"]
    assert folder.name.startswith(f"format-{version}")
    expected = json.loads((folder / "expected.json").read_text())
    backbone = plain_network() if folder.name.endswith("-backbone") else None
    near = {"rtol": 0, "atol": 1e-6} if backbone is None else {"rtol": 1e-3, "atol": 1e-3}  # of logits of ten and more
    model = dendrite_zoo.models.load(folder, backbone=backbone)
    x = torch.tensor(expected["x"])
    assert model.num_tasks == expected["num_tasks"]
    torch.testing.assert_close(model(x), torch.tensor(expected["inferred"]), **near)
    torch.testing.assert_close(model(x, task=1), torch.tensor(expected["given"]), **near)
    if "segments" in expected:  # drawn again from their seed, to the bit
        segments = {name: tensor for name, tensor in model.state_dict().items() if name.endswith("segments")}
        assert artifact.fingerprint(segments) == expected["segments"]
        assert not set(segments) & set(artifact.read_weights(folder / artifact.WEIGHTS)[0])


def test_a_backbone_of_format_4_has_as_many_random_features_as_then(tmp_path):
    size, small = 40, {"layers": {"0": 4}, "stages": {"": [40, 1, 0]}, "num_classes": 2, "max_tasks": 2}
    old = AdaptedBackbone(**small, head=None, backbone_sha256="0" * 64)
    assert old.context.inner.features.out_features == 1024
    config = {key: value for key, value in full_config(old).items() if key != "context_features"}
    assert build({**config, "format_version": 4}).config == old.config
    with pytest.raises(ValueError, match="context_features"):
        build(config)
    network = nn.Sequential(nn.Linear(3, 4 * size), nn.ReLU())
    new = add_dendrites(network, layers="0", num_classes=2, max_tasks=2, head=None)
    assert new.context.inner.features.out_features == new.config["context_features"] == 16 * 4 * size


def test_every_format_has_its_artifact():
    found = {int(folder.name.split("-")[1]) for folder in ARTIFACTS.iterdir()}
    assert found == set(range(1, FORMAT_VERSION + 1))


def test_every_older_format_has_its_migration():
    assert sorted(MIGRATIONS) == list(range(1, FORMAT_VERSION))


OLD = {"library_name": "dendrite-zoo", "library_version": "0.1.0", "format_version": 1}
SIZES = {"in_features": 4, "hidden_features": [20]}


@pytest.mark.parametrize(
    ("model_type", "given", "meant"),
    [
        (
            "active-dendrite-classifier",
            {**SIZES, "num_classes": 2, "max_tasks": 3, "modulated": [0]},
            {"dendrite_layers": [0], "activation_density": 0.05, "winners": "activation", "context": "prototype"},
        ),
        (
            "active-dendrite-mlp",
            {**SIZES, "out_features": 2, "context_dim": 3, "num_segments": 2},
            {"context_density": 0.1, "weight_density": 0.5, "dendrite_layers": None},
        ),
        (
            "active-dendrite-policy",
            {"tasks": ["reach-v3"], "hidden_features": [8, 8]},
            {"observation_size": 39, "weight_density": 0.9, "log_std_range": [-20.0, 2.0], "dendrite_layers": [1]},
        ),
        ("twin-critic", {"tasks": ["reach-v3"], "hidden_features": [8, 8]}, {"activation_density": 0.25}),
        ("xdg-classifier", {**SIZES, "num_classes": 2, "max_tasks": 3, "gated": 0.5}, {"gate_fraction": 0.5}),
        ("xdg-classifier", {**SIZES, "num_classes": 2, "max_tasks": 3}, {"gate_fraction": 0.8}),
    ],
)
def test_what_a_config_of_format_1_left_out_or_named_otherwise(model_type, given, meant):
    """The values of version 0.1.0, by hand: they are what such a config means, whatever a class's defaults become."""
    model = build({**OLD, "model_type": model_type, **given})
    assert model.config.items() >= meant.items()
    again = build(full_config(model))
    assert again.config == model.config


def test_segments_of_format_1_stay_those_of_the_file(tmp_path):
    """They were drawn by another generator, so no seed gives them: both formats hold the numbers themselves."""
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(4, [40, 40], 2, max_tasks=2, num_segments=3, winners="context")
    for name, parameter in model.named_parameters():
        if name.endswith(".segments"):
            parameter.data.normal_()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = {k: v for k, v in model.config.items() if k not in ("segment_seed", "input_density", "context_density")}
    config = OLD | {"model_type": model.model_type} | config
    (tmp_path / "config.json").write_text(json.dumps(config))
    marks = {"fingerprint": artifact.fingerprint(state)}
    save_file(state, tmp_path / "model.safetensors", {"dendrite-zoo": json.dumps(marks)})
    first = dendrite_zoo.models.load(tmp_path)
    first.save_pretrained(tmp_path / "again", results=[{"method": "ours"}])
    second = dendrite_zoo.models.load(tmp_path / "again")
    for name, tensor in state.items():
        assert torch.equal(first.state_dict()[name], tensor) and torch.equal(second.state_dict()[name], tensor)
    second.save_pretrained(tmp_path / "more")
    assert dendrite_zoo.models.load(tmp_path / "more").results, "the same model, and so its results"
