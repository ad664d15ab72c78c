"""Demonstrations in environments of one's own, by whoever can show what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from dendrite_zoo.callbacks import ForgettingLogger, SuccessLogger
from dendrite_zoo.lightning_modules import BehaviorCloning
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import Demonstrations, TaskSpec, collect_demonstrations
from dendrite_zoo.rl.collection import Disturbance, _BehaviorPolicy
from dendrite_zoo.streams import DemonstrationMixture, DemonstrationSequence
from tests.rl.worlds import Ledge, calm, ledges, windy

pytestmark = pytest.mark.filterwarnings("ignore:Expected actions from -1 to 1, which are scaled")

pytest.importorskip("gymnasium")


def expert(observation, task):
    """Back to the middle; in the second task against its wind, too, and farther than an action goes."""
    push = -2 * observation[:, 0] - observation[:, 1] - 0.15 * (task == 1)
    return np.stack([push, np.where(task == 1, -2.0, 0.5)], axis=1)


def by_hand(success, after):
    """Every step of every episode in a plain loop."""
    rows = []
    for task, make in enumerate([calm, windy]):
        for start in range(3):
            env, episode, near, ended, reached = make(), [], False, False, None
            seen, _ = env.reset(seed=int(np.random.SeedSequence([0, 0, start]).generate_state(1)[0] >> 1))
            while not (ended or (success and reached is not None and len(episode) - reached >= after)):
                action = np.clip(expert(np.float64(seen)[None], np.array([task]))[0], -1, 1)
                episode.append((seen, action, task))
                seen, _, fell, late, info = env.step((np.array([-1, 5]) + action * [2, 5]).astype(np.float32))
                near, ended = info["near"], fell or late
                reached = len(episode) if near and reached is None else reached
            rows += [(*row, near or not success) for row in episode]
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(("success", "after"), [("near", 0), (None, 0), ("near", 4)])
def test_an_expert_of_ones_own_is_followed_step_by_step(success, after, tmp_path):
    options = {"episodes_per_task": 3, "expert": expert, "num_processes": 0, "steps_after_success": after}
    shown = collect_demonstrations(ledges(success=success), **options)
    order = np.lexsort((*shown.observation.numpy().T, shown.task.numpy()))
    columns = by_hand(success, after)
    expected = np.lexsort((*columns[0].astype(np.float32).T, columns[2]))
    for name, column in zip(("observation", "action", "task", "solved"), columns, strict=True):
        np.testing.assert_allclose(getattr(shown, name).numpy()[order], column[expected], atol=1e-6, err_msg=name)
    shown.save(tmp_path / "x.safetensors")
    assert torch.equal(Demonstrations.load(tmp_path / "x.safetensors").action, shown.action)


def test_a_policy_meets_what_the_expert_labels_and_noise_reaches_all_actions():
    still = lambda observation, task: np.zeros((len(task), 2))  # noqa: E731
    data = collect_demonstrations(
        ledges(success=None), episodes_per_task=2, expert=expert, policy=still, num_processes=0
    )
    want = np.clip(expert(data.observation.double().numpy(), data.task.numpy()), -1, 1)
    np.testing.assert_allclose(data.action.numpy(), want, atol=1e-6)
    behavior = _BehaviorPolicy(2, np.random.RandomState(0), Disturbance(noise=0.0, bursts=1.0), 0.0, push_size=2)
    pushed = behavior(np.zeros((2, 2)), np.zeros((2, 2)), disturbed=np.array([False, True]))
    assert (pushed[0] == 0).all() and (pushed[1] != 0).all()


def test_a_policy_of_more_tasks_shows_those_that_are_asked_for(tmp_path):
    torch.manual_seed(0)
    sizes = {"observation_size": 3, "action_size": 2, "hidden_features": [8, 8], "dendrite_layers": None}
    policy = ActiveDendritePolicy(["windy", "other", "calm"], **sizes)
    data, amount = {}, {"episodes_per_task": 2, "num_processes": 0}
    for number, one in enumerate((policy, policy.act_batch)):
        shown = collect_demonstrations(ledges(success=None), expert=one, **amount)
        right = policy.act_batch(shown.observation, [("calm", "windy")[task] for task in shown.task])
        np.testing.assert_allclose(shown.action.numpy(), right, atol=1e-6)
        stream = DemonstrationMixture(
            ledges(success=None), expert=one, val_episodes=1, folder=tmp_path / str(number), dagger_rounds=0, **amount
        )
        stream.setup()
        data[number] = Demonstrations.load(tmp_path / str(number) / "experts.safetensors")
        right = policy.act_batch(data[number].observation, [("calm", "windy")[task] for task in data[number].task])
        np.testing.assert_allclose(data[number].action.numpy(), right, atol=1e-6)
    assert data[0].config == data[1].config and data[0].config["expert"] == "ActiveDendritePolicy.act_batch"
    with pytest.raises(ValueError, match="some of the policy's, windy, other, but got calm"):
        collect_demonstrations(ledges(), expert=ActiveDendritePolicy(["windy", "other"], **sizes), **amount)


def test_a_file_of_another_expert_or_task_of_the_same_name_is_a_warning(tmp_path):
    def other():
        def expert(observation, task):
            return 0.9 * np.ones((len(task), 2))

        return expert

    again = other()
    again.__qualname__ = expert.__qualname__
    sizes = {"episodes_per_task": 2, "val_episodes": 1, "epochs": 1, "dagger_rounds": 0, "num_processes": 0}
    for _ in range(2):  # collected, and read
        DemonstrationMixture(ledges(success=None), expert=expert, folder=tmp_path, **sizes).setup()
    with pytest.warns(UserWarning, match="has actions of an expert of this name, but in 64 of 64 of its observations"):
        DemonstrationMixture(ledges(success=None), expert=again, folder=tmp_path, **sizes).setup()
    other = [TaskSpec("calm", lambda: Ledge(wind=0.5)), TaskSpec("windy", windy)]
    with pytest.warns(UserWarning, match="tasks of these names, but the first episode of calm started otherwise"):
        DemonstrationMixture(other, expert=expert, folder=tmp_path, **sizes).setup()


def test_without_an_expert_it_says_what_to_give():
    with pytest.raises(ValueError, match="scripted experts, but got calm. Give a policy .* expert=policy"):
        collect_demonstrations(ledges(), num_processes=0)


@pytest.mark.parametrize("success", ["near", None])
def test_it_is_imitated_at_once_and_one_after_another(success, tmp_path):
    torch.manual_seed(0)
    sizes = {"episodes_per_task": 4, "val_episodes": 1, "updates_per_epoch": 60, "num_processes": 0, "expert": expert}
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    played = SuccessLogger(num_goals=4, num_processes=0)
    for kind, epochs in ((DemonstrationMixture, {"epochs": 2, "dagger_rounds": 1}), (DemonstrationSequence, {})):
        data = kind(ledges(success=success), folder=tmp_path / kind.__name__, **epochs, **sizes)
        policy = ActiveDendritePolicy(data.tasks, hidden_features=[32, 32], observation_size=3, action_size=2)
        module = BehaviorCloning(policy, lr=3e-3, warmup=1)
        log = [ForgettingLogger(data.metric, folder=tmp_path, verbose=False, pictures=False)] if data.metric else []
        trainer = Trainer(**data.trainer_kwargs(), **quiet, enable_checkpointing=False, callbacks=[played, *log])
        trainer.fit(module, data)
        assert trainer.callback_metrics["return/mean"] > 3000, "12 steps of at most 500 each"
        if log:
            assert data.metric == ("val/success" if success else "val/return") and not log[0].matrix.isnan().any()


def given(rows=100):
    """Of tasks in another order, and one more; every fourth row is of an episode that was not solved."""
    names, task = ("other", "windy", "calm"), np.arange(rows) % 3
    seen = np.random.RandomState(0).uniform(-1, 1, (rows, 3))
    return Demonstrations(names, seen, np.tanh(seen[:, :2]), task, np.arange(rows) % 4 > 0)


@pytest.mark.parametrize("first_task", [0, 1])
def test_demonstrations_that_one_has_are_learned_from_as_they_are(tmp_path, first_task):
    have = given()
    for number, source in enumerate((have, tmp_path / "have.safetensors")):
        have.save(tmp_path / "have.safetensors")
        data = DemonstrationSequence(
            ledges(), demonstrations=source, first_task=first_task, folder=tmp_path / str(number), num_processes=0
        )
        data.setup()
        solved = {name: have.among([name]).select(have.among([name]).solved) for name in ("calm", "windy")}
        trained = torch.cat(
            [solved[name].observation[: -(len(solved[name]) // 10)] for name in data.tasks[first_task:]]
        )
        assert torch.equal(data.observations, trained) and f"{len(trained)} steps" in data.description
        for task, loader in enumerate(data.val_dataloader()):
            (batch,), rows = list(loader), solved[data.tasks[task]]
            assert torch.equal(batch[0], rows.observation[-(len(rows) // 10) :]) and (batch[2] == task).all()
        assert not (tmp_path / str(number)).exists()


def test_an_expert_validates_and_labels_beside_demonstrations_that_one_has(tmp_path):
    sizes = {"val_episodes": 1, "max_steps": 5, "num_processes": 0, "folder": tmp_path, "expert": expert}
    data = DemonstrationMixture(ledges(success=None), demonstrations=given(), **sizes)
    data.setup()
    assert len(data.observations) == int(given().among(["calm", "windy"]).solved.sum())
    assert [len(next(iter(loader))[2]) for loader in data.val_dataloader()] == [5, 5]


def test_rounds_of_dagger_are_as_many_as_there_can_be():
    still = lambda observation, task: np.zeros((len(task), 2))  # noqa: E731
    for arguments, rounds in (
        ({"demonstrations": given()}, 0),
        ({"demonstrations": given(), "epochs": 1}, 0),
        ({"demonstrations": given(), "expert": still}, 4),
        ({"expert": still, "epochs": 3}, 2),
        ({"expert": still, "epochs": 1}, 0),
    ):
        assert DemonstrationMixture(ledges(), **arguments).dagger_rounds == rounds, arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "an `expert`, or `demonstrations` that exist, .* but got none of calm, windy. .* expert=policy"),
        ({"demonstrations": "missing.safetensors"}, "but got no file missing.safetensors of calm, windy"),
        (
            {"demonstrations": given(), "dagger_rounds": 1},
            "`dagger_rounds` to be 0 without an `expert`, .* in calm, windy",
        ),
        (
            {"demonstrations": {"observations": np.zeros((10, 3)), "actions": np.zeros((10, 2))}},
            r"`demonstrations` to be dendrite_zoo.rl.Demonstrations, or a file of them, but got 'dict'. Give Demonstr",
        ),
        ({"demonstrations": given().among(["calm"])}, "Expected demonstrations of windy, but got those of calm"),
        (
            {"demonstrations": given(3)},
            "several rows of each task that are `solved`, but got none, .* of calm, windy. ",
        ),
        ({"demonstrations": replace(given(), action=np.zeros((100, 1)))}, r"actions \(N, 2\), but got \(100, 1\)"),
    ],
)
def test_without_an_expert_what_is_missing_is_said(arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        DemonstrationMixture(ledges(), folder=tmp_path, **{"dagger_rounds": 0, **arguments}).setup()


def test_demonstrations_in_the_units_of_an_environment_are_refused():
    with pytest.raises(ValueError, match="actions from -1 to 1, .* got some from -2 to 2. Scale"):
        Demonstrations(("calm",), np.zeros((2, 3)), np.array([[-2.0], [2.0]]), [0, 0], [True, True])


def test_fits_without_a_logger_do_not_meet_each_others_demonstrations(tmp_path):
    """As where one skill is added after another in one script."""
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    sizes = {"val_episodes": 1, "epochs": 2, "updates_per_epoch": 2, "num_processes": 0, "expert": expert}

    def learn(task, dagger_rounds=0, episodes=2):
        data = DemonstrationMixture([task], episodes_per_task=episodes, dagger_rounds=dagger_rounds, **sizes)
        policy = ActiveDendritePolicy(data.tasks, hidden_features=[8, 8], observation_size=3, action_size=2)
        trainer = Trainer(**data.trainer_kwargs(), **quiet, default_root_dir=tmp_path, enable_checkpointing=False)
        trainer.fit(BehaviorCloning(policy, warmup=1), data)
        return data.state_dict()["folder"].removeprefix(str(tmp_path))

    calm, windy = ledges(success=None)
    assert learn(calm) == "/demonstrations" and learn(windy) == "/demonstrations-2"
    assert learn(calm) == "/demonstrations" and learn(windy) == "/demonstrations-2", "what fits is used again"
    assert learn(windy, episodes=3) == "/demonstrations-3"
    assert learn(windy, dagger_rounds=1) == "/demonstrations-2" and learn(windy, dagger_rounds=1) == "/demonstrations-4"


def test_a_fit_without_a_logger_says_where_its_demonstrations_are(tmp_path, caplog):
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    sizes = {"val_episodes": 1, "epochs": 1, "updates_per_epoch": 1, "episodes_per_task": 1, "dagger_rounds": 0}
    data = DemonstrationMixture(ledges(success=None), num_processes=0, expert=expert, **sizes)
    policy = ActiveDendritePolicy(data.tasks, hidden_features=[8, 8], observation_size=3, action_size=2)
    with caplog.at_level("INFO"):
        trainer = Trainer(**data.trainer_kwargs(), **quiet, default_root_dir=tmp_path, logger=False)
        trainer.fit(BehaviorCloning(policy, warmup=1), data)
    assert f"The demonstrations are kept in {tmp_path / 'demonstrations'}; `folder=` says" in caplog.text
