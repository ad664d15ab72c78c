"""Habits of saying which task is trained on, and in what its quality is counted."""

import math
import re

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn
from torchmetrics import MeanAbsoluteError
from torchmetrics.text import Perplexity

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
    val_loaders,
)
from tests.strangers.witness import accuracy, check, matrix_by_hand, run, with_and_without

T = len(TASKS)
LAST = [EPOCHS - 1 + EPOCHS * j for j in range(T)]


@pipeline
def attribute_of_the_module(callbacks):
    """`self.current_task`, set when an epoch starts."""

    class Net(ByEpoch):
        current_task = 0

        def on_train_epoch_start(self):
            self.current_task = self.current_epoch // EPOCHS

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def property_of_the_module(callbacks):
    """`current_task` as a property."""

    class Net(ByEpoch):
        @property
        def current_task(self):
            return min(self.trainer.current_epoch // EPOCHS, T - 1)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def property_of_the_datamodule(callbacks):
    """The datamodule knows the epoch, and with it the task."""

    class Data(LightningDataModule):
        @property
        def current_task(self):
            return min(self.trainer.current_epoch // EPOCHS, T - 1)

        def train_dataloader(self):
            return train_loader(self.current_task)

        def val_dataloader(self):
            return val_loaders()

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Plain(), datamodule=Data())


@pipeline
def none_until_the_first_batch(callbacks):
    """`current_task = None` in `__init__`; the batch says which task it is of."""
    from torch.utils.data import DataLoader, TensorDataset

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.current_task = None

        def train_dataloader(self):
            task = min(self.trainer.current_epoch // EPOCHS, T - 1)
            x, y = TASKS[task][0].tensors
            return DataLoader(TensorDataset(x, y, torch.full_like(y, task)), batch_size=16, shuffle=True)

        def training_step(self, batch, batch_idx):
            x, y, task = batch
            self.current_task = int(task[0])
            return super().training_step((x, y), batch_idx)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def a_tensor_as_task(callbacks):
    """`current_task` is a buffer of the module: it is in the checkpoint so."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__()
            self.register_buffer("current_task", torch.tensor(0))

        def on_train_epoch_start(self):
            self.current_task.fill_(self.current_epoch // EPOCHS)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def counted_from_one(callbacks):
    """`current_task` is 1, 2, 3, as in CLArena; loader 0 is task 1."""

    class Net(ByEpoch):
        @property
        def current_task(self):
            return min(self.trainer.current_epoch // EPOCHS, T - 1) + 1

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def steps_instead_of_epochs(callbacks):
    """`max_steps`, validation every so many steps, the task by `global_step`, which counts a step before it ends."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            generator = torch.Generator().manual_seed(0)
            for step in range(1000):
                x, y = TASKS[min(step // 10, T - 1)][0].tensors
                pick = torch.randint(len(y), (16,), generator=generator)
                yield x[pick], y[pick]

    class Net(Plain):
        def train_dataloader(self):
            return torch.utils.data.DataLoader(Stream(), batch_size=None)

        def val_dataloader(self):
            return val_loaders()

    Trainer(max_steps=30, val_check_interval=5, check_val_every_n_epoch=None, callbacks=callbacks, **QUIET).fit(Net())


HABITS = [
    attribute_of_the_module,
    property_of_the_module,
    property_of_the_datamodule,
    none_until_the_first_batch,
    a_tensor_as_task,
]


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_current_task(habit, folder):
    log = ForgettingLogger("val/acc", pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)), logged=seen.witness.logged[-1])


def test_steps_instead_of_epochs(folder):
    log = ForgettingLogger("val/acc", task=lambda t: t.global_step // 10, pictures=False, verbose=False)
    seen = with_and_without(steps_instead_of_epochs, [log], folder / "habit")
    rows = [one for one in seen.fits() if one.step in (10, 20, 30)]
    check(log, matrix_by_hand(seen, rows), logged=seen.witness.logged[-1])


@pipeline
def loss_of_the_validation(callbacks):
    """The loss, in which less is more, and no accuracy at all."""

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log("val_loss", nn.functional.cross_entropy(self(x), y), batch_size=len(y))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def mean_absolute_error(callbacks):
    """Regression, one MeanAbsoluteError for all loaders."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 1)))
            self.mae = MeanAbsoluteError()

        def training_step(self, batch, batch_idx):
            x, y = batch
            return nn.functional.mse_loss(self(x).squeeze(1), y.float())

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.mae(self(x).squeeze(1), y.float())
            self.log("val/mae", self.mae)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


TEXTS = [torch.randint(10, (40, 9), generator=torch.Generator().manual_seed(j)).cumsum(1) % 11 for j in range(T)]


@pipeline
def perplexity_of_a_language_model(callbacks):
    """A small language model, torchmetrics' Perplexity, one object for all loaders."""
    from torch.utils.data import DataLoader

    class Net(Learner):
        def __init__(self):
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            super().__init__(nn.Sequential(nn.Embedding(11, 16), encoder, nn.Linear(16, 11)))
            self.perplexity = Perplexity()

        def train_dataloader(self):
            return DataLoader(TEXTS[min(self.current_epoch // EPOCHS, T - 1)][:20], batch_size=8)

        def val_dataloader(self):
            return [DataLoader(text[20:], batch_size=8) for text in TEXTS]

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.perplexity(self(batch[:, :-1]), batch[:, 1:])
            self.log("val/ppl", self.perplexity)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


def loss(module, task):
    x, y = TASKS[task][1].tensors
    return float(nn.functional.cross_entropy(module(x), y))


def absolute_error(module, task):
    x, y = TASKS[task][1].tensors
    return sum(abs(float(module(one[None])) - float(target)) for one, target in zip(x, y, strict=True)) / len(y)


def perplexity(module, task):
    text = TEXTS[task][20:]
    log_likelihood = module(text[:, :-1]).log_softmax(-1).gather(2, text[:, 1:, None])
    return math.exp(-float(log_likelihood.mean()))


LOWER_IS_BETTER = {
    loss_of_the_validation: ("val_loss", loss),
    mean_absolute_error: ("val/mae", absolute_error),
    perplexity_of_a_language_model: ("val/ppl", perplexity),
}


@pytest.mark.parametrize("habit", LOWER_IS_BETTER, ids=lambda habit: habit.__name__)
def test_lower_is_better(habit, folder):
    metric, value = LOWER_IS_BETTER[habit]
    log = ForgettingLogger(metric, epochs_per_task=EPOCHS, mode="min", pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(*LAST), value)
    torch.testing.assert_close(log.matrix.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    check(log, expected, mode="min", logged=seen.witness.logged[-1])


@pipeline
def accuracy_and_loss(callbacks):
    """Two metrics of one validation."""

    class Net(ByEpoch):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            logits = self(x)
            values = {"val_loss": nn.functional.cross_entropy(logits, y), "val_acc": (logits.argmax(1) == y).float()}
            self.log_dict({name: value.mean() for name, value in values.items()}, batch_size=len(y))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


def test_two_loggers(folder):
    quiet = {"epochs_per_task": EPOCHS, "pictures": False, "verbose": False}
    first = ForgettingLogger("val_acc", **quiet)
    second = ForgettingLogger("val_loss", mode="min", name="loss", **quiet)
    seen = with_and_without(accuracy_and_loss, [first, second], folder / "habit", names=["loss"])
    rows, logged = seen.at_epochs(*LAST), seen.witness.logged[-1]
    check(first, matrix_by_hand(seen, rows, accuracy), logged=logged)
    check(second, matrix_by_hand(seen, rows, loss), mode="min", name="loss/", logged=logged)


def test_tasks_counted_from_one_are_refused(folder):
    """Row 0 would stay empty, and the rest stand one row too low: the message says how to count."""
    log = ForgettingLogger("val/acc", pictures=False, verbose=False)
    with pytest.raises(ValueError, match="from 0"):
        run(counted_from_one, [log], folder / "habit")


def test_tasks_counted_from_one_with_the_cure(folder):
    log = ForgettingLogger("val/acc", task=lambda t: t.lightning_module.current_task - 1, pictures=False, verbose=False)
    seen = with_and_without(counted_from_one, [log], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)), logged=seen.witness.logged[-1])


@pytest.mark.parametrize("wrong", ["val_accuracy", "acc", "val/ac", "VAL_ACC"])
def test_a_wrong_name(wrong, folder):
    """The message is short, and names what the user's code logs, not what our callbacks do."""
    log = ForgettingLogger(wrong, epochs_per_task=EPOCHS, pictures=False, verbose=False)
    with pytest.raises(ValueError) as error:
        accuracy_and_loss([SparsityLogger(), log])
    message = str(error.value)
    assert len(message) < 500
    assert f"'{wrong}'" in message and "'val_acc'" in message and "'val_loss'" in message
    assert "sparsity" not in message and "train/loss" not in message


def test_the_name_that_a_logger_shows(folder):
    """`val_acc/dataloader_idx_0`, copied from a logger: the metric of all tasks is meant, or it is refused."""
    log = ForgettingLogger("val_acc/dataloader_idx_0", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    try:
        seen = run(accuracy_and_loss, [log], folder / "habit")
    except ValueError as error:
        assert "Pass 'val_acc'" in str(error)
    else:
        check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)))


def test_what_is_meant_is_what_works(folder):
    """A name that the message suggests does not lead into the next error."""

    with pytest.raises(ValueError) as error:
        accuracy_and_loss([ForgettingLogger("val_ac", epochs_per_task=EPOCHS, pictures=False, verbose=False)])
    (meant,) = re.findall(r"Did you mean '([^']*)'", str(error.value))
    log = ForgettingLogger(meant, epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(accuracy_and_loss, [log], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)))


def test_no_task_at_all(folder):
    """One error before training, with a remedy for Python and one for YAML."""
    with pytest.raises(ValueError, match="epochs_per_task") as error:
        accuracy_and_loss([ForgettingLogger("val_acc", pictures=False, verbose=False)])
    assert "task=" in str(error.value) and "epochs_per_task:" in str(error.value)
