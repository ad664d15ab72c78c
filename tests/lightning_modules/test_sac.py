"""Soft actor-critic on real robots: what it plays, what it learns from it, and that a crash changes nothing."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from dendrite_zoo.callbacks import SparsityLogger, SubnetworkLogger, SuccessLogger
from dendrite_zoo.functional import sac
from dendrite_zoo.hub import full_config
from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic, load
from dendrite_zoo.rl.transitions import Transitions
from dendrite_zoo.streams import OnlineTasks, PermutedTasks
from tests.lightning_modules.practice import (
    TASKS,
    Crash,
    CrashAfter,
    EveryRound,
    practice,
    result,
    small_policy,
    train,
)
from tests.rl.worlds import ledges

pytest.importorskip("metaworld")
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def batch(rows=5, tasks=2):
    task = torch.arange(tasks).repeat_interleave(rows)
    n = len(task)
    moves = torch.randn(n, 39), torch.rand(n, 4) * 2 - 1, torch.rand(n), torch.randn(n, 39)
    return Transitions(*moves, task, torch.rand(n) < 0.3)


def attached(module):
    """A module whose optimizer steps without a Trainer."""
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: optimizer
    module.manual_backward = torch.Tensor.backward
    return module


class Textbook:
    """The same mathematics with an optimizer for each loss, every gradient taken by itself, and a loop over twins."""

    def __init__(self, module, lr=3e-4, alpha_lr=None, policy_delay=1):
        self.model, self.critic = copy.deepcopy(module.model), copy.deepcopy(module.critic)
        self.slow, self.log_alpha = copy.deepcopy(module.critic), module.log_alpha.detach().clone().requires_grad_()
        groups = (self.model.parameters(), self.critic.parameters(), [self.log_alpha])
        self.optimizers = [torch.optim.Adam(group, lr=lr) for group in groups]
        self.optimizers[2].param_groups[0]["lr"] = alpha_lr or lr
        self.policy_delay, self.updates = policy_delay, 0

    def act(self, observation, task, draws):
        mean, log_std = self.model(observation, task)
        before = mean + log_std.exp() * torch.randn(mean.shape, generator=draws)
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(before) - torch.log1p(-(before.tanh() ** 2))
        return before.tanh(), log_prob.sum(1)

    def update(self, batch, draws):
        observation, action, reward, next_observation, task, terminated, _ = batch
        alpha = self.log_alpha.exp()[task]
        with torch.no_grad():
            next_action, next_log_prob = self.act(next_observation, task, draws)
            q1, q2 = self.slow(next_observation, next_action, task)
            target = 2.0 * reward + 0.9 * (torch.min(q1, q2) - alpha * next_log_prob) * (1 - terminated.float())
        losses = [sum(((q - target) ** 2).mean() / 2 for q in self.critic(observation, action, task))]
        learns, self.updates = self.updates % self.policy_delay == 0, self.updates + 1
        if not learns:
            draws = torch.Generator().manual_seed(0)  # of what is not used
        own, log_prob = self.act(observation, task, draws)
        q1, q2 = self.critic(observation, own, task)
        losses.insert(0, (alpha.detach() * log_prob - torch.min(q1, q2)).mean())
        losses.append((alpha * (-log_prob.detach() + 4.0)).mean())
        gradients = []
        for loss, optimizer in zip(losses, self.optimizers, strict=True):
            parameters = optimizer.param_groups[0]["params"]
            gradients.append(torch.autograd.grad(loss, parameters, retain_graph=True))
        for number, (of_one, optimizer) in enumerate(zip(gradients, self.optimizers, strict=True)):
            if number != 1 and not learns:
                continue
            for parameter, gradient in zip(optimizer.param_groups[0]["params"], of_one, strict=True):
                parameter.grad = gradient
            optimizer.step()
        for slow, fast in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
            slow.data = 0.95 * slow.data + 0.05 * fast.data


@pytest.mark.parametrize("options", [{}, {"policy_delay": 2, "alpha_lr": 0.01}])
def test_an_update_is_the_textbooks(options, monkeypatch):
    plain = {"num_segments": 0, "activation": "relu", "weight_density": 1.0, "append_task": True}
    module = attached(MultiTaskSAC(small_policy(**plain), discount=0.9, tau=0.05, reward_scale=2.0, **options))
    textbook = Textbook(module, **options)
    for step in range(5):
        module._generator, draws = (torch.Generator().manual_seed(step) for _ in range(2))
        monkeypatch.setattr(MultiTaskSAC, "global_step", step)  # which a Trainer counts
        experience = batch()
        losses = module.update(experience)
        assert (losses.actor is None) == (losses.entropy is None) == (step % options.get("policy_delay", 1) > 0)
        textbook.update(experience, draws)
    for ours, theirs in (
        (module.model, textbook.model),
        (module.critic, textbook.critic),
        (module.slow_critic, textbook.slow),
    ):
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(module.log_alpha, textbook.log_alpha.detach().requires_grad_())


@pytest.mark.parametrize("winners", ["activation", "context"])
def test_networks_with_dendrites_learn_and_stay_sparse(winners):
    module = attached(MultiTaskSAC(small_policy(winners=winners, weight_density=0.5, dendrite_layers=None), lr=0.01))
    losses = []
    experience = batch()
    for _ in range(60):
        losses.append(float(module.update(experience)[0]))
    assert losses[-1] < losses[0] / 2
    for network in (module.model.mlp, *module.critic.critics, *module.slow_critic.critics):
        for layer in network.hidden:
            assert (layer.weight[~layer.mask] == 0).all()


@pytest.mark.parametrize(("warmup_steps", "uniform"), [(0, 0), (10, 1), (15, 2)])
def test_the_whole_warmup_is_played_at_random(warmup_steps, uniform):
    """Also the round after which learning begins; it may be the only one, where rounds are large."""
    module = MultiTaskSAC(small_policy(), batch_size_per_task=8, start_std=1e-3)
    data = practice(env_steps=30, epochs=1, warmup_steps=warmup_steps)
    fit(module, data)
    actions = data.replay.rows.unflatten(0, (2, -1))[:, :15, 39:43].unflatten(1, (3, 5))
    spread = actions.std(2).mean((0, 2))  # of each round; the policy's own actions hardly differ
    assert (spread > 0.2).tolist() == [round_ < uniform for round_ in range(3)]


class Tasks(torch.nn.Module):
    """A policy without inputs: a mean and a deviation of its own for each task."""

    tasks = TASKS

    def __init__(self, log_std=(0.0, 0.0)):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(2, 4))
        self.log_std = torch.nn.Parameter(torch.tensor(log_std)[:, None].repeat(1, 4))

    def forward(self, observation, task):
        return self.mean[task], self.log_std[task]


def test_every_task_has_its_own_coefficient():
    """Too little entropy in task 0, too much in task 1."""
    critic = TwinCritic(TASKS, hidden_features=[8], dendrite_layers=None)
    module = attached(MultiTaskSAC(Tasks((-9.0, 0.0)), critic=critic, lr=0.1))
    module.update(batch())
    assert module.log_alpha[0] > 0 > module.log_alpha[1]


def test_a_warmup_leaves_policy_and_coefficients_as_they_are():
    module = MultiTaskSAC(small_policy(), actor_warmup=6, lr=0.01)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run = practice(env_steps=40, epochs=2, warmup_steps=20, updates_per_round=3)
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            now = pl_module.state_dict()
            changed = {name.split(".")[0] for name in before if not now[name].equal(before[name])}
            seen.append((trainer.global_step, changed - {"critic", "slow_critic"}, "critic" in changed))

    fit(module, run, callbacks=[Watch()])
    assert seen == [
        (0, set(), False),
        (3, set(), True),
        (6, set(), True),
        (9, {"model", "log_alpha"}, True),
    ]


def fit(module, data, ckpt_path=None, **kwargs):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(**{**data.trainer_kwargs(), **defaults, **kwargs})
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def test_what_is_logged_of_the_policy_is_of_the_updates_in_which_it_learned(monkeypatch):
    """Of rounds of three updates; the first of them are those of the critics alone, and have none."""
    update, losses, logged = MultiTaskSAC.update, [], []

    class Note(Callback):
        def on_train_batch_end(self, trainer, *_):
            logged.append({k: float(v) for k, v in trainer.logged_metrics.items() if k.startswith("train/")})

    monkeypatch.setattr(MultiTaskSAC, "update", lambda self, batch: losses.append(update(self, batch)) or losses[-1])
    module = MultiTaskSAC(small_policy(), batch_size_per_task=8, policy_delay=2, actor_warmup=3)
    fit(module, practice(env_steps=50), callbacks=[Note()], log_every_n_steps=1)
    assert [loss.actor is not None for loss in losses] == [False] * 3 + [k % 2 == 0 for k in range(12)]
    for number, row in enumerate(logged[1:]):
        of_round = losses[3 * number : 3 * number + 3]
        assert row["train/critic_loss"] == pytest.approx(np.mean([float(loss.critic) for loss in of_round]))
        for key, name in (("actor_loss", "actor"), ("entropy", "entropy")):
            values = [float(getattr(loss, name)) for loss in of_round if getattr(loss, name) is not None]
            assert ("train/" + key in row) == bool(values)
            assert not values or row["train/" + key] == pytest.approx(np.mean(values))


def test_returns_of_several_steps_are_learned_from():
    seen = []

    class Note(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(None if pl_module._batch is None else getattr(pl_module._batch, "discount", None))

    fit(MultiTaskSAC(small_policy(), batch_size_per_task=64, n_step=3, discount=0.9), practice(), callbacks=[Note()])
    powers = sorted({round(float(x), 5) for row in seen[1:] for x in row})
    assert powers == [0.729, 0.81, 0.9]  # less where an episode ended before


@pytest.mark.filterwarnings("ignore:The policy was loaded with")
def test_features_that_are_known_are_not_measured_and_the_warmup_is_played(tmp_path):
    policy = small_policy(observation_features="metaworld", observation_clip=10.0)
    mean, scale = policy.observation_mean.clone(), policy.observation_scale.clone()
    module = MultiTaskSAC(policy, batch_size_per_task=8, start_std=1e-3)
    data = practice()
    fit(module, data)
    for model in (policy, module.critic, module.slow_critic):
        assert model.observation_mean.equal(mean) and model.observation_scale.equal(scale)
        assert model.observation_matrix.shape == (39, 43)
    assert data.replay.rows[:5, 39:43].std(0).min() > 0.1 > data.replay.rows[15:20, 39:43].std(0).max()
    policy.save_pretrained(tmp_path)
    data = practice()
    fit(MultiTaskSAC(load(tmp_path), batch_size_per_task=8, start_std=1e-3), data)
    assert data.replay.rows[:5, 39:43].std(0).max() < 0.1, "a trained policy plays from the start"
    with pytest.raises(
        ValueError, match="`critic` to be one with the observation_features of the policy, but got None"
    ):
        MultiTaskSAC(policy, critic=TwinCritic(TASKS, hidden_features=[8, 8]))
    for name, value in {"tasks": TASKS[::-1], "observation_size": 38, "action_size": 3}.items():
        critic = TwinCritic(**{"tasks": TASKS, "hidden_features": [8, 8], name: value})
        with pytest.raises(ValueError, match=f"`critic` to be one with the {name} of the policy, but got"):
            MultiTaskSAC(small_policy(), critic=critic)
    with pytest.raises(ValueError, match="Expected `alpha_lr` to be None with kl_coef"):
        MultiTaskSAC(small_policy(), kl_coef=1.0, alpha_lr=1e-3)


def test_actions_in_bfloat16_are_played():
    data = practice(epochs=1)
    fit(MultiTaskSAC(small_policy(), batch_size_per_task=8), data, precision="bf16-mixed")
    replay = data.replay
    played = [rows[:size] for rows, size in zip(replay.rows.chunk(len(replay.sizes)), replay.sizes, strict=True)]
    assert all(len(rows) and rows.dtype == torch.float32 and rows.isfinite().all() for rows in played)


def test_an_anchor_holds_the_policy_where_it_was():
    experience = batch(50)

    def moved(anchor):
        torch.manual_seed(1)
        module = attached(MultiTaskSAC(small_policy(), kl_coef=anchor, lr=0.01, start_std=0.2))
        start = copy.deepcopy(module.model)
        for _ in range(30):
            module.update(experience)
        with torch.no_grad():
            return sac.gaussian_divergence(
                *module.model(experience.observation, experience.task), *start(experience.observation, experience.task)
            ).mean()

    assert moved(10.0) < 0.1 * moved(0.0)


def test_the_deviation_of_an_imitated_policy_is_set():
    policy = small_policy()
    means = policy(torch.ones(3, 39), torch.tensor([0, 1, 1]))[0].detach().clone()
    MultiTaskSAC(policy, start_std=0.1)
    after, log_std = policy(torch.ones(3, 39), torch.tensor([0, 1, 1]))
    assert after.equal(means)
    torch.testing.assert_close(log_std.exp(), torch.full((3, 4), 0.1))


def imitated():
    """The zoo's policy, of two of its ten tasks."""
    zoo = load("metaworld-mt10")
    chosen = [zoo.tasks.index(task) for task in TASKS]
    weights = {name: w[..., chosen] if name.endswith("segments") else w for name, w in zoo.state_dict().items()}
    policy = ActiveDendritePolicy(**{**zoo.config, "tasks": TASKS})
    policy.load_state_dict(weights)
    return policy


