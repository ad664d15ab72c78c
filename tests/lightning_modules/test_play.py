"""Policies at play, by trainer.test and trainer.validate, and while what a task starts as is chosen."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import SuccessLogger
from dendrite_zoo.lightning_modules import BehaviorCloning, MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import evaluate_policy
from dendrite_zoo.streams import DemonstrationMixture, OnlineTasks
from tests.rl.worlds import ledges

pytest.importorskip("gymnasium")
QUIET = {
    "logger": False,
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
ROUNDS = {"env_steps": 40, "epochs": 1, "steps_per_round": 10, "updates_per_round": 1, "warmup_steps": 10}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Where demonstrations are kept."""
    monkeypatch.chdir(tmp_path)


def policy():
    torch.manual_seed(0)
    return ActiveDendritePolicy(ledges(), hidden_features=[8, 8], num_segments=2)


def online(**options):
    return OnlineTasks(ledges(**options), environments={"num_processes": 0, "max_steps": 9}, **ROUNDS)


def shown(expert, specs=None, max_steps=None, folder=None, **options):
    few = {"episodes_per_task": 1, "updates_per_epoch": 1, "val_episodes": 1, "epochs": 1, "dagger_rounds": 0}
    return DemonstrationMixture(
        specs or ledges(**options), expert=expert, num_processes=0, max_steps=max_steps, folder=folder, **few
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Demonstrations of a fit without a logger are written where it runs."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("success", ["near", None])
def test_a_test_plays_the_test_goals_of_the_data(success):
    for module, data in (
        (MultiTaskSAC(policy(), batch_size_per_task=4), online(success=success)),
        (BehaviorCloning(policy()), shown(policy(), success=success)),
    ):
        data.test_goals = 4
        [logged] = Trainer(**QUIET).test(module, data, verbose=False)
        rules = {"max_steps": 9} if isinstance(data, OnlineTasks) else {}
        report = evaluate_policy(module.model, ledges(success=success), num_goals=4, num_processes=0, **rules)
        kinds = ["return"] if success is None else ["success", "success_at_end"]
        expected = dict(zip(kinds, (report.per_task, report.at_end_per_task), strict=False))
        keys = {f"test/task_{j}/{kind}": expected[kind][name] for kind in kinds for j, name in enumerate(report.tasks)}
        keys |= {f"test/{kind}/mean": sum(expected[kind].values()) / 2 for kind in kinds}
        assert logged == pytest.approx(keys, rel=1e-5)


def test_a_test_is_as_long_as_the_demonstrations():
    data = shown(policy(), success=None, max_steps=4)
    data.test_goals = 2
    [logged] = Trainer(**QUIET).test(module := BehaviorCloning(policy()), data, verbose=False)
    report = evaluate_policy(module, ledges(success=None), num_goals=2, num_processes=0, max_steps=4)
    assert logged["test/return/mean"] == pytest.approx(report.mean_return, rel=1e-5)


@pytest.mark.parametrize("make", [BehaviorCloning, MultiTaskSAC])
@pytest.mark.parametrize("stage", ["test", "validate"])
def test_without_data_it_is_said_what_to_give(make, stage):
    with pytest.raises(ValueError, match=rf"Give trainer.{stage}\(module, data\) .*evaluate_policy\(module, tasks\)"):
        getattr(Trainer(**QUIET), stage)(make(policy()))


def test_a_loader_has_no_goals_to_play():
    rows = DataLoader(TensorDataset(torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2).long()))
    with pytest.raises(ValueError, match="got a batch that is a list. Give trainer.test"):
        Trainer(**QUIET).test(BehaviorCloning(policy()), rows)


@pytest.mark.parametrize(
    ("kind", "data", "said"), [(BehaviorCloning, online, "MultiTaskSAC"), (MultiTaskSAC, shown, "BehaviorCloning")]
)
def test_data_of_the_other_kind_are_refused_before_anything_is_played(kind, data, said, tmp_path):
    data = data() if data is online else data(lambda *_: pytest.fail("was asked to show something"))
    with pytest.raises(ValueError, match=rf"but got {type(data).__name__}, which .*: {said}\(policy\)"):
        Trainer(**QUIET, **data.trainer_kwargs()).fit(kind(policy()), data)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*does not have many workers")
def test_what_stands_in_the_place_of_tasks_is_refused():
    """The usual order of others: whether an episode ended comes before the task, or in its place."""
    x, a, r, ended = torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(4), torch.tensor([0.0, 0.0, 0.0, 1.0])
    for kind, parts in (
        (MultiTaskSAC, (x, a, r, x, ended)),
        (MultiTaskSAC, (x, a, r, x, ended.bool(), ended.long())),
        (BehaviorCloning, (x, a, r)),
    ):
        loader, options = DataLoader(TensorDataset(*parts), batch_size=4), {"warmup": 0} if len(parts) == 3 else {}
        with pytest.raises(ValueError, match="`task` to be integers, where parts have the order observation, action"):
            Trainer(**QUIET, max_epochs=1).fit(kind(policy(), **options), loader)


