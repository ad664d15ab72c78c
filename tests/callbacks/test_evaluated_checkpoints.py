"""A checkpoint that is evaluated gives the weights; what the callbacks have seen in this process stays theirs."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from dendrite_zoo.callbacks import (
    ElasticWeightConsolidation,
    ForgettingLogger,
    RunRecorder,
    SparsityLogger,
    SubnetworkLogger,
    SuccessLogger,
    SynapticIntelligence,
)
from dendrite_zoo.callbacks.mailbox import OwnState
from tests.callbacks.learners import TASKS, Learner, knows, train_loader, val_loader
from tests.callbacks.strangers import Tasks, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Stream(Tasks):
    """An epoch for each task, whose validation sets are of one size, and the same for the test."""

    def train_dataloader(self):
        return train_loader(self.trainer.current_epoch)

    def val_dataloader(self):
        return [val_loader(j) for j in range(TASKS)]

    test_dataloader = val_dataloader

    def predict_dataloader(self):
        return val_loader(0)


class Net(Learner):
    """With a forward, for the Fisher information and for predictions."""

    def forward(self, batch):
        return self.net(batch[0] if isinstance(batch, list) else batch)

    def on_train_epoch_end(self):
        self.rows.append(knows(self))


def trained(tmp_path, callbacks, **kwargs):
    """The best checkpoint of a monitor that falls is the first: it is of task 0."""
    torch.manual_seed(0)
    module, data = Net(), Stream()
    module.rows = []
    best = ModelCheckpoint(tmp_path, monitor="val/acc/dataloader_idx_0", mode="max")
    kwargs = {"enable_checkpointing": True, **kwargs}
    run = trainer(tmp_path, [*callbacks, best], **kwargs)
    run.fit(module, data)
    assert "epoch=0" in best.best_model_path
    return run, module, data


@pytest.mark.parametrize("run", ["test", "predict"])
def test_the_matrix_stays(tmp_path, capsys, run):
    log = ForgettingLogger("val/acc", epochs_per_task=1, pictures=False)
    fit, module, data = trained(tmp_path, [log])
    before, file = log.matrix.clone(), json.loads((tmp_path / "matrix.json").read_text())
    assert capsys.readouterr().out.count("val/acc on each task") == 1
    quiet = {"verbose": False} if run == "test" else {}
    getattr(fit, run)(module, datamodule=data, ckpt_path="best", **quiet)
    torch.testing.assert_close(log.matrix, before, rtol=0, atol=0)
    torch.testing.assert_close(before, torch.tensor(module.rows), rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "matrix.json").read_text()) == file
    assert "on each task" not in capsys.readouterr().out  # which would be the same once more


def test_a_validation_measures_the_row_of_the_task_trained_last(tmp_path):
    log = ForgettingLogger("val/acc", epochs_per_task=1, verbose=False, pictures=False)
    fit, module, data = trained(tmp_path, [log])
    fit.validate(module, datamodule=data, ckpt_path="best", verbose=False)
    rows = [*module.rows[:2], knows(module)]
    assert rows[2] == rows[0]  # the weights of the first task
    torch.testing.assert_close(log.matrix, torch.tensor(rows), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:ForgettingLogger.*had no validation|.*callbacks used to create the checkpoint")
def test_a_matrix_that_no_fit_has_measured_knows_its_last_task(tmp_path):
    log = ForgettingLogger("val/acc", epochs_per_task=1, verbose=False, pictures=False)
    torch.manual_seed(0)
    module, data = Net(), Stream()
    module.rows = []
    every = ModelCheckpoint(tmp_path, save_top_k=-1)
    fit = trainer(tmp_path, [log, every], limit_val_batches=0, enable_checkpointing=True)
    fit.fit(module, data)
    again = trainer(tmp_path, [log])
    again.validate(module, datamodule=data, ckpt_path=next(tmp_path.glob("epoch=0*.ckpt")), verbose=False)
    assert log.matrix[:2].isnan().all()
    torch.testing.assert_close(log.matrix[2], torch.tensor(module.rows[0]), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_new_logger_goes_on_from_the_checkpoint_that_it_evaluates(tmp_path):
    fit, module, data = trained(
        tmp_path, [ForgettingLogger("val/acc", epochs_per_task=1, verbose=False, pictures=False)]
    )
    fit.save_checkpoint(tmp_path / "last.ckpt")
    log = ForgettingLogger("val/acc", epochs_per_task=1, verbose=False, pictures=False)
    trainer(tmp_path, [log]).validate(module, datamodule=data, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    torch.testing.assert_close(log.matrix, torch.tensor(module.rows), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize(
    "make",
    [
        SparsityLogger,
        SubnetworkLogger,
        SynapticIntelligence,
        lambda: ElasticWeightConsolidation(data=lambda trainer, task: train_loader(task)),
        RunRecorder,
    ],
    ids=["sparsity", "subnetworks", "si", "ewc", "recorder"],
)
def test_so_does_the_state_of_every_callback(tmp_path, make):
    callback = make()
    fit, module, data = trained(
        tmp_path, [callback, ForgettingLogger("val/acc", epochs_per_task=1, verbose=False, pictures=False)]
    )
    before = str(callback.state_dict())
    fit.predict(module, datamodule=data, ckpt_path="best")
    assert str(callback.state_dict()) == before

    new, path = make(), tmp_path / "last.ckpt"
    blank = str(new.state_dict())
    fit.save_checkpoint(path)
    trainer(tmp_path, [new]).predict(module, datamodule=data, ckpt_path=path)
    assert str(new.state_dict()) == before != blank


def test_no_callback_with_a_state_is_forgotten():
    with_state = {ForgettingLogger, SparsityLogger, SubnetworkLogger, SuccessLogger, SynapticIntelligence, RunRecorder}
    assert all(issubclass(kind, OwnState) for kind in with_state | {ElasticWeightConsolidation})
