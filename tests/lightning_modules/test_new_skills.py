"""learn="new" in BehaviorCloning: what other tasks' actions are does not change by a bit, whatever happens."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

import dendrite_zoo
from dendrite_zoo.callbacks import SparsityLogger, SubnetworkLogger
from dendrite_zoo.lightning_modules import BehaviorCloning, new_parts
from dendrite_zoo.models import ActiveDendritePolicy
from tests import processes
from tests.lightning_modules.new_skills import (
    BATCH,
    EPOCHS,
    KINDS,
    KNOWN,
    NEW,
    ROWS,
    SIZES,
    Actions,
    Skills,
    actions,
    known_policy,
    train,
    trainer,
)
from tests.training import Crash, CrashAt

UPDATES = EPOCHS * ROWS // BATCH  # of a task
OWN = 2 * 24 * 3 + 2 * 24 + 4 * (24 + 1)  # numbers of a task: segments, additive ones, those of the output layer
X = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command", "ignore:.*does not have many workers")


def known_actions(folder):
    """Of the policy as it was before, for the tasks that it knew."""
    policy, x = dendrite_zoo.load(folder / "known"), torch.randn(40, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return [torch.cat(policy(x, torch.tensor(task)), dim=1) for task in range(len(KNOWN))]


def check(folder, noted):
    """Every task is equal to the bit from its last epoch on, those that were known from the start; the new learn."""
    for task, known in enumerate(known_actions(folder)):
        assert all(after[task].equal(known) for after in noted)
    for number in range(len(NEW)):
        task, last = len(KNOWN) + number, EPOCHS * (number + 1) - 1
        assert not noted[last][task].equal(noted[last - 1][task]), "it learns"
        assert all(after[task].equal(noted[last][task]) for after in noted[last:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_no_other_task_changes_and_the_new_ones_are_learned(kind, ema_decay, tmp_path):
    bc, noted = train(tmp_path, kind=kind, module={"ema_decay": ema_decay}, gradient_clip_val=0.1)
    assert len(noted.actions) == EPOCHS * len(NEW)
    check(tmp_path, noted.actions)
    bc.model.save_pretrained(tmp_path / "all")
    again = BehaviorCloning(dendrite_zoo.load(tmp_path / "all"))
    assert all(one.equal(other) for one, other in zip(actions(again), noted.actions[-1], strict=True))
    assert not any("new" in name for name in bc.state_dict()), "files have one tensor of segments"
    every = sum(parameter.numel() for parameter in bc.model.parameters())
    assert 0 < bc.new.num_parameters < every / 3 and all(p.requires_grad for p in bc.model.mlp.output.parameters())


def test_what_is_trained_is_the_column_and_nothing_else(tmp_path):
    """By hand: of all weights, those of the last task's column differ from the ones before."""
    known_policy(tmp_path)
    policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"])
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    bc, noted = BehaviorCloning(policy, learn="new", lr=0.1, warmup=0, ema_decay=0.0), Actions()
    data = Skills(policy.tasks, first_task=2)
    trainer(data, noted).fit(bc, data)
    for name, tensor in policy.state_dict().items():
        if name.endswith("segments") or ".additive." in name:
            assert tensor[..., :2].equal(before[name][..., :2]) and not tensor[..., 2].equal(before[name][..., 2])
        else:
            assert tensor.equal(before[name]), name
    assert noted.sizes == [OWN] * UPDATES and bc.new.num_parameters == OWN
    assert bc.parameters_by_task() == [OWN]  # of the one task that was trained


