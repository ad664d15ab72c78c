"""Libraries that bring LightningModules of their own: CLArena, lightly, torch-uncertainty, pytorch-forecasting."""

import functools

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning
import torch
from clarena.backbones import CLMLP
from clarena.cl_algorithms import LwF
from clarena.cl_datasets.base import CLDataset
from clarena.heads import HeadsTIL
from clarena.metrics import CLAccuracy
from lightly.utils.benchmarking import LinearClassifier
from lightning.pytorch import Trainer
from pytorch_forecasting import DecoderMLP, TimeSeriesDataSet
from pytorch_forecasting.metrics import MAE
from torch import nn
from torch_uncertainty.methods.mc_dropout import mc_dropout
from torch_uncertainty.routines import ClassificationRoutine
from torchvision.models import squeezenet1_1

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.libraries.data import EPOCHS, T, accuracy, train_loader, val_loader
from tests.strangers.people import QUIET, TASKS, pipeline
from tests.strangers.witness import check, matrix_by_hand, with_and_without


class Tables(CLDataset):
    """Three tasks for CLArena, counted from 1."""

    def prepare_data(self):
        pass

    def get_cl_class_map(self, task_id):
        return {0: 0, 1: 1, 2: 2}

    def train_and_val_dataset(self):
        return TASKS[self.task_id - 1]

    def test_dataset(self):
        return TASKS[self.task_id - 1][1]


def clarena(algorithm, callbacks):
    """CLArena's own loop: a Trainer for each task, fitted, then tested on all tasks seen."""
    data = Tables(root="", num_tasks=T, batch_size=16)
    data.set_cl_paradigm("TIL")
    model = algorithm(CLMLP(8, [24], 24), HeadsTIL(24))
    metrics = CLAccuracy(save_dir=".")
    for task_id in range(1, T + 1):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=[metrics, *callbacks(task_id - 1)], **QUIET)
        data.setup_task_id(task_id)
        optimizer = functools.partial(torch.optim.Adam, lr=0.03)
        model.setup_task_id(task_id, num_classes=3, optimizer=optimizer, lr_scheduler=None)
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)


@pipeline
def clarena_lwf(callbacks):
    """Learning without forgetting, of CLArena, with one line that logs what is tested."""

    class Logged(LwF):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            outputs = super().test_step(batch, batch_idx, dataloader_idx)
            name = f"task_{self.get_test_task_id_from_dataloader_idx(dataloader_idx)}/test/acc"
            self.log(name, outputs["acc"], batch_size=len(batch[1]), add_dataloader_idx=False)
            return outputs

    clarena(functools.partial(Logged, distillation_reg_temperature=2.0, distillation_reg_factor=1.0), callbacks)


def by_head(module, task):
    x, y = TASKS[task][1].tensors
    feature, _ = module.backbone(x, stage="test")
    return float((module.heads(feature, task + 1).argmax(1) == y).double().mean())


def saying(log, *others):
    def callbacks(task):
        log.task = task
        return [log, *others]

    return callbacks


def test_clarena(folder):
    log = ForgettingLogger("task_{task:1}/test/acc", pictures=False, verbose=False)
    seen = with_and_without(clarena_lwf, saying(log), folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits("test"), by_head, seen_only=True))
    theirs = pd.read_csv(folder / "habit" / "with" / "acc.csv").filter(like="test_on").to_numpy()
    assert np.isnan(theirs[np.triu_indices(T, 1)]).all(), "CLArena has the same triangle"


@pipeline
def lightly_linear_classifier(callbacks):
    """lightly's LinearClassifier, a module of `pytorch_lightning`, on a frozen network; no `dataloader_idx`."""
    backbone = squeezenet1_1()
    backbone.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = LinearClassifier(backbone, batch_size_per_device=8, feature_dim=512, num_classes=3, topk=(1, 2), lr=20.0)
    results = []
    for task in range(T):
        trainer = pytorch_lightning.Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET)
        trainer.fit(model, train_loader(task))
        for other in range(T):
            callbacks(other)
            results += trainer.validate(model, val_loader(other), verbose=False)
    return [one["val_top1"] for one in results]


