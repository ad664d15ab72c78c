"""torchgeo's tasks as they are: one MetricCollection serves all validation loaders."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader
from torchgeo.trainers import ClassificationTask, RegressionTask, SemanticSegmentationTask

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.libraries.data import EPOCHS, TEST, Images, T, task_of
from tests.strangers.people import ONE_FIT, pipeline
from tests.strangers.witness import check, matrix_by_hand, with_and_without


class Samples(Images):
    """As torchgeo's data sets give them."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"image": x, "label": y, "mask": (x[0] > 0.7).long() + (x[1] > 0.7).long(), "target": x.mean()}


class Scenes(LightningDataModule):
    """Three regions, one after another."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def collate(self, samples):
        y = torch.stack([sample[self.key] for sample in samples])
        name = "label" if self.key == "target" else self.key
        return {"image": torch.stack([sample["image"] for sample in samples]), name: y}

    def train_dataloader(self):
        return DataLoader(Samples(task_of(self.trainer), "train"), 8, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self):
        return [DataLoader(Samples(j, "test"), 8, collate_fn=self.collate) for j in range(T)]


@pipeline
def torchgeo_classification(callbacks):
    """`ClassificationTask` on scenes of three regions."""
    task = ClassificationTask(model="test_convnext", in_channels=3, num_classes=3, lr=2e-3)
    task.monitor = "val_loss/dataloader_idx_0"
    Trainer(**ONE_FIT, callbacks=callbacks).fit(task, datamodule=Scenes("label"))


@pipeline
def torchgeo_segmentation(callbacks):
    """`SemanticSegmentationTask`, a U-Net; a Jaccard index is no mean of those of batches."""
    task = SemanticSegmentationTask(model="unet", backbone="resnet18", in_channels=3, num_classes=3, lr=1e-3)
    task.monitor = "val_loss/dataloader_idx_0"
    Trainer(**ONE_FIT, callbacks=callbacks).fit(task, datamodule=Scenes("mask"))


@pipeline
def torchgeo_regression(callbacks):
    """`RegressionTask`: the root of a mean of squares, lower is better."""
    task = RegressionTask(model="test_convnext", in_channels=3, num_outputs=1, lr=2e-3)
    task.monitor = "val_loss/dataloader_idx_0"
    Trainer(**ONE_FIT, callbacks=callbacks).fit(task, datamodule=Scenes("target"))


def batches(task):
    samples = [Samples(task, "test")[n] for n in range(TEST[task])]
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def overall_accuracy(module, task):
    data = batches(task)
    return float((module(data["image"]).argmax(1) == data["label"]).double().mean())


def jaccard(module, task):
    from sklearn.metrics import jaccard_score

    data = batches(task)
    predicted = module(data["image"]).argmax(1)
    return jaccard_score(data["mask"].flatten(), predicted.flatten(), average="micro")


def rmse(module, task):
    data = batches(task)
    return float((module(data["image"]).squeeze(1).double() - data["target"]).square().mean().sqrt())


CASES = {
    torchgeo_classification: ("val_OverallAccuracy", "max", overall_accuracy),
    torchgeo_segmentation: ("val_MulticlassJaccardIndex", "max", jaccard),
    torchgeo_regression: ("val_RMSE", "min", rmse),
}


@pytest.mark.parametrize("habit", CASES, ids=lambda habit: habit.__name__)
def test_torchgeo(habit, folder):
    metric, mode, value = CASES[habit]
    log = ForgettingLogger(metric, epochs_per_task=EPOCHS, mode=mode, pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(1, 3, 5), value)
    check(log, expected, mode=mode, logged=seen.witness.logged[-1])
