"""Where callbacks write, and how they find each other."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SubnetworkLogger
from dendrite_zoo.callbacks.trainer import find_callback, output_folder
from tests.callbacks.strangers import ReluNet, Tasks, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def epoch(trainer):
    return trainer.current_epoch


def test_the_folder_is_the_chosen_one_else_the_loggers_else_the_trainers(tmp_path):
    run = trainer(tmp_path, [])
    assert output_folder(run) == tmp_path
    logger = CSVLogger(tmp_path, name="runs", version="demo")
    run = trainer(tmp_path, [], logger=logger)
    assert output_folder(run) == tmp_path / "runs" / "demo"
    assert output_folder(run, tmp_path / "mine") == tmp_path / "mine"


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    run = trainer(tmp_path, [])
    monkeypatch.setattr(type(run), "is_global_zero", False)
    assert output_folder(run) is None and output_folder(run, tmp_path / "mine") is None


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_a_dry_run_leaves_no_files_in_any_folder(tmp_path, stage):
    torch.manual_seed(0)
    chosen = {"folder": tmp_path / "mine"}
    callbacks = [ForgettingLogger(task=epoch, verbose=False, **chosen), SubnetworkLogger(**chosen)]
    getattr(trainer(tmp_path, callbacks, fast_dev_run=True), stage)(ReluNet(), Tasks())
    assert not list(tmp_path.iterdir())
    getattr(trainer(tmp_path, callbacks), stage)(ReluNet(), Tasks())
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    drawn = {name for name in names if name.endswith(".png")}
    assert drawn == ({"matrix.png", "subnetworks.png"} if stage == "fit" else set())
    assert names - drawn == {"matrix.json", "subnetworks.json"}


def test_callbacks_find_each_other(tmp_path):
    first, second = SparsityLogger(), SparsityLogger(layers=["net.1"])
    run = trainer(tmp_path, [SubnetworkLogger(), first, second])
    assert find_callback(run, SparsityLogger) is first
    assert find_callback(run, ForgettingLogger) is None
