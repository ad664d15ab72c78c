"""Task events, and runs that are stopped anywhere and resumed: nothing is lost, nothing comes twice."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.streams import PermutedTasks
from dendrite_zoo.tasks import (
    TaskBoundary,
    current_task,
    has_task,
    resume_missed_validation,
)
from tests.streams.toy import Crash, CrashAt, Memory, tensors, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


class TestTaskBoundary:
    def test_it_tells_what_ended_and_what_started(self):
        boundary = TaskBoundary()
        assert [boundary.update(task) for task in (2, 2, 3, 3, 5)] == [
            (None, 2), (None, None), (2, 3), (None, None), (3, 5)
        ]  # fmt: skip

    def test_without_a_task_nothing_happens(self):
        boundary = TaskBoundary()
        boundary.update(1)
        assert boundary.update(None) == (None, None)
        assert boundary.task == 1

    def test_a_task_of_which_no_batch_was_trained_is_no_earlier_one(self):
        boundary = TaskBoundary()
        for task in (0, 0, 1):  # of task 0 a batch was trained, and of task 1 none before the fit broke off
            boundary.update(task)
        boundary.start_fit()
        assert boundary.earlier == {0}
        boundary.undo()
        assert boundary.task == 0 and boundary.trained == {0} and boundary.update(1) == (0, 1)
        boundary.confirm()
        boundary.undo()
        boundary.start_fit()
        assert boundary.task == 1 and boundary.earlier == {0, 1}

    def test_the_state_goes_on_where_it_was(self):
        boundary, again = TaskBoundary(), TaskBoundary()
        assert boundary.state_dict() == {"task": None}
        boundary.update(4)
        assert boundary.state_dict() == {"task": 4}
        again.load_state_dict(boundary.state_dict())
        assert again.update(4) == (None, None)
        assert again.update(5) == (4, 5)

    @pytest.mark.parametrize("task", [-1, 0.5])
    def test_a_task_is_an_index(self, task):
        boundary = TaskBoundary()
        with pytest.raises(ValueError, match=f"an index from 0, but got {task}"):
            boundary.update(task)
        assert boundary.task is None


@pytest.mark.parametrize(
    ("datamodule", "module", "task"),
    [
        (SimpleNamespace(current_task=3), SimpleNamespace(current_task=1), 3),
        (SimpleNamespace(), SimpleNamespace(current_task=1), 1),
        (None, SimpleNamespace(current_task=0), 0),
        (SimpleNamespace(current_task=torch.tensor(2)), SimpleNamespace(), 2),
        (None, SimpleNamespace(), None),
    ],
)
def test_the_datamodule_says_the_task_else_the_module(datamodule, module, task):
    found = current_task(SimpleNamespace(datamodule=datamodule, lightning_module=module))
    assert found == task
    assert isinstance(found, (int, type(None)))


@pytest.mark.parametrize("told", [2, torch.tensor(2), None])
def test_a_function_tells_the_task_in_their_stead(told):
    trainer = SimpleNamespace(datamodule=SimpleNamespace(current_task=3), lightning_module=None)
    found = current_task(trainer, lambda trainer: told)
    assert found == told and isinstance(found, (int, type(None)))


@pytest.mark.parametrize("told", [-1, 0.5])
def test_a_task_is_an_index_from_0(told):
    with pytest.raises(ValueError, match=rf"current task to be an index from 0, but got {told}. Check `task=`"):
        current_task(SimpleNamespace(), lambda trainer: told)
    with pytest.raises(ValueError, match="an index from 0"):
        current_task(SimpleNamespace(lightning_module=SimpleNamespace(current_task=told)))


def run(tmp_path, make, crashes=(), **kwargs):
    """Fit, crash at each of ``crashes``, resume; give what must not depend on them."""
    stream, module = make(), Memory()
    save = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)
    arguments = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0, **kwargs}
    for crash in crashes:
        fit = trainer(tmp_path, **{**arguments, "callbacks": [*arguments.get("callbacks", []), save, CrashAt(*crash)]})
        # The checkpoint first, then the crash.
        fit.callbacks.sort(key=lambda callback: isinstance(callback, CrashAt))
        with pytest.raises(Crash):
            fit.fit(module, stream, ckpt_path=tmp_path / "last.ckpt" if (tmp_path / "last.ckpt").exists() else None)
        stream, module = make(), Memory()
    fit = trainer(tmp_path, **{**arguments, "callbacks": [*arguments.get("callbacks", []), save]})
    fit.fit(module, stream, ckpt_path=tmp_path / "last.ckpt" if crashes else None)
    state = fit.optimizers[0].state_dict()["state"]
    optimizer = [value.tolist() for moments in state.values() for value in moments.values()]
    progress = fit.fit_loop.epoch_progress.state_dict(), fit.fit_loop.epoch_loop.batch_progress.total.ready
    return {
        "batches": module.batches,
        "validations": module.validations,
        "weights": module.linear.weight.tolist(),
        "optimizer": optimizer,
        "progress": progress,
    }


def tasks():
    return PermutedTasks(tensors(), 3, batch_size=4)  # three batches each


ONCE = [[(step, "batch")] for step in range(1, 10)] + [[(step, "validation")] for step in (3, 6, 9)]
TWICE = [[(3, "batch"), (second, "batch")] for second in (4, 5, 6, 7, 9)]
OFTEN = [[(3, "validation"), (3, "validation"), (4, "batch"), (6, "batch"), (8, "batch"), (9, "validation")]]


def name(crashes):
    return "+".join(f"{where} {step}" for step, where in crashes)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), tasks)


@pytest.mark.parametrize("crashes", ONCE + TWICE + OFTEN, ids=name)
def test_a_resumed_stream_ends_as_if_nothing_had_happened(tmp_path, crashes, uninterrupted):
    assert run(tmp_path, tasks, crashes) == uninterrupted


def test_the_toy_sees_what_matters(uninterrupted):
    assert [epoch for epoch, *_ in uninterrupted["validations"]] == [0, 1, 2]
    assert [step for _, step, *_ in uninterrupted["validations"]] == [2, 5, 8], "that of the batch before"
    assert len(uninterrupted["batches"]) == 9


@pytest.mark.parametrize("crashes", [[(3, "batch"), (4, "batch")], [(9, "batch")]], ids=name)
@pytest.mark.parametrize(
    "kwargs",
    [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 3}, {"limit_train_batches": 3}, {"max_steps": 100}],
    ids=str,
)
def test_so_does_one_that_validates_otherwise(tmp_path, crashes, kwargs):
    kwargs = {**kwargs, "callbacks": [Resumes()]}
    whole = run(tmp_path / "whole", tasks, **kwargs)
    assert run(tmp_path, tasks, crashes, **kwargs) == whole


def test_the_progress_bar_lives_through_it(tmp_path, uninterrupted):
    bar = {"enable_progress_bar": True, "callbacks": [RichProgressBar()]}
    assert run(tmp_path, tasks, [(3, "batch"), (9, "batch")], **bar) == uninterrupted


class Strangers(LightningDataModule):
    """Not one of ours: plain loaders, no state, no ``current_task``."""

    current_task = None

    def loader(self):
        x, y, *_ = tensors(rows=12)
        return DataLoader(TensorDataset(x, y), batch_size=4)

    train_dataloader = val_dataloader = loader


class Resumes(Callback):
    """How a callback makes sure of it."""

    def __init__(self):
        self.answers = []

    def on_train_start(self, trainer, pl_module):
        self.answers = [resume_missed_validation(trainer), resume_missed_validation(trainer)]


@pytest.mark.parametrize("step", range(1, 10))
def test_a_callback_makes_good_a_strangers_missed_validation(tmp_path, step):
    """At an epoch's end; within an epoch a loader without a state begins anew, which is Lightning's way."""
    resumes = Resumes()
    kwargs = {"callbacks": [resumes], "reload_dataloaders_every_n_epochs": 0}
    if step % 3:
        kwargs["limit_train_batches"] = 3
    whole = run(tmp_path / "whole", Strangers, **kwargs)
    assert resumes.answers == [False, False]
    if step % 3:
        with pytest.warns(match="dataloader is not resumable"):
            resumed = run(tmp_path, Strangers, [(step, "batch")], **kwargs)
        assert [epoch for epoch, *_ in resumed["validations"]] == [0, 1, 2]
        assert resumes.answers == [False, False]
    else:
        assert run(tmp_path, Strangers, [(step, "batch")], **kwargs) == whole
        assert resumes.answers == [True, False]


class GrowsWithEpochs(Strangers):
    """Validates on one row more in each epoch: the loader of another epoch would show."""

    def val_dataloader(self):
        x, y, *_ = tensors(rows=12)
        rows = self.trainer.current_epoch + 1
        return DataLoader(TensorDataset(x[:rows], y[:rows]), batch_size=4)


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_missed_validation_has_the_loaders_of_its_own_epoch(tmp_path, step):
    """Lightning counts the epoch as done, and makes the next one's before training starts."""
    whole = run(tmp_path / "whole", GrowsWithEpochs, callbacks=[Resumes()])
    assert [rows for *_, rows in whole["validations"]] == [{0: 1}, {0: 2}, {0: 3}]
    assert run(tmp_path, GrowsWithEpochs, [(step, "batch")], callbacks=[Resumes()]) == whole


