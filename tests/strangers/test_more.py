"""Habits that are rarer, and those of which no right matrix can be had: they are refused, or said."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset
from torchmetrics.classification import MulticlassAccuracy

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.people import (
    EPOCHS,
    ONE_FIT,
    QUIET,
    TASKS,
    ByEpoch,
    Learner,
    Plain,
    pipeline,
    train_loader,
    val_loader,
    val_loaders,
)
from tests.strangers.witness import check, matrix_by_hand, run, with_and_without

T = len(TASKS)
LAST = [EPOCHS - 1 + EPOCHS * j for j in range(T)]
SILENT = {"pictures": False, "verbose": False}


@pipeline
def logged_by_step_and_epoch(callbacks):
    """`on_step=True, on_epoch=True`: Lightning makes `val/acc_step` and `val/acc_epoch` of it."""

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log("val/acc", (self(x).argmax(1) == y).float().mean(), on_step=True, on_epoch=True)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def logged_by_a_callback(callbacks):
    """The step returns predictions; a callback of one's own, behind ours, counts and logs."""

    class Count(Callback):
        def on_validation_epoch_start(self, trainer, module):
            self.right, self.seen = [0] * T, [0] * T

        def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
            self.right[dataloader_idx] += int((outputs == batch[1]).sum())
            self.seen[dataloader_idx] += len(batch[1])

        def on_validation_epoch_end(self, trainer, module):
            for j in range(T):
                module.log(f"task_{j + 1}/acc", self.right[j] / self.seen[j])

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return self(batch[0]).argmax(1)

    Trainer(**ONE_FIT, callbacks=[*callbacks, Count()]).fit(Net())


@pipeline
def one_object_for_training_and_validation(callbacks):
    """One torchmetrics object for the training, too: when an epoch is validated, it holds the training's counts."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.acc = MulticlassAccuracy(3, average="micro")

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            self.acc(logits, y)
            self.log("train/acc", self.acc)
            return torch.nn.functional.cross_entropy(logits, y)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc(self(x), y)
            self.log("val/acc", self.acc)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def streams_to_validate(callbacks):
    """Validation data of unknown length: IterableDatasets, which make batches themselves."""

    class Stream(IterableDataset):
        def __init__(self, task):
            self.x, self.y = TASKS[task][1].tensors

        def __iter__(self):
            return zip(self.x.split(24), self.y.split(24), strict=True)

    class Net(ByEpoch):
        def val_dataloader(self):
            return [DataLoader(Stream(j), batch_size=None) for j in range(T)]

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def empty_until_the_task_is_seen(callbacks):
    """A loader for each task from the start, empty until its task was trained on."""

    class Net(ByEpoch):
        def val_dataloader(self):
            seen = min(self.trainer.current_epoch // EPOCHS, T - 1)
            return [DataLoader(Subset(TASKS[j][1], range(len(TASKS[j][1]) if j <= seen else 0)), 24) for j in range(T)]

    Trainer(**ONE_FIT, callbacks=callbacks, num_sanity_val_steps=0).fit(Net())


@pipeline
def a_learning_rate_is_found_first(callbacks):
    """Lightning's Tuner fits the model for some steps before the fit."""

    class Net(ByEpoch):
        lr = 1e-4

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    trainer, net = Trainer(**ONE_FIT, callbacks=callbacks), Net()
    Tuner(trainer).lr_find(net, num_training=8, update_attr=False)
    trainer.fit(net)


@pipeline
def interrupted_and_gone_on(callbacks):
    """An exception in the second task; the script catches it, and fits the rest from the last checkpoint."""

    class Net(ByEpoch):
        broken = False

        def on_train_batch_start(self, batch, batch_idx):
            if self.current_epoch == 3 and batch_idx == 1 and not Net.broken:
                Net.broken = True
                raise RuntimeError("the disk is full")

    options = {**ONE_FIT, "enable_checkpointing": True}
    try:
        Trainer(**options, callbacks=[*callbacks, ModelCheckpoint("kept", "{epoch}")]).fit(Net())
    except RuntimeError:
        last = ModelCheckpoint("kept again", "{epoch}")
        Trainer(**options, callbacks=[*callbacks, last]).fit(Net(), ckpt_path="kept/epoch=2.ckpt", weights_only=True)


