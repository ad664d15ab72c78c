"""The record of a run, collected from whatever module, datamodule and callbacks there are."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from dendrite_zoo._core.describe import describe
from dendrite_zoo.callbacks import (
    ElasticWeightConsolidation,
    ForgettingLogger,
    HubPublisher,
    RunRecorder,
    SparsityLogger,
    SubnetworkLogger,
    SynapticIntelligence,
)
from dendrite_zoo.callbacks.recipe_config import LEFT_OUT
from dendrite_zoo.cli.main import main
from dendrite_zoo.lightning_modules import (
    BehaviorCloning,
    ContinualClassifier,
    MultiTaskClassifier,
    MultiTaskSAC,
    ReplayClassifier,
)
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP, ActiveDendritePolicy
from dendrite_zoo.records import ResultRecord, merge_seeds, read_records
from dendrite_zoo.rl import Exploration
from dendrite_zoo.streams import (
    DemonstrationMixture,
    DemonstrationSequence,
    MixedTasks,
    OnlineTasks,
    PermutedTasks,
    RotatedTasks,
    SplitTasks,
    TaskSequence,
)
from tests.callbacks.strangers import ReluNet, Scripted, Tasks, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*of an earlier run, which this run overwrites"),
]


def epoch(trainer):
    return trainer.current_epoch


def by_script(now, j):
    return 0.9 - 0.1 * (now - j) if j <= now else 0.1


class Measured(Scripted):
    """Runs its network, too, so that activations can be counted."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.net(batch[0])
        super().validation_step(batch, batch_idx, dataloader_idx)


def test_the_record_of_a_strangers_run(tmp_path):
    """Each accuracy is scripted, so that the record is known beforehand."""
    module, recorder = Measured(by_script), RunRecorder("mine", folder=tmp_path, command="python mine.py")
    callbacks = [
        recorder,
        ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False),
        SparsityLogger(),
    ]
    seed_everything(11, verbose=False)
    trainer(tmp_path, callbacks).fit(module, Tasks())
    (record,) = read_records(tmp_path)
    assert record == recorder.record
    assert (record.benchmark, record.method, record.context_at_test) == ("Tasks", "mine", "none")
    assert record.task_accuracies == pytest.approx([0.7, 0.8, 0.9]) and record.average_accuracy == pytest.approx(0.8)
    assert record.matrix[0] == pytest.approx([0.9, 0.1, 0.1]) and record.num_tasks == 3
    assert record.seeds == [11] and record.command == "python mine.py"
    assert record.parameters == 6 * 16 + 16 + 16 * 3 + 3 and record.more["updates"] == 9
    assert set(record.more["sparsity"]["net.1"]) == {"activation_sparsity", "dead_units", "duty_cycle_entropy"}
    assert record.config_hash is None, "nobody knows which script it was"


def test_what_the_subnetwork_logger_saw_stands_in_the_record(tmp_path):
    recorder = RunRecorder(folder=tmp_path)
    log = ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False)
    watched = SubnetworkLogger(task=epoch, folder=tmp_path)
    trainer(tmp_path, [recorder, log, watched]).fit(ReluNet(), Tasks())
    written = json.loads((tmp_path / "subnetworks.json").read_text())
    assert json.loads(json.dumps(recorder.record.more["subnetworks"])) == written


@pytest.mark.parametrize("reason", ["no matrix", "unfinished", "dry run"])
def test_a_run_without_a_result_leaves_no_record(tmp_path, reason):
    (tmp_path / "results.json").write_text('[{"benchmark": "of an earlier run"}]')
    recorder = RunRecorder(folder=tmp_path)
    log = ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False)
    options = {"epochs": 2} if reason == "unfinished" else {"fast_dev_run": True} if reason == "dry run" else {}
    trainer(tmp_path, [recorder] if reason == "no matrix" else [recorder, log], **options).fit(ReluNet(), Tasks())
    assert recorder.record is None
    assert (tmp_path / "results.json").exists() == (reason == "dry run"), "which spoke of other weights"


