"""MultiTaskSAC on some of a policy's tasks, and with learn="new": what other tasks' actions are stays, to the bit."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer

import dendrite_zoo
from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import TaskSpec, evaluate_policy
from dendrite_zoo.streams import OnlineTasks
from tests.lightning_modules.practice import Crash, CrashAfter, EveryRound

pytest.importorskip("metaworld")
gymnasium = pytest.importorskip("gymnasium")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:Numbers .* of the observations are up to"),  # after a few steps of one task
]
KNOWN, NEW = ["reach-v3", "drawer-close-v3"], ["push-v3", "door-close-v3"]
X = torch.randn(30, 39, generator=torch.Generator().manual_seed(0))


def known_policy(folder, **arguments):
    torch.manual_seed(0)
    policy = ActiveDendritePolicy(KNOWN, hidden_features=[16, 16], num_segments=3, **arguments)
    policy.fit_normalizer(X)
    policy.save_pretrained(folder)


def online(tasks, **arguments):
    return OnlineTasks(
        tasks,
        **arguments,
        env_steps=20 * len(tasks),
        epochs=2,
        steps_per_round=5,
        updates_per_round=3,
        warmup_steps=0,
        capacity=1000,
        environments={"num_processes": 0, "max_steps": 7},
    )


def fit(module, data, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = {"enable_checkpointing": any(isinstance(callback, EveryRound) for callback in callbacks)}
    trainer = Trainer(**data.trainer_kwargs(), **quiet, **checkpoints, log_every_n_steps=1, callbacks=[*callbacks])
    trainer.fit(module, data, **options)
    return trainer


def actions(policy):
    with torch.no_grad():
        return {task: torch.cat(policy(X, torch.tensor(policy.task_index(task))), dim=1) for task in policy.tasks}


class Actions(Callback):
    """Notes what the policy does in each task after every round."""

    def __init__(self):
        self.actions = []

    def on_train_batch_end(self, trainer, module, *_):
        self.actions.append(actions(module.model))


@pytest.mark.parametrize("kind", [{}, {"winners": "context", "dendrite_layers": [1], "activation_density": 0.4}])
def test_no_other_task_changes(kind, tmp_path):
    known_policy(tmp_path / "known", **kind)
    policy = dendrite_zoo.load(tmp_path / "known", tasks=[NEW[0], *KNOWN, NEW[1]])
    before, noted, seen = actions(policy), Actions(), policy.observation_mean.clone()
    module = MultiTaskSAC(policy, batch_size_per_task=8, lr=1e-2, learn="new", kl_coef=0.1)
    critic = module.critic.critics[0].output.weight.clone()
    trainer = fit(module, online(NEW[::-1]), noted)
    for after in noted.actions:
        assert all(after[task].equal(before[task]) for task in KNOWN)
    assert all(not noted.actions[-1][task].equal(before[task]) for task in NEW)
    assert not module.critic.critics[0].output.weight.equal(critic) and policy.observation_mean.equal(seen)
    assert "train/entropy_coefficient/push-v3" in trainer.callback_metrics
    assert "train/entropy_coefficient/reach-v3" not in trainer.callback_metrics
    assert policy.mlp.output.weight.requires_grad
    policy.save_pretrained(tmp_path / "more")
    again = actions(dendrite_zoo.load(tmp_path / "more"))
    assert all(again[task].equal(after) for task, after in noted.actions[-1].items())


def test_a_crash_changes_nothing(tmp_path):
    known_policy(tmp_path / "known")

    def train(folder, crash=None):
        torch.manual_seed(0)
        policy = dendrite_zoo.load(tmp_path / "known", tasks=[*KNOWN, NEW[0]])
        module = MultiTaskSAC(policy, batch_size_per_task=8, lr=1e-2, learn="new", init_from="reach-v3")
        last, data = tmp_path / folder / "last.ckpt", online(NEW[:1])
        callbacks = [EveryRound(last), *([] if crash is None else [CrashAfter(crash)])]
        fit(module, data, *callbacks, ckpt_path=last if last.exists() else None)
        return module.state_dict()

    whole = train("whole")
    with pytest.raises(Crash):
        train("crashed", 3)
    for (name, one), other in zip(whole.items(), train("crashed").values(), strict=True):
        assert one.equal(other), name


@pytest.mark.parametrize("kind", [{}, {"winners": "context", "overlap": 0.0, "activation_density": 0.4}])
def test_policy_and_critics_start_as_those_of_another_task_and_play_from_the_first_step(kind, tmp_path):
    """In a sequence: what the first task learned is where the second begins, without a step at random."""
    torch.manual_seed(0)
    policy = ActiveDendritePolicy(KNOWN, hidden_features=[16, 16], num_segments=3, dendrite_layers=None, **kind)
    data = online(KNOWN, order="sequential")
    data.warmup_steps = 5
    started, at_random = [], []

    class Noting(MultiTaskSAC):
        def on_start(self, start, task):
            super().on_start(start, task)
            action = torch.rand(30, 4)
            started.extend(torch.cat(self.model(X, torch.tensor(one)), dim=1) for one in (task, start))
            for critic in (self.critic, self.slow_critic):
                started.extend(critic(X, action, torch.tensor(one))[0] for one in (task, start))

        def _acting(self, data, at_random_now=False):
            at_random.append((len(self.started_from), at_random_now))
            return super()._acting(data, at_random_now)

    module = Noting(policy, batch_size_per_task=8, lr=1e-2, learn="new", init_from="reach-v3")
    fit(module, data)
    assert module.started_from == {1: 0} and len(started) == 6
    assert (0, True) in at_random and (1, True) not in at_random and (1, False) in at_random
    for one, other in zip(started[::2], started[1::2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_tasks_one_after_another_are_finished_when_the_next_begins():
    """The first has all of the policy, whose observations it normalises by; the critics go on as a whole."""
    torch.manual_seed(0)
    policy, noted = ActiveDendritePolicy([*KNOWN, NEW[0]], hidden_features=[16, 16], num_segments=3), Actions()
    first, data = policy.mlp.output.weight.clone(), online(policy.tasks, order="sequential")
    module = MultiTaskSAC(policy, batch_size_per_task=8, lr=1e-2, learn="new")
    fit(module, data, noted)
    rounds = len(noted.actions) // 3
    assert policy.has_normalizer and not policy.mlp.output.weight.equal(first)
    for number, task in enumerate(policy.tasks):
        finished = noted.actions[rounds * (number + 1) - 1][task]
        assert not noted.actions[rounds * number][task].equal(finished), "it learns"
        assert all(after[task].equal(finished) for after in noted.actions[rounds * (number + 1) :])


@pytest.mark.filterwarnings("ignore:The policy was loaded with")
@pytest.mark.filterwarnings("ignore:learn=.all.. the policy was loaded with")
def test_some_of_a_policys_tasks_by_name(tmp_path):
    """The same as a policy of those tasks alone, where all of it is trained, but for what one task has by itself."""
    known_policy(tmp_path)
    fewer = dendrite_zoo.load(tmp_path, tasks=["drawer-close-v3"])
    every = dendrite_zoo.load(tmp_path)
    results = []
    for policy in (fewer, every):
        torch.manual_seed(1)
        critics = dendrite_zoo.models.TwinCritic.like(dendrite_zoo.load(tmp_path)).state_dict()
        module = MultiTaskSAC(policy, batch_size_per_task=8, lr=1e-2)
        own = {name: x[..., 1:] if "segments" in name and policy is fewer else x for name, x in critics.items()}
        module.critic.load_state_dict(own)
        module.slow_critic.load_state_dict(own)
        fit(module, online(["drawer-close-v3"]))
        results.append(actions(policy)["drawer-close-v3"])
    assert results[0].equal(results[1])
    with pytest.raises(
        ValueError, match=r"but got 'push-v3'. Load the policy with tasks=\[..., 'push-v3'\] for one more"
    ):
        fit(MultiTaskSAC(every), online(["push-v3"]))


def test_wrong_arguments(tmp_path):
    known_policy(tmp_path)
    policy = dendrite_zoo.load(tmp_path)
    with pytest.raises(ValueError, match="Expected `start_std` to be None with learn='new'"):
        MultiTaskSAC(policy, learn="new", start_std=0.1)
    with pytest.raises(
        ValueError, match="`init_from` to be 'nearest', or .* but got 'reachv3'. Did you mean 'reach-v3'"
    ):
        MultiTaskSAC(policy, learn="new", init_from="reachv3")


def test_a_new_task_starts_from_the_column_that_has_the_best_return(tmp_path):
    """Pendulums: each candidate, zeros among them, by a copy of the policy whose column is written by hand."""
    torch.manual_seed(0)
    names, sizes = ["heavy", "light", "new"], {"observation_size": 3, "action_size": 1, "hidden_features": [16, 16]}
    policy = ActiveDendritePolicy(names[:2], num_segments=3, dendrite_layers=None, **sizes)
    for name, weight in policy.named_parameters():
        if name.endswith("segments"):
            weight.data.mul_(100)  # so that columns make a difference
    policy.fit_normalizer(torch.randn(50, 3))
    policy.save_pretrained(tmp_path)
    policy = dendrite_zoo.load(tmp_path, tasks=names)
    make = partial(gymnasium.make, "Pendulum-v1", g=3.0, max_episode_steps=30)
    returns = {}
    for start in (None, "heavy", "light"):
        copied = copy.deepcopy(policy)
        copied.learned_tasks = names  # by hand
        for name, weight in copied.named_parameters():
            if name.endswith("segments"):
                weight.data[..., 2] = 0.0 if start is None else weight.data[..., names.index(start)]
        report = evaluate_policy(copied, [TaskSpec("new", make)], split="val", num_goals=3, num_processes=0)
        returns[start] = report.mean_return
    assert max(returns.values()) - sorted(returns.values())[1] > 1
    best = max(returns, key=returns.get)
    data = OnlineTasks(
        [TaskSpec("new", make)],
        env_steps=20,
        epochs=1,
        steps_per_round=10,
        updates_per_round=1,
        warmup_steps=0,
        environments={"num_processes": 0},
    )
    module = MultiTaskSAC(policy, batch_size_per_task=8, learn="new", init_from="nearest", lr=1e-9)
    fit(module, data)
    assert module.started_from == {2: None if best is None else names.index(best)}
    assert data.env_steps == 20
    for name, weight in policy.named_parameters():
        if name.endswith("segments"):
            torch.testing.assert_close(
                weight[..., 2], 0 * weight[..., 2] if best is None else weight[..., names.index(best)]
            )
    other = MultiTaskSAC(dendrite_zoo.load(tmp_path, tasks=names), learn="new", init_from="nearest")
    with pytest.raises(ValueError, match="name of a task with other data than OnlineTasks, whose environments are not"):
        other.trainer = Trainer(logger=False)
        other.setup("fit")


@pytest.mark.filterwarnings("ignore:learn='(all|new)'. the policy was loaded with")
@pytest.mark.parametrize("options", [{}, {"learn": "new"}])
def test_critics_that_know_nothing_and_a_policy_that_knows_its_tasks(options, tmp_path):
    """It is said before the policy is lost, and not where it is kept, or learns what it does not know."""
    known_policy(tmp_path)
    words = "The policy was loaded with reach-v3, and its critics are new: .* Give kl_coef= and actor_warmup="
    policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, NEW[0]])
    with pytest.warns(UserWarning, match=words):
        fit(module := MultiTaskSAC(policy, batch_size_per_task=8, **options), data := online(["reach-v3"]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The policy was loaded with reach-v3, and its critics are new")
        fit(MultiTaskSAC(module.model, critic=module.critic, batch_size_per_task=8, **options), data)
        for tasks, more in ((["reach-v3"], {"kl_coef": 1.0}), (["reach-v3"], {"actor_warmup": 1}), (NEW[:1], {})):
            policy = dendrite_zoo.load(tmp_path, tasks=[*KNOWN, NEW[0]])
            fit(MultiTaskSAC(policy, batch_size_per_task=8, **options, **more), online(tasks))
