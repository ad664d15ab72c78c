"""Pipelines in YAML: Lightning's own LightningCLI, from `lightning.pytorch` and from `pytorch_lightning`."""

import lightning.pytorch.cli
import pytest
import pytorch_lightning
import pytorch_lightning.cli
import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from dendrite_zoo import lightning_modules
from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy
from dendrite_zoo.streams import PermutedTasks
from tests.strangers.people import EPOCHS, ONE_FIT, TASKS, Plain, pipeline, train_loader, val_loaders
from tests.strangers.witness import check, matrix_by_hand, with_and_without

T = len(TASKS)
LAST = [EPOCHS - 1 + EPOCHS * j for j in range(T)]

TRAINER = """
trainer:
  max_epochs: 6
  reload_dataloaders_every_n_epochs: 1
  accelerator: cpu
  devices: 1
  log_every_n_steps: 1
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
"""

CALLBACKS = """
  callbacks:
    - class_path: dendrite_zoo.callbacks.ForgettingLogger
      init_args: {{metric: val/acc, {task}, pictures: false}}
    - class_path: dendrite_zoo.callbacks.SparsityLogger
"""


@pytest.fixture(autouse=True)
def command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py", "fit", "--config", "config.yaml"])


def current_task(trainer):
    """What an import path in YAML leads to."""
    return trainer.current_epoch // EPOCHS


class Data(LightningDataModule):
    def train_dataloader(self):
        return train_loader(min(self.trainer.current_epoch // EPOCHS, T - 1))

    def val_dataloader(self):
        return val_loaders()


class PlNet(pytorch_lightning.LightningModule):
    """Written for the package of the other name."""

    def __init__(self, hidden: int = 24):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.03)


class PlData(pytorch_lightning.LightningDataModule):
    train_dataloader, val_dataloader = Data.train_dataloader, Data.val_dataloader


def main(cli, callbacks, yaml):
    """`python main.py fit --config config.yaml`; the witness is given in Python."""
    with open("config.yaml", "w") as file:
        file.write(TRAINER + yaml)
    module, data = (PlNet, PlData) if cli is pytorch_lightning.cli.LightningCLI else (Plain, Data)
    given = {"trainer_defaults": {"callbacks": callbacks}, "save_config_callback": None}
    return cli(module, data, seed_everything_default=3, **given).trainer


@pipeline
def yaml_alone(callbacks, yaml=""):
    """Our callbacks stand in the YAML file."""
    return main(lightning.pytorch.cli.LightningCLI, callbacks, yaml)


@pipeline
def yaml_and_python(callbacks):
    """`pytorch_lightning`: its parser takes its own callbacks alone, so ours are in `trainer_defaults`."""
    main(pytorch_lightning.cli.LightningCLI, callbacks, "")


@pipeline
def the_other_name(callbacks):
    """`pytorch_lightning.Trainer`, LightningModule and datamodule, in Python."""
    pytorch_lightning.seed_everything(3)
    pytorch_lightning.Trainer(**ONE_FIT, callbacks=callbacks).fit(PlNet(), datamodule=PlData())


@pytest.mark.parametrize("task", ["epochs_per_task: 2", "task: tests.strangers.test_yaml.current_task"])
def test_yaml(task, folder, capsys):
    """The same run, once without the two callbacks in the file."""
    from tests.strangers.witness import run, same

    bare = run(yaml_alone, [], folder / "without")
    seen = run(lambda given: yaml_alone(given, CALLBACKS.format(task=task)), [], folder / "with")
    assert same(bare.final, seen.final)
    (log,) = [one for one in seen.returned.callbacks if type(one).__name__ == "ForgettingLogger"]
    check(log, matrix_by_hand(bare, bare.at_epochs(*LAST)), logged=seen.witness.logged[-1])
    assert [line for line in capsys.readouterr().out.splitlines() if "after" in line and "2" in line], "no table"


@pytest.mark.parametrize("habit", [yaml_and_python, the_other_name], ids=lambda habit: habit.__name__)
def test_pytorch_lightning(habit, folder):
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST)), logged=seen.witness.logged[-1])


def test_yaml_without_a_task_says_what_to_write(folder):
    with pytest.raises(ValueError, match="epochs_per_task: 3"):
        yaml_alone([], CALLBACKS.format(task="verbose: true"))


def test_an_import_path_that_leads_nowhere(folder):
    with pytest.raises((ValueError, SystemExit)) as error:
        yaml_alone([], CALLBACKS.format(task="task: tests.strangers.test_yaml.currant_task"))
    assert "currant_task" in str(error.value)


def test_the_other_command_refuses_ours_in_its_file(folder, capsys):
    with pytest.raises(SystemExit):
        main(pytorch_lightning.cli.LightningCLI, [], CALLBACKS.format(task="epochs_per_task: 2"))
    assert "does not correspond to a subclass of Callback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["ContinualClassifier", "ReplayClassifier", "MultiTaskClassifier", "BehaviorCloning", "MultiTaskSAC"]
)
def test_the_other_trainer_refuses_our_modules(name, folder):
    """Before any code of theirs runs; the how-to quotes what it says."""
    if name in ("BehaviorCloning", "MultiTaskSAC"):
        model = ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8], winners="activation")
    else:
        model = ActiveDendriteClassifier(8, [16], 3, max_tasks=T)
    module = getattr(lightning_modules, name)(model)
    with pytest.raises(TypeError) as error:
        pytorch_lightning.Trainer(**ONE_FIT).fit(module, val_loaders())
    assert str(error.value) == f"`model` must be a `LightningModule` or `torch._dynamo.OptimizedModule`, got `{name}`"


def test_the_other_trainer_refuses_our_streams(folder):
    stream = PermutedTasks("digits", num_tasks=2)
    trainer = pytorch_lightning.Trainer(**ONE_FIT)
    with pytest.raises(
        ValueError, match="PermutedTasks, a datamodule of `lightning.pytorch`. Give it to a Trainer from"
    ):
        trainer.validate(PlNet(), stream)
    with pytest.raises(TypeError, match="Expected a Trainer of `lightning.pytorch`, but PermutedTasks got one"):
        trainer.fit(PlNet(), datamodule=stream)
