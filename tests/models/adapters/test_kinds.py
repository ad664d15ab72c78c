"""Backbones of special kinds, and what is folded as other tools take it."""

import warnings

import pytest
import torch
from torch import nn

import dendrite_zoo
from dendrite_zoo.hub.artifact import fingerprint
from dendrite_zoo.hub.publish import publish
from tests.models.adapters.networks import Convolutions, made, mlp
from tests.models.adapters.test_adapted import KINDS, LABELS, adapted


@pytest.mark.parametrize("kind", ["convolutions", "attention", "mlp"])
@pytest.mark.parametrize("head", ["ridge", "linear"])
def test_folded_it_is_exported_for_any_number_of_rows(kind, head):
    model, x = adapted(kind, head=head)
    model.start_task(0, [x])
    if head == "ridge":
        model.fit_head(0, [(x, LABELS)])
    folded = model.fold(0)
    program = torch.export.export(folded, (x[:4],), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    for rows in (x, x[:2]):
        torch.testing.assert_close(program.module()(rows), folded(rows), rtol=1e-4, atol=1e-4)


def test_whoever_publishes_is_not_asked_for_a_backbone(tmp_path, caplog):
    model, x = adapted("mlp")
    model.start_task(0, [x])
    model.save_pretrained(tmp_path / "model")
    assert publish(tmp_path / "model", "org/model", dry_run=True) is not None and not caplog.messages
    dendrite_zoo.load(tmp_path / "model")
    assert "which an artifact does not contain" in caplog.text


def quantised(network):
    """Its linear layers in 8 bits, as torch does that."""
    with warnings.catch_warnings(action="ignore"):  # what torch says of its own future
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)


def with_a_linear_layer(seed=0):
    return quantised(nn.Sequential(made(Convolutions, seed), nn.Linear(16, 8), nn.ReLU()))


def test_dendrites_on_a_network_whose_linear_layers_are_in_8_bits(tmp_path):
    x = KINDS["convolutions"][2]
    model = dendrite_zoo.add_dendrites(with_a_linear_layer(), layers=nn.Conv2d, num_classes=3, max_tasks=2)
    model.start_task(0, [x])
    model.fit_head(0, [(x, LABELS)])
    model.eval().save_pretrained(tmp_path / "model")
    again = dendrite_zoo.load(tmp_path / "model", backbone=with_a_linear_layer())
    assert torch.equal(again(x, task=0), model(x, task=0))
    with pytest.raises(ValueError, match="of other weights"):
        dendrite_zoo.load(tmp_path / "model", backbone=with_a_linear_layer(seed=1))


def test_weights_in_8_bits_are_told_from_others():
    torch.manual_seed(0)
    network, state = mlp(), quantised(mlp()).state_dict()
    assert fingerprint(state) == fingerprint(dict(state)) != fingerprint(quantised(network).state_dict())
    per_channel = torch.quantize_per_channel(torch.rand(2, 3), torch.rand(2), torch.zeros(2), 0, torch.qint8)
    assert len({fingerprint({"a": part}) for part in (per_channel, [per_channel, None], {"b": 1}, torch.qint8)}) == 4
