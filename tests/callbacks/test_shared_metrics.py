"""One torchmetrics object for several loaders: each has its own value, and what the module logs stays as it is."""

import copy

import pytest
import torch
import torchmetrics
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassF1Score

from dendrite_zoo.callbacks import ForgettingLogger
from tests.callbacks.strangers import ReluNet, Tasks, loader, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
SIZES = [10, 7, 13]


def by_epoch(trainer):
    return trainer.current_epoch


class Data(Tasks):
    def val_dataloader(self):
        return [loader(seed=100 + j, samples=n) for j, n in enumerate(SIZES)]


class Shared(ReluNet):
    """``self.acc`` for all loaders, as most modules have it."""

    def __init__(self, metric=None):
        super().__init__()
        self.acc = metric or MulticlassAccuracy(3, average="micro")
        self.rows = []

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc(self.net(x), y)
        self.log("val/acc", self.acc)

    def predictions(self, j):
        with torch.no_grad():
            batches = [(self.net(x), y) for x, y in loader(seed=100 + j, samples=SIZES[j])]
        return torch.cat([p for p, _ in batches]), torch.cat([y for _, y in batches])

    def on_train_epoch_end(self):  # after the epoch's validation, of the same weights
        self.rows.append([self.truth(*self.predictions(j)) for j in range(3)])

    def truth(self, p, y):
        return accuracy_score(y, p.argmax(1))


class InCollection(Shared):
    """A child of a child, sharing its states in compute groups."""

    def __init__(self):
        metrics = {"val/acc": MulticlassAccuracy(3, average="micro"), "val/f1": MulticlassF1Score(3, average="macro")}
        super().__init__(nn.ModuleDict({"all": MetricCollection(metrics)}))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc["all"].update(self.net(x), y)
        self.log_dict(self.acc["all"])


class OfF1(InCollection):
    def truth(self, p, y):
        return f1_score(y, p.argmax(1), average="macro", zero_division=0)


class Called(InCollection):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc["all"](self.net(x), y)
        self.log_dict(self.acc["all"])


class Scores(Shared):
    """States that are lists, not sums."""

    def __init__(self):
        super().__init__(BinaryAUROC(thresholds=None))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc.update(self.net(x).softmax(1)[:, 0], (y == 0).long())
        self.log("val/acc", self.acc)

    def truth(self, p, y):
        return roc_auc_score(y == 0, p.softmax(1)[:, 0])


class OnStep(Shared):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc(self.net(x), y)
        self.log("val/acc", self.acc, on_step=True, on_epoch=True)


class OwnNames(Shared):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc.update(self.net(x), y)
        self.log(f"val/task_{dataloader_idx}/acc", self.acc, add_dataloader_idx=False)


