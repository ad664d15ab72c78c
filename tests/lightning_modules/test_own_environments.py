"""Soft actor-critic in environments of one's own: other sizes, true ends, at once or one after another."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import ForgettingLogger, SuccessLogger, SynapticIntelligence
from dendrite_zoo.cli.policy_scores import policy_scores
from dendrite_zoo.lightning_modules import BehaviorCloning, MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import Exploration, TaskSpec, Transitions
from dendrite_zoo.streams import OnlineTasks, Round
from tests import processes
from tests.lightning_modules.practice import Crash, CrashAfter, EveryRound
from tests.rl.worlds import Ledge, ledges

pytest.importorskip("gymnasium")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
QUIET = {
    "logger": False,
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


def data(order="mixed", success="near", **arguments):
    """Rounds of 5 steps: four of all tasks, or four of each task, the first two without updates."""
    sizes = {"env_steps": 40, "epochs": 4, "steps_per_round": 5, "updates_per_round": 2, "warmup_steps": 10}
    options = {"environments": {"num_processes": 0}, "capacity": 100, **sizes, **arguments}
    return OnlineTasks(ledges(success=success), order=order, **options)


short_rounds = data


def policy(**sizes):
    torch.manual_seed(0)
    sizes = {"observation_size": 3, "action_size": 2, **sizes}
    return ActiveDendritePolicy(("calm", "windy"), hidden_features=[16, 16], num_segments=2, **sizes)


def fit(module, stream, *callbacks, ckpt_path=None):
    saves = any(isinstance(callback, EveryRound) for callback in callbacks)
    trainer = Trainer(**stream.trainer_kwargs(), **QUIET, callbacks=list(callbacks), enable_checkpointing=saves)
    trainer.fit(module, stream, ckpt_path=ckpt_path)
    return trainer


def test_what_was_played_is_what_is_learned_from():
    stream = data(steps_per_round=40, env_steps=320)
    module = MultiTaskSAC(policy(), batch_size_per_task=8)
    fit(module, stream)
    assert (stream.observation_size, stream.action_size) == (3, 2)
    replay = stream.replay
    observation, action, reward, after = replay.rows[:160].split(replay.widths, dim=1)
    fell = replay.terminated[:160]
    assert fell.any() and ((after[:, 0].abs() > 1) == fell).all(), "an end is where the cart left the ledge"
    assert (reward.squeeze(1)[fell] == -1000).all() and (reward.squeeze(1)[~fell] >= 0).all()
    assert action.abs().max() <= 1 and replay.sizes.tolist() == [50, 50]
    assert module.model.has_normalizer


def test_a_fit_that_plays_much_more_than_was_asked_for_is_said():
    with pytest.warns(UserWarning, match="got 15: rounds are of 10 steps, and 40 will be played. Lower `epochs`"):
        fit(MultiTaskSAC(policy(), batch_size_per_task=8), data(env_steps=15))


def test_exploration_is_no_mapping():
    with pytest.raises(ValueError, match="Expected `exploration` to be an Exploration, .* but got {'burst_share'"):
        data(exploration={"burst_share": 0.3})


def test_policies_of_other_sizes_are_refused():
    with pytest.raises(
        ValueError, match="observation_size=3, action_size=2, the size .* got observation_size=39, action"
    ):
        fit(MultiTaskSAC(policy(observation_size=39, action_size=4)), data())


@pytest.mark.parametrize("order", ["mixed", "sequential"])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(order, tmp_path):
    def module():
        return MultiTaskSAC(policy(), batch_size_per_task=8, lr=1e-2, n_step=3)

    def data(order):
        """As many rounds, of actions that last."""
        environments = {"num_processes": 0, "action_repeat": 2}
        sizes = {"env_steps": 80, "warmup_steps": 20, "environments": environments}
        return short_rounds(order, exploration=Exploration(burst_share=0.5, burst_start=0.5), **sizes)

    whole = module()
    fit(whole, data(order))
    rounds = 4 if order == "mixed" else 8
    for crash in range(1, rounds):
        last = tmp_path / f"{crash}.ckpt"
        with pytest.raises(Crash):
            fit(module(), data(order), EveryRound(last), CrashAfter(crash))
        resumed, stream = MultiTaskSAC.load_from_checkpoint(last) if crash % 2 == 0 else module(), data(order)
        fit(resumed, stream, ckpt_path=last)
        assert stream.rounds == rounds
        for name, weight in whole.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), (crash, name)


class Seen(SuccessLogger):
    """Notes what the module was trained on, and what was measured in each validation."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.tasks_of_batches, self.rows = [], []

    def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
        batch = trainer.datamodule.sample(4)
        self.tasks_of_batches.append((trainer.datamodule.current_task, batch.task.unique().tolist()))
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)

    def on_validation_epoch_end(self, trainer, pl_module):
        super().on_validation_epoch_end(trainer, pl_module)
        self.rows.append(list(self.report.per_task.values()))


