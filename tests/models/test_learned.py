"""Which tasks a policy has learned: in files, in checkpoints, and said where it acts in another."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from safetensors import safe_open
from torch.utils.data import DataLoader, TensorDataset

import dendrite_zoo
from dendrite_zoo.hub.publish.upload import opened
from dendrite_zoo.lightning_modules import BehaviorCloning, MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import Transitions

TASKS = ["lift", "push", "drop"]
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}
SEEN = np.zeros(3, np.float32)
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    pytest.mark.filterwarnings("ignore:The `val_dataloader` does not have"),
    pytest.mark.filterwarnings("ignore:The policy was loaded with lift, and its critics are new"),
]


def policy(**options):
    torch.manual_seed(0)
    return ActiveDendritePolicy(TASKS, observation_size=3, action_size=2, hidden_features=[8, 8], **options)


def rows(*tasks, kind=BehaviorCloning):
    """A loader of some rows of each task."""
    task = torch.tensor(tasks).repeat(4)
    x, a = torch.randn(len(task), 3), torch.rand(len(task), 2)
    if kind is BehaviorCloning:
        return DataLoader(TensorDataset(x, a, task), batch_size=len(task))
    steps = Transitions(x, a, torch.rand(len(task)), x, task, discount=torch.full((len(task),), 0.9))
    return DataLoader([steps], batch_size=None)


def trained(kind=BehaviorCloning, tasks=(0, 1), model=None, **options):
    """A policy that was trained on some of its tasks, and its module and Trainer."""
    options |= {"warmup": 0} if kind is BehaviorCloning else {"batch_size_per_task": 4}
    module, trainer = kind(policy() if model is None else model, **options), Trainer(**QUIET)
    trainer.fit(module, rows(*tasks, kind=kind))
    return module, trainer


def check_says(model, task, learned):
    """Acting in a task is a warning, once."""
    words = rf"Expected a task that was learned \({', '.join(learned)}\), but got {task}: the policy acts by weights"
    with pytest.warns(UserWarning, match=words):
        model.act(SEEN, task)
    check_silent(model, task)


def check_silent(model, *tasks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task in tasks:
            model.act(SEEN, task)
            model.act_batch(SEEN[None], task)
            model.fold(task)


@pytest.mark.parametrize("kind", [BehaviorCloning, MultiTaskSAC])
def test_acting_in_a_task_that_was_never_learned_is_said(kind, tmp_path):
    """After a fit, from a file, and from a checkpoint; a policy that nobody has trained is silent."""
    check_silent(policy(), *TASKS)
    module, trainer = trained(kind)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    module.act_batch(SEEN[None], np.array([2]))  # measured on purpose, before it is learned
    module.model.save_pretrained(tmp_path / "model")
    with opened(tmp_path / "one.ckpt") as folder:  # to be published
        published = dendrite_zoo.load(folder)
    for model in (
        module.model,
        published,
        dendrite_zoo.load(tmp_path / "model"),
        kind.load_from_checkpoint(tmp_path / "one.ckpt").model,
    ):
        assert model.learned_tasks == ("lift", "push")
        check_silent(model, "lift", "push")
        check_says(model, "drop", ["lift", "push"])
    with pytest.warns(UserWarning, match="but got drop"):
        dendrite_zoo.load(tmp_path / "model").act_batch(np.zeros((2, 3)), [0, 2])
    with pytest.warns(UserWarning, match="but got drop"):
        dendrite_zoo.load(tmp_path / "model").fold("drop")


def test_room_for_a_task_is_not_yet_a_task_learned(tmp_path):
    """Of a file of all tasks, as those of earlier versions; a copy acts as what it is a copy of."""
    policy().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "learned" not in json.dumps(file.metadata())
    check_silent(dendrite_zoo.load(tmp_path), *TASKS)
    more = dendrite_zoo.load(tmp_path, tasks=["new", *TASKS])
    check_silent(more, *TASKS)
    check_says(more, "new", TASKS)
    check_silent(dendrite_zoo.load(tmp_path, tasks=["new", *TASKS], init_from="push"), "new", *TASKS)
    module, _ = trained(tasks=(0,), model=dendrite_zoo.load(tmp_path, tasks=["new", *TASKS]), learn="new")
    check_silent(module.model, "new", *TASKS)


def test_room_for_new_tasks_alone_is_none_learned(tmp_path):
    """Of what was loaded without any task that the file has; a loop of one's own may train it, and need not say so."""
    policy().save_pretrained(tmp_path)
    dendrite_zoo.load(tmp_path, tasks=["new", "more"]).save_pretrained(tmp_path / "room")
    room = dendrite_zoo.load(tmp_path / "room")
    assert room.learned_tasks == ()
    check_says(room, "new", ["there is none yet"])
    module, trainer = trained(tasks=(0,), model=dendrite_zoo.load(tmp_path / "room"), learn="new")
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = BehaviorCloning.load_from_checkpoint(tmp_path / "one.ckpt").model
    assert module.model.learned_tasks == again.learned_tasks == ("new",)
    with torch.no_grad():
        next(room.mlp.hidden.parameters()).mul_(2)
    room.save_pretrained(tmp_path / "own")
    check_silent(room, "more")
    check_silent(dendrite_zoo.load(tmp_path / "own"), "new", "more")


def test_what_was_not_learned_is_not_trained_again(tmp_path):
    """A policy that is loaded knows what it has learned, and no more."""
    module, _ = trained(tasks=(0,))
    module.model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "learn='new': the policy was loaded with")
        again, _ = trained(tasks=(1,), model=dendrite_zoo.load(tmp_path), learn="new")
    assert again.model.learned_tasks == ("lift", "push")
    with pytest.warns(UserWarning, match="learn='new': the policy was loaded with lift"):
        trained(tasks=(0,), model=dendrite_zoo.load(tmp_path), learn="new")