class Decayed(BehaviorCloning):
    """An optimizer as users write it: of all parameters, with momentum and a decay that would move them."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.03, weight_decay=0.5)


@pytest.mark.parametrize("average", [False, True])
def test_weight_decay_and_lightnings_own_average(average, tmp_path):
    known_policy(tmp_path / "known")
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, *NEW])
    bc, noted, data = (
        Decayed(policy, learn="new", warmup=2, ema_decay=0.0),
        Actions(),
        Skills(policy.tasks, first_task=2),
    )
    callbacks = [EMAWeightAveraging(decay=0.9, use_buffers=False)] if average else []
    with pytest.warns(UserWarning, match="weights of a task that has ended") if average else contextlib.nullcontext():
        trainer(data, noted, *callbacks).fit(bc, data)
    if not average:
        check(tmp_path, noted.actions)
    for known, after in zip(known_actions(tmp_path), actions(bc)[:2], strict=True):
        torch.testing.assert_close(after, known, rtol=0, atol=1e-6)  # Lightning's average rounds what is constant


@pytest.mark.parametrize("where", ["batch", "validation"])
@pytest.mark.parametrize("step", [3, UPDATES, 2 * UPDATES])
def test_a_crash_changes_nothing(step, where, tmp_path):
    if where == "validation" and step % (UPDATES // EPOCHS):
        step += UPDATES // EPOCHS - step % (UPDATES // EPOCHS)
    kinds = {3: "disjoint", UPDATES: "subnetworks", 2 * UPDATES: "columns"}
    kind = next(kind for last, kind in kinds.items() if step <= last)
    module = {} if kind == "subnetworks" else {"init_from": "nearest"}
    whole, noted = train(tmp_path / "whole", kind=kind, module=module)
    with pytest.raises(Crash):
        train(tmp_path / "crashed", (step, where), kind=kind, module=module)
    resumed, rest = train(tmp_path / "crashed", kind=kind, module=module)
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert one.equal(other), name
    assert resumed.started_from == whole.started_from
    for one, other in zip(reversed(noted.actions), reversed(rest.actions), strict=False):
        assert all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_after_a_fit_that_raised_all_of_the_policy_learns(tmp_path):
    with pytest.raises(Crash):
        train(tmp_path, (3, "batch"))
    bc, data = train(tmp_path)[0], Skills([*KNOWN, *NEW])
    with pytest.raises(ValueError, match=r"checkpoint of learn='all' to resume from, but got one of learn='new'"):
        trainer(data).fit(BehaviorCloning(bc.model, warmup=0), data, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    before = bc.model.mlp.output.weight.clone()
    trainer(data).fit(BehaviorCloning(bc.model, warmup=0), data)
    assert not bc.model.mlp.output.weight.equal(before)
    loaded = BehaviorCloning.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert loaded.hparams["learn"] == "new" and loaded.new is not None


def test_after_a_fit_that_raised_a_loop_of_ones_own_trains_all(tmp_path):
    known_policy(tmp_path / "known")
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, "push"])
    data = Skills(policy.tasks, first_task=2)
    with pytest.raises(Crash):
        trainer(data, CrashAt(3), enable_checkpointing=True, default_root_dir=tmp_path).fit(
            BehaviorCloning(policy, learn="new", warmup=0), data
        )
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_a_subnetwork_cut_out_learns_as_it_does_within_the_whole_network(monkeypatch):
    torch.manual_seed(0)
    options = {"dendrite_layers": None, "winners": "context", "activation_density": 0.3, "weight_density": 1.0}
    policy = ActiveDendritePolicy(
        ["a", "b", "c"], hidden_features=[30, 40], observation_size=5, action_size=2, **options
    )
    new = new_parts.NewParts(policy)
    new.own([2], [0, 1])
    x, found = torch.randn(7, 5), []
    for _ in range(2):
        new.zero_grad()
        mean, log_std = new(x, torch.tensor(2))
        (mean.square().sum() + log_std.sum()).backward()
        found.append([mean.detach(), log_std.detach(), *(part.value.grad for part in new.parts)])
        monkeypatch.setattr(new_parts, "with_subnetwork", lambda *_: None)
    cut, whole = found
    assert all(one.equal(other) for one, other in zip(cut, whole, strict=True)) and cut[0].equal(policy(x, 2)[0])
    for grad, part in zip(cut[2:], new.parts, strict=True):
        assert grad[~part.free].eq(0).all() and grad.ne(0).any() == part.free.any()


@pytest.mark.slow
def test_two_processes(tmp_path):
    known_policy(tmp_path / "known")
    options = {"devices": 2, "strategy": "ddp", "gradient_clip_val": 1.0, "module": {"init_from": "nearest"}}
    done = processes.run_ddp(Path(__file__).with_name("new_skills.py"), tmp_path, json.dumps(options), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    check(tmp_path, result["actions"])
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    for task in range(4):  # the classifier's: in one process, and then in two
        assert not outputs[task][task].equal(outputs[task - 1][task]) or task == 0
        assert all(after[task].equal(outputs[task][task]) for after in outputs[task:])


def test_the_nearest_task_is_found_and_zeros_are_among_the_candidates(tmp_path):
    """A naive loop over copies of the policy finds the same."""
    known_policy(tmp_path)
    for seed in range(4):
        policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"])
        with torch.no_grad():
            policy.mlp.hidden[1].segments += torch.randn(24, 3, 3, generator=torch.Generator().manual_seed(seed))
        data = Skills(policy.tasks, first_task=2)
        bc = BehaviorCloning(policy, learn="new", init_from="nearest", warmup=0, ema_decay=0.0)
        x, y, _ = data.rows(2, 2)[:]
        losses = {}
        for task in (None, 0, 1):
            copied = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"])
            copied.load_state_dict(policy.state_dict())
            with torch.no_grad():
                for layer in copied.mlp.hidden:
                    layer.segments[..., 2] = 0 if task is None else layer.segments[..., task]
                losses[task] = (copied(x, 2)[0].tanh() - y).abs().mean()
        trainer(data, max_steps=1).fit(bc, data)
        assert bc.started_from == {2: min(losses, key=losses.get)}


@pytest.mark.parametrize("kind", ["columns", "subnetworks"])
def test_a_network_that_knows_nothing_learns_its_first_task_with_all_it_has(kind, tmp_path, caplog):
    torch.manual_seed(0)
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")
    policy = ActiveDendritePolicy(NEW, **SIZES, **KINDS[kind])
    start, noted, data = policy.mlp.output.weight.clone(), Actions(), Skills(NEW)
    bc = BehaviorCloning(policy, learn="new", lr=0.03, warmup=2, ema_decay=0.9)
    trainer(data, noted).fit(bc, data)
    assert noted.sizes[0] == sum(p.numel() for p in policy.parameters()) > 3 * noted.sizes[-1]
    assert ("additive_segments=True" in caplog.text) == (kind == "columns")
    assert not policy.mlp.output.weight.equal(start)
    for task in range(3):
        last = EPOCHS * (task + 1) - 1
        assert all(after[task].equal(noted.actions[last][task]) for after in noted.actions[last:])


class Rates(Callback):
    """The learning rate that each update's began with."""

    def __init__(self):
        self.rates = []

    def on_train_batch_end(self, trainer, *_):
        self.rates += [group["initial_lr"] for group in trainer.optimizers[0].param_groups]


