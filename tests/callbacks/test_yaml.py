"""What YAML can say of the task, with LightningCLI of both names; callbacks in a Trainer of ``pytorch_lightning``."""

import sys
from types import ModuleType

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from pytorch_lightning.cli import LightningCLI as OtherCLI
from torch import nn
from torch.utils.data import DataLoader

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SynapticIntelligence
from dendrite_zoo.lightning_modules import ContinualClassifier
from tests.callbacks.learners import TASKS, knows, of_validation, train_loader, val_loader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LightningCLI.*args"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def parts(library):
    """The same module and datamodule, of either library."""

    class Module(library.LightningModule):
        def __init__(self, lr: float = 0.5):
            super().__init__()
            self.net, self.lr, self.rows = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), lr, {}

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean(), batch_size=len(batch[1]))

        def on_train_epoch_end(self):
            self.rows[self.trainer.current_epoch // 2] = knows(self)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    class Data(library.LightningDataModule):
        def train_dataloader(self):
            return train_loader(self.trainer.current_epoch // 2)

        def val_dataloader(self):
            return [val_loader(j) for j in range(TASKS)]

    return Module, Data


def quiet(folder, callbacks):
    return {
        "accelerator": "cpu",
        "max_epochs": 2 * TASKS,
        "reload_dataloaders_every_n_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": str(folder),
        "callbacks": callbacks,
    }


def assert_rows(log, module):
    rows = torch.tensor([module.rows[i] for i in range(TASKS)], dtype=torch.float32)
    torch.testing.assert_close(log.matrix, rows, rtol=0, atol=1e-6)


def by_epoch(trainer):
    return trainer.current_epoch // 2


@pytest.fixture
def helpers(monkeypatch):
    """A module of the user's own."""
    module = ModuleType("users_helpers")
    module.current_task = by_epoch
    monkeypatch.setitem(sys.modules, "users_helpers", module)


SAID = [{"epochs_per_task": 2}, {"task": "users_helpers.current_task"}]


@pytest.fixture(autouse=True)
def quiet_parser(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what LightningCLI itself calls


@pytest.mark.parametrize("said", SAID, ids=["epochs", "path"])
def test_yaml_says_the_task(tmp_path, said, helpers):
    callback = {"class_path": "dendrite_zoo.callbacks.ForgettingLogger", "init_args": {"verbose": False, **said}}
    others = [{"class_path": f"dendrite_zoo.callbacks.{name}"} for name in ("SparsityLogger", "SynapticIntelligence")]
    config = tmp_path / "given.yaml"
    config.write_text(yaml.safe_dump({"seed_everything": 0, "trainer": quiet(tmp_path, [callback, *others])}))
    module, data = parts(lightning.pytorch)
    ran = LightningCLI(module, data, args=["fit", "--config", str(config)])
    (log,) = [one for one in ran.trainer.callbacks if isinstance(one, ForgettingLogger)]
    assert_rows(log, ran.model)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    (key,) = said
    assert saved[key] in (2, "users_helpers.current_task", f"{__name__}.by_epoch")


def test_the_other_command_takes_callbacks_from_python(tmp_path):
    """Its YAML knows its own classes alone."""
    module, data = parts(pytorch_lightning)
    log = ForgettingLogger(epochs_per_task=2, verbose=False, pictures=False)
    ran = OtherCLI(
        module,
        data,
        args=["fit", "--seed_everything=0"],
        trainer_defaults=quiet(tmp_path, [log]),
        save_config_callback=None,
    )
    assert_rows(log, ran.model)


@pytest.mark.parametrize("task", ["users_helpers.current_task", by_epoch], ids=["path", "function"])
def test_an_import_path_in_python(tmp_path, helpers, task):
    module, data = parts(lightning.pytorch)
    log, model = ForgettingLogger(task=task, verbose=False, pictures=False), module()
    lightning.pytorch.Trainer(**quiet(tmp_path, [log])).fit(model, data())
    assert_rows(log, model)


def test_callbacks_in_the_other_trainer(tmp_path):
    """They work by their hooks alone. A LightningModule of ours is refused by that Trainer."""
    module, data = parts(pytorch_lightning)
    log, model = ForgettingLogger(epochs_per_task=2, verbose=False), module()
    fit = pytorch_lightning.Trainer(**quiet(tmp_path, [log, SparsityLogger(), SynapticIntelligence(0.0)]))
    fit.validate(model, data(), verbose=False)
    fit.fit(model, data())
    assert_rows(log, model)
    assert not log.baseline.isnan().any() and "sparsity/net.1/dead_units" in fit.callback_metrics
    loader = DataLoader(of_validation(0), batch_size=10)
    with pytest.raises(TypeError, match="`model` must be a `LightningModule` .*, got `ContinualClassifier`"):
        fit.fit(ContinualClassifier(nn.Linear(6, 3)), loader)