@pytest.mark.parametrize("success", ["near", None])
def test_one_task_after_another_is_measured_on_all(success, tmp_path):
    stream, name = data("sequential", success), "val/success" if success else "val/return"
    seen = Seen(num_goals=3, num_processes=0, max_steps=None)
    log = ForgettingLogger(name, folder=tmp_path, pictures=False, verbose=False)
    module = MultiTaskSAC(policy(), batch_size_per_task=8)
    trainer = fit(module, stream, seen, log)
    assert stream.metric == name and (stream.epochs_per_task, stream.max_epochs) == (2, 4)
    assert seen.tasks_of_batches == [(0, [0])] * 4 + [(1, [1])] * 4
    torch.testing.assert_close(log.matrix, torch.tensor([seen.rows[1], seen.rows[3]]))
    metrics = trainer.callback_metrics
    assert metrics["average_accuracy"] == pytest.approx(sum(seen.rows[3]) / 2)
    assert metrics["forgetting"] == pytest.approx(seen.rows[1][0] - seen.rows[3][0], rel=1e-3)
    assert metrics["return/mean"] == pytest.approx(sum(seen.report.return_per_task.values()) / 2)
    assert ("success/mean" in metrics) == (success is not None)


def test_episodes_and_actions_are_as_long_when_played_for_success_as_in_training():
    stream = data(environments={"num_processes": 0, "max_steps": 4, "action_repeat": 2})
    success = SuccessLogger(num_goals=2, num_processes=0)
    trainer = fit(MultiTaskSAC(policy(), batch_size_per_task=8), stream, success)
    assert success.report.max_steps == 4 and success.report.return_per_task["calm"] <= 4 * 500
    report, _ = policy_scores(trainer.lightning_module.model, trainer, None, goals=1, sequential=False)
    assert (report.max_steps, report.action_repeat) == (4, 2)


def test_each_task_has_a_warmup_and_a_buffer_of_its_own():
    stream, rounds = data("sequential", warmup_steps=15), []

    class Noted(CrashAfter):
        def on_train_batch_start(self, trainer, pl_module, batch, *_):
            rounds.append((batch, len(stream.replay), stream.task_env_steps))

    fit(MultiTaskSAC(policy(), batch_size_per_task=8, start_std=1e-3), stream, Noted(None))
    actions = stream.replay.rows[:20, 3:5].unflatten(0, (4, 5))  # of the second task: all rounds but the last at random
    assert (actions.std(1).mean(1) > 0.2).tolist() == [True, True, True, False]
    of_one = [(Round(5, 0), 0, 0), (Round(5, 0), 5, 5), (Round(5, 2), 10, 10), (Round(5, 2), 15, 15)]
    assert rounds == of_one * 2 and stream.total_updates == 2 * 2 * 2 and stream.env_steps == 40