def test_what_an_imitated_policy_can_do_it_still_can_after_learning_more():
    policy = imitated()
    mean, scale = policy.observation_mean.clone(), policy.observation_scale.clone()
    success = SuccessLogger(num_goals=3, max_steps=150, num_processes=0, fast=True)
    data = practice(
        env_steps=400, epochs=1, steps_per_round=100, updates_per_round=100, warmup_steps=200, max_steps=100
    )
    module = MultiTaskSAC(policy, batch_size_per_task=32, kl_coef=10.0, start_std=0.1)
    trainer = fit(module, data, callbacks=[success])
    assert trainer.global_step == 200
    assert success.report.per_task == dict.fromkeys(TASKS, 1.0)
    for network in (policy, module.critic, module.slow_critic):
        assert network.observation_mean.equal(mean) and network.observation_scale.equal(scale)
    assert module.log_alpha.eq(0).all()
    assert trainer.callback_metrics["train/success/drawer-close-v3"] == 1  # it has played by itself


def test_a_policy_is_held_and_its_spread_set_only_where_that_is_asked_for(tmp_path):
    """A normaliser alone does not make it a trained one. And a checkpoint says what was asked for."""
    policy = small_policy()
    policy.fit_normalizer(torch.randn(10, 39))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    module = MultiTaskSAC(policy, batch_size_per_task=8)
    assert all(tensor.equal(before[name]) for name, tensor in policy.state_dict().items())
    assert module.start_policy is None and module.hparams["kl_coef"] == 0 and module.hparams["start_std"] is None
    fit(module, practice(env_steps=20, epochs=1, warmup_steps=0))
    assert not module.log_alpha.eq(0).any()
    for name in ("observation_mean", "observation_scale"):
        assert policy.state_dict()[name].equal(before[name])

    trainer = fit(
        MultiTaskSAC(policy, batch_size_per_task=8, kl_coef=10.0, start_std=0.1), practice(env_steps=20, epochs=1)
    )
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    module = MultiTaskSAC.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert module.hparams["kl_coef"] == 10 and module.hparams["start_std"] == 0.1
    expected = trainer.lightning_module.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in module.state_dict().items())