def steps(**other):
    rows = {"observation": torch.zeros(4, 3), "action": torch.zeros(4, 2), "reward": torch.zeros(4)}
    return {**rows, "next_observation": torch.zeros(4, 3), "task": torch.zeros(4).long(), **other}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            steps(terminated=torch.full((4,), 0.99)),
            r"`terminated` to be 0 or 1 in each row, .*Transitions\(..., discount=.*",
        ),
        (steps(terminated=torch.tensor([0.0, 1.0, float("nan"), 0.0])), "`terminated` to be 0 or 1 in each row"),
        (steps(discount=torch.full((4,), 1.5)), "`discount` to be a factor from 0 to 1 in each row, but got"),
        (steps(discount=torch.ones(4).bool()), "`discount` to be a factor from 0 to 1 in each row, but got"),
        (steps(task=torch.tensor([0.0, 0.5, 1.0, 1.0])), "`task` to be whole numbers, but got"),
    ],
)
def test_ends_and_discounts_are_not_taken_for_each_other(rows, words):
    """All would count as ends, and no critic would look ahead."""
    with pytest.raises(ValueError, match=words):
        Trainer(**QUIET, max_epochs=1).fit(MultiTaskSAC(policy()), DataLoader([rows], batch_size=None))


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_slow_critics_are_not_followed_in_half_precision(precision):
    trainer = Trainer(**QUIET, **(data := online()).trainer_kwargs(), precision=precision)
    with pytest.raises(ValueError, match=rf"weights in full precision, but got '{precision}'. .* give 'bf16-mixed'"):
        trainer.fit(MultiTaskSAC(policy(), batch_size_per_task=4), data)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*does not have many workers")
@pytest.mark.parametrize("kind", [BehaviorCloning, MultiTaskSAC])
def test_a_list_of_batches_is_no_loader(kind):
    parts = list(steps().values())
    batches, options = [tuple(parts)] * 3, {}
    if kind is BehaviorCloning:
        batches, options = [(parts[0], parts[1], parts[4])] * 3, {"warmup": 0}
    with pytest.raises((TypeError, ValueError), match=r"make a loader: DataLoader\(batches, batch_size=None\)"):
        Trainer(**QUIET, max_epochs=1).fit(kind(policy(), **options), batches)
    Trainer(**QUIET, max_epochs=1).fit(kind(policy(), **options), DataLoader(batches, batch_size=None))


def test_a_validation_before_anything_was_played_says_that_it_measured_nothing():
    words = r"nothing was measured. To play goals call trainer.test\(module, data\)"
    module, data = MultiTaskSAC(policy(), batch_size_per_task=4), online()
    with pytest.warns(UserWarning, match=words):
        Trainer(**QUIET).validate(module, data, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", words)
        logger = SuccessLogger(num_goals=1, num_processes=0)
        Trainer(**QUIET, callbacks=[logger]).validate(module, data, verbose=False)
        assert logger.report.tasks == ("calm", "windy")
        trainer = Trainer(**QUIET, **data.trainer_kwargs())
        trainer.fit(module, data)
        assert "val/task_1/value" in trainer.validate(module, data, verbose=False)[1]


@pytest.mark.parametrize("make", [BehaviorCloning, MultiTaskSAC])
def test_a_policy_that_learned_normalised_tasks_is_right_in_the_plain_ones(make, tmp_path):
    """And the other way round; from a file, from a checkpoint, by its module, and by a SuccessLogger."""
    plain, few = ledges(success=None), {"num_goals": 3, "num_processes": 0}
    normal = [plain[0].normalized(steps=50), plain[1]]
    kind = {"warmup": 0} if make is BehaviorCloning else {"batch_size_per_task": 4}
    module = make(policy(), **kind)
    shows = {**ROUNDS, "environments": {"num_processes": 0}}
    data = OnlineTasks(normal, **shows) if make is MultiTaskSAC else shown(policy(), normal)
    trainer = Trainer(**QUIET, **data.trainer_kwargs())
    trainer.fit(module, data)
    as_learned = evaluate_policy(module.model.act_batch, normal, **few).returns
    untold = evaluate_policy(lambda x, task: module.model.act_batch(x, task), plain, **few).returns
    assert (as_learned[0] != untold[0]).any() and (as_learned[1] == untold[1]).all()
    own = module.model
    seen = evaluate_policy(lambda x, task: own.act_batch(own.seen(x, task), task), plain, **few).returns
    np.testing.assert_allclose(seen, as_learned, rtol=1e-5)  # by their own loop
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    module.model.save_pretrained(tmp_path / "model")
    loaded = ActiveDendritePolicy.from_pretrained(tmp_path / "model", tasks=["windy", "calm", "new"])
    again = make.load_from_checkpoint(tmp_path / "one.ckpt")
    for one in (module.model, module, loaded, again, again.model):
        for specs in (plain, normal, [plain[0].normalized(steps=20), plain[1].normalized(steps=20)]):
            assert evaluate_policy(one, specs, **few).returns == pytest.approx(as_learned, rel=1e-4)
    with pytest.warns(
        UserWarning, match="The policy learned calm with observations that the task normalised otherwise"
    ):
        other = OnlineTasks(plain, **shows) if make is MultiTaskSAC else shown(policy(), plain, folder="others")
        Trainer(**QUIET, **other.trainer_kwargs()).fit(make(again.model, **kind), other)
    logger = SuccessLogger(tasks=plain, split="test", **few)
    Trainer(**QUIET, callbacks=[logger]).validate(module, data, verbose=False)
    assert logger.report.returns == pytest.approx(as_learned, rel=1e-4)


def test_choosing_what_a_task_starts_as_shows_a_bar(tmp_path, monkeypatch, capsys):
    """It plays, which takes a minute of Meta-World."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    known = policy()
    known.fit_normalizer(torch.randn(20, 3))
    known.save_pretrained(tmp_path)
    for enabled in (True, False):
        module = MultiTaskSAC(
            ActiveDendritePolicy.from_pretrained(tmp_path, tasks=["calm", "windy", "new"]),
            batch_size_per_task=4,
            learn="new",
            init_from="nearest",
        )
        [spec, _] = ledges()
        data = OnlineTasks([type(spec)("new", spec.make_env)], environments={"num_processes": 0}, **ROUNDS)
        Trainer(**{**QUIET, "enable_progress_bar": enabled}, **data.trainer_kwargs()).fit(module, data)
        assert ("init_from: what new starts as" in capsys.readouterr().out) is enabled
