"""Metrics that are logged by the names of tasks: which column is whose, computed by hand."""

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from dendrite_zoo.callbacks import ForgettingLogger
from tests.callbacks.strangers import ReluNet, loader, trainer

NAMES = ["usps", "mnist", "digits"]  # in the order of training
LOADERS = ["digits", "usps", "mnist"]  # in the order of validation
SAMPLES = {"usps": 7, "mnist": 10, "digits": 13}


class Named(ReluNet):
    """Validates by the names of tasks, with the mean of batches, or with one torchmetrics object for all."""

    def __init__(self, *, add_dataloader_idx, metric=None):
        super().__init__()
        self.options, self.metric, self.by_hand = {"add_dataloader_idx": add_dataloader_idx}, metric, []

    def on_validation_start(self):
        rows = {}
        for name in NAMES:
            x, y = loader(len(name), SAMPLES[name]).dataset.tensors
            rows[name] = (self.net(x).argmax(1) == y).float().mean().item()
        self.by_hand.append([rows[name] for name in NAMES])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        name = f"val/{LOADERS[dataloader_idx]}/acc"
        if self.metric is None:
            self.log(name, (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y), **self.options)
        else:
            self.metric.update(self.net(x), y)
            self.log(name, self.metric, **self.options)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("add_dataloader_idx", [False, True])
def test_the_matrix_is_in_the_order_of_training(tmp_path, add_dataloader_idx, shared):
    metric = MulticlassAccuracy(3, average="micro") if shared else None
    module = Named(add_dataloader_idx=add_dataloader_idx, metric=metric)
    log = ForgettingLogger("val/{task}/acc", task_names=NAMES, epochs_per_task=1, pictures=False)
    fit = trainer(tmp_path, [log], num_sanity_val_steps=0)
    fit.fit(module, loader(5, 40), [loader(len(name), SAMPLES[name]) for name in LOADERS])
    torch.testing.assert_close(log.matrix, torch.tensor(module.by_hand))
    known = [SAMPLES[name] for name in NAMES] if add_dataloader_idx else [None] * 3
    assert log.record.samples == known, "which loader a name is of is not always known"


def test_numbers_where_names_are_logged_are_refused_with_what_to_write(tmp_path):
    module = Named(add_dataloader_idx=False)
    fit = trainer(tmp_path, [ForgettingLogger("val/acc", epochs_per_task=1)], num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=r"ForgettingLogger\('val/{task}/acc', task_names=\['digits', 'usps', 'mnist'"):
        fit.fit(module, loader(5, 40), [loader(len(name), SAMPLES[name]) for name in LOADERS])