def test_a_later_task_of_another_scale_is_said():
    storm = [ledges()[0], TaskSpec("windy", partial(Ledge, wind=100.0), success="near")]
    rules = {"env_steps": 40, "epochs": 4, "steps_per_round": 5, "updates_per_round": 2, "warmup_steps": 10}
    stream = OnlineTasks(storm, order="sequential", environments={"num_processes": 0}, **rules)
    with pytest.warns(UserWarning, match=r"Numbers \[.*2\] of the observations are up to .* times their scale") as said:
        fit(MultiTaskSAC(policy(), batch_size_per_task=8), stream)
    (words,) = [str(one.message) for one in said if "times their scale" in str(one.message)]
    assert (
        "spec.normalized()" in words and "model.fit_normalizer(numpy.concatenate([spec.sample_observations()" in words
    )
    known, seen = policy(), [spec.sample_observations(steps=50) for spec in stream.specs]
    known.fit_normalizer(np.concatenate(seen))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Numbers")
        fit(MultiTaskSAC(known, batch_size_per_task=8), stream)
    loaded = policy()
    loaded.learned_tasks = ["calm"]
    loaded.fit_normalizer(seen[0])
    loaded.observation_mean[2], loaded.observation_scale[2] = 0.0, 1.0
    before = loaded.act_batch(seen[0], 0)
    with pytest.warns(UserWarning, match=r"model.extend_normalizer\(data.specs\[0\].sample_observations\(\)\)"):
        only = OnlineTasks(storm[1:], environments={"num_processes": 0}, **rules)
        fit(MultiTaskSAC(loaded, batch_size_per_task=8, learn="new"), only)
    assert 2 in loaded.extend_normalizer(only.specs[0].sample_observations(steps=50))
    assert np.array_equal(loaded.act_batch(seen[0], 0), before)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Numbers")
        fit(MultiTaskSAC(policy(), batch_size_per_task=8), data("sequential"))


def test_with_consolidation_the_weights_of_the_first_task_move_less():
    def moved(*callbacks):
        module, stream, before = MultiTaskSAC(policy(), batch_size_per_task=8, lr=1e-2), data("sequential"), {}

        class Noted(CrashAfter):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch == 1:
                    before.update({n: p.detach().clone() for n, p in pl_module.model.named_parameters()})

        fit(module, stream, Noted(None), *callbacks)
        return sum(float((p - before[n]).detach().square().sum()) for n, p in module.model.named_parameters())

    assert moved(SynapticIntelligence(si_lambda=1e4)) < 0.9 * moved()


def test_what_was_learned_first_stays_to_the_bit_with_learn_new():
    """While the second task is learned: actions and returns of the first, at each validation."""
    seen = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    acted, returns = [], []

    class Noted(SuccessLogger):
        def on_validation_epoch_end(self, trainer, pl_module):
            super().on_validation_epoch_end(trainer, pl_module)
            acted.append([pl_module.act_batch(seen, np.full(20, task)) for task in (0, 1)])
            returns.append(self.report.returns)

    module = MultiTaskSAC(policy(), batch_size_per_task=8, lr=1e-2, learn="new")
    fit(module, data("sequential", epochs=8, env_steps=80), Noted(num_goals=3, num_processes=0))
    after_first, *later = acted[3:]
    assert len(later) == 4 and not np.array_equal(acted[0][0], after_first[0]), "the first task was learned"
    for first, second in later:
        assert np.array_equal(first, after_first[0]) and not np.array_equal(second, after_first[1])
    assert all(np.array_equal(one[0], returns[3][0]) for one in returns[4:])