@pytest.mark.parametrize("lr", [None, 0.03])
@pytest.mark.parametrize(("kind", "new"), [("columns", 1e-2), ("subnetworks", 4e-3)])
def test_what_a_task_has_for_itself_learns_faster_unless_a_rate_is_given(kind, new, lr):
    policy, seen, data = ActiveDendritePolicy(NEW, **SIZES, **KINDS[kind]), Rates(), Skills(NEW)
    trainer(data, seen).fit(BehaviorCloning(policy, learn="new", lr=lr, warmup=2), data)
    assert seen.rates == [lr or 1e-3] * UPDATES + [lr or new] * 2 * UPDATES
    bare = BehaviorCloning(policy, learn="new", lr=lr)
    assert bare.configure_optimizers().param_groups[0]["lr"] == bare.learning_rate == (lr or new)
    assert BehaviorCloning(policy, lr=lr).learning_rate == (lr or 1e-3)


def test_means_where_tanh_has_no_slope_come_back(tmp_path):
    """As of a task that starts as a copy of one whose actions are at their bounds: its gradient is 0."""
    known_policy(tmp_path / "known")
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, "push"])
    policy.mlp.additive.bias.data[:2, 2] = 20
    bc, data = BehaviorCloning(policy, learn="new", lr=0.1, warmup=0, ema_decay=0.0), Skills(policy.tasks, first_task=2)
    trainer(data).fit(bc, data)
    assert policy(X, torch.tensor(2))[0].mean() < 19.5


