"""ForgettingLogger in pipelines written without our code, against matrices known beforehand."""

import csv
import json
import math
import sys

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.functional import accuracy_matrix as F
from tests.callbacks.strangers import OneLoader, ReluNet, Scripted, Tasks, loader, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
]
NAN = math.nan
R = torch.tensor([[0.90, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])
BASELINE = torch.tensor([0.3, 0.2, 0.1])


def by_epoch(trainer):
    return trainer.current_epoch


def script(epoch, j):
    return R[epoch, j]


def assert_matrix(log, expected, atol=1e-6):
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(log.matrix, expected, rtol=0, atol=atol, equal_nan=True)


class Before(Scripted):
    """Measures BASELINE until it is trained."""

    def __init__(self):
        super().__init__(script)
        self.trained = False

    def on_train_start(self):
        self.trained = True

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        if self.trained:
            super().validation_step(batch, batch_idx, dataloader_idx)
        else:
            self.log("val/acc", BASELINE[dataloader_idx])


class History(Callback):
    """What stands in ``trainer.callback_metrics`` after each validation."""

    def __init__(self):
        self.epochs = []

    def on_validation_end(self, trainer, pl_module):
        self.epochs.append({k: v.item() for k, v in trainer.callback_metrics.items()})


def test_the_matrix_and_what_follows_from_it(tmp_path):
    log, history = ForgettingLogger("val/acc", task=by_epoch, pictures=False), History()
    fit = trainer(tmp_path, [log, history])
    module, data = Before(), Tasks()
    fit.validate(module, data, verbose=False)
    torch.testing.assert_close(log.baseline, BASELINE)
    assert log.matrix.isnan().all()
    fit.fit(module, data)
    assert_matrix(log, R)
    torch.testing.assert_close(log.baseline, BASELINE)
    assert log.matrix.dtype == torch.float32 and log.matrix.device.type == "cpu"
    assert log.record.samples == [10, 10, 10]
    for i, logged in enumerate(history.epochs[1:]):
        Ri, bi = log.matrix[: i + 1, : i + 1], log.baseline[: i + 1]
        expected = {
            "average_accuracy": F.average_accuracy(Ri),
            "forgetting": F.forgetting(Ri),
            "backward_transfer": F.backward_transfer(Ri),
            "forward_transfer": F.forward_transfer(Ri, bi),
            "learning_accuracy": F.learning_accuracy(Ri),
            **{f"forgetting/task_{j}": torch.tensor(NAN) for j in range(3)},
            **{f"forgetting/task_{j}": x for j, x in enumerate(F.forgetting_per_task(Ri))},
        }
        assert set(expected) <= set(logged)  # NaN included, from the first task on
        for name, value in expected.items():
            assert logged[name] == pytest.approx(value.item(), abs=1e-6, nan_ok=True), (i, name)
    assert history.epochs[-1]["forgetting"] == pytest.approx(0.03, abs=1e-6)
    assert history.epochs[-1]["backward_transfer"] == pytest.approx(-0.005, abs=1e-6)


def test_the_last_validation_of_a_task_stays(tmp_path):
    """Two epochs a task, two validations an epoch."""
    count = iter(range(100))

    class Counting(Callback):
        def on_validation_start(self, trainer, pl_module):
            pl_module.now = next(count)

    class Module(ReluNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val/acc", float(self.now + 100 * dataloader_idx))

    log = ForgettingLogger("val/acc", task=lambda trainer: trainer.current_epoch // 2, pictures=False)
    trainer(tmp_path, [log, Counting()], epochs=4, val_check_interval=1).fit(Module(), Tasks(2))
    assert_matrix(log, [[5.0, 105.0], [11.0, 111.0]])  # three batches, hence validations, an epoch


class SomeDue(Tasks):
    """Loaders that are not due have no batches: after task 1, tasks 0 and 2 are not measured."""

    def val_dataloader(self):
        due = [[0, 1, 2], [1], [0, 1, 2]][self.trainer.current_epoch]
        return [loader(seed=100 + j) if j in due else [] for j in range(3)]


def test_old_values_are_not_taken_for_new_ones(tmp_path):
    log, history = ForgettingLogger("val/acc", task=by_epoch, pictures=False), History()
    trainer(tmp_path, [log, history]).fit(Scripted(script), SomeDue())
    assert history.epochs[1]["val/acc/dataloader_idx_0"] == pytest.approx(0.90)  # Lightning still shows it
    expected = R.clone()
    expected[1, 0] = expected[1, 2] = NAN
    assert_matrix(log, expected)
    assert math.isnan(history.epochs[1]["forgetting"])
    averages = [epoch["average_accuracy"] for epoch in history.epochs]
    assert averages == pytest.approx([0.9, NAN, 2.63 / 3], abs=1e-6, nan_ok=True), "never one over other tasks"
    assert history.epochs[2]["forgetting"] == pytest.approx((0.9 - 0.97 + 0.88 - 0.80) / 2, abs=1e-6)


def test_a_value_that_stays_the_same_is_fresh_all_the_same(tmp_path):
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [log]).fit(Scripted(lambda epoch, j: 0.5), Tasks())
    assert_matrix(log, torch.full((3, 3), 0.5))


def test_names_of_ones_own(tmp_path):
    """``val/task_{j}/acc``, as our own modules log, goes before Lightning's loader index."""

    class Module(Scripted):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            value = self.script(self.trainer.current_epoch, dataloader_idx)
            self.log(f"val/task_{dataloader_idx}/acc", value, add_dataloader_idx=False)
            self.log(f"val/task_{dataloader_idx}/context_acc", 0.0, add_dataloader_idx=False)
            self.log("val/acc", 0.0)

    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [log]).fit(Module(script), Tasks())
    assert_matrix(log, R)


@pytest.mark.parametrize("metric", ["accuracy", "a/b/c", "val_acc+"])
def test_a_metric_of_any_name(tmp_path, metric):
    class Module(ReluNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log(metric, R[self.trainer.current_epoch, dataloader_idx])

    log = ForgettingLogger(metric, task=by_epoch, pictures=False)
    trainer(tmp_path, [log]).fit(Module(), Tasks())
    assert_matrix(log, R)


def test_a_metric_logged_on_step_and_epoch(tmp_path):
    class Module(Scripted):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            value = self.script(self.trainer.current_epoch, dataloader_idx) + [1.0, -1.0, 0.0][batch_idx]
            self.log("val/acc", value, on_step=True, on_epoch=True, batch_size=1)

    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [log]).fit(Module(script), Tasks())
    assert_matrix(log, R)


def test_one_loader_measures_the_current_task(tmp_path):
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    fit = trainer(tmp_path, [log])
    module, data = OneLoader(lambda epoch: 0.5 + 0.1 * epoch), Tasks(1)
    log.task = 0  # of the next run
    fit.validate(module, data, verbose=False)
    fit.fit(module, data)
    expected = torch.full((3, 3), NAN).diagonal_scatter(torch.tensor([0.5, 0.6, 0.7]))
    assert_matrix(log, expected)
    torch.testing.assert_close(log.baseline, torch.tensor([0.5, NAN, NAN]), equal_nan=True)
    assert log.record.samples == [10, 10, 10]


class AtTheEnd(ReluNet):
    """Logs its metrics in its own on_validation_epoch_end, which runs after the callbacks'."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def on_validation_epoch_end(self):
        for j in range(3):
            self.log(f"val/task_{j}/acc", R[self.trainer.current_epoch, j])


def test_a_metric_logged_at_the_very_end(tmp_path):
    log, history = ForgettingLogger("val/acc", task=by_epoch, pictures=False), History()
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    fit = trainer(tmp_path, [log, history], logger=logger)
    fit.fit(AtTheEnd(), Tasks())
    assert_matrix(log, R)
    assert [epoch["forgetting"] for epoch in history.epochs] == pytest.approx([NAN, -0.05, 0.03], abs=1e-6, nan_ok=True)
    assert fit.callback_metrics["forgetting"].item() == pytest.approx(0.03, abs=1e-6)
    with open(tmp_path / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["forgetting"]]
    assert [float(row["forgetting"]) for row in rows] == pytest.approx([NAN, -0.05, 0.03], abs=1e-6, nan_ok=True)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]


def test_in_the_csv(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [log], logger=logger).fit(Scripted(script), Tasks())
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    main = [row for row in rows if row["forgetting"]]
    assert [float(row["average_accuracy"]) for row in main] == pytest.approx([0.9, 0.915, 2.63 / 3], abs=1e-6)
    assert all(row["val/acc/dataloader_idx_1"] for row in main)  # in the row of what it came from
    of_tasks = [row for row in rows if row["forgetting/task_1"]]
    assert [row["forgetting/task_1"] for row in of_tasks][:2] == ["nan", "nan"]
    assert float(of_tasks[2]["forgetting/task_1"]) == pytest.approx(0.08, abs=1e-6)
    for one, other in zip(main, of_tasks, strict=True):
        assert (one["epoch"], one["step"]) == (other["epoch"], other["step"])


def test_training_from_a_later_task_on(tmp_path):
    """A stream that starts at task 2 says so by its current_task; what is measured before is row 1."""

    class Later(Tasks):
        @property
        def current_task(self):
            return 2 + self.trainer.current_epoch

    before = torch.tensor([0.9, 0.8, 0.1, 0.1])
    after = torch.tensor([[0.8, 0.8, 0.9, 0.1], [0.7, 0.8, 0.8, 0.9]])

    class Module(Before):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            row = after[self.trainer.current_epoch] if self.trained else before
            self.log("val/acc", row[dataloader_idx])

    log, history = ForgettingLogger("val/acc", pictures=False), History()
    fit = trainer(tmp_path, [log, history], epochs=2)
    module, data = Module(), Later(4)
    fit.validate(module, data, verbose=False)
    assert history.epochs[0]["average_accuracy"] == pytest.approx(0.85)
    fit.fit(module, data)
    assert_matrix(log, torch.cat([torch.full((1, 4), NAN), before[None], after]))
    assert log.baseline.isnan().all()
    assert history.epochs[-1]["forgetting"] == pytest.approx((0.2 + 0.0 + 0.1) / 3, abs=1e-6)
    assert history.epochs[-1]["forgetting/task_0"] == pytest.approx(0.2)
    record = json.loads((tmp_path / "matrix.json").read_text())
    assert record["first_task"] == 2 and record["baseline"] == [None] * 4


def test_the_sanity_check_counts_for_nothing(tmp_path):
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [log], num_sanity_val_steps=2, limit_train_batches=1).fit(Before(), Tasks())
    assert_matrix(log, R)
    assert log.baseline.isnan().all()
    assert log.record.samples == [10, 10, 10]


def test_a_validation_after_training_measures_the_last_row_anew(tmp_path):
    class Half(Tasks):
        def val_dataloader(self):
            due = [0, 1, 2] if not self.trainer.state.fn == "fit" else [1]
            return [loader(seed=j) if j in due else [] for j in range(3)]

    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    fit = trainer(tmp_path, [log])
    module, data = Scripted(lambda epoch, j: 0.7 if epoch < 3 else 0.5), Half()
    fit.fit(module, data)
    fit.validate(module, data, verbose=False)
    assert_matrix(log, [[NAN, 0.7, NAN], [NAN, 0.7, NAN], [0.5, 0.5, 0.5]])
    assert log.baseline.isnan().all()


def test_nobody_tells_the_task(tmp_path):
    fit = trainer(tmp_path, [ForgettingLogger("val/acc")])
    with pytest.raises(ValueError, match=r"nor a `current_task` of Tasks or ReluNet gives it. Pass `task=`.* In YAML"):
        fit.fit(ReluNet(), Tasks())
    assert not list(tmp_path.iterdir())


def test_a_lone_validation_needs_no_task(tmp_path):
    """Loader j is task j; what was measured is that of a model that nothing has trained yet."""
    log, module, data = ForgettingLogger("val/acc", verbose=False), ReluNet(), Tasks()
    fit = trainer(tmp_path, [log])
    found = fit.validate(module, data, verbose=False)
    values = {name: value for one in found for name, value in one.items() if name.startswith("val/acc")}
    assert len(values) == len(log.baseline) > 1
    torch.testing.assert_close(log.baseline, torch.tensor(list(values.values())), rtol=0, atol=1e-6)
    assert log.matrix.isnan().all()
    with pytest.raises(ValueError, match="needs the index of the task being trained"):
        fit.fit(module, data)
    log.task = 0
    trainer(tmp_path, [log], epochs=1).fit(module, data)
    torch.testing.assert_close(log.baseline, torch.tensor(list(values.values())), rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", [-1, 0.5, None])
def test_a_task_that_is_no_index(tmp_path, task):
    log = ForgettingLogger("val/acc", task=lambda trainer: task)
    with pytest.raises(ValueError, match="an index from 0, but got|needs the index of the task"):
        trainer(tmp_path, [log]).fit(ReluNet(), Tasks())


def test_a_task_as_a_tensor(tmp_path):
    log = ForgettingLogger("val/acc", task=lambda trainer: torch.tensor(trainer.current_epoch), pictures=False)
    trainer(tmp_path, [log]).fit(Scripted(script), Tasks())
    assert_matrix(log, R)


def test_the_module_tells_the_task_from_the_first_batch_on(tmp_path):
    class Module(Scripted):
        current_task = None

        def on_train_epoch_start(self):
            self.current_task = self.trainer.current_epoch

    log = ForgettingLogger("val/acc", pictures=False)
    trainer(tmp_path, [log]).fit(Module(script), Tasks())
    assert_matrix(log, R)


def test_a_metric_that_is_not_logged(tmp_path):
    log = ForgettingLogger("val/accuracy", task=by_epoch)
    with pytest.raises(
        ValueError,
        match=r"of 'val/accuracy' for each task, but only \['val/acc'\] were logged. Did you mean 'val/acc'",
    ):
        trainer(tmp_path, [log]).fit(ReluNet(), Tasks())


def test_one_value_for_several_loaders(tmp_path):
    class Module(ReluNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            pass

        def on_validation_epoch_end(self):
            self.log("val/acc", 0.5)

    with pytest.raises(ValueError, match="logged once for 3 validation loaders"):
        trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)]).fit(Module(), Tasks())


def test_two_loggers_of_one_name_would_log_the_same_keys(tmp_path):
    logs = [ForgettingLogger("val/acc", by_epoch, name="x"), ForgettingLogger("val/f1", by_epoch, name="x")]
    with pytest.raises(ValueError, match="a name of its own, but two have 'x'.*Pass `name=`"):
        trainer(tmp_path, logs).fit(ReluNet(), Tasks())


@pytest.mark.parametrize("module", [Scripted(script), AtTheEnd()], ids=["in the step", "at the end"])
def test_beside_lightnings_own_callbacks(tmp_path, module):
    """ModelCheckpoint and EarlyStopping monitor what we log; NaN needs check_finite=False."""
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    best = ModelCheckpoint(tmp_path / "checkpoints", monitor="average_accuracy", mode="max")
    stop = EarlyStopping("forgetting", mode="min", patience=2, check_finite=False)
    fit = trainer(tmp_path, [log, stop, best], enable_checkpointing=True)
    fit.fit(module, Tasks())
    assert fit.current_epoch == 3
    assert best.best_model_score.item() == pytest.approx(0.915, abs=1e-6)
    assert stop.best_score.item() == pytest.approx(-0.05, abs=1e-6)
    assert_matrix(log, R)


def test_a_checkpoint_holds_the_matrix_and_loads_safely(tmp_path):
    path = tmp_path / "last.ckpt"
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    module = Before()
    first = trainer(tmp_path, [log], epochs=2)
    first.validate(module, Tasks(), verbose=False)
    first.fit(module, Tasks())
    first.save_checkpoint(path)
    state = torch.load(path, weights_only=True)["callbacks"]
    assert list(state) == ["ForgettingLogger[val/acc]"]  # no lambda in the key

    resumed = ForgettingLogger("val/acc", task=lambda trainer: trainer.current_epoch + 0, pictures=False)
    trainer(tmp_path, [resumed]).fit(Scripted(script), Tasks(), ckpt_path=path, weights_only=True)
    assert_matrix(resumed, R)
    torch.testing.assert_close(resumed.baseline, BASELINE)
    assert resumed.record.samples == [10, 10, 10]
    resumed.matrix[0, 0] = 7  # and shares nothing with the state
    assert state["ForgettingLogger[val/acc]"]["matrix"][0, 0] == pytest.approx(0.9)


class Stop(Callback):
    """Dies after a batch, after a checkpoint was written."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise KeyError("killed")


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("step", range(1, 10))
def test_killed_at_any_batch_and_resumed(tmp_path, step):
    """Three batches a task: 3, 6 and 9 lie between a task's last batch and its validation."""
    path = tmp_path / "killed.ckpt"
    module = Before()
    with pytest.raises(KeyError, match="killed"):
        killed = trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch), Stop(step, path)])
        killed.validate(module, Tasks(), verbose=False)
        killed.fit(module, Tasks())
    log = ForgettingLogger("val/acc", task=by_epoch)
    trainer(tmp_path, [log]).fit(Before(), Tasks(), ckpt_path=path, weights_only=True)
    assert_matrix(log, R)
    torch.testing.assert_close(log.baseline, BASELINE)