def test_rewards_of_another_scale_count_alike():
    stream, values = data(normalize_rewards=True, warmup_steps=20), []
    module = MultiTaskSAC(policy(), batch_size_per_task=8)
    trainer = fit(module, stream)
    again = stream.practice.state_dict()["reward_rms"]
    for task in (0, 1):
        first = stream.replay.rewards(task, 100)[:10]  # two rounds of five, before the first update
        assert stream.practice.reward_rms[task] == pytest.approx(float(first.square().mean().sqrt()))
        batch, generator = stream.sample(50, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(0)
        plain = stream.replay.sample(50, generator)
        torch.testing.assert_close(batch.reward[batch.task == task] * again[task], plain.reward[plain.task == task])
    for factor in (1.0, 10.0):  # values are in the units of the environment
        stream.practice.reward_rms *= factor
        module._generator = module._generator_of(0)
        values.append(trainer.validate(module, stream, verbose=False)[0]["val/task_0/value"])
    assert values[1] == pytest.approx(10 * values[0])


def transitions(rows=64):
    draws = torch.Generator().manual_seed(0)
    observation = torch.rand(rows, 3, generator=draws)
    task, ends = torch.arange(rows) % 2, torch.rand(rows, generator=draws) < 0.2
    action = torch.rand(rows, 2, generator=draws) * 2 - 1
    return observation, action, observation.sum(1), observation.flip(0), task, ends.float()


def test_a_loader_of_transitions_is_learned_from_as_it_is():
    """The weights are those of the updates by hand, on the same batches."""
    loader = DataLoader(TensorDataset(*transitions()), batch_size=16)
    module, by_hand = (MultiTaskSAC(policy(), batch_size_per_task=8) for _ in range(2))
    trainer = Trainer(max_epochs=2, num_sanity_val_steps=0, **QUIET, enable_checkpointing=False)
    trainer.fit(module, loader, loader)
    optimizer = by_hand.configure_optimizers()
    by_hand.optimizers, by_hand.manual_backward = lambda: optimizer, torch.Tensor.backward
    for step, batch in enumerate([*loader, *loader]):
        by_hand._generator = by_hand._generator_of(step)
        by_hand.update(Transitions(*batch[:5], batch[5].bool()))
    assert trainer.global_step == 8 and "val/task_0/value" in trainer.callback_metrics
    for name, weight in by_hand.state_dict().items():
        assert torch.equal(weight, module.state_dict()[name]), name
    with pytest.raises(
        ValueError, match=r"batches of observation, .* terminated, discount with .* 3 parts of the shapes \(16, 3\)"
    ):
        again = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET, enable_checkpointing=False)
        again.fit(module, DataLoader(TensorDataset(*transitions()[:3]), batch_size=16), loader)
    with pytest.raises(ValueError, match="Expected `n_step` to be 1 with other data than OnlineTasks, .*, but got 3"):
        again.fit(MultiTaskSAC(policy(), n_step=3), loader, loader)


def fit_loader(module, *parts):
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET, enable_checkpointing=False)
    loader = DataLoader(TensorDataset(*parts), batch_size=16)
    trainer.fit(module, loader, loader)
    return trainer


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (1, lambda action: 3 * action, "actions from -1 to 1, as policies act, but got some from -2.9.* to 2.6"),
        (2, lambda reward: reward[:, None], r"`reward` to be of shape \(16,\), .* got \(16, 1\). Pass reward.squeeze"),
        (4, lambda task: task + 1, r"`task` to be from 0 to 1, tasks of the policy, but got \[1, 2\]"),
        (5, lambda ends: ends[:, None], r"`terminated` to be of shape \(16,\), .* got \(16, 1\)"),
        (3, lambda then: then[:, :2], r"`next_observation` .* \(16, 3\), .* got \(16, 2\). .* has observation_size=3"),
    ],
)
def test_rows_that_no_policy_played_are_refused(place, change, words):
    parts = list(transitions())
    parts[place] = change(parts[place])
    with pytest.raises(ValueError, match=words):
        fit_loader(MultiTaskSAC(policy()), *parts)


def test_rows_of_double_precision_are_learned_from():
    parts = transitions()
    for module, rows in (
        (MultiTaskSAC(policy()), parts),
        (BehaviorCloning(policy(), warmup=1), [*parts[:2], parts[4]]),
    ):
        doubled = [part.double() if part.is_floating_point() else part.int() for part in rows]
        assert fit_loader(module, *doubled).global_step == 4