def test_what_is_remembered_is_what_was_played():
    data = practice(env_steps=80, steps_per_round=10, max_steps=4)
    data.setup()
    played = []

    def act(observation, task):
        action = torch.rand(len(task), 4) * 2 - 1
        played.append((observation.clone(), action))
        return action

    data.collect(act, 10)
    data.teardown()
    for j in (0, 1):
        observation, action, reward, next_observation = data.replay.rows[j * data.replay.capacity :][:10].split(
            data.replay.widths, dim=1
        )
        assert observation.equal(torch.stack([row[0][j] for row in played]))
        assert action.equal(torch.stack([row[1][j] for row in played]))
        assert (reward >= 0).all()
        goes_on = (next_observation[:-1] == observation[1:]).all(1)
        # an episode has four steps; the fourth leads to where it really led, not to where the next one began
        assert goes_on.tolist() == [step % 4 != 3 for step in range(9)]
        # the second half of an observation is the one before: also at the end of an episode
        assert next_observation[:, 18:36].equal(observation[:, :18])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from start to end."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), result(folder)


def test_updates_and_steps_are_counted(whole):
    trainer, _ = whole
    # four rounds of 5 steps of 2 environments, the first without updates
    assert trainer.callback_metrics["env_steps"] == 40 == trainer.datamodule.env_steps
    assert trainer.callback_metrics["updates"] == 9 == trainer.global_step
    assert trainer.datamodule.replay.sizes.tolist() == [20, 20]
    for name in ("critic_loss", "actor_loss", "entropy", *(f"entropy_coefficient/{task}" for task in TASKS)):
        assert trainer.callback_metrics[f"train/{name}"].isfinite()
    assert {f"train/{what}/{task}" for task in TASKS for what in ("success", "return")} <= set(trainer.callback_metrics)
    assert trainer.callback_metrics["train/return/mean"] > 0
    for j in (0, 1):
        assert trainer.callback_metrics[f"val/task_{j}/value"].isfinite()