def test_what_is_left_behind(tmp_path, capsys):
    log = ForgettingLogger("val/acc", task=by_epoch, folder=tmp_path / "run")
    fit = trainer(tmp_path, [log])
    fit.fit(Before(), Tasks())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["matrix.json", "matrix.png"]
    record = json.loads((tmp_path / "run" / "matrix.json").read_text())
    assert record["metrics"]["forgetting"]["value"] == pytest.approx(0.03, abs=1e-6)
    assert record["metrics"]["forward_transfer"]["reason"] == "the untrained model was not measured"
    assert record["samples"] == [10, 10, 10]
    out = capsys.readouterr().out
    assert "val/acc on each task" in out and "average accuracy" in out


def test_quiet(tmp_path, capsys):
    trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch, verbose=False, pictures=False)]).fit(
        Scripted(script), Tasks()
    )
    assert "on each task" not in capsys.readouterr().out
    assert (tmp_path / "matrix.json").exists()  # the default_root_dir, where there is no logger


def test_in_the_loggers_folder(tmp_path):
    logger = CSVLogger(tmp_path, name="runs", version="demo")
    trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)], logger=logger).fit(Scripted(script), Tasks())
    names = sorted(path.name for path in (tmp_path / "runs" / "demo").iterdir())
    assert names == ["matrix.json", "matrix.png", "metrics.csv"]