def test_demonstrations_of_a_loader_are_checked():
    observation, action, _, _, task, _ = transitions()
    with pytest.raises(TypeError, match=r"of tensors \(observation, action, task\), .* but got 2 parts of .*zeros"):
        fit_loader(BehaviorCloning(policy(), warmup=1), observation, action)
    with pytest.raises(ValueError, match="actions from -1 to 1, as policies act, but got some from -4.9.* to 4.3"):
        fit_loader(BehaviorCloning(policy(), warmup=1), observation, 5 * action, task)


def test_batches_of_a_loader_may_be_dictionaries():
    observation, action, reward, then, task, _ = transitions()
    names = ("observation", "action", "reward", "next_observation", "task")
    columns = dict(zip(names, (observation, action, reward, then, task), strict=True))
    named = [{name: column[row : row + 16] for name, column in columns.items()} for row in range(0, 64, 16)]
    for make, take in ((MultiTaskSAC, names), (partial(BehaviorCloning, warmup=1), ("observation", "action", "task"))):
        states = []
        for batches in (named, [tuple(batch[name] for name in take) for batch in named]):
            module, loader = make(policy()), DataLoader(batches, batch_size=None)
            trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET, enable_checkpointing=False)
            trainer.fit(module, loader, loader)
            states.append(module.state_dict())
            assert trainer.global_step == 4 and any(key.startswith("val/task_0/") for key in trainer.callback_metrics)
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    wrong = DataLoader([{"obs": observation, "action": action, "task": task}], batch_size=None)
    with pytest.raises(TypeError, match=r"a dictionary of them, but got the keys obs \(64, 3\), action \(64, 2\), "):
        Trainer(max_epochs=1, **QUIET).fit(BehaviorCloning(policy(), warmup=1), wrong, wrong)


def test_batches_in_the_place_of_a_loader_are_refused():
    steps = Transitions(*transitions()[:5])
    arrays = {"observations": steps.observation.numpy(), "actions": steps.action.numpy()}
    for make in (MultiTaskSAC, partial(BehaviorCloning, warmup=1)):
        for given, got in (
            (steps, r"one batch, a Transitions\. Of its rows make one: DataLoader\(TensorDataset"),
            (arrays, "one batch, a dict"),
            ([steps, steps], r"a list of Transitions\. Of a list of batches make a loader: DataLoader\(batches"),
            ((steps, steps), "a tuple of Transitions"),
            ([tuple(steps[:3])], "a list of tuple"),
        ):
            with pytest.raises(ValueError, match="Expected a loader of batches, but got " + got):
                Trainer(max_epochs=1, **QUIET).fit(make(policy()), given, DataLoader([steps], batch_size=None))


@pytest.mark.parametrize("make", [MultiTaskSAC, partial(BehaviorCloning, warmup=1)])
def test_actions_are_predicted_for_rows_of_a_loader(make):
    observation, action, reward, then, task, ends = transitions()
    module, trainer = make(policy()), Trainer(**QUIET, enable_checkpointing=False)
    expected = module.act_batch(observation, task)

    def predicted(batch, of=module):
        (actions,) = trainer.predict(of, DataLoader([batch], batch_size=None))
        return actions.numpy()

    for batch in (
        (observation, task),
        (observation, action, task),
        (observation, action, reward, then, task, ends),
        Transitions(observation, action, reward, then, task),
        {"observations": observation, "task": task},
    ):
        np.testing.assert_array_equal(predicted(batch), expected)
    for batch in (observation, (observation, action, reward, task), {"observation": observation}):
        with pytest.raises(ValueError, match=r"batches of observations and tasks to predict, .*Where all are of"):
            predicted(batch)
    alone = make(ActiveDendritePolicy(["calm"], hidden_features=[8, 8], observation_size=3, action_size=2))
    for batch in (observation, [observation]):
        np.testing.assert_array_equal(predicted(batch, alone), alone.act_batch(observation, "calm"))