def test_checkpoints_of_earlier_versions_do_not_say_it(tmp_path):
    _, trainer = trained()
    trainer.save_checkpoint(file := Path(tmp_path, "one.ckpt"))
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint["learned_tasks"]
    torch.save(checkpoint, file)
    check_silent(BehaviorCloning.load_from_checkpoint(file).model, *TASKS)


def test_a_loop_of_ones_own_says_what_it_trained():
    model = policy()
    with pytest.raises(ValueError, match="`learned_tasks` to be some of lift, push, drop, but got 'lft'. Did you mean"):
        model.learned_tasks = ["lft"]
    model.learned_tasks = "push"
    check_says(model, "lift", ["push"])
    model.learned_tasks = TASKS
    check_silent(model, *TASKS)


@pytest.mark.parametrize("kind", [BehaviorCloning, MultiTaskSAC])
def test_what_a_loop_of_ones_own_trained_before_is_not_taken_for_unlearned(kind):
    model = policy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))[0].square().sum().backward()
    optimizer.step()
    module, _ = trained(kind, model=model, tasks=(0,))
    check_silent(module.model, *TASKS)
    check_silent(trained(kind, model=module.model, tasks=(0,))[0].model, *TASKS)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_policy_that_was_not_trained_knows_what_it_learns(copied):
    module, _ = trained(model=copied(copied(policy())), tasks=(1,))
    assert module.model.learned_tasks == ("push",) == copied(module.model).learned_tasks
    model = policy()
    torch.nn.init.zeros_(next(model.mlp.parameters()))
    assert copied(copied(model)).was_trained_elsewhere()


def normalised(size=3, mean=100.0, scale=10.0):
    """A policy that has learned to lift, and to push normalised."""
    model = ActiveDendritePolicy(TASKS, observation_size=size, action_size=2, hidden_features=[8, 8])
    model.learned_tasks = TASKS
    model.task_normalizers = {"lift": None, "push": ((mean,) * size, (scale,) * size)}
    return model


def test_observations_of_plain_environments_are_shown_as_they_were_learned():
    model, x = normalised(), np.array([[90.0, 100.0, 120.0], [0.0, 1.0, 2.0]])
    as_learned = [[-1.0, 0.0, 2.0], [-10.0, -9.9, -9.8]]
    np.testing.assert_allclose(model.seen(x, "push"), as_learned)
    np.testing.assert_allclose(model.seen(torch.tensor(x[0]), np.int64(1)), as_learned[0])
    np.testing.assert_allclose(model.seen(x, ["lift", "push"]), [x[0], as_learned[1]])
    np.testing.assert_array_equal(model.seen(x[0].tolist(), "lift"), x[0])
    np.testing.assert_array_equal(model.seen(x, "drop"), x)
    for given, task in ((x[:, :2], "push"), (x, ["push"]), (x[0], ["push", "lift"]), (x[None], "push")):
        with pytest.raises(ValueError, match="Expected `observation` to be of shape"):
            model.seen(given, task)


def test_a_copy_sees_its_task_as_what_it_is_a_copy_of(tmp_path):
    model, x = normalised(), np.array([90.0, 100.0, 120.0])
    model.save_pretrained(tmp_path)
    more = dendrite_zoo.load(
        tmp_path, tasks=["pull", *TASKS], init_from={"pull": "push", "drop": "push", "lift": "push"}
    )
    assert set(more.task_normalizers) == {"pull", *TASKS}
    for copied in ("pull", "lift", "drop"):
        np.testing.assert_allclose(more.act(more.seen(x, copied), copied), model.act(model.seen(x, "push"), "push"))
    assert set(dendrite_zoo.load(tmp_path, tasks=["drop", "pull"]).task_normalizers) == set()


@pytest.mark.parametrize("act", ["act", "act_batch"])
def test_acting_on_what_a_plain_environment_shows_is_said_once(act):
    def play(model, rows, task="push"):
        if act == "act_batch":
            return model.act_batch(rows, task)
        return [model.act(row, task) for row in rows]

    draws = np.random.RandomState(0).randn(100, 3)
    plain = 100 + 10 * draws
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(normalised(), plain, "lift")
        play(normalised(), plain, "drop")
        play(normalised(), draws)
        play(normalised(), normalised().seen(plain, "push"))
        play(normalised(mean=0.1, scale=0.5), 0.1 + 0.5 * draws)  # which may be either
        play(normalised(), 100 * draws)  # far off in both ways
        play(normalised(), np.where(np.arange(100)[:, None] % 10, plain, draws))  # an odd one now and then
    model = normalised()
    play(model, draws)  # as an evaluation does before
    with pytest.warns(UserWarning, match=r"Give policy.seen\(observation, 'push'\) in their place") as said:
        play(model, plain)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(model, plain)


@pytest.mark.parametrize("size", [1024, 1025, 20_000])
def test_a_file_has_normalisers_of_any_size(size, tmp_path):
    model = normalised(size, mean=-1 / 3)
    model.save_pretrained(tmp_path)
    assert dendrite_zoo.load(tmp_path).task_normalizers == model.task_normalizers


def test_normalisers_that_a_file_has_no_room_for_are_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="at most 40,000 numbers of all tasks, but got 40,001"):
        normalised(40_001).save_pretrained(tmp_path)
    assert not dendrite_zoo.load(tmp_path).task_normalizers


@pytest.mark.parametrize("given", ["no base64", "AAAA", "AAAAAAAAAAA="])
def test_a_packed_normaliser_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="Expected `task_normalizers` to be mean and scale of 3 numbers"):
        policy().as_normalizers({"push": given})