def test_observations_are_normalised_by_the_warmup(whole):
    module = whole[0].lightning_module
    first = torch.cat([module.trainer.datamodule.replay.rows[j * 500 :][:10, :39] for j in (0, 1)])
    torch.testing.assert_close(module.model.observation_mean, first.mean(0), rtol=1e-4, atol=1e-5)
    for critic in (module.critic, module.slow_critic):
        assert critic.observation_mean.equal(module.model.observation_mean)
        assert critic.observation_scale.equal(module.model.observation_scale)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(whole, tmp_path, rounds):
    """After the warm-up, at the end of an epoch and within one: networks, moments, memory and so robots."""
    with pytest.raises(Crash):
        train(tmp_path, crash=rounds)
    resumed = train(tmp_path)
    assert resumed.global_step == 9
    expected = whole[1]
    found = result(tmp_path)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].equal(expected[name]), name


class Updates(Callback):
    """Notes whether the policy's own weights changed between two updates of a round."""

    def __init__(self):
        self.changed, self.round, self.weight = [], -1, None

    def on_before_backward(self, trainer, module, loss):
        weight, before = module.model.mlp.hidden[1].weight.detach().clone(), self.weight
        if trainer.datamodule.rounds == self.round:
            self.changed.append(not weight.equal(before))
        self.round, self.weight = trainer.datamodule.rounds, weight