def test_tasks_of_the_data_are_found_by_name(tmp_path):
    """All at once, in another order: the policy learns these, and the others are as they were."""
    known_policy(tmp_path / "known")
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[NEW[0], *KNOWN, NEW[1]])

    class AtOnce(Skills):
        current_task = None

        def train_dataloader(self):
            return DataLoader(ConcatDataset([self.rows(task, 1) for task in range(2)]), BATCH, shuffle=True)

    bc, data = BehaviorCloning(policy, learn="new", lr=0.03, warmup=2, init_from="nearest"), AtOnce([NEW[1], NEW[0]])
    trainer(data).fit(bc, data)
    after = actions(bc)
    assert all(one.equal(other) for one, other in zip(known_actions(tmp_path), after[1:3], strict=True))
    assert sorted(bc.started_from) == [0, 3] and bc.new.num_parameters == 2 * OWN
    x, y, _ = data.rows(0, 1)[:]
    loss = (policy(x, 3)[0].tanh() - y).abs().mean()
    assert loss < (policy(x, 0)[0].tanh() - y).abs().mean(), "its own column learned it"


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_without_validation_the_nearest_task_is_that_of_batches_of_training(tmp_path):
    known_policy(tmp_path)
    policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"])

    x, _, task = Skills(["push"]).rows(0, 1)[:]
    rows = TensorDataset(x, torch.from_numpy(policy.act_batch(x, ["turn"] * len(x))), task)

    class TrainingAlone(LightningDataModule):
        tasks, max_epochs = ("push",), 1

        def train_dataloader(self):
            return DataLoader(rows, BATCH)

    bc, data = BehaviorCloning(policy, learn="new", init_from="nearest", warmup=0), TrainingAlone()
    trainer(data).fit(bc, data)
    assert bc.started_from == {2: KNOWN.index("turn")}


def test_a_plain_loader_of_one_task(tmp_path):
    known_policy(tmp_path / "known")
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, *NEW])
    rows, start = Skills(policy.tasks).rows(3, 1), policy.mlp.hidden[1].segments.clone()
    bc, data = BehaviorCloning(policy, learn="new", init_from="nearest", warmup=0), Skills(policy.tasks)
    trainer(data).fit(bc, DataLoader(rows, 8), DataLoader(rows, 8))
    changed = (policy.mlp.hidden[1].segments != start).any(0).any(0)
    assert changed.tolist() == [False, False, False, True, False]
    mixed = DataLoader(ConcatDataset([rows, Skills(policy.tasks).rows(2, 1)]), 64)
    with pytest.raises(ValueError, match=r"batches of one task each for learn='new'.* got tasks \[2, 3\]"):
        trainer(data).fit(bc, mixed, mixed)


def test_what_a_loop_of_ones_own_has_taught_stays(tmp_path):
    """Which tasks these are it says by `learned_tasks`."""
    policy, x, rows = ActiveDendritePolicy(NEW, **SIZES), torch.randn(20, 6), DataLoader(Skills(NEW).rows(1, 1), 8)
    policy.learned_tasks, before = [NEW[0]], [policy.act_batch(x, [task] * 20) for task in NEW[:1]]
    bc = BehaviorCloning(policy, learn="new", warmup=0, ema_decay=0.0)
    trainer(Skills(NEW), max_steps=2).fit(bc, rows, rows)
    assert (policy.act_batch(x, [NEW[0]] * 20) == before).all() and bc.new.num_parameters == 2 * 24 * 3 // 2
    assert policy.learned_tasks == NEW[:2]


def test_a_policy_as_it_was_drawn_knows_nothing_of_what_data_leave_out():
    """So its first task trains all of it, and the second, in another fit, its own parts."""
    policy, counts = ActiveDendritePolicy(NEW, **SIZES), []
    every, acted = sum(parameter.numel() for parameter in policy.parameters()), policy.act_batch(X, [NEW[0]] * 20)
    for task in NEW[:2]:
        before, acted = acted, policy.act_batch(X, [NEW[0]] * 20)
        bc, data = BehaviorCloning(policy, learn="new", warmup=0, ema_decay=0.0), Skills([task])
        trainer(data).fit(bc, data)
        counts += [bc.new.num_parameters, *bc.parameters_by_task()]
    assert counts == [every, 72, 72] and (policy.act_batch(X, [NEW[0]] * 20) == acted).all()
    assert (acted != before).any() and policy.learned_tasks == NEW[:2]


def test_a_task_that_the_policy_was_loaded_with_is_said(tmp_path):
    known_policy(tmp_path / "known")
    policy, data = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, "push"]), Skills([*KNOWN, "push"], first_task=1)
    with pytest.warns(UserWarning, match="loaded with turn. .* its actions change; those of all other tasks do not"):
        trainer(data, max_steps=1).fit(BehaviorCloning(policy, learn="new", warmup=0), data)