def test_a_dry_run_leaves_nothing(tmp_path):
    fit = trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)], fast_dev_run=True)
    fit.fit(Scripted(script), Tasks())
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_leaves_its_matrix(tmp_path):
    class Fails(Scripted):
        def on_train_epoch_start(self):
            if self.trainer.current_epoch == 2:
                raise KeyError("out of luck")

    with pytest.raises(KeyError, match="out of luck"):
        trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)]).fit(Fails(script), Tasks())
    record = json.loads((tmp_path / "matrix.json").read_text())
    assert record["matrix"][2] == [None, None, None]
    assert record["metrics"]["average_accuracy"]["value"] == pytest.approx(0.915)


def test_without_matplotlib_all_but_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)]).fit(Scripted(script), Tasks())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.json"]
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("dendrite-zoo[report]") <= 1


def test_nothing_to_validate(tmp_path):
    """No validation, no matrix, no files, and a word about it."""
    log = ForgettingLogger("val/acc", task=by_epoch)
    with pytest.warns(UserWarning, match="expected a validation loader for each task, but this fit had no val"):
        trainer(tmp_path, [log], limit_val_batches=0).fit(ReluNet(), Tasks())
    assert log.matrix.shape == (0, 0)
    assert not list(tmp_path.iterdir())