HABITS = {
    logged_by_step_and_epoch: "val/acc",
    logged_by_a_callback: "task_{task:1}/acc",
    streams_to_validate: "val/acc",
    a_learning_rate_is_found_first: "val/acc",
    interrupted_and_gone_on: "val/acc",
}


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_habit(habit, folder):
    log = ForgettingLogger(HABITS[habit], epochs_per_task=EPOCHS, **SILENT)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)), logged=seen.witness.logged[-1])


def test_empty_until_the_task_is_seen(folder):
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, **SILENT)
    seen = with_and_without(empty_until_the_task_is_seen, [log, SparsityLogger()], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(*LAST), seen_only=True)
    check(log, expected, logged=seen.witness.logged[-1])


def test_one_object_for_training_and_validation(folder):
    """What is logged mixes training and validation; the matrix holds each loader's own, or the mixture is refused."""
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, **SILENT)
    try:
        seen = with_and_without(one_object_for_training_and_validation, [log], folder / "habit")
    except ValueError as error:
        assert "a metric of its own" in str(error)
    else:
        check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)))


@pipeline
def a_running_value_in_each_step(callbacks):
    """`self.acc.compute()` is logged in each step, and nobody resets the object: a mean of running means."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.acc = MulticlassAccuracy(3, average="micro")

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc.update(self(x), y)
            self.log("val/acc", self.acc.compute())

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


def test_a_running_value_is_not_silent(folder):
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, **SILENT)
    warns = ["`acc.compute()` is called in each step"]
    with_and_without(a_running_value_in_each_step, [log], folder / "habit", warns=warns)


@pipeline
def a_task_comes_again(callbacks):
    """Tasks 0, 1, 0, one fit each."""
    model = Plain()
    for task in (0, 1, 0):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET).fit(model, train_loader(task), val_loaders()[:2])


@pipeline
def in_another_order(callbacks):
    """Tasks 2, 0, 1: the order of a random permutation, as papers average over."""
    model = Plain()
    for task in (2, 0, 1):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET).fit(model, train_loader(task), val_loaders())


def saying(log):
    def callbacks(task):
        log.task = task
        return [log]

    return callbacks


def test_a_task_that_comes_again_is_not_silent(folder):
    log = ForgettingLogger("val/acc", **SILENT)
    try:
        seen = run(a_task_comes_again, saying(log), folder / "habit")
    except ValueError as error:
        assert "task 0" in str(error)
    else:
        assert any("Task 0 is trained on again" in text for text in seen.warnings)


def test_another_order_is_not_silent(folder):
    """Row i is "after task i": where tasks come in another order, that is no order in time."""
    log = ForgettingLogger("val/acc", **SILENT)
    try:
        seen = run(in_another_order, saying(log), folder / "habit")
    except ValueError as error:
        assert "task 2" in str(error)
    else:
        assert any("task" in text and "order" in text for text in seen.warnings), seen.warnings


def test_one_loader_of_all_tasks(folder):
    """One loader counts as the current task's: at most a diagonal, and no number that needs more."""

    class Net(ByEpoch):
        def val_dataloader(self):
            return DataLoader(ConcatDataset([test for _, test in TASKS]), batch_size=16)

    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, **SILENT)
    seen = run(lambda callbacks: Trainer(**ONE_FIT, callbacks=callbacks).fit(Net()), [log], folder / "habit")
    assert log.matrix[~torch.eye(T, dtype=torch.bool)].isnan().all()
    assert all(
        seen.witness.logged[-1][name].isnan() for name in ("forgetting", "average_accuracy", "backward_transfer")
    )


@pytest.mark.parametrize("current", ["mnist", 0.5, [1], -1])
def test_a_task_that_is_no_index(current, folder):
    class Net(ByEpoch):
        current_task = current

    with pytest.raises(ValueError, match="index from 0") as error:
        run(
            lambda given: Trainer(**ONE_FIT, callbacks=given).fit(Net()), [ForgettingLogger(**SILENT)], folder / "habit"
        )
    assert str(current) in str(error.value)


def test_logged_past_lightning(folder):
    """`self.logger.log_metrics`: Lightning knows nothing of it, and the message says what to call."""

    class Net(Learner):
        def train_dataloader(self):
            return train_loader(0)

        def val_dataloader(self):
            return [val_loader(j) for j in range(T)]

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.logger.log_metrics({f"val/acc/{dataloader_idx}": 0.5}, step=self.global_step)

    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, **SILENT)
    with pytest.raises(ValueError, match=r"self\.log\('val/acc'"):
        run(lambda callbacks: Trainer(**ONE_FIT, callbacks=callbacks).fit(Net()), [log], folder / "habit")
