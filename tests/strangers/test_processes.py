"""Two processes on the CPU, started by Lightning as people start them."""

import os
import sys

import pytest
import torch

from tests import processes

SCRIPT = """
import sys
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Accuracy

def task(j, first, last):
    generator = torch.Generator().manual_seed(j)
    x = torch.randn(96, 8, generator=generator)
    y = (x @ torch.randn(8, 3, generator=generator)).argmax(1)
    return TensorDataset(x[first:last], y[first:last])


class Net(LightningModule):
    def __init__(self, how):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.ReLU(), torch.nn.Linear(24, 3))
        self.acc, self.how = Accuracy(task="multiclass", num_classes=3), how

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        if self.how == "metric":
            self.acc(self.net(x), y)
            self.log("val/acc", self.acc)
        else:
            self.log("val/acc", (self.net(x).argmax(1) == y).float().mean(), sync_dist=self.how != "unsynced")

    def on_validation_end(self):
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            torch.save(self.state_dict(), f"{self.how}-{self.trainer.current_epoch}.pt")

    def train_dataloader(self):
        return DataLoader(task(min(self.trainer.current_epoch // 2, 2), 0, 48), batch_size=8, shuffle=True)

    def val_dataloader(self):
        return [DataLoader(task(j, 48, 96), batch_size=8) for j in range(3)]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.03)


def main(how, callbacks, kind=Net):
    seed_everything(0)
    net = kind(how)
    trainer = Trainer(
        max_epochs=6, reload_dataloaders_every_n_epochs=1, accelerator="cpu", devices=2, strategy="ddp",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(net)
    if trainer.is_global_zero:
        matrix = callbacks[0].matrix if callbacks else None
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save({"matrix": matrix, "logged": logged, "weights": net.state_dict()}, f"{how}.pt")
"""

UNEVEN = """

from torch.utils.data import IterableDataset

SHARES = [(7, 12), (7, 11), (3, 8)]  # of each loader, rows of the first process, and of both


class Share(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class Uneven(Net):  # each process has its own rows, of which Lightning shares nothing out
    def val_dataloader(self):
        rank = self.trainer.global_rank
        shares = [range(first) if rank == 0 else range(first, both) for first, both in SHARES]
        rows = [[task(j, 48, 96)[i] for i in share] for j, share in enumerate(shares)]
        return [DataLoader(Share(one), batch_size=4) for one in rows]
"""

RUNS = """

if __name__ == "__main__":
    from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
    main("bare", [])
    for how in ("synced", "unsynced", "metric", "uneven"):
        log = ForgettingLogger("val/acc", epochs_per_task=2, pictures=False, verbose=False)
        main(how, [log, SparsityLogger()], Uneven if how == "uneven" else Net)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "script.py").write_text(SCRIPT + UNEVEN + RUNS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = processes.run([folder / "script.py"], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def of_task(j):
    """What the script validates on, by the same draws."""
    generator = torch.Generator().manual_seed(j)
    x = torch.randn(96, 8, generator=generator)
    return x[48:], (x @ torch.randn(8, 3, generator=generator)).argmax(1)[48:]


def predictions(weights, x):
    hidden = (x @ weights["net.0.weight"].T + weights["net.0.bias"]).clamp(min=0)
    return (hidden @ weights["net.2.weight"].T + weights["net.2.bias"]).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["synced", "unsynced", "metric"])
def test_two_processes(how, results):
    """The matrix is there where the script asks for it, and is that of all samples."""
    bare, ours = torch.load(results / "bare.pt"), torch.load(results / f"{how}.pt")
    assert all(torch.equal(value, ours["weights"][name]) for name, value in bare["weights"].items())
    expected = torch.empty(3, 3)
    for i in range(3):
        weights = torch.load(results / f"bare-{2 * i + 1}.pt")
        for j in range(3):
            x, y = of_task(j)
            expected[i, j] = (predictions(weights, x) == y).float().mean()
    torch.testing.assert_close(ours["matrix"], expected, rtol=0, atol=1e-5)
    lost = [expected[0, 0].maximum(expected[1, 0]) - expected[2, 0], expected[1, 1] - expected[2, 1]]
    assert ours["logged"]["average_accuracy"] == pytest.approx(float(expected[-1].mean()), abs=1e-5)
    assert ours["logged"]["forgetting"] == pytest.approx(float(sum(lost) / 2), abs=1e-5)


@pytest.mark.slow
def test_uneven_rows(results):
    """What Lightning reports is what stands in the matrix; of an odd number of rows in all its mean is not theirs."""
    ours = torch.load(results / "uneven.pt")
    weights = torch.load(results / "uneven-5.pt")
    for j, rows in enumerate([12, 11, 8]):
        value = float(ours["matrix"][2, j])
        assert value == ours["logged"][f"val/acc/dataloader_idx_{j}"]
        x, y = of_task(j)
        right = int((predictions(weights, x[:rows]) == y[:rows]).sum())
        assert value == pytest.approx(right / 2 / (rows // 2), abs=1e-6)  # of 11 rows it counts 5.5 as 5