def test_a_task_that_ends_without_a_validation(tmp_path):
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    words = r"Task \d ended without a validation, .*the Trainer has check_val_every_n_epoch=2, "
    with pytest.warns(UserWarning, match=words) as warnings:
        trainer(tmp_path, [log], check_val_every_n_epoch=2).fit(Scripted(script), Tasks())
    assert log.matrix.isnan().all(1).tolist() == [True, False, True]
    ends = [str(warning.message) for warning in warnings if "ended without a validation" in str(warning.message)]
    assert [end[: len("ForgettingLogger: Task 0")] for end in ends] == [f"ForgettingLogger: Task {j}" for j in (0, 2)]


def test_a_fit_that_stops_within_a_task(tmp_path):
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    with pytest.warns(UserWarning, match=r"Task 2 ended without a validation, .*max_steps=8\."):
        trainer(tmp_path, [log], max_steps=8).fit(Scripted(script), Tasks())
    assert log.matrix.isnan().all(1).tolist() == [False, False, True]


def test_a_row_from_before_the_end_of_its_task(tmp_path):
    """Three epochs a task, every second is validated: task 0's last at step 6 of 9, task 2's at step 24 of 27."""
    log = ForgettingLogger("val/acc", task=lambda trainer: trainer.current_epoch // 3, pictures=False)
    with pytest.warns(UserWarning) as warnings:
        fit = trainer(tmp_path, [log], epochs=9, check_val_every_n_epoch=2)
        fit.fit(Scripted(lambda epoch, j: 0.5), Tasks())
    (late,) = [str(warning.message) for warning in warnings if "ForgettingLogger" in str(warning.message)]
    assert "Task 0 was last measured at step 6, but trained on until step 9" in late
    with pytest.warns(UserWarning, match="Task 2 was last measured at step 24, but trained on until step 28"):
        fit.fit_loop.max_epochs, fit.fit_loop.epoch_loop.max_steps = 10, 28
        log.task = lambda trainer: 2
        fit.fit(Scripted(lambda epoch, j: 0.5), Tasks())


def test_what_was_measured_at_the_end_is_known_after_a_resume(tmp_path):
    log, path = ForgettingLogger("val/acc", task=by_epoch, pictures=False), tmp_path / "last.ckpt"
    first = trainer(tmp_path, [log], epochs=1)
    first.fit(Scripted(script), Tasks())
    first.save_checkpoint(path)
    resumed = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [resumed]).fit(
        Scripted(script), Tasks(), ckpt_path=path, weights_only=True
    )  # warnings are errors
    assert_matrix(resumed, R)