@pipeline
def torch_uncertainty_routine(callbacks):
    """torch-uncertainty's ClassificationRoutine with MC dropout: ten passes a batch, metrics of its own."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    model = mc_dropout(net, num_estimators=4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    routine = ClassificationRoutine(
        model, 3, nn.CrossEntropyLoss(), is_ensemble=True, optim_recipe={"optimizer": optimizer}
    )
    for task in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), inference_mode=False, **QUIET)
        trainer.fit(routine, train_loader(task), val_loader(task))
        for other in range(T):
            callbacks(other)
            torch.manual_seed(0)
            trainer.validate(routine, val_loader(other), verbose=False)


def brier(module, task):
    """Of the mean over four masks, drawn as the validation drew them."""
    torch.manual_seed(0)
    squares, count = 0.0, 0
    for x, y in val_loader(task):
        probabilities = module(x).softmax(-1).unflatten(0, (4, len(x))).mean(0)
        squares += float((probabilities - nn.functional.one_hot(y, 3)).square().sum())
        count += len(y)
    return squares / count


def series(task):
    steps = np.arange(60)
    value = np.sin(steps / (3 + 2 * task)) * (1 + task) + 0.1 * np.random.default_rng(task).standard_normal(60)
    return pd.DataFrame({"time_idx": steps, "value": value, "series": "a"})


def windows(task, part):
    frame = series(task)
    frame = frame[frame.time_idx < 40] if part == "train" else frame[frame.time_idx >= 30].reset_index(drop=True)
    reals = {"time_varying_known_reals": ["time_idx"], "time_varying_unknown_reals": ["value"]}
    lengths = {"max_encoder_length": 8, "min_encoder_length": 8, "max_prediction_length": 3}
    return TimeSeriesDataSet(frame, "time_idx", "value", ["series"], target_normalizer=None, **lengths, **reals)


@pipeline
def pytorch_forecasting_mlp(callbacks):
    """pytorch-forecasting's DecoderMLP, forecasts of three series; `val_loss` without an index of the loader."""
    train = [windows(j, "train").to_dataloader(train=True, batch_size=8) for j in range(T)]
    held_out = [windows(j, "test").to_dataloader(train=False, batch_size=8) for j in range(T)]
    options = {"hidden_size": 16, "n_hidden_layers": 1, "learning_rate": 0.01, "log_interval": -1}
    model = DecoderMLP.from_dataset(windows(0, "train"), loss=MAE(), **options)
    for task in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET)
        trainer.fit(model, train[task], held_out[task])
        for other in range(T):
            callbacks(other)
            trainer.validate(model, held_out[other], verbose=False)


def absolute_error(module, task):
    total, count = 0.0, 0
    for x, (y, _) in windows(task, "test").to_dataloader(train=False, batch_size=1):
        total += float((module(x)["prediction"].squeeze(-1) - y).abs().sum())
        count += y.numel()
    return total / count


ALONE = {
    lightly_linear_classifier: ("val_top1", "max", accuracy),
    torch_uncertainty_routine: ("val/cls/Brier", "min", brier),
    pytorch_forecasting_mlp: ("val_loss", "min", absolute_error),
}


@pytest.mark.parametrize("habit", ALONE, ids=lambda habit: habit.__name__)
def test_one_loader_after_another(habit, folder):
    metric, mode, value = ALONE[habit]
    log = ForgettingLogger(metric, mode=mode, pictures=False, verbose=False)
    seen = with_and_without(habit, saying(log, SparsityLogger()), folder / "habit")
    expected = matrix_by_hand(seen, seen.fits("validate")[T - 1 :: T], value)
    check(log, expected, mode=mode)


@pipeline
def pytorch_lightning_by_its_other_name(callbacks):
    """`import pytorch_lightning as pl`, images, one fit a task, tested on what was seen."""

    class Net(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 3))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("test/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=5e-3)

    net = Net()
    for task in range(T):
        trainer = pytorch_lightning.Trainer(max_epochs=4, callbacks=callbacks(task), **QUIET)
        trainer.fit(net, train_loader(task))
        trainer.test(net, [val_loader(j) for j in range(task + 1)], verbose=False)


def test_pytorch_lightning(folder):
    log = ForgettingLogger("test/acc", pictures=False, verbose=False)
    seen = with_and_without(pytorch_lightning_by_its_other_name, saying(log), folder / "habit")
    check(log, matrix_by_hand(seen, seen.fits("test"), accuracy, seen_only=True))
