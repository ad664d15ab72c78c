"""Ways in which people log and train, each against what the network knows, computed apart."""

import copy
import itertools
import json
import math

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SynapticIntelligence
from tests.callbacks.learners import TASKS, Learner, knows, of_validation, train_loader, val_loader
from tests.callbacks.strangers import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
NAN = math.nan
EPOCHS = 2


class Data(LightningDataModule):
    """Two epochs a task, a validation loader for each from the start."""

    def train_dataloader(self):
        return train_loader(self.trainer.current_epoch // EPOCHS)

    def val_dataloader(self):
        return [val_loader(j) for j in range(TASKS)]


class Rows(Learner):
    """Notes what it knows when each task ends."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def on_train_epoch_end(self):
        self.rows[self.trainer.current_epoch // EPOCHS] = self.knows()

    def knows(self):
        return knows(self)


def run(tmp_path, module, log, data=None, **kwargs):
    callbacks = log if isinstance(log, list) else [log]
    fit = trainer(tmp_path, callbacks, epochs=EPOCHS * TASKS, **kwargs)
    fit.fit(module, data or Data())
    return fit


def assert_rows(log, module, atol=1e-6):
    expected = torch.tensor([module.rows[i] for i in range(TASKS)], dtype=torch.float32)
    torch.testing.assert_close(log.matrix, expected, rtol=0, atol=atol, equal_nan=True)


def logger(metric="val/acc", **kwargs):
    return ForgettingLogger(metric, **{"epochs_per_task": EPOCHS, "verbose": False, "pictures": False, **kwargs})


@pytest.fixture(autouse=True)
def start():
    torch.manual_seed(0)


class ByNumber(Rows):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        value = (self.net(x).argmax(1) == y).float().mean()
        self.log(f"val_acc_{dataloader_idx}", value, add_dataloader_idx=False, batch_size=len(y))


class From1(Rows):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        value = (self.net(x).argmax(1) == y).float().mean()
        self.log(f"task_{dataloader_idx + 1}/val/acc", value, add_dataloader_idx=False, batch_size=len(y))


class From1WithIndex(Rows):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log(f"task_{dataloader_idx + 1}/val/acc", (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y))


class TrainedOnInName(Rows):
    """The task in the name is the one that is trained on, the loader's index the one that is measured."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        task = self.trainer.current_epoch // EPOCHS + 1
        self.log(f"task_{task}/val/acc", (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y))


class ByHand(Rows):
    """One loader of all tasks, the values logged at the end."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def on_validation_epoch_end(self):
        for j, value in enumerate(self.knows()):
            self.log(f"val/task_{j}/acc", value)


class AsFloats(Rows):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("val/acc", (self.net(x).argmax(1) == y).double().mean().item(), batch_size=len(y))


class OnStep(Rows):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        value = (self.net(x).argmax(1) == y).float().mean()
        self.log("val/acc", value, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(y))


class AsDict(Rows):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        value = (self.net(x).argmax(1) == y).float().mean()
        self.log_dict({"val/acc": value, "val/loss": nn.functional.cross_entropy(self.net(x), y)}, batch_size=len(y))


class Mean(Rows):
    """A MeanMetric for all loaders, of floats."""

    def __init__(self):
        super().__init__()
        self.mean = MeanMetric()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.mean.update((self.net(x).argmax(1) == y).float())
        self.log("val/acc", self.mean)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        (Rows, "val/acc"),
        (ByNumber, "val_acc_{task}"),
        (From1, "task_{task:1}/val/acc"),
        (From1WithIndex, "task_{task:1}/val/acc"),
        (TrainedOnInName, "task_{task:1}/val/acc"),
        (ByHand, "val/acc"),
        (ByHand, "val/task_{task}/acc"),
        (AsFloats, "val/acc"),
        (OnStep, "val/acc"),
        (OnStep, "val/acc_epoch"),
        (AsDict, "val/acc"),
        (Mean, "val/acc"),
    ],
)
def test_names_and_forms(tmp_path, kind, metric):
    module, log = kind(), logger(metric)
    run(tmp_path, module, log)
    assert_rows(log, module)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_sanity_val_steps": 2},
        {"num_sanity_val_steps": -1},
        {"val_check_interval": 0.5},
        {"val_check_interval": 8, "check_val_every_n_epoch": None},
        {"check_val_every_n_epoch": 2},
        {"inference_mode": False},
        {"max_steps": 24},
        {"accumulate_grad_batches": 2},
        {"reload_dataloaders_every_n_epochs": 2},
    ],
    ids=str,
)
def test_what_the_trainer_may_be_given(tmp_path, kwargs):
    module, log = Rows(), logger()
    run(tmp_path, module, log, **kwargs)
    assert_rows(log, module)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_other_precisions(tmp_path, precision, dtype):
    class Exact(Rows):
        def knows(self):
            with torch.no_grad():
                data = [of_validation(j)[:] for j in range(TASKS)]
                return [(self.net(x.to(dtype)).argmax(1) == y).double().mean().item() for x, y in data]

    module, log = Exact(), logger()
    run(tmp_path, module, log, precision=precision)
    assert_rows(log, module)
    assert log.matrix.dtype == torch.float32


def test_a_part_of_the_validation_data(tmp_path):
    class Part(Rows):
        def knows(self):
            with torch.no_grad():
                parts = [(x[:16], y[:16]) for x, y in (of_validation(j)[:] for j in range(TASKS))]
                return [(self.net(x).argmax(1) == y).double().mean().item() for x, y in parts]

    module, log = Part(), logger()
    run(tmp_path, module, log, limit_val_batches=1)
    assert_rows(log, module)
    assert log.record.samples == [16] * TASKS


class TwoOptimizers(Rows):
    """As GANs have: manual optimization, and ``global_step`` counts both."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self.net(x), y))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.5) for layer in (self.net[0], self.net[2])]


def test_several_optimizers(tmp_path):
    module, log = TwoOptimizers(), logger()
    run(tmp_path, module, log)
    assert_rows(log, module)


def test_a_run_that_is_resumed_by_last(tmp_path):
    module, log = Rows(), logger()
    last = ModelCheckpoint(tmp_path, save_last=True)
    first = trainer(tmp_path, [log, last], epochs=3, enable_checkpointing=True)
    first.fit(module, Data())
    resumed, again = Rows(), logger()
    resumed.rows = dict(module.rows)
    fit = trainer(tmp_path, [again, ModelCheckpoint(tmp_path, save_last=True)], epochs=6, enable_checkpointing=True)
    fit.fit(resumed, Data(), ckpt_path="last", weights_only=True)
    assert_rows(again, resumed)


class Finds(Rows):
    """Finds its task in the batch: None before the first."""

    current_task = None

    def training_step(self, batch, batch_idx):
        self.current_task = self.trainer.current_epoch // EPOCHS
        return super().training_step(batch, batch_idx)


def test_a_task_that_is_known_after_the_first_batch(tmp_path):
    module, log = Finds(), ForgettingLogger("val/acc", verbose=False, pictures=False)
    before = module.knows()
    fit = trainer(tmp_path, [log], epochs=EPOCHS * TASKS)
    fit.validate(module, Data(), verbose=False)
    fit.fit(module, Data())
    assert_rows(log, module)
    torch.testing.assert_close(log.baseline, torch.tensor(before), rtol=0, atol=1e-6, check_dtype=False)


def test_a_task_that_is_never_known(tmp_path):
    class Never(Rows):
        current_task = None

    with pytest.raises(ValueError, match=r"the `current_task` of Never is None after the first batch"):
        run(tmp_path, Never(), ForgettingLogger("val/acc", verbose=False))


@pytest.mark.parametrize("owner", ["attribute of the datamodule", "property of the module"])
def test_who_says_the_task(tmp_path, owner):
    class Says(Rows):
        @property
        def current_task(self):
            return self.trainer.current_epoch // EPOCHS

    class Counts(Data):
        current_task = 0

        def train_dataloader(self):
            self.current_task = self.trainer.current_epoch // EPOCHS
            return super().train_dataloader()

    by_module = owner == "property of the module"
    module, log = Says() if by_module else Rows(), ForgettingLogger("val/acc", verbose=False, pictures=False)
    run(tmp_path, module, log, Data() if by_module else Counts())
    assert_rows(log, module)


class OfLoss(Rows):
    def __init__(self):
        super().__init__()
        self.losses = {}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx, dataloader_idx)
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y), batch_size=len(y))

    def on_train_epoch_end(self):
        super().on_train_epoch_end()
        with torch.no_grad():
            data = [of_validation(j)[:] for j in range(TASKS)]
            values = [nn.functional.cross_entropy(self.net(x), y).item() for x, y in data]
        self.losses[self.trainer.current_epoch // EPOCHS] = values


def test_two_metrics_side_by_side_one_of_which_is_to_fall(tmp_path):
    module, log = OfLoss(), logger(pictures=True)
    loss = logger("val_loss", mode="min", name="loss", pictures=True)
    f1 = logger("val/acc", name="other", pictures=True)
    fit = run(tmp_path, module, [log, loss, f1])
    assert_rows(log, module)
    R = torch.tensor([module.losses[i] for i in range(TASKS)])
    torch.testing.assert_close(loss.matrix, R, rtol=0, atol=1e-5)
    values = {name: x.item() for name, x in fit.callback_metrics.items()}
    rose = (R[2, 0] - min(R[0, 0], R[1, 0]) + R[2, 1] - R[1, 1]) / 2
    assert rose > 0 and values["loss/forgetting"] == pytest.approx(rose.item(), abs=1e-5)
    assert values["loss/average_accuracy"] == pytest.approx(R[2].mean().item(), abs=1e-5)
    assert values["loss/backward_transfer"] == pytest.approx(
        (R[0, 0] - R[2, 0] + R[1, 1] - R[2, 1]).item() / 2, abs=1e-5
    )
    assert values["loss/forgetting/task_0"] == pytest.approx((R[2, 0] - min(R[0, 0], R[1, 0])).item(), abs=1e-5)
    assert values["forgetting"] == values["other/forgetting"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"matrix{x}.{y}" for x, y in itertools.product(["-loss", "-other", ""], ["json", "png"])]
    record = json.loads((tmp_path / "matrix-loss.json").read_text())
    assert record["mode"] == "min" and record["metrics"]["forgetting"]["value"] == pytest.approx(rose.item(), abs=1e-5)
    keys = {one.state_key for one in (log, loss, f1)}
    assert len(keys) == 3


def test_a_second_logger_without_a_name_has_its_metrics(tmp_path):
    module = OfLoss()
    logs = [logger(), logger("val_loss", mode="min")]
    fit = run(tmp_path, module, logs)
    assert fit.callback_metrics["forgetting"].item() != fit.callback_metrics["val_loss/forgetting"].item()
    assert (tmp_path / "matrix.json").exists() and (tmp_path / "matrix-val-loss.json").exists()


@pytest.mark.parametrize(("metric", "mode"), [("val_loss", "max"), ("val/perplexity", "max"), ("val/acc", "min")])
def test_a_mode_that_the_name_contradicts(metric, mode):
    with pytest.warns(UserWarning, match=rf"Expected `mode` to be .* the name of '{metric}' says .* Pass `mode="):
        ForgettingLogger(metric, mode=mode)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Expected `mode` to be one of 'max', 'min', but got 'mix'"):
        ForgettingLogger(mode="mix")
    with pytest.raises(ValueError, match="Expected `task` or `epochs_per_task`, but got both"):
        ForgettingLogger(task=lambda trainer: 0, epochs_per_task=3)
    with pytest.raises(ValueError, match="Expected `epochs_per_task` to be an integer of at least 1, but got 0"):
        ForgettingLogger(epochs_per_task=0)
    with pytest.raises(ValueError, match=r"import path of a function .* but got 'no.such.thing' \(No module"):
        ForgettingLogger(task="no.such.thing")
    with pytest.raises(ValueError, match="index from 0, but got -1"):
        ForgettingLogger().task = -1


class TestCountedFrom1:
    def test_names(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"count tasks from 0, but .* numbers \[1, 2, 3\]. Pass `metric='task_\{tas"
        ):
            run(tmp_path, From1(), logger("task_{task}/val/acc"))

    def test_names_of_the_form_that_is_looked_for(self, tmp_path):
        class Names(Rows):
            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                self.log(f"val/task_{dataloader_idx + 1}/acc", 0.5, add_dataloader_idx=False)

        with pytest.raises(ValueError, match=r"Pass `metric='val/task_\{task:1\}/acc'`"):
            run(tmp_path, Names(), logger())

    def test_the_name_of_one_loader(self, tmp_path):
        """As CLArena logs: the task that is trained on, counted from 1."""

        class Names(Rows):
            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                task = self.trainer.current_epoch // EPOCHS
                self.log(f"task_{task + 1}/learning_curve/val/acc", 0.1 * task)

        class One(Data):
            def val_dataloader(self):
                return val_loader(0)

        with pytest.raises(ValueError, match=r"task 0, which is trained on, .* numbers \[1\]"):
            run(tmp_path, Names(), logger("task_{task}/learning_curve/val/acc"), One())
        log = logger("task_{task:1}/learning_curve/val/acc")
        run(tmp_path, Names(), log, One())
        torch.testing.assert_close(log.matrix.diagonal(), torch.tensor([0.0, 0.1, 0.2]))

    def test_the_task(self, tmp_path):
        log = logger(task=lambda trainer: trainer.current_epoch // EPOCHS + 1, epochs_per_task=None)
        with (
            pytest.warns(UserWarning, match="training starts at task 1, .* Where your tasks count from 1, subtract 1"),
            pytest.raises(ValueError, match=r"but got 3, after training that started at task 1, as where tasks count"),
        ):
            run(tmp_path, Rows(), log)


class TestMessages:
    def test_beside_sparsity_logger_only_the_users_names(self, tmp_path):
        with pytest.raises(ValueError, match="Did you mean 'val/acc'") as caught:
            run(tmp_path, Rows(), [SparsityLogger(), logger("val/accu")])
        assert "sparsity" not in str(caught.value) and len(str(caught.value)) < 500

    def test_no_suggestion_leads_into_the_next_error(self, tmp_path):
        class Once(Rows):
            def on_validation_epoch_end(self):
                self.log("val/acc_all", 0.5)

        with pytest.raises(ValueError, match="Did you mean 'val/acc'"):
            run(tmp_path, Once(), logger("val/acc_al"))
        with pytest.raises(
            ValueError, match="'val/acc_all' for each task, but it was logged once for 3 validation load"
        ):
            run(tmp_path, Once(), logger("val/acc_all"))

    def test_loaders_whose_batches_come_together(self, tmp_path):
        class Together(Rows):
            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                self.log("val/acc", 0.5, batch_size=1)

        class Combined(Data):
            def val_dataloader(self):
                return CombinedLoader(super().val_dataloader(), "max_size")

        with pytest.raises(ValueError, match="logged once for 3 validation loaders.* `CombinedLoader` of batches"):
            run(tmp_path, Together(), logger(), Combined())

    def test_one_loader_after_another_in_a_combined_loader(self, tmp_path):
        class Combined(Data):
            def val_dataloader(self):
                return CombinedLoader(dict(zip("abc", super().val_dataloader(), strict=True)), "sequential")

        module, log = Rows(), logger()
        run(tmp_path, module, log, Combined())
        assert_rows(log, module)

    def test_a_name_that_may_be_the_tests(self, tmp_path):
        log = logger("f1")
        with pytest.warns(UserWarning, match=r"of 'f1' for each task, but only \['val/acc'\] were logged"):
            run(tmp_path, Rows(), log)


def test_pictures_are_drawn_when_a_fit_ends_or_on_request(tmp_path):
    module, log = Rows(), ForgettingLogger("val/acc", epochs_per_task=EPOCHS, verbose=False)
    fit = trainer(tmp_path, [log], epochs=EPOCHS)
    fit.validate(module, Data(), verbose=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.json"]
    figure = log.plot(tmp_path / "mine.png")
    assert "val/acc on 3 tasks" in figure.axes[0].get_title(loc="left") and (tmp_path / "mine.png").exists()
    fit.fit(module, Data())
    assert (tmp_path / "matrix.png").exists()
    run(tmp_path / "none", Rows(), logger(pictures=False))
    assert sorted(path.name for path in (tmp_path / "none").iterdir()) == ["matrix.json"]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_weights_and_random_numbers_are_the_same_to_the_bit(tmp_path, dropout):
    """With dropout, a random number that somebody else draws would show in the weights."""

    class Module(Rows):
        def __init__(self):
            super().__init__()
            self.net.insert(2, nn.Dropout(dropout))
            self.acc = MulticlassAccuracy(3, average="micro")

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc(self.net(x), y)
            self.log("val/acc", self.acc)

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.validation_step(batch, batch_idx, dataloader_idx)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    class Shuffled(Data):
        def train_dataloader(self):
            return DataLoader(super().train_dataloader().dataset, batch_size=10, shuffle=True)

    module = Module()
    twin = copy.deepcopy(module)
    results = []
    for one, callbacks in ((module, [logger(), logger("val/acc", name="two")]), (twin, [])):
        torch.manual_seed(3)
        fit = trainer(tmp_path, callbacks, epochs=EPOCHS * TASKS, num_sanity_val_steps=2)
        fit.validate(one, Shuffled(), verbose=False)
        fit.fit(one, Shuffled())
        fit.test(one, [val_loader(j) for j in range(TASKS)], verbose=False)
        logged = {k: v.item() for k, v in fit.callback_metrics.items() if "acc/" in k}
        results.append((one.state_dict(), fit.optimizers[0].state_dict()["state"], torch.get_rng_state(), logged))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_task_said_to_another_callback_alone(tmp_path):
    """SynapticIntelligence has it from the logger, whichever stands first."""
    module, si = Rows(), SynapticIntelligence(0.1)
    run(tmp_path, module, [si, logger()])
    assert sum(x.sum().item() for x in si.state_dict()["regularizer"]["importance"].values()) > 0
