"""The average of weights against a naive loop, and its exchange with the weights that are trained."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from dendrite_zoo.lightning_modules.weight_average import WeightAverage


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def values(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def moved(module, by):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn_like(parameter)


def after_updates(decays=(0.1, 0.5, 0.9)):
    torch.manual_seed(0)
    module = Module()
    average, expected = WeightAverage(module), values(module)
    for decay in decays:
        average.start()
        moved(module, 1.0)
        average.update(decay)
        expected = decay * expected + (1 - decay) * values(module)
    return module, average, expected


def test_it_begins_with_the_first_weights_and_follows_as_a_naive_loop_does():
    module, average, expected = after_updates()
    trained = values(module)
    with average.shown():
        torch.testing.assert_close(values(module), expected)
        with average.shown():
            torch.testing.assert_close(values(module), expected)
        assert average.is_shown, "the inner context leaves it where the outer one has put it"
    assert torch.equal(values(module), trained)
    average.show()
    average.on_exception(None, module, RuntimeError())
    assert torch.equal(values(module), trained)


def test_it_goes_on_after_it_was_shown_in_inference_mode():
    """As Lightning validates: a tensor made in that mode could not be updated outside."""
    module, average, expected = after_updates()
    with torch.inference_mode():
        average.show()
        average.show(False)
    moved(module, 1.0)
    average.update(0.5)
    expected = 0.5 * expected + 0.5 * values(module)
    average.show()
    torch.testing.assert_close(values(module), expected)


@pytest.mark.parametrize("shown", [True, False])
def test_a_checkpoint_is_the_same_whether_the_average_is_shown_or_not(shown):
    module, average, expected = after_updates()
    trained = values(module)
    average.show(shown)
    checkpoint = {"state_dict": module.state_dict()}
    average.save(checkpoint)
    in_state = torch.cat([checkpoint["state_dict"][name].flatten() for name, _ in module.named_parameters()])
    torch.testing.assert_close(in_state, expected)
    assert torch.equal(torch.cat([tensor.flatten() for tensor in checkpoint["trained"].values()]), trained)
    assert "net.1.running_mean" in checkpoint["state_dict"]

    again = Module()
    resumed = WeightAverage(again)
    weights = resumed.load(checkpoint)
    again.load_state_dict(checkpoint["state_dict"])
    resumed.reset(weights)
    assert torch.equal(values(again), trained)
    with resumed.shown():
        torch.testing.assert_close(values(again), expected)


def test_without_an_average_nothing_changes():
    module = Module()
    before, average = values(module), WeightAverage(module)
    checkpoint = {"state_dict": module.state_dict()}
    average.save(checkpoint)
    assert checkpoint["trained"] == {} and average.load(checkpoint) == {}
    with average.shown():
        assert torch.equal(values(module), before)