def test_a_task_that_comes_back_overwrites_its_row(tmp_path):
    log = ForgettingLogger("val/acc", task=lambda trainer: trainer.current_epoch % 2, pictures=False)
    with pytest.warns(UserWarning, match="Task 0 is trained on again, and its row .* will be overwritten") as warnings:
        trainer(tmp_path, [log], epochs=4).fit(Scripted(lambda epoch, j: R[min(epoch, 2), j]), Tasks(2))
    assert sum("trained on again" in str(warning.message) for warning in warnings) == 1
    assert_matrix(log, R[[2, 2], :2])


class Normalised(Scripted):
    def __init__(self, script):
        super().__init__(script)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def test_an_epoch_that_another_callback_adds(tmp_path):
    """StochasticWeightAveraging goes once more through the data, for the batch statistics."""
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=0.7)
    with pytest.warns(
        UserWarning, match=r"tasks that are measured, 3, but got 3.* Pass .*min\(\.\.\., 2\)"
    ) as warnings:
        fit = trainer(tmp_path, [log, averaging])
        fit.fit(Normalised(lambda epoch, j: R[min(epoch, 2), j]), Tasks())
    assert fit.current_epoch == 4
    assert sum("ForgettingLogger" in str(warning.message) for warning in warnings) == 1
    assert_matrix(log, R)
    assert fit.callback_metrics["forgetting"].item() == pytest.approx(0.03, abs=1e-6)