class TrainingToo(Shared):
    """Validated within an epoch: the object holds its training batches, too."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.acc(logits, y)
        self.log("train/acc", self.acc)
        return nn.functional.cross_entropy(logits, y)


class ResetByHand(Shared):
    """The module resets it when a loader begins: what Lightning logs is right, and stays."""

    def on_validation_batch_start(self, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.acc.reset()


class Composed(Shared):
    def __init__(self):
        super().__init__()
        self.error = 1 - self.acc

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.error.update(self.net(x), y)
        self.log("val/acc", self.error)

    def truth(self, p, y):
        return 1 - super().truth(p, y)


class MadeLate(Shared):
    """The object is made when it is first needed."""

    def __init__(self):
        super().__init__()
        self.late = nn.ModuleDict()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        if "acc" not in self.late:
            self.late["acc"] = MulticlassAccuracy(3, average="micro")
        self.late["acc"].update(self.net(x), y)
        self.log("val/acc", self.late["acc"])


class OneEach(Shared):
    """As it should be."""

    def __init__(self):
        super().__init__(nn.ModuleList(MulticlassAccuracy(3, average="micro") for _ in SIZES))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc[dataloader_idx](self.net(x), y)
        self.log("val/acc", self.acc[dataloader_idx])


KINDS = [Shared, InCollection, Called, Scores, OnStep, OwnNames, TrainingToo, ResetByHand, Composed, MadeLate, OneEach]


def logged(fit):
    return {
        k: v.item() for k, v in fit.callback_metrics.items() if "acc" in k and "average" not in k and "learn" not in k
    }


@pytest.mark.parametrize("kind", KINDS)
def test_each_loaders_own_value(tmp_path, kind):
    torch.manual_seed(0)
    module = kind()
    twin = copy.deepcopy(module)
    log = ForgettingLogger("val/acc", by_epoch, verbose=False, pictures=False)
    fit = trainer(tmp_path, [log])
    torch.manual_seed(1)
    fit.fit(module, Data())
    after = torch.get_rng_state()
    torch.testing.assert_close(log.matrix, torch.tensor(module.rows, dtype=torch.float32), rtol=0, atol=1e-6)
    # without the logger: the same weights, random numbers and logged values, to the bit
    alone = trainer(tmp_path, [])
    torch.manual_seed(1)
    alone.fit(twin, Data())
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), twin.parameters(), strict=True))
    assert logged(fit) == logged(alone)
    if kind is Shared:
        assert logged(fit)["val/acc/dataloader_idx_2"] != pytest.approx(log.matrix[2, 2].item()), (
            "Lightning's is not it"
        )


def test_another_metric_of_a_collection(tmp_path):
    torch.manual_seed(0)
    module, log = OfF1(), ForgettingLogger("val/f1", by_epoch, verbose=False, pictures=False)
    trainer(tmp_path, [log]).fit(module, Data())
    torch.testing.assert_close(log.matrix, torch.tensor(module.rows, dtype=torch.float32), rtol=0, atol=1e-6)


def test_in_trainer_validate_too(tmp_path):
    torch.manual_seed(0)
    module, log = Shared(), ForgettingLogger("val/acc", by_epoch, verbose=False, pictures=False)
    trainer(tmp_path, [log]).validate(module, Data(), verbose=False)
    module.on_train_epoch_end()
    torch.testing.assert_close(log.baseline, torch.tensor(module.rows[0], dtype=torch.float32), rtol=0, atol=1e-6)


def test_in_trainer_test_too(tmp_path):
    class Tested(Shared):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.acc.update(self.net(batch[0]), batch[1])
            self.log("test/acc", self.acc)

    torch.manual_seed(0)
    module, log = Tested(), ForgettingLogger("test/acc", by_epoch, verbose=False, pictures=False)
    fit = trainer(tmp_path, [log])
    fit.test(module, Data().val_dataloader(), verbose=False)
    module.on_train_epoch_end()
    torch.testing.assert_close(log.baseline, torch.tensor(module.rows[0], dtype=torch.float32), rtol=0, atol=1e-6)


class Computed(Shared):
    """Logs a number, which rests on all that the object has seen."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc.update(self.net(x), y)
        self.log("val/acc", self.acc.compute())


class Total(Shared):
    """Logs numbers of its own for each loader, and the object's for all together."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.acc.update(self.net(x), y)
        self.log("val/acc", (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def on_validation_epoch_end(self):
        self.log("val/all", self.acc.compute())
        self.acc.reset()


def test_a_number_that_is_computed_in_each_step(tmp_path):
    log = ForgettingLogger("val/acc", by_epoch, verbose=False, pictures=False)
    with pytest.warns(UserWarning, match=r"`acc\.compute\(\)` is called in each step, .* log `self\.acc` itself"):
        trainer(tmp_path, [log]).fit(Computed(), Data())
    module, log = Total(), ForgettingLogger("val/acc", by_epoch, verbose=False, pictures=False)  # warnings are errors
    trainer(tmp_path, [log]).fit(module, Data())
    torch.testing.assert_close(log.matrix, torch.tensor(module.rows, dtype=torch.float32), rtol=0, atol=1e-6)


class Maximum(Shared):
    def __init__(self):
        super().__init__(torchmetrics.MaxMetric())

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.acc.update(self.net(batch[0]).max())
        self.log("val/acc", self.acc)


def test_states_that_cannot_be_told_apart(tmp_path):
    log = ForgettingLogger("val/acc", by_epoch, verbose=False)
    with pytest.raises(ValueError, match=r"'val/acc/dataloader_idx_1' is logged by one MaxMetric .*nn\.ModuleList"):
        trainer(tmp_path, [log]).fit(Maximum(), Data())
