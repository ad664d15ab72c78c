"""XdG: a fixed share of units off for each task, and no gradient to what is off."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from dendrite_zoo import load
from dendrite_zoo.callbacks import SynapticIntelligence
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models.xdg import XdGClassifier
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.streams import PermutedTasks


def make(**kwargs):
    torch.manual_seed(0)
    return XdGClassifier(64, [40, 30], 10, **{"max_tasks": 4, **kwargs})


def test_agrees_with_a_naive_loop():
    model, x, tasks = make(), torch.randn(3, 64), [2, 0, 3]
    rows = []
    for row, task in zip(x, tasks, strict=True):
        for layer, gate in zip(model.hidden, model.gates, strict=True):
            row = torch.stack(
                [(layer.weight[u] @ row + layer.bias[u]).clamp(min=0) * int(gate[task, u]) for u in range(len(gate[0]))]
            )
        rows.append(model.output(row))
    expected = torch.stack(rows)
    torch.testing.assert_close(model(x, task=torch.tensor(tasks)), expected)
    torch.testing.assert_close(model(x[:1], task=2), expected[:1])


def test_gates_are_drawn_once_for_each_task_and_layer():
    model = make()
    assert [gate.sum(1).tolist() for gate in model.gates] == [[8] * 4, [6] * 4]
    assert len({tuple(row.tolist()) for row in model.gates[0]}) == 4
    assert all(gate.all() for gate in make(gate_fraction=0.0).gates)


def test_units_that_are_off_get_no_gradient():
    model = make()
    model(torch.randn(5, 64), task=1).sum().backward()
    for layer, gate in zip(model.hidden, model.gates, strict=True):
        assert layer.weight.grad[~gate[1]].eq(0).all()


def test_gradients_are_those_of_a_dense_network_behind_gates_and_hold_only_what_is_on():
    model, (x, y) = make(), (torch.randn(16, 64), torch.randint(10, (16,)))
    layers = [*model.hidden, model.output]
    dense = nn.ModuleList(nn.Linear(layer.in_features, layer.out_features) for layer in layers)
    for layer, twin in zip(layers, dense, strict=True):
        twin.load_state_dict(layer.state_dict())
    optimizer = DendriteAdam(model.parameters())
    nn.functional.cross_entropy(model(x, task=1), y).backward()
    hidden = x
    for layer, gate in zip(dense, model.gates, strict=False):
        hidden = layer(hidden).relu() * gate[1]
    nn.functional.cross_entropy(dense[-1](hidden), y).backward()
    for layer, twin in zip(layers, dense, strict=True):
        torch.testing.assert_close(layer.weight.grad.to_dense(), twin.weight.grad)
        torch.testing.assert_close(layer.bias.grad.to_dense(), twin.bias.grad)
    assert [layer.weight.grad._values().numel() for layer in model.hidden] == [8 * 64, 6 * 8]
    optimizer.step()


def test_who_watches_an_activation_sees_all_units():
    model, seen = make(), []
    model.activations[0].register_forward_hook(lambda module, args, output: seen.append(output))
    model(torch.randn(5, 64), task=1)
    assert seen[0].shape == (5, 40) and seen[0][:, ~model.gates[0][1]].eq(0).all()
    tasks = torch.tensor([1, 0, 1, 1, 0])  # in groups of two sizes
    model(torch.randn(5, 64), task=tasks)
    assert seen[1].shape == (5, 40) and seen[1][~model.gates[0][tasks]].eq(0).all()


def test_learns_where_the_task_is_given_and_is_loaded_again(tmp_path):
    model = make(gate_fraction=0.5)
    stream = PermutedTasks("digits", 2, epochs_per_task=5, batch_size=64)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(
        **stream.trainer_kwargs(), **quiet, enable_model_summary=False, callbacks=[SynapticIntelligence(0.1)]
    )
    module = ContinualClassifier(model, lr=5e-3, reset_optimizer=False, context_at_test="given")
    trainer.fit(module, stream)
    assert all(trainer.callback_metrics[f"val/task_{j}/acc"] > 0.8 for j in range(2)) and model.num_tasks == 2
    model.eval().save_pretrained(tmp_path)
    again, x = load(tmp_path), torch.randn(3, 64)
    assert isinstance(again, XdGClassifier) and torch.equal(again(x, task=1), model(x, task=1))


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"Expected `gate_fraction` to be a share in \[0, 1\), such as 0.8, but got 1.0"
    ):
        make(gate_fraction=1.0)
    with pytest.raises(
        ValueError,
        match="Expected `gate_fraction` to be smaller, for it turns all 40 units of a layer off, but got 0.99",
    ):
        make(gate_fraction=0.99)
    with pytest.raises(ValueError, match="each of the 3 rows, or one for all, but got 2"):
        make()(torch.zeros(3, 64), task=torch.tensor([0, 1]))
    assert make()(torch.zeros(0, 64), task=torch.zeros(0).long()).shape == (0, 10)
    with pytest.raises(ValueError, match="Expected `hidden_features` to be the units of at least one hidden layer"):
        XdGClassifier(64, [], 10, max_tasks=1)
    with pytest.raises(ValueError, match="Expected `max_tasks` to be an integer of at least 1, but got 0"):
        make(max_tasks=0)
    with pytest.raises(ValueError, match=r"Call model\(x, task=...\)"):
        make()(torch.zeros(2, 64))
    with pytest.raises(ValueError, match="Expected a task to be from 0 to 3"):
        make()(torch.zeros(2, 64), task=4)
