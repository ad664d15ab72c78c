"""SuccessLogger on robot tasks learned one after another, with the callbacks that know nothing of robots."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SubnetworkLogger, SuccessLogger
from dendrite_zoo.lightning_modules import BehaviorCloning
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import Demonstrations, SuccessReport, TaskEnvironments, TaskSpec
from dendrite_zoo.streams import DemonstrationSequence
from tests.rl.worlds import Ledge

TASKS = ("drawer-close-v3", "reach-v3")
# The demonstrations here are nobody's.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not say how it was collected:UserWarning")


def stream(folder, **arguments):
    """Demonstrations of a hand that goes straight to the goal, which neither task needs many of."""
    draws = torch.Generator().manual_seed(0)
    task = torch.arange(2).repeat_interleave(300)
    x = torch.rand(600, 39, generator=draws) * 0.2
    action = torch.cat([(10 * (x[:, 36:] - x[:, :3])).clamp(-1, 1), torch.zeros(600, 1)], dim=1)
    shown = Demonstrations(TASKS, x, action, task, torch.ones(600).bool())
    for name in ("experts", "val"):
        shown.save(folder / f"{name}.safetensors")
    return DemonstrationSequence(TASKS, folder=folder, updates_per_epoch=30, batch_size_per_task=64, **arguments)


class Reports(Callback):
    """Notes what was measured in each validation."""

    def __init__(self, success):
        self.success, self.rows = success, []

    def on_validation_end(self, trainer, pl_module):
        self.rows.append(list(self.success.report.per_task.values()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("metaworld")
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    policy = ActiveDendritePolicy(TASKS, hidden_features=[64, 64], dendrite_layers=None, weight_density=1.0)
    success = SuccessLogger(num_goals=2, max_steps=25, num_processes=0)
    log, sparsity, subnetworks = (
        ForgettingLogger("val/success", verbose=False, pictures=False),
        SparsityLogger(),
        SubnetworkLogger(),
    )
    reports, data = Reports(success), stream(folder)
    trainer = Trainer(
        **data.trainer_kwargs(),
        logger=False,
        default_root_dir=folder,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[log, sparsity, subnetworks, success, reports],
    )
    trainer.fit(BehaviorCloning(policy, lr=3e-3, warmup=1), data)
    return trainer, folder, log, sparsity, subnetworks, success, reports


def test_the_matrix_is_what_was_reached_after_each_task(run):
    _, folder, log, _, _, _, reports = run
    assert log.matrix.shape == (2, 2) and not log.matrix.isnan().any()
    torch.testing.assert_close(log.matrix, torch.tensor(reports.rows))
    assert json.loads((folder / "matrix.json").read_text())["metric"] == "val/success"


def test_the_curve_of_a_task_is_what_was_reached_while_it_was_trained(run):
    *_, success, reports = run
    assert success.curves == {0: [reports.rows[0][0]], 1: [reports.rows[1][1]]}
    again = SuccessLogger()
    again.load_state_dict(success.state_dict())
    assert again.curves == success.curves


def test_what_is_not_due_is_not_played_and_episodes_go_to_their_end(tmp_path):
    pytest.importorskip("metaworld")
    success = SuccessLogger(num_goals=1, max_steps=3, num_processes=0, to_end=True, fast=True)
    log, reports, data = ForgettingLogger("val/success", verbose=False), Reports(success), stream(tmp_path, eval_at=[])
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(**data.trainer_kwargs(), **quiet, default_root_dir=tmp_path, callbacks=[log, success, reports])
    trainer.fit(BehaviorCloning(ActiveDendritePolicy(TASKS, hidden_features=[8, 8]), warmup=1), data)
    assert [len(row) for row in reports.rows] == [1, 2] and log.matrix.isnan().tolist() == [[False, True], [False] * 2]
    assert success.report.last is not None and "success_at_end/mean" in trainer.callback_metrics
    with pytest.raises(ValueError, match="`eval_at` to hold tasks that are trained, 0 to 1, but got 2"):
        stream(tmp_path, eval_at=[2])


def test_names_of_tasks_and_mean_are_logged(run):
    trainer, *_, success, _ = run
    metrics = trainer.callback_metrics
    for name, value in success.report.per_task.items():
        assert metrics[f"success/{name}"] == pytest.approx(value)
    assert metrics["success/mean"] == pytest.approx(success.report.mean) and "forgetting" in metrics
    assert success._evaluation is None  # closed


def test_sparsity_and_subnetworks_are_seen_by_task(run):
    _, folder, _, sparsity, subnetworks, *_ = run
    figures = sparsity.values["model.mlp.activations.0"]
    assert figures["activation_sparsity"] == pytest.approx(0.75, abs=0.01)  # a quarter of the units wins
    assert subnetworks.win_rates["model.mlp.activations.1"].shape == (2, 64)
    for _, _, samples in subnetworks._counts.by_layer(torch.device("cpu")).values():
        assert samples.sum(0).unique().item() == 600, "no row that the policy met in playing"
    assert subnetworks.segments["model.mlp.hidden.1"].shape == (2, 64)
    assert (folder / "subnetworks.json").is_file()


def test_a_checkpoint_keeps_the_report(run):
    *_, success, _ = run
    again = SuccessLogger(num_goals=2, max_steps=25)
    assert again.report is None and again.state_key == success.state_key
    others = SuccessLogger(num_goals=2, to_end=True), SuccessLogger(num_goals=2, action_repeat=2)
    assert len({log.state_key for log in (success, *others)}) == 3, "one fit may have all of them"
    again.load_state_dict(success.state_dict())
    assert again.report.per_task == success.report.per_task and again.report.tasks == TASKS
    np.testing.assert_array_equal(again.report.first, success.report.first)


class Scripted(SuccessLogger):
    """Plays nothing: the first goal of each task is reached in step 3, the second never."""

    def _evaluate(self, trainer, pl_module):
        return SuccessReport(TASKS, np.array([[3, 0], [3, 0]]), None, self.split, 25)


@pytest.mark.filterwarnings("ignore:.*os.fork\\(\\)|.*multi-threaded", "ignore:.*does not have many workers")
def test_the_report_of_another_process_comes_back(tmp_path):
    log = Scripted(tasks=TASKS)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    for _ in range(2):
        trainer = Trainer(accelerator="cpu", strategy="ddp_fork", devices=1, callbacks=[log], **quiet)
        trainer.validate(Still(), DataLoader([0, 0]), verbose=False)
        assert log.report.per_task == {name: 0.5 for name in TASKS} and log.report.first[0, 0] == 3
        log._report = None


def test_who_names_no_tasks_is_asked_for_them():
    class Nameless(LightningDataModule):
        pass

    module = BehaviorCloning(ActiveDendritePolicy(TASKS, hidden_features=[8, 8]))
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.datamodule = Nameless()
    with pytest.raises(ValueError, match="SuccessLogger\\(tasks=...\\)"):
        SuccessLogger().setup(trainer, module, "fit")
    SuccessLogger(tasks=TASKS[::-1]).setup(trainer, module, "fit")
    with pytest.raises(ValueError, match="Did you mean 'reach-v3'"):
        SuccessLogger(tasks=["reach"])


class Still(LightningModule):
    """Never moves, and notes what it was asked for."""

    def __init__(self, tasks=None):
        super().__init__()
        self.model = torch.nn.Module()
        self.asked = []
        if tasks is not None:
            self.model.tasks = tasks

    def act_batch(self, observations, task_index):
        self.asked.append((observations, task_index))
        return np.zeros((len(observations), 4))

    def validation_step(self, *_):
        pass


class Goals(LightningDataModule):
    """Nothing but the names of tasks, and perhaps a seed."""

    tasks = TASKS

    def val_dataloader(self):
        return [0]


def asked(module, log, data):
    """What a module is asked first, in a validation."""
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, callbacks=[log])
    trainer.validate(module, data, verbose=False)
    return module.asked[0]


@pytest.mark.parametrize(("of_data", "own", "played"), [(None, None, 0), (3, None, 3), (3, 1, 1)])
def test_the_goals_are_those_of_the_data(of_data, own, played):
    pytest.importorskip("metaworld")
    data = Goals()
    if of_data is not None:
        data.seed = of_data
    options = {"split": "train", "num_goals": 1, "max_steps": 1, "num_processes": 0}
    observations, _ = asked(Still(), SuccessLogger(seed=own, **options), data)
    with TaskEnvironments(TASKS, order="each-once", seed=played, **options) as environments:
        np.testing.assert_array_equal(observations, environments.reset())


class Steps(SuccessLogger):
    """Notes when it would play."""

    def __init__(self, every_n_steps):
        super().__init__(every_n_steps)
        self.steps = []

    def _play(self, trainer, *_, **__):
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("every", "came", "played"),
    [
        (2, [0, 1, 2, 3, 4], [2, 4]),
        (4, [0, 0, 3, 6, 9, 12], [6, 9, 12]),  # several updates a batch, which may pass a multiple by
        (4, [3, 11, 13], [11, 13]),
        (4, [9, 11, 12], [12]),  # resumed
    ],
)
def test_it_plays_where_so_many_steps_are_over(every, came, played):
    log, trainer = Steps(every), SimpleNamespace(global_step=came[0])
    log.on_train_start(trainer, None)
    for trainer.global_step in came:
        log.on_train_batch_end(trainer, None, None, None, 0)
    assert log.steps == played


def test_the_policy_is_asked_by_its_own_numbers_of_the_tasks():
    """Some of its tasks, in another order; a policy that names none goes by the order that is given."""
    pytest.importorskip("metaworld")
    policy, played = ("push-v3", "reach-v3", "drawer-close-v3"), ["drawer-close-v3", "push-v3"]
    options = {"tasks": played, "num_goals": 1, "max_steps": 1, "num_processes": 0}
    for tasks, numbers in ((policy, [2, 0]), (None, [0, 1])):
        data = Goals()
        data.tasks, data.current_task = ("reach-v3", "drawer-close-v3", "push-v3"), 1
        log = SuccessLogger(**options)
        module = Still(tasks)
        assert asked(module, log, data)[1].tolist() == numbers
        assert list(log.report.per_task) == played
        of_tasks = {name for name in module.trainer.callback_metrics if name.startswith("val/")}
        assert of_tasks == {"val/task_1/success", "val/task_2/success"}, "as the data count them"


def test_a_task_that_the_policy_lacks_is_refused():
    with pytest.raises(ValueError, match="those of the policy, reach-v3, push-v3, but got drawer-close-v3"):
        asked(Still(("reach-v3", "push-v3")), SuccessLogger(tasks=["reach-v3", "drawer-close-v3"]), Goals())


def test_tasks_that_cannot_be_evaluated_together_are_refused_before_anything_is_trained():
    tasks = [TaskSpec("one", Ledge, success="near"), TaskSpec("other", Ledge)]
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    with pytest.raises(ValueError, match="Expected all tasks or none to say what success is, but other do not"):
        SuccessLogger(tasks=tasks).setup(trainer, Still(("one", "other")), "fit")


def test_a_function_says_that_tasks_come_one_after_another():
    """Without a word of it, values for a matrix are not logged."""
    pytest.importorskip("metaworld")
    options = {"tasks": ["push-v3"], "num_goals": 1, "max_steps": 1, "num_processes": 0}
    for said, logged in ((lambda trainer: 0, {"val/task_0/success"}), (None, set())):
        module = Still(("push-v3",))
        asked(module, SuccessLogger(**options, task=said), Goals())
        assert {name for name in module.trainer.callback_metrics if name.startswith("val/")} == logged


@pytest.mark.filterwarnings("error:SuccessLogger plays")
def test_a_fit_in_which_it_never_plays_is_said():
    class Learner(Still):
        weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, *_):
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=0.1)

    class Both(Goals):
        def train_dataloader(self):
            return [0]

    def fit(log):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        quiet |= {"enable_checkpointing": False, "log_every_n_steps": 1, "limit_val_batches": 0, "callbacks": [log]}
        Trainer(**quiet, max_epochs=1).fit(Learner(("push-v3",)), Both())

    with pytest.raises(UserWarning, match="at each validation, but this fit has none, .*every_n_steps=..."):
        fit(SuccessLogger(tasks=["push-v3"], num_processes=0))
    fit(SuccessLogger(1000, tasks=["push-v3"], num_processes=0))