def test_observations_that_drown_others_are_said(tmp_path):
    torch.manual_seed(0)
    policy = ActiveDendritePolicy([*KNOWN, "push"], **SIZES)
    policy.fit_normalizer(torch.cat([torch.randn(50, 5), torch.zeros(50, 1)], dim=1))
    policy.observation_scale[5] = 0.01  # as in models of version 0.1
    data = Skills(policy.tasks, first_task=2)
    data.observations = data.rows(2, 1).tensors[0]
    with pytest.warns(UserWarning, match=r"Numbers \[5\] of the observations are up to .* model.extend_normalizer"):
        trainer(data, max_steps=1).fit(BehaviorCloning(policy, learn="new", warmup=0), data)
    policy.extend_normalizer(data.observations)
    trainer(data, max_steps=1).fit(BehaviorCloning(policy, learn="new", warmup=0), data)


@pytest.mark.parametrize("kind", ["columns", "subnetworks"])
def test_units_and_segments_can_be_watched(kind, tmp_path):
    """And what watches them changes nothing."""
    known_policy(tmp_path / "known", kind)
    results = []
    for callbacks in ([], [SparsityLogger(), SubnetworkLogger(folder=tmp_path)]):
        torch.manual_seed(1)
        policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, "push"], init_from="turn")
        bc, data = BehaviorCloning(policy, learn="new", warmup=0), Skills([*KNOWN, "push"], first_task=2)
        trainer(data, *callbacks).fit(bc, data)
        results.append(actions(bc))
    assert all(one.equal(other) for one, other in zip(*results, strict=True))


def test_a_task_that_has_nothing_of_its_own_is_said(tmp_path):
    """One with the units of another has none of its weights for itself, and the fit would change nothing."""
    known_policy(tmp_path / "known", "subnetworks")
    words = "tasks with weights of their own, for learn='new', but got {}: .* Load the model with a lower overlap="
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, *NEW])
    with torch.no_grad():
        for layer in policy.mlp.hidden:
            layer.segments[..., 2:] = layer.segments[..., 1:2]
    data = Skills(policy.tasks, first_task=2)
    with pytest.raises(ValueError, match=words.format("push")):
        trainer(data).fit(BehaviorCloning(policy, learn="new", warmup=0), data)
    with torch.no_grad():
        for layer in policy.mlp.hidden:  # only the fourth is a copy
            layer.segments[..., 2] = torch.randn(24, 3)
            layer.segments[..., 4] = torch.randn(24, 3)
    with pytest.warns(UserWarning, match=words.format("pull")):
        trainer(data).fit(BehaviorCloning(policy, learn="new", warmup=0), data)

    class AtOnce(Skills):
        current_task = None

        def train_dataloader(self):
            return DataLoader(ConcatDataset([self.rows(task, 1) for task in range(2)]), BATCH, shuffle=True)

    data = AtOnce(["push", "pull"])
    with pytest.raises(ValueError, match=words.format("pull")):
        trainer(data).fit(BehaviorCloning(policy, learn="new", warmup=0), data)


