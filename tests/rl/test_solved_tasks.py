"""Tasks that are solved are practised less often: counted round by round, and learned from alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import Exploration, TaskSpec
from dendrite_zoo.rl.exploration import Explorer
from dendrite_zoo.rl.statistics import EpisodeStatistics
from dendrite_zoo.rl.transitions import Transitions
from dendrite_zoo.streams import OnlineTasks
from tests.rl.test_ahead import AfterRounds, Weights, fit
from tests.rl.worlds import easy, hard

pytest.importorskip("gymnasium")
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:.*does not have many workers")


def data(**arguments):
    """Rounds of three episodes of two steps in each task."""
    specs = arguments.pop("tasks", None)
    specs = specs or [TaskSpec(name, make, success="near") for name, make in (("easy", easy), ("hard", hard))]
    sizes = {"env_steps": 12 * 12, "epochs": 3, "steps_per_round": 6, "updates_per_round": 3, "warmup_steps": 24}
    return OnlineTasks(specs, **{"environments": {"num_processes": 0}, "capacity": 1000, **sizes, **arguments})


class Rounds(Weights):
    """Notes how much was played in each round, too."""

    def __init__(self):
        super().__init__()
        self.simulated = []

    def on_train_batch_end(self, trainer, *_):
        self.simulated.append(trainer.datamodule.practice.simulated)


def still(observation, task):
    return torch.zeros(len(task), 2)


def test_of_a_tasks_latest_twenty_episodes_nineteen_end_with_success():
    statistics = EpisodeStatistics(["a", "b"], [0, 1])
    latest = statistics._latest
    assert statistics.which_are_solved() == [False, False], "nothing was played"
    latest["a"].extend([[1.0, 1.0, 0.0]] * 19)
    assert statistics.which_are_solved() == [False, False], "too few to know"
    latest["a"].append([1.0, 0.0, 0.0])  # solved on the way alone
    assert statistics.which_are_solved() == [True, False]
    latest["a"].append([1.0, 0.0, 0.0])
    assert statistics.which_are_solved() == [False, False], "18 of 20"


def test_what_is_solved_rests_and_what_is_not_is_played_as_ever():
    ours, whole = data(solved_every=3), data()
    ours.setup()
    whole.setup()
    practised = []
    for number in range(14):
        if number == 12:  # an episode that failed, and another
            ours.practice.player.statistics._latest["easy"].extend([[0.0, 0.0, 0.0]] * 2)
        practised.append(ours.collect(still, 6).pop("practised"))
        assert "practised" not in whole.collect(still, 6)
        tasks = ours.sample(4, torch.Generator().manual_seed(0)).task
        assert tasks.tolist() == ([0] * 4 if practised[-1] == 2 else []) + [1] * 4
    # twenty episodes are over after round 6; then round 9 and 12 are its turn, and from 13 on it is not solved
    assert practised == [2] * 7 + [1, 1, 2, 1, 1, 2, 2]
    assert ours.env_steps == 6 * sum(practised) == 6 * 24 and whole.env_steps == 6 * 28
    assert ours.replay.sizes.tolist() == [60, 84] and whole.replay.sizes.tolist() == [84, 84]
    for column in ("rows", "ended", "terminated"):
        mine, all_ = (getattr(stream.replay, column) for stream in (ours, whole))
        assert mine[500:584].equal(all_[500:584]), "the other task's are the same"
        assert mine[:60].equal(all_[:60]), "and those of the one that rested go on where they were"
    ours.teardown()
    whole.teardown()


def test_a_warmup_says_nothing_of_what_a_policy_can():
    stream = data(solved_every=4)
    stream.setup()
    practised = [stream.collect(still, 6, at_random=True)["practised"] for _ in range(12)]
    practised += [stream.collect(still, 6)["practised"] for _ in range(9)]
    # of the policy's own episodes, three a round, twenty are over after round 18, and then only round 20 is its turn
    assert practised == [2] * 19 + [1, 2]
    stream.teardown()


def test_where_all_are_solved_each_has_its_turn():
    specs = [TaskSpec(name, easy, success="near") for name in ("one", "other")]
    options = {"env_steps": 144, "steps_per_round": 6, "environments": {"num_processes": 0}, "solved_every": 4}
    stream = OnlineTasks(specs, **options)
    stream.setup()
    played = []
    for _ in range(12):
        stream.collect(still, 6)
        played.append(stream.practice.places)
    # solved after round 6: the first is played in rounds 8 and 12, the other in 7 and 11, and none in those between
    assert played == [None] * 7 + [[1], [0], [], [], [1]]
    assert stream.env_steps == 6 * (7 * 2 + 3) and stream.rounds == 12
    stream.teardown()


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [True, False])
def test_of_tasks_one_after_another_what_is_solved_is_passed_over(ahead, tmp_path):
    """And a run that was killed goes on to the same weights, with the same bursts."""
    options = {"order": "sequential", "solved_every": 4, "collect_ahead": ahead, "env_steps": 240, "epochs": 4}
    options |= {"warmup_steps": 12, "exploration": Exploration(burst_share=0.3)} | (
        {"environments": {}} if ahead else {}
    )
    weights, module, stream = Rounds(), learner(), data(**options)
    fit(module, stream, weights, AfterRounds(tmp_path / "last.ckpt", 15))
    resumed, again = learner(), data(**options)
    fit(resumed, again, ckpt_path=tmp_path / "last.ckpt")
    assert stream.rounds == again.rounds == 40 and stream.env_steps == again.env_steps
    for name, weight in module.state_dict().items():
        assert weight.equal(resumed.state_dict()[name]), name
    played, first = weights.simulated, weights.simulated.index(0)
    # Without updates are the first, in the warm-up, and those that are passed over.
    changed = [not all(old[n].equal(new[n]) for n in old) for old, new in itertools.pairwise(weights.seen)]
    assert changed == [steps > 0 and number % 20 > 0 for number, steps in enumerate(played[:-1])]
    assert 8 <= first < 16 and played[:first] == [6] * first, "twenty episodes without bursts, three a round"
    assert played[first:20] == [0 if number % 4 else 6 for number in range(first, 20)]
    assert played[20:] == [6] * 20, "the other is never solved"
    assert stream.env_steps == sum(played)
    # What a task trained is in its subnetwork: of three numbers, four units, four and four actions or spreads.
    moved = [sum(int((old[n] != new[n]).sum()) for n in old) for old, new in itertools.pairwise(weights.seen)]
    assert module.parameters_by_task() == [(3 + 1) * 4 + (4 + 1) * 4 + 4 * 4] and max(moved) <= 52


def test_a_task_that_does_not_say_what_success_is_never_rests():
    specs = [TaskSpec("easy", easy, success="near"), TaskSpec("open", easy)]
    for order in (specs, specs[::-1]):
        stream = data(solved_every=4, order="sequential", epochs=2, tasks=order)
        for task in (0, 1):
            stream._go_on_to(task)
            stream.setup() if task == 0 else None
            for _ in range(8):
                stream.collect(still, 6)
            assert stream.rests == (order[task].success is not None)
        stream.teardown()


def test_there_is_nothing_to_learn_from_in_a_round_that_was_passed_over():
    stream = data(solved_every=4, tasks=[TaskSpec("one", easy, success="near")])
    stream.setup()
    while not stream.rests:
        stream.collect(still, 6)
        if not stream.rests:
            stream.sample(4)
    with pytest.raises(RuntimeError, match=r"but all tasks rested in the latest.*OnlineTasks.rests before sample"):
        stream.sample(4)
    stream.teardown()


def test_bursts_wait_where_an_environment_rests():
    explorer = Explorer(Exploration(burst_share=1.0, burst_start=1.0), (2, 3), (0,))
    explorer.has_bursts[:], action = True, np.zeros((2, 3))
    explorer(action, False)
    held, left, awake = explorer.held.copy(), explorer.left.copy(), np.array([False, True])
    for _ in range(20):
        explorer(action, False, awake)
    assert (explorer.held[0] == held[0]).all() and explorer.left[0] == left[0] > 0
    assert (explorer.held[1] != held[1]).all()


def learner():
    torch.manual_seed(0)
    options = {"winners": "context", "overlap": 0.0, "activation_density": 0.25, "output_bias": False}
    sizes = {"observation_size": 3, "action_size": 2, "hidden_features": [16, 16], "dendrite_layers": None}
    policy = ActiveDendritePolicy(("easy", "hard"), segment_seed=0, weight_density=1.0, **options, **sizes)
    return MultiTaskSAC(policy, batch_size_per_task=8, lr=1e-2)


@pytest.mark.parametrize("ahead", [True, False])
def test_what_rests_learns_nothing_and_a_killed_run_goes_on_to_the_same_weights(ahead, tmp_path):
    options = {"solved_every": 4, "collect_ahead": ahead}
    options |= {"environments": {}} if ahead else {}
    weights, module, stream = Weights(), learner(), data(**options)
    fit(module, stream, weights, AfterRounds(tmp_path / "last.ckpt", 10))
    resumed, again = learner(), data(**options)
    fit(resumed, again, ckpt_path=tmp_path / "last.ckpt")
    assert stream.rounds == again.rounds == 12 and stream.env_steps == again.env_steps == 6 * (9 * 2 + 3)
    for name, weight in module.state_dict().items():
        assert weight.equal(resumed.state_dict()[name]), name
    used = [dict(module.model.mlp.active_parameters(task)) for task in (0, 1)]
    before, after = weights.seen[9], weights.seen[10]  # solved after round 8: it rests from 9 on
    for name in ("hidden.0.weight", "hidden.1.weight", "hidden.1.bias", "output.weight"):
        rests, learns = (index[name] for index in used)
        old, new = before[f"mlp.{name}"], after[f"mlp.{name}"]
        assert old[rests].equal(new[rests]) and not old[learns].equal(new[learns]), name
    assert before["log_alpha"][0] == after["log_alpha"][0] and before["log_alpha"][1] != after["log_alpha"][1]


def test_a_task_has_the_same_gradients_whether_others_rest(monkeypatch):
    """Those of its rows in a batch of all tasks, and in one of them alone."""
    stream, module, seen = data(), learner(), []
    stream.setup()
    stream.collect(still, 6)
    rows = stream.sample(8, torch.Generator().manual_seed(0), n_step=1, discount=0.9)
    part = Transitions(*(None if column is None else column[8:] for column in rows))
    optimizer = module.configure_optimizers()
    monkeypatch.setattr(module, "optimizers", lambda: optimizer)
    monkeypatch.setattr(module, "manual_backward", torch.Tensor.backward)
    monkeypatch.setattr(module, "_noise", torch.zeros_like)

    def note():
        gradients = (module.model.mlp.output.weight.grad, module.critic.critics[0].output.weight.grad)
        seen.append([*(g.to_dense() for g in gradients), module.log_alpha.grad])

    monkeypatch.setattr(optimizer, "step", note)
    module.update(rows)
    module._share = 0.5
    module.update(part)
    assert seen[0][2][1] == pytest.approx(float(seen[1][2][1])) and seen[1][2][0] == 0 != seen[0][2][0]
    for network, whole, alone in zip((module.model.mlp, module.critic.critics[0]), seen[0], seen[1], strict=False):
        own = network.active_parameters(1)["output.weight"]
        torch.testing.assert_close(whole[own], alone[own])
        assert alone[own].any()
    stream.teardown()


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="solved_every"):
        data(solved_every=0)
    with pytest.raises(ValueError, match="`solved_every` to be 1 where no task says what success is, but got 2"):
        OnlineTasks([TaskSpec("easy", easy)], env_steps=10, solved_every=2)
    monkeypatch.setattr("dendrite_zoo.rl.practice.num_ranks", lambda: 2)
    with pytest.raises(ValueError, match="`solved_every` to be 1 with 2 processes, which learn the same tasks at a"):
        data(solved_every=2)