@pytest.mark.parametrize("text", ['{"accuracy": 0.9}', "no JSON"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    recorder = RunRecorder(folder=tmp_path)
    log = ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False)
    with pytest.warns(UserWarning, match="results.json is no record of a run, so it is left as it is"):
        trainer(tmp_path, [recorder, log]).fit(ReluNet(), Tasks())
    assert (tmp_path / "results.json").read_text() == text and recorder.record is not None


@pytest.mark.parametrize("limit", [1, 0.5, {"overfit_batches": 1}])
def test_accuracies_of_a_part_of_the_validation_data_are_no_result(tmp_path, limit):
    options = limit if isinstance(limit, dict) else {"limit_val_batches": limit}
    recorder = RunRecorder(folder=tmp_path)
    callbacks = [recorder, ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False)]
    with pytest.warns(UserWarning, match=r"all data, but got limit_val_batches=.*Leave `limit_val_batches` out"):
        trainer(tmp_path, callbacks, **options).fit(ReluNet(), Tasks())
    assert recorder.record is None and not (tmp_path / "results.json").exists()


class Percent(ReluNet):
    """Logs its accuracy in percent, and its loss."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        logits = self.net(x)
        self.log("val/percent", 100 * (logits.argmax(1) == y).float().mean(), batch_size=len(y))
        self.log("val/return", -100 * (logits.argmax(1) == y).float().mean(), batch_size=len(y))
        self.log("val/loss", nn.functional.cross_entropy(logits, y), batch_size=len(y))
        self.log("val/recall", (logits.argmax(1) == y).float().mean(), batch_size=len(y))


@pytest.mark.parametrize(
    ("metric", "mode", "remedy"),
    [
        ("val/percent", "max", "divide percent"),
        ("val/loss", "min", "divide percent"),
        ("val/return", "max", "TaskSpec"),
    ],
)
def test_what_is_no_accuracy_makes_no_record(tmp_path, metric, mode, remedy):
    recorder = RunRecorder(folder=tmp_path)
    log = ForgettingLogger(metric, task=epoch, mode=mode, verbose=False, folder=tmp_path, pictures=False)
    with pytest.warns(UserWarning, match=f"Expected `{metric}` to be an accuracy from 0 to 1, but got .*{remedy}"):
        trainer(tmp_path, [recorder, log]).fit(Percent(), Tasks())
    assert recorder.record is None and not (tmp_path / "results.json").exists()


def test_of_several_metrics_an_accuracy_is_recorded_under_its_name(tmp_path):
    recorder = RunRecorder(folder=tmp_path)
    logs = [
        ForgettingLogger(
            metric, task=epoch, mode=mode, verbose=False, folder=tmp_path / mode, name=mode, pictures=False
        )
        for metric, mode in (("val/loss", "min"), ("val/recall", "max"))
    ]
    trainer(tmp_path, [recorder, *logs]).fit(Percent(), Tasks())
    torch.testing.assert_close(torch.tensor(recorder.record.task_accuracies), logs[1].matrix[-1])
    assert recorder.record.more["metric"] == "recall"


@pytest.mark.parametrize("limit", [1.0, 3, 100])
def test_a_limit_above_the_number_of_batches_leaves_all_of_them(tmp_path, limit):
    recorder = RunRecorder(folder=tmp_path)
    callbacks = [recorder, ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False)]
    trainer(tmp_path, callbacks, limit_val_batches=limit).fit(ReluNet(), Tasks())
    assert recorder.record.num_tasks == 3


def stream(**arguments):
    return PermutedTasks("digits", **{"num_tasks": 2, "batch_size": 512, **arguments})


def run(folder, *callbacks, seed=0, data=None, model=None, options=None, **module) -> ResultRecord:
    seed_everything(seed, verbose=False)
    recorder = RunRecorder(folder=folder)
    own = [recorder, ForgettingLogger(verbose=False, folder=folder, pictures=False), *callbacks]
    model = model or ActiveDendriteClassifier(64, [16], 10, max_tasks=2)
    data = stream(seed=seed) if data is None else data
    trainer(folder, own, epochs=2, **(options or {})).fit(ContinualClassifier(model, **module), data)
    return recorder.record


def test_two_runs_are_seeds_of_one_recipe_where_everything_that_decides_is_equal(tmp_path):
    first, second = (run(tmp_path, seed=seed) for seed in (0, 1))
    assert first.config_hash is not None and first.seeds != second.seeds
    (merged,) = merge_seeds([first, second])
    assert merged.seeds == [0, 1] and merged.stream_seeds == [0, 1]
    observed = run(tmp_path, SparsityLogger(), seed=2, data=stream(seed=2, eval_at=[1]))
    assert observed.config_hash == first.config_hash, "what only watches, and when, decides nothing"
    others = [
        run(tmp_path, lr=0.1),
        run(tmp_path, data=stream(batch_size=256)),
        run(tmp_path, data=stream(val_fraction=0.2)),
        run(tmp_path, data=TaskSequence(["digits", PermutedTasks("digits", 1)], batch_size=512)),
        run(tmp_path, model=ActiveDendriteClassifier(64, [16], 10, max_tasks=2, num_segments=3)),
        run(tmp_path, model=ActiveDendriteMLP(64, [16], 10, context_dim=1, num_segments=0)),
        run(tmp_path, SynapticIntelligence(0.1)),
        run(tmp_path, SynapticIntelligence(0.2)),
        run(tmp_path, options={"gradient_clip_val": 1.0}),
        run(tmp_path, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
        run(tmp_path, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2)),
    ]
    hashes = [first.config_hash, *(other.config_hash for other in others)]
    assert None not in hashes and len(set(hashes)) == len(hashes)


def test_weights_that_a_run_starts_from_are_part_of_its_recipe(tmp_path):
    ActiveDendriteClassifier(64, [16], 10, max_tasks=2).save_pretrained(tmp_path / "model")
    loaded = ActiveDendriteClassifier.from_pretrained(tmp_path / "model")
    anew, tuned = run(tmp_path), run(tmp_path, model=loaded)
    assert anew.model == tuned.model and None not in (anew.config_hash, tuned.config_hash)
    assert anew.config_hash != tuned.config_hash


class Unsaid(Callback):
    """Whose argument cannot be found out, and may change what is learned."""

    def __init__(self, rate):
        self._rate = rate


@pytest.mark.parametrize("what", ["a callback", "data", "a model", "no datamodule"])
def test_what_is_not_known_has_no_hash(tmp_path, what):
    if what == "a callback":
        record = run(tmp_path, Unsaid(3))
    elif what == "data":
        x, y = torch.rand(40, 64), torch.arange(40) % 10
        record = run(tmp_path, data=PermutedTasks((x, y, x, y), num_tasks=2))
    elif what == "a model":
        record = run(tmp_path, model=nn.Sequential(nn.Linear(64, 10)))
    else:
        recorder, data = RunRecorder(folder=tmp_path), stream()
        log = ForgettingLogger(task=epoch, verbose=False, folder=tmp_path, pictures=False)
        fit = trainer(tmp_path, [recorder, log], epochs=1)
        loaders = data.task_loader(0), [data.task_loader(0, "val")]
        fit.fit(ContinualClassifier(ActiveDendriteClassifier(64, [16], 10, max_tasks=1)), *loaders)
        record = recorder.record
    assert record is not None and record.config is None and record.config_hash is None


def test_a_strangers_arguments_are_read_from_hparams(tmp_path):
    class Net(ReluNet):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    class Data(Tasks):
        def __init__(self, rows, seed):
            super().__init__()
            self.save_hyperparameters(logger=False)

    def hash_of(width, rows, seed):
        recorder = RunRecorder(folder=tmp_path)
        log = ForgettingLogger(task=epoch, verbose=False, folder=tmp_path)
        trainer(tmp_path, [recorder, log]).fit(Net(width), Data(rows, seed))
        return recorder.record.config_hash

    assert hash_of(3, 5, seed=0) == hash_of(3, 5, seed=1) is not None
    assert len({hash_of(3, 5, 0), hash_of(4, 5, 0), hash_of(3, 6, 0)}) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: PermutedTasks("digits", num_tasks=2),
        lambda: RotatedTasks("digits", num_tasks=2),
        lambda: SplitTasks("digits", num_tasks=2),
        lambda: DemonstrationMixture("mt10", task_weights={"push-v3": 2}),
        lambda: DemonstrationSequence(["reach-v3", "push-v3"], epochs_per_task=2),
        lambda: OnlineTasks(["reach-v3"], env_steps=1000, environments={"fast": True, "num_processes": 0}),
        lambda: BehaviorCloning(ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8])),
        lambda: MultiTaskSAC(ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8])),
        lambda: ReplayClassifier(ActiveDendriteClassifier(64, [16], 10, max_tasks=2)),
        lambda: SynapticIntelligence(0.3),
        lambda: ElasticWeightConsolidation(3.0, online=True),
    ],
)
def test_our_own_classes_tell_all_that_decides_the_result(make):
    """Else no two runs of theirs would ever be seeds of one recipe."""
    made = make()
    described = json.loads(json.dumps(describe(made, LEFT_OUT | {"model", "source", "context"})))
    assert described.pop("class") == type(made).__name__ and described


def test_what_was_asked_for_is_described_not_what_happened():
    described = describe(
        OnlineTasks(["reach-v3"], env_steps=1000, environments={"fast": True, "num_processes": 0}), LEFT_OUT
    )
    assert described["env_steps"] == 1000 and described["environments"] == {"fast": True}
    mixture = DemonstrationMixture("mt10", task_weights={"push-v3": 2})
    assert describe(mixture, LEFT_OUT)["task_weights"] == {"push-v3": 2}


def test_a_further_seed_is_of_the_recipe_of_those_before():
    """Arguments of later versions make no other recipe where they are not given."""
    (record,) = read_records(Path(__file__).parents[2] / "results/metaworld/mt10-scratch.json")
    recorded = record.config["data"]
    given = {name: value for name, value in recorded.items() if name not in ("class", "exploration")}
    burst = {name: value for name, value in recorded["exploration"].items() if name != "class"}
    for more in ({}, {"save_replay": False}):  # which decides nothing where a run is not resumed
        described = describe(OnlineTasks(**given, exploration=Exploration(**burst), **more), LEFT_OUT)
        assert {name: value for name, value in described.items() if value is not None} == recorded


def test_seeds_within_a_sequence_make_other_tasks():
    """Its own seed makes other orders of the same tasks."""

    def described(part, seed=0):
        sources = [PermutedTasks("digits", num_tasks=2, seed=part), "digits"]
        return describe(TaskSequence(sources, seed=seed), LEFT_OUT)

    assert described(0) == described(0, seed=1) != described(1)
    assert described(1)["part_seeds"] == [1, None]
    assert (
        described(1)
        == describe(MixedTasks(TaskSequence([PermutedTasks("digits", 2, seed=1), "digits"])), LEFT_OUT)["tasks"]
    )


class TestAllTasksAtOnce:
    """No ForgettingLogger: what the last validation logged of each task."""

    def fit(self, tmp_path, callbacks=(), ckpt_path=None, **arguments):
        seed_everything(0, verbose=False)
        data, recorder = MixedTasks(PermutedTasks("digits", num_tasks=2), epochs=2), RunRecorder(folder=tmp_path)
        model = ActiveDendriteClassifier(64, [16], 10, max_tasks=2, context="one-hot")
        run = trainer(tmp_path, [recorder, *callbacks], epochs=2, **arguments)
        run.fit(MultiTaskClassifier(model), data, ckpt_path=ckpt_path, weights_only=True)
        return model, data, recorder.record

    def test_the_record_is_of_all_rows_of_each_task(self, tmp_path):
        model, data, record = self.fit(tmp_path)
        (written,) = read_records(tmp_path)
        assert written == record and record.matrix is None and record.config_hash is not None
        assert (record.benchmark, record.context_at_test, record.num_tasks) == ("mixed-permuted-digits", "given", 2)
        for task, accuracy in enumerate(record.task_accuracies):
            x, y = map(torch.cat, zip(*data.task_loader(task, "val"), strict=True))
            assert accuracy == pytest.approx((model.eval()(x, task=task).argmax(1) == y).double().mean().item())

    def test_its_model_is_evaluated_and_presented_as_such(self, tmp_path, capsys):
        model, _, record = self.fit(tmp_path)
        model.save_pretrained(tmp_path / "model", results=[record.to_json()])
        main(["evaluate", str(tmp_path / "model"), "--json", str(tmp_path / "scores.json")])
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert scores["given"] == pytest.approx(record.task_accuracies)
        main(["publish", str(tmp_path / "model"), "--repo", "me/mixed", "--dry-run"])
        assert "2 tasks learned at once" in " ".join(capsys.readouterr().out.split())

    @pytest.mark.filterwarnings("ignore:.*Checkpoint directory")
    def test_a_run_that_had_ended_keeps_its_record_where_it_is_resumed(self, tmp_path):
        def fit(ckpt_path=None):
            checkpoint = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
            return self.fit(tmp_path, [checkpoint], ckpt_path, enable_checkpointing=True)[2]

        record, again = fit(), fit(tmp_path / "last.ckpt")
        assert record.task_accuracies == again.task_accuracies
        assert [again] == read_records(tmp_path)

    def test_no_record_of_a_validation_that_is_not_the_last(self, tmp_path):
        assert self.fit(tmp_path, check_val_every_n_epoch=2)[2] is not None
        assert self.fit(tmp_path, max_steps=20, val_check_interval=5)[2] is None

    def test_no_record_of_a_part_of_the_data(self, tmp_path):
        with pytest.warns(UserWarning, match="limit_val_batches"):
            assert self.fit(tmp_path, limit_val_batches=1)[2] is None


@pytest.mark.parametrize("kind", [RunRecorder, HubPublisher])
def test_the_time_of_a_run_goes_on_where_it_is_resumed(tmp_path, monkeypatch, kind):
    """A clock that moves in training steps alone, 10 s each: three batches an epoch, so four epochs take 120 s."""
    now = SimpleNamespace(value=1000.0)
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time", SimpleNamespace(monotonic=lambda: now.value))
    monkeypatch.setattr(
        "dendrite_zoo.hub.publish.upload.publish", lambda *args, **kwargs: SimpleNamespace(tag="", url="")
    )

    class Slow(ContinualClassifier):
        def training_step(self, batch, batch_idx):
            now.value += 10.0
            return super().training_step(batch, batch_idx)

    def fit(tasks, **resume):
        callback = RunRecorder(folder=tmp_path) if kind is RunRecorder else HubPublisher("a/b", folder=tmp_path)
        log = ForgettingLogger(verbose=False, folder=tmp_path, pictures=False)
        data = PermutedTasks("digits", num_tasks=tasks)
        run = trainer(tmp_path, [callback, log], epochs=tasks, limit_train_batches=3)
        module = Slow(ActiveDendriteClassifier(64, [16], 10, max_tasks=4))
        run.fit(module, data, **resume)
        return run, (callback if kind is RunRecorder else callback._recorder).collect(run, module).wall_time_s

    first, seconds = fit(2)
    assert seconds == 60
    first.save_checkpoint(tmp_path / "two.ckpt", weights_only=False)
    now.value += 5000.0  # until somebody comes back
    assert fit(4, ckpt_path=tmp_path / "two.ckpt", weights_only=True)[1] == 120
