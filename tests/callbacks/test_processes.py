"""Two processes (gloo, CPU) record and log what one process does."""

import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import nn
from torchmetrics.classification import MulticlassF1Score

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.callbacks.learners import TASKS, Learner, knows, train_loader, val_loader
from tests.callbacks.strangers import ReluNet, Tasks, trainer
from tests.processes import two_processes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*torch.distributed|.*Gloo|.*destroy_process_group"),
]


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class Frozen(ReluNet):
    """Does not learn, so the shares of the training data do not matter; with a function in a forward and a hinge."""

    def __init__(self):
        super().__init__()
        self.head = Head()

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.head(batch[0]).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx, dataloader_idx)
        F.relu(1 - self.head(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Unsynced(Frozen):
    """Logs what its own process measured, as many modules do."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("val/acc", (self.net(x).argmax(1) == y).float().mean(), batch_size=len(y))


class SharedMetric(Frozen):
    """One torchmetrics object for all loaders, which is summed over processes."""

    def __init__(self):
        super().__init__()
        self.f1 = MulticlassF1Score(3, average="macro")

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.f1(self.net(x), y)
        self.log("val/acc", self.f1)


class Dump(Callback):
    """Writes what the callbacks of this process hold."""

    def __init__(self, folder, world):
        self.folder, self.world = folder, world

    def on_fit_end(self, trainer, pl_module):
        log, sparsity = trainer.callbacks[:2]
        record = {
            "matrix": log.matrix.tolist(),
            "baseline": log.baseline.tolist(),
            "samples": log.record.samples,
            "figures": sparsity.values,
            "metrics": {k: v.item() for k, v in trainer.callback_metrics.items() if v == v},
        }
        (self.folder / f"{self.world}_{trainer.global_rank}.json").write_text(json.dumps(record))


def epoch(trainer):
    return trainer.current_epoch


def run(folder, world, module=Frozen, *, pictures=False):
    torch.manual_seed(0)
    module, data = module(), Tasks()
    folder.mkdir(exist_ok=True)
    log = ForgettingLogger(task=epoch, verbose=False, pictures=pictures)
    callbacks = [log, SparsityLogger(), Dump(folder, world)]
    processes = two_processes() if world > 1 else {}
    fit = trainer(folder / str(world), callbacks, epochs=2, **processes)
    fit.fit(module, data)
    return callbacks[:2]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    (alone, alone_sparsity), (parent, parent_sparsity) = run(tmp_path, 1), run(tmp_path, 2, pictures=True)
    torch.testing.assert_close(parent.matrix, alone.matrix, equal_nan=True)  # in the process that asks
    assert list(parent_sparsity.values) == list(alone_sparsity.values) != []
    for layer, values in alone_sparsity.values.items():
        assert parent_sparsity.values[layer] == pytest.approx(values)
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1_0", "2_0", "2_1"))
    assert first["samples"] == [10, 10, 10]
    for name in ("matrix", "baseline"):
        for other in (first, second):
            torch.testing.assert_close(torch.tensor(other[name]), torch.tensor(one[name]), equal_nan=True)
    for other in (first, second):
        assert list(other["figures"]) == list(one["figures"])
        assert [n for n, x in one["figures"].items() if "dead_units" in x] == ["net.1", "head.relu"]
        for layer, figures in one["figures"].items():
            assert other["figures"][layer] == pytest.approx(figures, abs=1e-6)
        assert other["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == ["matrix.json", "matrix.png"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*sync_dist=True")
def test_a_metric_that_each_process_logs_for_itself_is_averaged(tmp_path):
    run(tmp_path, 1, Unsynced)
    run(tmp_path, 2, Unsynced)
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1_0", "2_0", "2_1"))
    for other in (first, second):
        torch.testing.assert_close(torch.tensor(other["matrix"]), torch.tensor(one["matrix"]), equal_nan=True)
        assert other["metrics"]["average_accuracy"] == pytest.approx(one["metrics"]["average_accuracy"], abs=1e-6)


@pytest.mark.slow
def test_a_metric_that_several_loaders_share_is_told_apart_over_all_processes(tmp_path):
    run(tmp_path, 1, SharedMetric)
    run(tmp_path, 2, SharedMetric)
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1_0", "2_0", "2_1"))
    torch.manual_seed(0)
    net, metric = SharedMetric().net, MulticlassF1Score(3, average="macro")
    expected = [
        metric(net(x), y).item()
        for x, y in (map(torch.cat, zip(*one, strict=True)) for one in Tasks().val_dataloader())
    ]
    for other in (one, first, second):
        torch.testing.assert_close(torch.tensor(other["matrix"])[1], torch.tensor(expected), rtol=0, atol=1e-6)
    for name in ("val/acc/dataloader_idx_1", "val/acc/dataloader_idx_2"):
        assert first["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-6)


@pytest.mark.slow
def test_one_fit_a_task_in_processes_that_are_spawned(tmp_path):
    """Each has a copy of the logger; what it measured, and that an index is used up, reaches the original."""
    torch.manual_seed(0)
    module, log, rows = Learner(), ForgettingLogger("val/acc", verbose=False, pictures=False), []
    loaders = [val_loader(j) for j in range(TASKS)]
    for i in range(2):
        log.task = i
        fit = trainer(tmp_path, [log], epochs=1, **two_processes())
        fit.fit(module, train_loader(i), loaders)
        rows.append(knows(module))
        assert log.task is None and (tmp_path / "matrix.json").exists()
    torch.testing.assert_close(log.matrix[:2], torch.tensor(rows), rtol=0, atol=1e-6, check_dtype=False)
    log.task = 2
    trainer(tmp_path, [log], epochs=1).fit(module, train_loader(2), loaders)  # in this process
    torch.testing.assert_close(log.matrix[2], torch.tensor(knows(module)), rtol=0, atol=1e-6, check_dtype=False)
    assert log.learned_part(2).shape == (3, 3)
    copy = pickle.loads(pickle.dumps(ForgettingLogger("val/acc", 1, pictures=False)))
    assert copy.task == 1 and copy.matrix.shape == (0, 0)