def test_a_fresh_run_misses_nothing(tmp_path):
    resumes = Resumes()
    run(tmp_path, tasks, callbacks=[resumes])
    assert resumes.answers == [False, False]


def test_a_current_task_that_is_a_method_or_no_number():
    class Net(torch.nn.Linear):
        def current_task(self):
            return 0

    with pytest.raises(
        ValueError, match="`current_task` of Net to be an index from 0, but it is a method. Make it a pr"
    ):
        current_task(SimpleNamespace(lightning_module=Net(2, 2)))
    with pytest.raises(ValueError, match=r"an index from 0, but got 'mnist'"):
        current_task(SimpleNamespace(lightning_module=SimpleNamespace(current_task="mnist")))
    with pytest.raises(ValueError, match="an index from 0") as caught:
        current_task(SimpleNamespace(lightning_module=SimpleNamespace(current_task=["long"] * 10_000)))
    assert len(str(caught.value)) < 300


def test_another_callback_may_say_the_task_where_nothing_else_does():
    says = SimpleNamespace(task_source=lambda trainer: 2)
    trainer = SimpleNamespace(lightning_module=SimpleNamespace(), callbacks=[SimpleNamespace(), says])
    assert current_task(trainer) == 2 and has_task(trainer)
    assert current_task(trainer, lambda trainer: 1) == 1 and current_task(trainer, 0) == 0
    trainer.lightning_module.current_task = 3
    assert current_task(trainer) == 3
    assert not has_task(SimpleNamespace(lightning_module=SimpleNamespace(), callbacks=[SimpleNamespace()]))
