"""Tasks that count as learned, and are not known: a warning before anything is trained, and else none."""

import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks, TaskSequence, load_source
from tests.lightning_modules.quiet import QUIET, fit


def own_data(seed=0):
    """Pictures of four kinds, as bright as the digits are once normalised."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(80) % 4
    x = torch.randn(4, 64, generator=draws)[y] + 0.3 * torch.randn(80, 64, generator=draws)
    return x, y, x, y


def test_permutations_of_ones_own_data_are_not_what_a_model_knows():
    stream = PermutedTasks(own_data(), num_tasks=11, first_task=10)
    model = ActiveDendriteClassifier.from_pretrained("permuted-digits")
    with torch.no_grad():
        scores = [
            float((model(x).argmax(1) == y).double().mean())
            for x, y in (next(iter(stream.task_loader(task, "val"))) for task in range(10))
        ]
    expected = (
        rf"on tasks 0 to 9 of them the accuracy of ActiveDendriteClassifier before training is {min(scores):.2f} to "
        rf"{max(scores):.2f}, hardly better than chance \(0.25\).*TaskSequence\(\[PermutedTasks"
    )
    assert max(scores) < 0.4
    with pytest.warns(UserWarning, match=expected):
        fit(ContinualClassifier(model), stream, limit_train_batches=1)


def test_behind_the_stream_that_it_was_trained_on_they_are_and_the_columns_are_true():
    stream = TaskSequence([PermutedTasks("digits", num_tasks=10), own_data()], first_task=10)
    model = ActiveDendriteClassifier.from_pretrained("permuted-digits")
    trainer = fit(ContinualClassifier(model), stream, limit_train_batches=1)  # warnings are errors
    digits = PermutedTasks("digits", num_tasks=10)
    for task in (0, 9):
        x, y = (torch.cat(column) for column in zip(*digits.task_loader(task, "test"), strict=True))
        right = float((model.eval()(x).argmax(1) == y).double().mean())
        assert trainer.callback_metrics[f"val/task_{task}/acc"] == pytest.approx(right, abs=1e-6)
        assert right > 0.9


def test_some_of_them_and_a_network_without_contexts():
    digits = load_source("digits")
    x, y = digits.normalise(digits.x_train.float()), digits.y_train
    torch.manual_seed(0)
    network = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    stream = PermutedTasks("digits", num_tasks=4, first_task=3)  # it knows task 0 alone
    with pytest.warns(UserWarning, match="on tasks 1 to 2 of them the accuracy of Linear"):
        fit(ContinualClassifier(network), stream, limit_train_batches=1)


def test_training_is_the_same_with_and_without_it(monkeypatch):
    def run():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(ContinualClassifier(network), PermutedTasks("digits", num_tasks=3, first_task=2))
        return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])

    with_it = run()
    monkeypatch.setattr("dendrite_zoo.lightning_modules.continual.warn_of_chance", lambda module: None)
    assert run().equal(with_it)


def test_a_second_fit_of_which_nobody_says_the_task_says_so():
    x, y, *_ = own_data()
    loader = DataLoader(TensorDataset(x, y), batch_size=40)

    def again(module):
        Trainer(max_epochs=1, log_every_n_steps=1, **QUIET).fit(module, loader, loader)

    module = ContinualClassifier(ActiveDendriteClassifier(64, [16], 4, max_tasks=3))
    again(module)
    with pytest.warns(UserWarning, match=r"goes on with task 0, .* set `module.current_task = 1` before the fit"):
        again(module)
    module.current_task = 1
    again(module)  # warnings are errors
    assert module.model.num_tasks == 2