class Looks(Updates):
    """Wants to see the gradients of the network itself."""

    def on_after_backward(self, trainer, module):
        assert module.critic.critics[0].hidden[1].weight.grad is not None


@pytest.mark.filterwarnings("ignore:Numbers .* of the observations are up to")  # after a few steps of one task
@pytest.mark.parametrize("order", ["mixed", "sequential"])
def test_rounds_train_what_their_tasks_use_unless_somebody_looks(tmp_path, order):
    """Both to the same weights and moments; a crash changes nothing."""
    parts = {"hidden_features": [40, 40], "activation_density": 0.1, "overlap": 0.0, "dendrite_layers": None}
    run = {
        "policy": {"winners": "context", "layer_norm": True, **parts},
        "options": {"policy_delay": 2, "reset_optimizer": False},
        "data": {"order": order, **({"warmup_steps": 10, "env_steps": 60} if order == "sequential" else {})},
    }
    results, changed = [], []
    for name, watch in {"compact": Updates(), "whole": Looks()}.items():
        (tmp_path / name).mkdir()
        trainer = train(tmp_path / name, callbacks=[watch], **run)
        results.append(result(tmp_path / name))
        changed.append(set(watch.changed))
    assert trainer.global_step >= 9
    assert changed == [{False}, {False, True}]  # where the critics learn alone, the policy stays as it is
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    (tmp_path / "crashed").mkdir()
    with pytest.raises(Crash):
        train(tmp_path / "crashed", crash=2, **run)
    train(tmp_path / "crashed", **run)
    torch.testing.assert_close(result(tmp_path / "crashed"), results[0], rtol=0, atol=0)