def test_loaders_that_grow_with_the_tasks(tmp_path):
    """When task 2 begins there are still two loaders, and it is not beyond the last."""

    class Growing(Tasks):
        def val_dataloader(self):
            return [loader(seed=100 + j) for j in range(max(2, self.trainer.current_epoch + 1))]

    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [log]).fit(Scripted(script), Growing())
    expected = R.clone()
    expected[:2, 2] = NAN
    assert_matrix(log, expected)


def test_the_tasks_up_to_one_that_was_learned(tmp_path):
    log = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    assert log.learned_part() is None
    trainer(tmp_path, [log], epochs=2).fit(Scripted(script), Tasks())
    for part in (log.learned_part(), log.learned_part(1)):
        torch.testing.assert_close(part, R[:2, :2])
    assert log.learned_part(0) is None and log.learned_part(2) is None
    some = ForgettingLogger("val/acc", task=by_epoch, pictures=False)
    trainer(tmp_path, [some], epochs=2).fit(Scripted(script), SomeDue())
    assert some.learned_part() is None


def test_a_validation_leaves_the_files_of_an_earlier_run(tmp_path):
    trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)]).fit(Scripted(script), Tasks())
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    fresh = trainer(tmp_path, [ForgettingLogger("val/acc", task=by_epoch)])
    with pytest.warns(UserWarning, match="values after the tasks 0 to 2 of an earlier run"):
        fresh.validate(Scripted(script), Tasks(), verbose=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held and len(held) == 2


def test_a_barebones_trainer_keeps_no_metrics(tmp_path):
    bare = Trainer(barebones=True, max_epochs=1, accelerator="cpu", callbacks=[ForgettingLogger("val/acc", by_epoch)])
    with pytest.raises(ValueError, match=r"barebones=True\) keeps no metrics. Leave one out"):
        bare.fit(ReluNet(), Tasks())
