"""Habits of logging: the ways in which a metric of several validation loaders is written."""

import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from torch import nn
from torchmetrics import Accuracy, MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.people import EPOCHS, ONE_FIT, TASKS, ByEpoch, pipeline, val_loaders
from tests.strangers.witness import check, matrix_by_hand, with_and_without


@pipeline
def tensor(callbacks):
    """`self.log("val/acc", tensor)`."""
    trainer = Trainer(**ONE_FIT, callbacks=callbacks)
    trainer.fit(ByEpoch())


@pipeline
def number(callbacks):
    """`self.log("val/acc", float, batch_size=...)`."""

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            right = (self(x).argmax(1) == y).sum().item()
            self.log("val/acc", right / len(y), batch_size=len(y), prog_bar=True)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def one_object_for_all_loaders(callbacks):
    """One torchmetrics object, called and logged in the step."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.acc = Accuracy(task="multiclass", num_classes=3)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc(self(x), y)
            self.log("val/acc", self.acc)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def one_object_updated(callbacks):
    """One torchmetrics object, `update` and `log(on_epoch=True)`, without values of a batch."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.acc = MulticlassAccuracy(3, average="micro")

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc.update(self(x), y)
            self.log("val/acc", self.acc, on_step=False, on_epoch=True)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def collection(callbacks):
    """A MetricCollection for all loaders, as torchgeo has it."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            macro = {"f1": MulticlassF1Score(3), "recall": MulticlassRecall(3), "precision": MulticlassPrecision(3)}
            self.val_metrics = MetricCollection({"acc": MulticlassAccuracy(3, average="micro"), **macro}, prefix="val_")

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.val_metrics(self(x), y)
            self.log_dict(self.val_metrics, batch_size=len(y))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def area_under_the_curve(callbacks):
    """One AUROC for all loaders: its state is a list of all predictions."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.auroc = MulticlassAUROC(3)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.auroc(self(x).softmax(1), y)
            self.log("val/auroc", self.auroc)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def metrics_in_a_dict_of_modules(callbacks):
    """`self.metrics["val"]`, logged by step and by epoch, and the same class for training."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            metrics = MetricCollection([Accuracy(task="multiclass", num_classes=3)])
            self.metrics = nn.ModuleDict({stage: metrics.clone(prefix=f"{stage}/") for stage in ("fit", "val")})

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            self.metrics["fit"](logits, y)
            self.log_dict(self.metrics["fit"], on_step=False, on_epoch=True)
            return nn.functional.cross_entropy(logits, y)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.metrics["val"](self(x), y)
            self.log_dict(self.metrics["val"], on_step=True, on_epoch=True)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def values_of_a_collection(callbacks):
    """`self.log_dict(self.metrics(logits, y))`: tensors of a batch, and the state is never read."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.val_metrics = MetricCollection({"acc": MulticlassAccuracy(3, average="micro")}, prefix="val_")

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log_dict(self.val_metrics(self(x), y), batch_size=len(y))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def one_metric_a_loader(callbacks):
    """A ModuleList with one metric for each loader."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.accs = nn.ModuleList(MulticlassAccuracy(3, average="micro") for _ in TASKS)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.accs[dataloader_idx](self(x), y)
            self.log("val_acc", self.accs[dataloader_idx])

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def loader_in_the_name(callbacks):
    """`self.log(f"val_acc_{dataloader_idx}", ..., add_dataloader_idx=False)`."""

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            value = (self(x).argmax(1) == y).float().mean()
            self.log(f"val_acc_{dataloader_idx}", value, add_dataloader_idx=False)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def loader_twice_in_the_name(callbacks):
    """`self.log(f"val_acc_{dataloader_idx}", ...)`: Lightning appends its own index, too."""

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log(f"val_acc_{dataloader_idx}", (self(x).argmax(1) == y).float().mean())

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def one_object_and_the_loader_in_the_name(callbacks):
    """One torchmetrics object logged under a name for each loader."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.acc = MulticlassAccuracy(3, average="micro")

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc(self(x), y)
            self.log(f"task_{dataloader_idx}/acc", self.acc, add_dataloader_idx=False)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def epoch_end_by_hand(callbacks):
    """Counts in the step, logs in `on_validation_epoch_end`."""

    class Net(ByEpoch):
        def on_validation_epoch_start(self):
            self.right, self.seen = [0] * len(TASKS), [0] * len(TASKS)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.right[dataloader_idx] += int((self(x).argmax(1) == y).sum())
            self.seen[dataloader_idx] += len(y)

        def on_validation_epoch_end(self):
            for j, (right, seen) in enumerate(zip(self.right, self.seen, strict=True)):
                if seen:
                    self.log(f"val/acc/task_{j + 1}", right / seen)
            self.log("val/acc", sum(self.right) / sum(self.seen))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def metric_objects_at_the_end_of_the_epoch(callbacks):
    """`compute` and `reset` by hand in `on_validation_epoch_end`."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.accs = nn.ModuleList(MulticlassAccuracy(3, average="micro") for _ in TASKS)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.accs[dataloader_idx].update(self(x), y)

        def on_validation_epoch_end(self):
            for j, acc in enumerate(self.accs):
                if acc.update_called:
                    self.log(f"val/task_{j}/acc", acc.compute(), prog_bar=True)
                acc.reset()

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def all_loaders_in_one_batch(callbacks):
    """A CombinedLoader: each validation batch holds one of every task."""
    from lightning.pytorch.utilities import CombinedLoader

    class Net(ByEpoch):
        def val_dataloader(self):
            return CombinedLoader(dict(enumerate(val_loaders())), mode="max_size")

        def validation_step(self, batch, batch_idx):
            for j, pair in batch.items():
                if pair is not None:
                    x, y = pair
                    self.log(f"val/task_{j}/acc", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def loaders_by_name(callbacks):
    """`val_dataloader` returns a dict."""

    class Net(ByEpoch):
        def val_dataloader(self):
            return {name: loader for name, loader in zip("abc", val_loaders(), strict=True)}

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def mean_metric_of_the_loss(callbacks):
    """One MeanMetric for the loss of all loaders; lower is better."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.loss = MeanMetric()

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.loss(nn.functional.cross_entropy(self(x), y, reduction="none"))
            self.log("val/loss", self.loss)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def batches_of_mixed_tasks(callbacks):
    """One validation loader whose batches are `(x, y, task)`."""
    from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

    class Net(ByEpoch):
        def val_dataloader(self):
            tasks = [TensorDataset(*d.tensors, torch.full((len(d),), j)) for j, (_, d) in enumerate(TASKS)]
            order = torch.randperm(sum(map(len, tasks)), generator=torch.Generator().manual_seed(0)).tolist()
            return DataLoader(ConcatDataset(tasks), batch_size=32, sampler=order)

        def validation_step(self, batch, batch_idx):
            x, y, task = batch
            right = (self(x).argmax(1) == y).float()
            for j in task.unique().tolist():
                self.log(f"acc/task{j}", right[task == j].mean(), batch_size=int((task == j).sum()))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


