"""One fit for each task, and one loader after another: whatever is not said is not guessed."""

import json
import math
import re
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from dendrite_zoo.callbacks import ForgettingLogger, SynapticIntelligence
from tests.callbacks.learners import TASKS, Learner, WithoutIndex, knows, train_loader, val_loader
from tests.callbacks.strangers import Tasks, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
NAN = math.nan
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "losses-and-mixed-tasks.md"


def val_loaders(tasks=TASKS):
    return [val_loader(j) for j in range(tasks)]


def assert_is(matrix, rows):
    torch.testing.assert_close(matrix, torch.tensor(rows, dtype=torch.float32), rtol=0, atol=1e-6, equal_nan=True)


def fit_trainer(tmp_path, log, **kwargs):
    return trainer(tmp_path, log if isinstance(log, list) else [log], epochs=2, **kwargs)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Learner()


class TestOneFitForEachTask:
    @pytest.mark.parametrize("how", ["index", "closure", "attribute"])
    @pytest.mark.parametrize("trainers", ["new", "raised"])
    def test_the_task_is_said_before_each(self, tmp_path, module, how, trainers):
        log = ForgettingLogger(
            "val/acc", None if how != "closure" else lambda trainer: i, verbose=False, pictures=False
        )
        rows, fit = [], fit_trainer(tmp_path, log)
        for i in range(TASKS):
            if how == "index":
                log.task = i
            elif how == "attribute":
                module.current_task = i
            if trainers == "new":
                fit = fit_trainer(tmp_path, log)
            elif i:
                fit.fit_loop.max_epochs += 2
            fit.fit(module, train_loader(i), val_loaders())
            rows.append(knows(module))
        assert_is(log.matrix, rows)
        lost = max(rows[0][0], rows[1][0]) - rows[2][0], rows[1][1] - rows[2][1]
        assert fit.callback_metrics["forgetting"].item() == pytest.approx(sum(lost) / 2, abs=1e-6)

    @pytest.mark.parametrize("epochs", [{"task": lambda trainer: trainer.current_epoch // 2}, {"epochs_per_task": 2}])
    def test_epochs_go_on_in_one_trainer(self, tmp_path, module, epochs):
        log, rows = ForgettingLogger("val/acc", verbose=False, **epochs, pictures=False), []
        fit = fit_trainer(tmp_path, log)
        for i in range(TASKS):
            fit.fit_loop.max_epochs = 2 * i + 2
            fit.fit(module, train_loader(i), val_loaders())
            rows.append(knows(module))
        assert_is(log.matrix, rows)

    @pytest.mark.parametrize("epochs", [{"task": lambda trainer: trainer.current_epoch // 2}, {"epochs_per_task": 2}])
    def test_epochs_that_begin_anew_are_refused(self, tmp_path, module, epochs):
        """Each new Trainer would overwrite row 0."""
        log = ForgettingLogger("val/acc", verbose=False, **epochs)
        fit_trainer(tmp_path, log).fit(module, train_loader(0), val_loaders())
        first = log.matrix.clone()
        with pytest.raises(ValueError, match=r"starts at task 0, which an earlier fit has trained .*`log\.task = 1`"):
            fit_trainer(tmp_path, log).fit(module, train_loader(1), val_loaders())
        assert torch.equal(log.matrix[:1], first[:1])
        log.task = 1  # what the message says
        fit_trainer(tmp_path, log).fit(module, train_loader(1), val_loaders())
        assert_is(log.matrix[1], knows(module))

    def test_an_index_that_was_for_the_fit_before(self, tmp_path, module):
        log = ForgettingLogger("val/acc", 0, verbose=False)
        fit_trainer(tmp_path, log).fit(module, train_loader(0), val_loaders())
        with pytest.raises(ValueError, match=r"`log.task` to be set before each run, but 0 was for an earlier one"):
            fit_trainer(tmp_path, log).fit(module, train_loader(1), val_loaders())

    def test_the_same_task_goes_on(self, tmp_path, module):
        log = ForgettingLogger("val/acc", verbose=False, pictures=False)
        for _ in range(2):
            log.task = 0
            fit_trainer(tmp_path, log).fit(module, train_loader(0), val_loaders())
        assert_is(log.matrix[:1], [knows(module)])

    def test_a_trainer_that_has_had_its_epochs(self, tmp_path, module):
        log = ForgettingLogger("val/acc", 0, verbose=False, pictures=False)
        fit = fit_trainer(tmp_path, log)
        fit.fit(module, train_loader(0), val_loaders())
        log.task = 1
        with pytest.warns(UserWarning, match=r"this fit trained on nothing, .*`trainer\.fit_loop\.max_epochs`"):
            fit.fit(module, train_loader(1), val_loaders())

    def test_loaders_of_the_tasks_so_far(self, tmp_path, module):
        log, rows = ForgettingLogger("val/acc", verbose=False, pictures=False), []
        for i in range(TASKS):
            log.task = i
            fit_trainer(tmp_path, log).fit(module, train_loader(i), val_loaders(i + 1))
            rows.append(knows(module, i + 1) + [NAN] * (TASKS - 1 - i))
        assert_is(log.matrix, rows)

    def test_loaders_of_earlier_tasks_alone(self, tmp_path, module):
        """The task that is trained on is not validated: its row is there, its column is not yet."""
        log, rows = ForgettingLogger("val/acc", lambda trainer: i, verbose=False, pictures=False), []
        for i in range(TASKS):
            fit_trainer(tmp_path, log).fit(module, train_loader(i), val_loaders(2))
            rows.append([*knows(module, 2), NAN])
        assert_is(log.matrix, rows)

    def test_a_task_that_early_stopping_ends(self, tmp_path, module):
        log, rows = ForgettingLogger("val/acc", verbose=False, pictures=False), []
        for i in range(TASKS):
            log.task = i
            stop = EarlyStopping(f"val/acc/dataloader_idx_{i}", mode="max", patience=1, min_delta=1.0)
            fit = trainer(tmp_path, [log, stop], epochs=9)
            fit.fit(module, train_loader(i), val_loaders())
            assert fit.current_epoch < 9
            rows.append(knows(module))
        assert_is(log.matrix, rows)

    @pytest.mark.parametrize("epochs_per_task", [2, 4])
    def test_early_stopping_waits_through_the_first_task(self, tmp_path, module, epochs_per_task):
        """The line of the guide on losses; with less patience it ends within the first task."""
        line = re.search(r"^EarlyStopping\(\"forgetting\".*$", GUIDE.read_text(), re.M)[0]
        stop = eval(line, {"EarlyStopping": EarlyStopping, "epochs_per_task": epochs_per_task})

        class Stream(Tasks):
            def train_dataloader(self):
                return train_loader(self.trainer.current_epoch // epochs_per_task)

        epochs = TASKS * epochs_per_task
        for stopping, expected in ((stop, epochs), (EarlyStopping("forgetting", patience=1, check_finite=False), 1)):
            log = ForgettingLogger(
                "val/acc", epochs_per_task=epochs_per_task, verbose=False, folder=tmp_path / "a", pictures=False
            )
            fit = trainer(tmp_path, [log, stopping], epochs=epochs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the second, which overwrites, and ends early
                fit.fit(module, datamodule=Stream())
            assert fit.current_epoch == expected and len(log.matrix) == TASKS

    def test_one_place_says_the_task_to_all_callbacks(self, tmp_path, module):
        """Without a task of its own, SynapticIntelligence consolidates after each."""
        log, si = ForgettingLogger("val/acc", verbose=False, pictures=False), SynapticIntelligence(0.1)
        for i in range(2):
            log.task = i
            fit_trainer(tmp_path, [si, log]).fit(module, train_loader(i), val_loaders())
            importance = sum(x.sum().item() for x in si.state_dict()["regularizer"]["importance"].values())
            assert (importance > 0) == (i > 0)

    def test_an_epoch_based_task_of_consolidation_alone(self, tmp_path, module):
        """It would consolidate nothing."""
        si = SynapticIntelligence(0.1, task=lambda trainer: trainer.current_epoch // 2)
        fit_trainer(tmp_path, [si]).fit(module, train_loader(0), val_loaders())
        with pytest.warns(
            UserWarning, match="SynapticIntelligence: this fit starts at task 0, which an earlier fit has"
        ):
            fit_trainer(tmp_path, [si]).fit(module, train_loader(1), val_loaders())
        si.task = 2
        fit_trainer(tmp_path, [si]).fit(module, train_loader(2), val_loaders())
        assert sum(x.sum().item() for x in si.state_dict()["regularizer"]["importance"].values()) > 0

    def test_a_dry_run_first(self, tmp_path, module):
        log, si = (
            ForgettingLogger("val/acc", epochs_per_task=2, verbose=False, pictures=False),
            SynapticIntelligence(0.1),
        )
        fit_trainer(tmp_path, [log, si], fast_dev_run=True).fit(module, train_loader(0), val_loaders())
        fit_trainer(tmp_path, [log, si]).fit(module, train_loader(0), val_loaders())
        assert log.matrix[1:].isnan().all()
        assert_is(log.matrix[0], knows(module))


class TestNewCallbacksForEachFit:
    def run(self, tmp_path, module, make, after=lambda log: None):
        rows = []
        for i in range(TASKS):
            log = make(i)
            fit_trainer(tmp_path, log).fit(module, train_loader(i), val_loaders())
            after(log)
            rows.append(knows(module))
        return log, rows

    def test_in_one_folder_they_go_on(self, tmp_path, module):
        folder = tmp_path / "run"
        log, rows = self.run(
            tmp_path, module, lambda i: ForgettingLogger("val/acc", i, folder=folder, verbose=False, pictures=False)
        )
        assert_is(log.matrix, rows)
        record = json.loads((folder / "matrix.json").read_text())
        assert_is(torch.tensor(record["matrix"]), rows)
        assert record["first_task"] == 0 and record["samples"] == [50] * TASKS

    def test_with_the_state_of_the_last(self, tmp_path, module):
        states = []

        def make(i):
            log = ForgettingLogger("val/acc", i, verbose=False, pictures=False)
            if states:
                log.load_state_dict(states[-1])
            return log

        log, rows = self.run(tmp_path, module, make, lambda log: states.append(log.state_dict()))
        assert_is(log.matrix, rows)

    def test_without_either_they_say_so_and_leave_the_file(self, tmp_path, module):
        with pytest.warns(UserWarning) as caught:
            log, rows = self.run(
                tmp_path, module, lambda i: ForgettingLogger("val/acc", i, verbose=False, pictures=False)
            )
        messages = [str(one.message) for one in caught]
        starts = [one for one in messages if "training starts at task" in one]
        assert len(starts) == 2 and all(
            "one ForgettingLogger for all, or give each fit's the same" in x for x in starts
        )
        assert sum("the file is not overwritten" in one for one in messages) == 2
        assert_is(log.matrix, [[NAN] * 3, [NAN] * 3, rows[-1]])
        assert_is(torch.tensor(json.loads((tmp_path / "matrix.json").read_text())["matrix"][0]), rows[0])

    @pytest.mark.parametrize("wrong", ["another metric", "no JSON", "a row too few", "a value too many"])
    def test_a_file_that_does_not_fit_is_not_gone_on_with(self, tmp_path, module, wrong):
        log = ForgettingLogger("val/acc", 0, folder=tmp_path, verbose=False, pictures=False)
        fit_trainer(tmp_path, log).fit(module, train_loader(0), val_loaders())
        path = tmp_path / "matrix.json"
        record = json.loads(path.read_text())
        if wrong == "another metric":
            record["metric"] = "val/f1"
        elif wrong == "a row too few":
            record["matrix"].pop()
        elif wrong == "a value too many":
            record["matrix"][0].append(0.5)
        path.write_text("{" if wrong == "no JSON" else json.dumps(record))
        fresh = ForgettingLogger("val/acc", 1, folder=tmp_path, verbose=False, pictures=False)
        with pytest.warns(UserWarning, match="training starts at task 1"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*the file is not overwritten")
            fit_trainer(tmp_path, fresh).fit(module, train_loader(1), val_loaders())
        assert fresh.matrix[0].isnan().all()


class TestOneLoaderAfterAnother:
    def test_each_is_said(self, tmp_path):
        torch.manual_seed(0)
        module, log = WithoutIndex(), ForgettingLogger("val/acc", verbose=False, pictures=False)
        baseline, rows = knows(module), []
        for j in range(TASKS):
            log.task = j
            fit_trainer(tmp_path, log).validate(module, val_loader(j), verbose=False)
        assert_is(log.baseline, baseline)
        for i in range(TASKS):
            log.task = i
            fit = fit_trainer(tmp_path, log)
            fit.fit(module, train_loader(i), val_loader(i))
            for j in range(TASKS):
                log.task = j
                fit.validate(module, val_loader(j), verbose=False)
            rows.append(knows(module))
        assert_is(log.matrix, rows)
        assert_is(log.baseline, baseline)
        assert log.record.samples == [50] * TASKS

    def test_beside_epochs_an_index_is_for_the_next_run_alone(self, tmp_path):
        torch.manual_seed(0)
        module, log = WithoutIndex(), ForgettingLogger("val/acc", epochs_per_task=2, verbose=False, pictures=False)
        baseline = knows(module)
        fit = fit_trainer(tmp_path, log)
        for j in range(TASKS):
            log.task = j
            fit.validate(module, val_loader(j), verbose=False)
        assert_is(log.baseline, baseline)
        fit.fit(module, train_loader(0), val_loader(0))
        assert_is(log.matrix[:1, :1], [knows(module, 1)])
        assert log.matrix[1:].isnan().all()

    @pytest.mark.parametrize("run", ["validate", "test"])
    @pytest.mark.parametrize("trained", [False, True])
    def test_what_is_not_said_is_not_guessed(self, tmp_path, module, run, trained):
        log = ForgettingLogger("val/acc" if run == "validate" else "test/acc", epochs_per_task=2, verbose=False)
        fit = fit_trainer(tmp_path, log)
        if trained:
            fit.fit(module, train_loader(0), val_loader(0))
        before = log.matrix.clone(), log.baseline.clone()
        for j in range(TASKS):
            with pytest.raises(ValueError, match=rf"which task the one loader of this `trainer\.{run}` measures"):
                getattr(fit, run)(module, val_loader(j), verbose=False)
        torch.testing.assert_close((log.matrix, log.baseline), before, equal_nan=True)

    def test_what_was_measured_before_a_later_first_task(self, tmp_path, module):
        """Where the first task turns out to be 2, the loaders measured before it are row 1."""
        log, before = ForgettingLogger("val/acc", verbose=False, pictures=False), knows(module)
        for j in range(TASKS):
            log.task = j
            fit_trainer(tmp_path, log).validate(module, val_loader(j), verbose=False)
        log.task = 2
        fit_trainer(tmp_path, log).fit(module, train_loader(2), val_loaders())
        assert_is(log.matrix, [[NAN] * 3, before, knows(module)])
        assert log.baseline.isnan().all() and log.record.first_task == 2


class TestTrainerTest:
    def test_the_tasks_so_far(self, tmp_path, module):
        """The validation has one loader, the current task's; the test has one for each task so far."""
        log, rows = ForgettingLogger("test/acc", verbose=False, pictures=False), []
        for i in range(TASKS):
            log.task = i
            fit = fit_trainer(tmp_path, log)
            fit.fit(module, train_loader(i), val_loader(i))
            fit.test(module, val_loaders(i + 1), verbose=False)
            rows.append(knows(module, i + 1) + [NAN] * (TASKS - 1 - i))
        assert_is(log.matrix, rows)
        assert (tmp_path / "matrix.json").exists()

    def test_before_training_it_is_the_baseline(self, tmp_path, module):
        log = ForgettingLogger("test/acc", epochs_per_task=2, verbose=False, pictures=False)
        fit_trainer(tmp_path, log).test(module, val_loaders(), verbose=False)
        assert_is(log.baseline, knows(module))

    def test_one_matrix_does_not_mix_both(self, tmp_path):
        class Same(Learner):
            test_step = Learner.validation_step

        torch.manual_seed(0)
        module, log = Same(), ForgettingLogger("val/acc", 0, verbose=False, pictures=False)
        fit = fit_trainer(tmp_path, log)
        fit.fit(module, train_loader(0), val_loader(0))
        fit.test(module, val_loaders(1), verbose=False)  # nothing is lost, and no word of it
        with pytest.warns(
            UserWarning, match="'val/acc' of this test is not put into the matrix, .* such as 'test/acc'"
        ):
            fit.test(module, val_loaders(), verbose=False)
        assert_is(log.matrix, [knows(module, 1)])

    def test_a_name_that_no_test_logs(self, tmp_path, module):
        log = ForgettingLogger("test/f1", 0, verbose=False)
        with pytest.raises(ValueError, match=r"of 'test/f1' for each task, but only \['test/acc'\] were logged"):
            fit_trainer(tmp_path, log).test(module, val_loaders(), verbose=False)


class TestMeasuredBehindTheFit:
    def test_by_a_validation_of_its_own(self, tmp_path, module):
        """No validation within the fits, and no warning."""
        log, rows = ForgettingLogger("val/acc", verbose=False, pictures=False), []
        for i in range(TASKS):
            log.task = i
            fit = fit_trainer(tmp_path, log, limit_val_batches=0)
            fit.fit(module, train_loader(i), val_loaders())
            fit_trainer(tmp_path, log).validate(module, val_loaders(), verbose=False)
            rows.append(knows(module))
        assert_is(log.matrix, rows)

    def test_a_task_that_was_not(self, tmp_path, module):
        log = ForgettingLogger("val/acc", verbose=False, pictures=False)
        log.task = 0
        fit_trainer(tmp_path, log, limit_val_batches=0).fit(module, train_loader(0), val_loaders())
        log.task = 1
        with pytest.warns(UserWarning, match=r"Task 0 ended without a validation, .* Validate after the last step"):
            fit_trainer(tmp_path, log).fit(module, train_loader(1), val_loaders())

    def test_with_the_weights_that_the_next_task_starts_from(self, tmp_path, module):
        """The last measurement counts, as of a best checkpoint that is loaded."""
        log, rows = ForgettingLogger("val/acc", verbose=False, pictures=False), []
        for i in range(TASKS):
            log.task = i
            fit = fit_trainer(tmp_path, log)
            fit.fit(module, train_loader(i), val_loaders())
            with torch.no_grad():
                module.net[2].weight += 0.5 * torch.randn_like(module.net[2].weight)
            fit.validate(module, val_loaders(), verbose=False)
            rows.append(knows(module))
        assert_is(log.matrix, rows)


def test_tasks_in_another_order(tmp_path, module):
    log = ForgettingLogger("val/acc", verbose=False, pictures=False)
    log.task = 2
    fit_trainer(tmp_path, log).validate(module, val_loaders(), verbose=False)
    fit_trainer(tmp_path, log).fit(module, train_loader(2), val_loaders())
    log.task = 0
    with pytest.warns(UserWarning, match="task 0 is trained after tasks of a higher index, .* order of indices"):
        fit_trainer(tmp_path, log).fit(module, train_loader(0), val_loaders())


def test_a_task_that_counts_steps(tmp_path, module):
    """At the validation behind a task's last step, the function says the next task already."""
    log = ForgettingLogger("val/acc", lambda trainer: trainer.global_step // 8, verbose=False, pictures=False)
    rows = []

    class Counts(Learner):
        def train_dataloader(self):
            return train_loader(0)

        def on_validation_end(self):
            if self.trainer.global_step % 8 == 0:
                rows.append(knows(self))

    trainer(tmp_path, [log], epochs=6, val_check_interval=4).fit(Counts(), val_dataloaders=val_loaders())
    assert_is(log.matrix, rows)


class TestASecondRunInTheSameFolder:
    def run(self, tmp_path, seed, **given):
        torch.manual_seed(seed)
        module, log = Learner(), ForgettingLogger("val/acc", 0, verbose=False, pictures=False, **given)
        fit_trainer(tmp_path, log).fit(module, train_loader(0), val_loaders())
        return knows(module)

    def test_the_folder_that_was_chosen(self, tmp_path):
        self.run(tmp_path, 0, folder=tmp_path / "log")
        with pytest.warns(
            UserWarning, match="contains values after task 0 of an earlier run, which this run overwrites"
        ):
            knows_last = self.run(tmp_path, 1, folder=tmp_path / "log")
        written = json.loads((tmp_path / "log" / "matrix.json").read_text())["matrix"][0]
        assert written == pytest.approx(knows_last, abs=1e-6)
        self.run(tmp_path, 1, folder=tmp_path / "log-1")  # says nothing

    def test_the_folder_of_the_trainer(self, tmp_path, caplog):
        self.run(tmp_path, 0)
        with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
            self.run(tmp_path, 1)
        assert "which this run overwrites" in caplog.text

    def test_a_later_task_that_was_trained_already(self, tmp_path, module):
        for i in range(2):
            log = ForgettingLogger("val/acc", i, verbose=False, pictures=False, folder=tmp_path / "log")
            fit_trainer(tmp_path, log).fit(module, train_loader(i), val_loaders())
        log = ForgettingLogger("val/acc", 1, verbose=False, pictures=False, folder=tmp_path / "log")
        with pytest.warns(UserWarning, match="contains values after task 1 of an earlier run"):
            fit_trainer(tmp_path, log).fit(module, train_loader(1), val_loaders())
        assert not log.matrix[0].isnan().any()