class Outputs(Callback):
    """Notes what policy and critics make of the first task, at the start of each round."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, *_):
        x, task = torch.linspace(-1, 1, 12).view(4, 3), torch.zeros(4, dtype=torch.long)
        action, alpha = torch.linspace(-1, 1, 8).view(4, 2), module.log_alpha[:1]
        self.seen.append([*module.model(x, task), *module.critic(x, action, task), alpha.detach().clone()])


@pytest.mark.parametrize("bias", [True, False])
def test_what_learns_in_units_of_its_own_changes_no_earlier_task(bias):
    torch.manual_seed(0)
    options = {"winners": "context", "overlap": 0.0, "activation_density": 0.25, "segment_seed": 0}
    sizes = {"observation_size": 3, "action_size": 2, "hidden_features": [16, 16], "dendrite_layers": None}
    policy = ActiveDendritePolicy(("calm", "windy"), output_bias=bias, **options, **sizes)
    rounds = {"env_steps": 96, "epochs": 2, "steps_per_round": 6, "updates_per_round": 3, "warmup_steps": 6}
    own = {"environments": {"num_processes": 0}, "capacity": 1000}
    data, outputs = OnlineTasks(ledges(), order="sequential", **rounds, **own), Outputs()
    fit(MultiTaskSAC(policy, batch_size_per_task=8, lr=1e-2), data, callbacks=[outputs])
    first, begins, last = outputs.seen[0], outputs.seen[8], outputs.seen[-1]
    assert not any(one.equal(other) for one, other in zip(first, begins, strict=True)), "it was learned"
    assert all(one.equal(other) for one, other in zip(begins[:4], last[:4], strict=True)) == (not bias)
    assert begins[4].equal(last[4])


class CrashInValidation(Callback):
    """Notes every validation, and ends a run before the one after so many rounds."""

    def __init__(self, rounds=None):
        self.rounds, self.seen = rounds, []

    def on_validation_start(self, trainer, *_):
        if trainer.datamodule.rounds == self.rounds:
            raise Crash

    def on_validation_end(self, trainer, *_):
        self.seen.append((trainer.current_epoch, trainer.datamodule.rounds))


@pytest.mark.parametrize(
    "second", [{"in_validation": 4}, {"in_round": 3}], ids=["in the next validation", "in the next round"]
)
def test_a_validation_that_a_crash_swallowed_is_made_good_also_after_a_second_crash(tmp_path, second):
    """There are as many validations and rounds as in a run that is not interrupted."""
    path = tmp_path / "last.ckpt"

    def go(in_validation=None, in_round=None):
        validations = CrashInValidation(in_validation)
        callbacks = [EveryRound(path), validations, *([] if in_round is None else [CrashAfter(in_round)])]
        data = practice(env_steps=80, epochs=4, max_steps=7)
        start = path if path.exists() else None
        with pytest.raises(Crash) if in_validation or in_round else nullcontext():
            trainer = fit(
                MultiTaskSAC(small_policy(), batch_size_per_task=8),
                data,
                start,
                enable_checkpointing=True,
                callbacks=callbacks,
            )
            assert (data.rounds, trainer.current_epoch, trainer.global_step) == (8, 4, 21)
        return validations.seen

    whole = [(0, 2), (1, 4), (2, 6), (3, 8)]
    assert go(in_validation=2) + go(**second) + go() == whole


def test_a_checkpoint_after_the_fit_is_that_of_its_last_round(whole, tmp_path):
    """The environments are closed by then."""
    trainer = whole[0]
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    after, last = (
        torch.load(path, weights_only=True)["OnlineTasks"]
        for path in (tmp_path / "after.ckpt", trainer.checkpoint_callback.path)
    )
    [after], [last] = after["processes"], last["processes"]
    assert after.keys() == last.keys() and after["replay"]["rows"].equal(last["replay"]["rows"])
    for mine, expected in zip(after["environments"]["environments"], last["environments"]["environments"], strict=True):
        assert mine["physics"].equal(expected["physics"]) and mine["episode"] == expected["episode"]


def test_a_checkpoint_holds_nothing_but_tensors_and_plain_values(whole, tmp_path):
    with pytest.raises(Crash):
        train(tmp_path, crash=2)
    path = tmp_path / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["OnlineTasks"]["rounds"] == 2
    assert checkpoint["OnlineTasks"]["processes"][0]["replay"]["rows"].shape == (20, 83)
    module = MultiTaskSAC.load_from_checkpoint(path, weights_only=True)
    assert full_config(module.model) == full_config(small_policy())
    for name, tensor in module.state_dict().items():
        assert tensor.equal(checkpoint["state_dict"][name])


def test_callbacks_see_every_task(tmp_path):
    sparsity, subnetworks = SparsityLogger(), SubnetworkLogger(folder=tmp_path)
    trainer = fit(MultiTaskSAC(small_policy()), practice(), callbacks=[sparsity, subnetworks])
    figures = sparsity.values["model.mlp.activations.1"]
    assert {f"activation_sparsity/task_{j}" for j in (0, 1)} <= figures.keys()
    assert figures["activation_sparsity"] == pytest.approx(0.75)
    rates = subnetworks.win_rates["model.mlp.activations.1"]
    assert rates.shape == (2, 16) and rates.mean(1).tolist() == pytest.approx([0.25, 0.25])
    assert (subnetworks.segments["model.mlp.hidden.1"] >= 0).all()
    assert "subnetworks/model.mlp.activations.1/overlap" in trainer.callback_metrics


@pytest.mark.parametrize("every", [4, None])
def test_success_is_measured_on_the_way(every):
    """Every so many updates, of which a round has three, or at each validation."""
    log = SuccessLogger(every, num_goals=2, max_steps=5, num_processes=0)
    trainer = fit(MultiTaskSAC(small_policy()), practice(), callbacks=[log])
    assert log.report.first.shape == (2, 2) and log.report.split == "val"
    assert {*(f"success/{task}" for task in TASKS), "success/mean"} <= set(trainer.callback_metrics)


def test_any_networks_will_do():
    with pytest.raises(TypeError, match="critic="):
        MultiTaskSAC(Tasks())
    module = MultiTaskSAC(Tasks(), critic=TwinCritic(TASKS, hidden_features=[8], dendrite_layers=None))
    fit(module, practice(env_steps=20, epochs=1, warmup_steps=0))
    assert module.act_batch(np.zeros((3, 39)), np.array([0, 1, 1])).shape == (3, 4)


def test_other_data_are_refused():
    module = MultiTaskSAC(small_policy())
    with pytest.raises(
        ValueError, match=r"Expected data of OnlineTasks, or batches of observation, action.* got 2 parts of the shapes"
    ):
        fit(module, PermutedTasks("digits", 2))
    with pytest.raises(ValueError, match=r"tasks of the policy, .* got 'hammer-v3'. Load the policy with tasks="):
        fit(module, OnlineTasks([*TASKS, "hammer-v3"], env_steps=20, environments={"num_processes": 0}))


def test_a_trainer_that_disagrees_is_refused():
    data = practice()
    with pytest.raises(ValueError, match=r"OnlineTasks to have max_epochs=2, but got 5; .*=0, but got 2\. Build"):
        fit(MultiTaskSAC(small_policy()), data, max_epochs=5, num_sanity_val_steps=2)
    assert data.practice.player is None


@pytest.mark.parametrize(
    "argument",
    [
        {"lr": 0.0},
        {"batch_size_per_task": 0},
        {"discount": 1.0},
        {"tau": 0.0},
        {"tau": 1.5},
        {"kl_coef": -1.0},
        {"start_std": 0.0},
        {"actor_warmup": -1},
        {"reward_scale": 0.0},
        {"init_alpha": -1.0},
    ],
)
def test_numbers_out_of_range_are_refused(argument):
    [(name, value)] = argument.items()
    with pytest.raises(ValueError, match=rf"^Expected `{name}` to be [^`=]*, but got {value}\.$"):  # and no other
        MultiTaskSAC(small_policy(), **argument)


def test_the_number_of_processes_stays():
    with pytest.raises(ValueError, match="as many processes as there are now, 1, .* but got one of 2"):
        practice().load_state_dict({"rounds": 1, "processes": [{}, {}]})


def test_a_run_that_ends_leaves_no_environments(whole):
    assert whole[0].datamodule.practice.player is None


def test_checkpoints_are_written_by_ordinary_means(tmp_path):
    """The run folder's callback, at the end of each epoch."""
    fit(
        MultiTaskSAC(small_policy()),
        practice(),
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0)],
    )
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["OnlineTasks"]["rounds"] == 4