def test_batches_may_have_the_names_of_other_libraries():
    """Whose ends of time are none of the task."""
    observation, action, reward, then, task, ends = transitions()
    d4rl = {"observations": observation, "actions": action, "rewards": reward, "next_observations": then}
    d4rl |= {"terminals": ends.bool(), "timeouts": torch.ones(64, dtype=torch.bool)}

    def learned(make, batch):
        module, loader = make(policy()), DataLoader([batch], batch_size=None)
        Trainer(max_epochs=2, num_sanity_val_steps=0, **QUIET, enable_checkpointing=False).fit(module, loader, loader)
        return module.state_dict()

    minari = {name: part for name, part in d4rl.items() if name not in ("terminals", "timeouts")}
    minari |= {"terminations": ends.bool(), "truncations": torch.ones(64, dtype=torch.bool)}
    ours = Transitions(observation, action, reward, then, task, ends)
    for make in (MultiTaskSAC, partial(BehaviorCloning, warmup=1)):
        expected = learned(make, ours)
        for batch in ({**d4rl, "tasks": task}, {**minari, "task": task}):
            assert all(torch.equal(value, expected[name]) for name, value in learned(make, batch).items())
        with pytest.raises((TypeError, ValueError), match=r"Where there is one task, its number is torch\.zeros"):
            learned(make, d4rl)


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (0, lambda seen: seen.repeat(1, 2), r"`observation` .* \(16, 3\), .* got \(16, 6\). .* has observation_size=3"),
        (1, lambda action: action[:, 0], r"`action` .* \(16, 1\), .* got \(16,\). Pass action.unsqueeze\(1\)"),
        (2, lambda task: task.new_ones(len(task), 2), r"`task` .* \(B,\), .* got \(16, 2\). .* pass task.argmax\(1\)"),
    ],
)
def test_demonstrations_of_other_shapes_are_refused(place, change, words):
    observation, action, _, _, task, _ = transitions()
    parts = [observation, action[:, :1], task]
    fit_loader(BehaviorCloning(policy(action_size=1), warmup=1), *parts)
    parts[place] = change(parts[place])
    with pytest.raises(ValueError, match=words):
        fit_loader(BehaviorCloning(policy(action_size=1), warmup=1), *parts)


def test_the_first_task_of_a_loader_trains_all_of_a_policy():
    observation, action, _, _, task, _ = transitions()
    one = policy()

    def learned(number):
        before = {name: weight.clone() for name, weight in one.state_dict().items()}
        rows = task == number
        fit_loader(BehaviorCloning(one, warmup=1, learn="new"), observation[rows], action[rows], task[rows])
        return {name for name, weight in one.state_dict().items() if not torch.equal(weight, before[name])}

    assert {"mlp.hidden.0.weight", "mlp.output.bias"} <= learned(0)
    assert learned(1) == {"mlp.hidden.1.segments"}


def test_a_policy_without_names_of_tasks_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="Expected a policy with `tasks`, .* but got a Linear without"):
        MultiTaskSAC(torch.nn.Linear(3, 4), critic=torch.nn.Linear(5, 2))


@pytest.mark.filterwarnings("error:The policy reads observations")
def test_large_observations_that_nothing_scales_are_said():
    observation, action, _, _, task, _ = transitions()
    fit_loader(BehaviorCloning(policy(), warmup=1), observation, action, task)
    scaled = policy()
    scaled.fit_normalizer(100 * observation)
    fit_loader(BehaviorCloning(scaled, warmup=1), 100 * observation, action, task)
    with pytest.raises(UserWarning, match=r"as they are, up to .*fit_normalizer\(observations\) before the fit"):
        fit_loader(BehaviorCloning(policy(), warmup=1), 100 * observation, action, task)


def test_the_observations_of_a_datamodule_are_those_to_normalise_by():
    class Recorded(LightningDataModule):
        tasks = ("calm", "windy")
        observations = transitions()[0]

        def train_dataloader(self):
            return DataLoader(TensorDataset(*transitions()), batch_size=16)

        val_dataloader = train_dataloader

    module = MultiTaskSAC(policy(), batch_size_per_task=8)
    Trainer(max_epochs=1, **QUIET, enable_checkpointing=False).fit(module, Recorded())
    torch.testing.assert_close(module.model.observation_mean, Recorded.observations.mean(0))
    assert torch.equal(module.critic.observation_mean, module.model.observation_mean)