def test_the_nearest_subnetwork_is_found_and_copied(tmp_path, caplog):
    """The expert of the new task does what the policy does in another: there it starts, and nothing else is nearer."""
    known_policy(tmp_path / "known", "disjoint")
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")
    for start in KNOWN:
        policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, "push"])
        drawn = policy(X, 2)[0].detach().clone()
        x, _, task = Skills(["push"]).rows(0, 1)[:]
        rows = TensorDataset(x, torch.from_numpy(policy.act_batch(x, [start] * len(x))), task)

        class Copies(LightningDataModule):
            tasks, max_epochs = ("push",), 1

            def train_dataloader(self, rows=rows):
                return DataLoader(rows, BATCH)

            def val_dataloader(self, rows=rows):
                return DataLoader(rows, BATCH)

        bc = BehaviorCloning(policy, learn="new", init_from="nearest", warmup=0, lr=1e-9, ema_decay=0.0)
        trainer(data := Copies()).fit(bc, data)
        assert bc.started_from == {2: KNOWN.index(start)}
        assert f"init_from: push starts as a copy of {start}." in caplog.text
        torch.testing.assert_close(policy(X, 2)[0], policy(X, KNOWN.index(start))[0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(policy(X, 2)[0], drawn, atol=1e-3)
        assert all(one.equal(other) for one, other in zip(known_actions(tmp_path), actions(bc)[:2], strict=True))


def test_a_start_needs_a_subnetwork_of_the_tasks_own(tmp_path):
    known_policy(tmp_path, "subnetworks")
    policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"])
    data = Skills(policy.tasks, first_task=2)
    with pytest.raises(ValueError, match="Expected push with a subnetwork of its own, for init_from=, but earlier"):
        trainer(data).fit(BehaviorCloning(policy, learn="new", init_from="turn", warmup=0), data)
    policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"], init_from="lift")
    trainer(data).fit(bc := BehaviorCloning(policy, learn="new", init_from="turn", warmup=0, lr=1e-9), data)
    torch.testing.assert_close(policy(X, 2)[0], policy(X, 1)[0], rtol=1e-4, atol=1e-5)
    assert bc.started_from == {2: 1}


@pytest.mark.parametrize("start", ["nearest", "lift"])
def test_a_start_that_a_later_task_cannot_have_is_refused_before_the_first_is_trained(start):
    tasks, size = [*KNOWN, "push"], {**SIZES, "hidden_features": [30, 30]}
    shared, own = (ActiveDendritePolicy(tasks, **size, winners="context", overlap=overlap) for overlap in (None, 0.0))
    before, data = {n: x.clone() for n, x in shared.state_dict().items()}, Skills(tasks)
    with pytest.raises(ValueError, match="Expected (turn|push) with a subnetwork of its own, for init_from=, but"):
        trainer(data).fit(BehaviorCloning(shared, learn="new", init_from=start, warmup=0), data)
    assert all(torch.equal(value, shared.state_dict()[name]) for name, value in before.items())
    trainer(data).fit(bc := BehaviorCloning(own, learn="new", init_from=start, warmup=0), data)
    assert list(bc.started_from) == [1, 2]


def test_wrong_arguments(tmp_path):
    known_policy(tmp_path)
    policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "push"])
    with pytest.raises(ValueError, match="Expected `learn` to be one of 'all', 'new', but got 'news'. Did you mean"):
        BehaviorCloning(policy, learn="news")
    words = "Expected `init_from` to be 'nearest', or one of lift, turn, push, but got 'tuurn'.* mean 'turn'"
    with pytest.raises(ValueError, match=words):
        BehaviorCloning(policy, learn="new", init_from="tuurn")
    with pytest.raises(ValueError, match="Expected `init_from` to be None but with learn='new'"):
        BehaviorCloning(policy, init_from="turn")
    plain = ActiveDendritePolicy(KNOWN, **SIZES, dendrite_layers=[])
    with pytest.raises(ValueError, match="network with a part for each task, but got ActiveDendritePolicy without"):
        BehaviorCloning(plain, learn="new")
    data = Skills(["lift", "drop"])
    with pytest.raises(ValueError, match=r"but got 'drop'. Load the policy with tasks=\[..., 'drop'\] for one"):
        trainer(data).fit(BehaviorCloning(policy), data)


def test_training_all_of_a_loaded_policy_on_new_tasks_alone_is_said(tmp_path):
    """It is what loses the skills that it had."""
    known_policy(tmp_path)
    data = Skills(["shove"])
    with pytest.warns(
        UserWarning, match=f"loaded with {KNOWN[0]}, {KNOWN[1]}, which the data leave out, .* learn='new'"
    ):
        trainer(data).fit(BehaviorCloning(dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "shove"]), warmup=2), data)
    for tasks, learn in ((["shove"], "new"), ([*KNOWN, "shove"], "all")):
        trainer(data).fit(
            BehaviorCloning(dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "shove"]), warmup=2, learn=learn), Skills(tasks)
        )


def test_a_task_does_not_start_as_itself(tmp_path):
    known_policy(tmp_path)
    policy, data = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, "turns"]), Skills(["turns"])
    with pytest.raises(ValueError, match="`init_from` to be another task than the one that is trained, .* got 'turns'"):
        trainer(data).fit(BehaviorCloning(policy, warmup=2, learn="new", init_from="turns"), data)
    with pytest.raises(ValueError, match="got 'turnx'. Did you mean 'turn'"):
        BehaviorCloning(policy, learn="new", init_from="turnx")