class Kill(Callback):
    """Kills the process of the environments, once."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.datamodule.rounds == 2:
            [worker] = trainer.datamodule.practice.player.environments._pool.workers
            worker.process.kill()


def test_data_may_be_learned_from_again():
    """After a run, and after one whose environments crashed: each begins with nothing played."""
    data = practice(environments={"num_processes": 1, "max_steps": 7})
    with pytest.raises(RuntimeError, match="ended"):
        fit(MultiTaskSAC(small_policy()), data, callbacks=[Kill()])
    assert data.practice.player is None
    for _ in range(2):
        trainer = fit(MultiTaskSAC(small_policy()), data)
        assert trainer.global_step == 9 and data.env_steps == 40
        assert data.replay.sizes.tolist() == [20, 20]


def test_an_entropy_above_that_of_uniform_actions_is_refused():
    most = 4 * np.log(2)  # the differential entropy of a uniform distribution over [-1, 1]^4
    MultiTaskSAC(small_policy(), target_entropy=most - 1e-6)
    for asked in (most, 3.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"`target_entropy` to be below 2.77 .* uniform actions\), but got"):
            MultiTaskSAC(small_policy(), target_entropy=asked)
    with pytest.raises(ValueError, match="below 0.69"):
        MultiTaskSAC(small_policy(action_size=1), target_entropy=0.7)


def test_no_action_distribution_has_more_entropy_than_uniform_ones():
    """By Monte Carlo, for the widest and other Gaussians: what `target_entropy` asks for must be reachable."""
    torch.manual_seed(0)
    for log_std in (-2.0, -0.5, -0.14, 0.0, 1.0):
        draws = torch.randn(200_000, 4)
        _, log_prob = sac.tanh_gaussian(torch.zeros_like(draws), torch.full_like(draws, log_std), draws)
        assert -log_prob.mean() < 4 * np.log(2)


@pytest.mark.parametrize("updates_per_round", [3, 0])
def test_a_warmup_longer_than_the_fit_is_warned_of(updates_per_round):
    data = practice(env_steps=40, epochs=2, warmup_steps=50, updates_per_round=updates_per_round)
    said = "fewer than the env_steps, 40, but got 50: nothing will be learned"
    with pytest.warns(match=said) if updates_per_round else nullcontext():
        run = fit(MultiTaskSAC(small_policy()), data)
    assert run.global_step == 0 == data.total_updates


def test_a_warmup_longer_than_the_share_of_a_task_is_warned_of():
    data = practice(env_steps=40, epochs=2, warmup_steps=30, order="sequential")
    with pytest.warns(match="fewer than the env_steps of a task, 20, but got 30: nothing will be learned"):
        fit(MultiTaskSAC(small_policy()), data)


@pytest.mark.parametrize("warmup_steps", [0, 10, 11, 20, 30, 40])
def test_updates_are_counted_before_a_fit(warmup_steps):
    data = practice(env_steps=40, epochs=2, warmup_steps=warmup_steps)
    expected = fit(MultiTaskSAC(small_policy(), batch_size_per_task=2), data).global_step
    assert data.total_updates == expected > 0


def test_an_actor_warmup_longer_than_the_fit_is_warned_of():
    with pytest.warns(match="`actor_warmup` to be fewer than the 6 updates of this fit, but got 6: the policy"):
        module = MultiTaskSAC(small_policy(), batch_size_per_task=2, actor_warmup=6)
        fit(module, practice(env_steps=20, epochs=1, warmup_steps=0))