def test_the_matrix_counts_tasks_as_the_data_do(tmp_path):
    """The policy has them in another order, and one more."""
    torch.manual_seed(0)
    sizes = {"observation_size": 3, "action_size": 2, "hidden_features": [8, 8]}
    success, rows = SuccessLogger(num_goals=2, num_processes=0), []
    log = ForgettingLogger("val/success", folder=tmp_path, pictures=False, verbose=False)

    class Noted(CrashAfter):
        def on_validation_end(self, trainer, pl_module):
            rows.append(list(success.report.per_task.values()))

    module = MultiTaskSAC(ActiveDendritePolicy(("windy", "other", "calm"), **sizes), batch_size_per_task=8)
    fit(module, data("sequential", epochs=2), success, log, Noted(None))
    assert list(success.report.per_task) == ["calm", "windy"]
    torch.testing.assert_close(log.matrix, torch.tensor(rows))


@pytest.mark.slow
def test_two_processes_learn_one_task_after_another(tmp_path):
    """Each plays in environments of its own; both have the same weights, and the steps of both are counted."""
    done = processes.run_ddp(Path(__file__).with_name("one_after_another.py"), tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["rounds"] == two["rounds"] == 8 and one["env_steps"] == two["env_steps"]
    assert 0 < one["env_steps"] == 5 * 2 * 2 * 8 - one["cut"] < 160 and one["cut"] == two["cut"]
    assert one["task"] == two["task"] == [1] and one["matrix"].equal(two["matrix"]) and one["matrix"].shape == (2, 2)
    assert not torch.isclose(one["rows"], two["rows"]).all(1).any(), "each has played for itself"
    for name, weight in one["weights"].items():
        assert weight.equal(two["weights"][name]), name


class Rich(Ledge):
    def step(self, action):
        seen, reward, *more = super().step(action)
        return seen, 10 * reward, *more


@pytest.mark.parametrize("order", ["mixed", "sequential"])
def test_rewards_in_the_thousands_are_said(order):
    few = {"env_steps": 40, "epochs": 4, "steps_per_round": 5, "updates_per_round": 2, "warmup_steps": 10}
    tasks = [ledges()[0], TaskSpec("windy", Rich, success="near")]

    def practise(module=(), **more):
        stream = OnlineTasks(tasks, order=order, environments={"num_processes": 0}, capacity=100, **few, **more)
        fit(MultiTaskSAC(policy(), batch_size_per_task=8, **dict(module)), stream)

    practise(normalize_rewards=True)
    practise({"reward_scale": 0.1})
    with pytest.warns(UserWarning, match=r"Rewards are large in windy \(\d+\), .*normalize_rewards=True\), or Mul"):
        practise()
    with pytest.warns(UserWarning, match=r"Rewards are small in .* an entropy coefficient of 1: actions stay random"):
        practise({"reward_scale": 1e-6})
    practise({"reward_scale": 1e-6, "init_alpha": 1e-6})


def test_entropy_counts_a_tenth_of_rewards_that_are_normalised():
    """Unless it is said otherwise; a coefficient that was learned goes on in a second fit."""

    def start_of(normalize_rewards=True, times=1, **options):
        module = MultiTaskSAC(policy(), batch_size_per_task=8, lr=1e-9, alpha_lr=1e-6, **options)
        for _ in range(times):
            fit(module, data(normalize_rewards=normalize_rewards))
        return module.log_alpha.detach().exp()

    assert start_of().tolist() == pytest.approx([0.1, 0.1], rel=1e-3)
    assert start_of(init_alpha=1.0).tolist() == start_of(False).tolist() == pytest.approx([1.0, 1.0], rel=1e-3)
    assert not start_of().equal(start_of(times=2))