CASES = {
    tensor: "val/acc",
    number: "val/acc",
    one_object_for_all_loaders: "val/acc",
    one_object_updated: "val/acc",
    collection: "val_acc",
    values_of_a_collection: "val_acc",
    metrics_in_a_dict_of_modules: "val/MulticlassAccuracy",
    one_metric_a_loader: "val_acc",
    loader_in_the_name: "val_acc_{task}",
    loader_twice_in_the_name: "val_acc_{task}",
    one_object_and_the_loader_in_the_name: "task_{task}/acc",
    epoch_end_by_hand: "val/acc/task_{task:1}",
    metric_objects_at_the_end_of_the_epoch: "val/acc",
    all_loaders_in_one_batch: "val/acc",
    loaders_by_name: "val/acc",
    batches_of_mixed_tasks: "acc/task{task}",
}


@pytest.mark.parametrize("habit", CASES, ids=lambda habit: habit.__name__)
def test_habit(habit, folder):
    log = ForgettingLogger(CASES[habit], epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(1, 3, 5))
    check(log, expected, logged=seen.witness.logged[-1])


def macro(score):
    """A score of scikit-learn, averaged over classes: no mean of batches gives it."""

    def value(module, task):
        x, y = TASKS[task][1].tensors
        return score(y, module(x).argmax(1), average="macro", zero_division=0)

    return value


def auroc(module, task):
    x, y = TASKS[task][1].tensors
    return roc_auc_score(y, module(x).softmax(1), multi_class="ovr", average="macro")


OF_ALL_SAMPLES = {
    "val_f1": (collection, macro(f1_score)),
    "val_recall": (collection, macro(recall_score)),
    "val/auroc": (area_under_the_curve, auroc),
}


@pytest.mark.parametrize("metric", OF_ALL_SAMPLES)
def test_no_mean_of_batches(metric, folder):
    """Several loggers share a collection, whose metrics share their states."""
    habit, value = OF_ALL_SAMPLES[metric]
    log = ForgettingLogger(metric, epochs_per_task=EPOCHS, pictures=False, verbose=False)
    other = [ForgettingLogger("val_precision", epochs_per_task=EPOCHS, name="p", pictures=False, verbose=False)]
    seen = with_and_without(habit, [log, *(other if habit is collection else [])], folder / "habit", names=["p"])
    check(log, matrix_by_hand(seen, seen.at_epochs(1, 3, 5), value), logged=seen.witness.logged[-1])


def loss(module, task):
    x, y = TASKS[task][1].tensors
    return float(nn.functional.cross_entropy(module(x), y))


def test_mean_metric_of_the_loss(folder):
    log = ForgettingLogger("val/loss", epochs_per_task=EPOCHS, mode="min", pictures=False, verbose=False)
    seen = with_and_without(mean_metric_of_the_loss, [log], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(1, 3, 5), loss)
    check(log, expected, mode="min", logged=seen.witness.logged[-1])
