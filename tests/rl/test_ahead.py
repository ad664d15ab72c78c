"""Collection beside learning: a real process, equal to a player in this one, and its end."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from dendrite_zoo.callbacks import SuccessLogger
from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import Acting, Exploration
from dendrite_zoo.rl.ahead import RemotePlayer
from dendrite_zoo.rl.player import Player
from dendrite_zoo.streams import OnlineTasks
from tests.rl.worlds import ledges

pytest.importorskip("gymnasium")
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:.*does not have many workers")
CPU = torch.device("cpu")


def policy():
    torch.manual_seed(0)
    sizes = {"observation_size": 3, "action_size": 2}
    return ActiveDendritePolicy(("calm", "windy"), hidden_features=[16, 16], num_segments=2, **sizes)


class Plain(nn.Module):
    """A network of one's own, which is sent as it is."""

    tasks = ("calm", "windy")

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, observation, task):
        return self.layer(observation).tanh().chunk(2, dim=-1)


def test_a_round_is_that_of_a_player_in_this_process():
    options = {"envs_per_task": 2, "seed": 3, "exploration": Exploration(burst_share=0.5), "action_repeat": 2}
    remote, here = RemotePlayer(ledges(), 0, **options), Player(ledges(), 0, device=CPU, num_processes=0, **options)
    again = Player(ledges(), 0, device=CPU, num_processes=0, **options)
    ours, plain, tasks = policy(), Plain(), torch.arange(2)
    try:
        for number, (model, at_random) in enumerate([(None, True), (ours, False), (ours, False), (plain, False)]):
            if number == 2:
                again.load_state_dict(remote.state_dict(), 2)
                with torch.no_grad():
                    [p.mul_(1.5) for p in ours.parameters()]
            acts = [Acting(model, tasks, 2, seed=number) for _ in range(3)]
            found, expected = remote.play(acts[0], 20, at_random=at_random), here.play(acts[1], 20, at_random=at_random)
            assert all(one.equal(other) for one, other in zip(found.transitions, expected.transitions, strict=True))
            assert (found.statistics, found.simulated) == (expected.statistics, expected.simulated)
            if number >= 2:
                resumed = again.play(acts[2], 20, at_random=at_random)
                assert all(one.equal(other) for one, other in zip(found.transitions, resumed.transitions, strict=True))
        with pytest.raises(ValueError, match="Expected `act` to be a dendrite_zoo.rl.Acting .* got function"):
            remote.play(lambda observation, task: None, 1)
        plain.not_sent = (number for number in ())
        with pytest.raises(
            ValueError, match="Expected a policy that can be sent .* got cannot pickle 'generator' object"
        ):
            remote.play(Acting(plain, tasks, 2, 0), 1)
        remote.begin(Acting(ours, tasks, 2, 0), 10_000)
        os.kill(remote._worker.process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"playing calm, windy, ended \(exit code -9\). Fit again from the last"):
            remote.finish()
    finally:
        remote.close()


def data(**arguments):
    """Eight rounds, the first two without updates."""
    sizes = {"env_steps": 160, "epochs": 4, "steps_per_round": 5, "updates_per_round": 2, "warmup_steps": 40}
    options = {"environments": {"action_repeat": 2}, "capacity": 100, "collect_ahead": True, **sizes, **arguments}
    return OnlineTasks(ledges(), exploration=Exploration(burst_share=0.5), **options)


class Weights(Callback):
    """Notes the policy at the start of each round."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, *_):
        weights = {**module.model.state_dict(), "log_alpha": module.log_alpha.detach()}
        self.seen.append({name: weight.clone() for name, weight in weights.items()})


class AfterRounds(Checkpoint):
    """A checkpoint after some rounds, while the next is being played."""

    def __init__(self, path, rounds):
        self.path, self.rounds = path, rounds

    def on_train_batch_end(self, trainer, *_):
        if trainer.datamodule.rounds == self.rounds:
            trainer.save_checkpoint(self.path)


def fit(module, stream, *callbacks, ckpt_path=None):
    quiet = {"logger": False, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1}
    bars = {"enable_progress_bar": False, "enable_model_summary": False}
    saves = any(isinstance(callback, Checkpoint) for callback in callbacks)
    arguments = {**stream.trainer_kwargs(), **quiet, **bars, "enable_checkpointing": saves}
    trainer = Trainer(**arguments, callbacks=list(callbacks))
    trainer.fit(module, stream, ckpt_path=ckpt_path)
    return trainer


def learner(**arguments):
    return MultiTaskSAC(policy(), batch_size_per_task=8, lr=1e-2, n_step=3, **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    weights, success = Weights(), SuccessLogger(num_goals=2, num_processes=0)
    last = tmp_path_factory.mktemp("ahead") / "last.ckpt"
    module, stream = learner(), data()
    fit(module, stream, weights, success, AfterRounds(last, 5))
    return module, stream, weights.seen, success, last


def test_a_round_is_played_by_the_policy_of_a_round_before(whole):
    """Against a loop that plays every round in this process, when its turn comes."""
    module, stream, seen, *_ = whole
    model, tasks = policy(), torch.arange(2)
    options = {"envs_per_task": 1, "seed": 0, "num_processes": 0, "action_repeat": 2, "device": CPU}
    player, rows = Player(ledges(), 0, exploration=Exploration(burst_share=0.5), **options), []
    assert len(seen) == 8
    for number in range(8):
        at_random = number < 2
        if not at_random:
            model.load_state_dict({name: w for name, w in seen[max(number - 1, 1)].items() if name != "log_alpha"})
            if number == 2:  # normalised by the warm-up, before the first update
                model.fit_normalizer(torch.cat([torch.cat(rows)[:, 0, :3], torch.cat(rows)[:, 1, :3]]))
        seed = module._generator_of(number, 1).initial_seed()
        played = player.play(Acting(None if at_random else model, tasks, 2, seed), 5, at_random=at_random)
        rows.append(torch.cat([played.transitions[0], played.transitions[1]], dim=1).unflatten(0, (5, 2)))
    expected = torch.cat(rows).transpose(0, 1)
    for task in (0, 1):
        assert stream.replay.rows[task * stream.replay.capacity :][:40, :5].equal(expected[task])


def test_it_is_measured_as_it_is_trained(whole):
    _, stream, _, success, _ = whole
    assert stream.action_repeat == success.report.action_repeat == 2
    assert SuccessLogger(action_repeat=1).action_repeat == 1


def test_a_run_that_was_killed_goes_on_to_the_same_weights(whole):
    module, played, *_, last = whole
    resumed, stream = learner(), data()
    fit(resumed, stream, SuccessLogger(num_goals=2, num_processes=0), ckpt_path=last)
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert stream.rounds == 8 and stream.env_steps == played.env_steps
    assert stream.replay.rows[:40].equal(played.replay.rows[:40])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="with no 'num_processes' but 0 with collect_ahead=True"):
        data(environments={"num_processes": 2})
    assert data(environments={"num_processes": 0}).hparams["environments"] == {}
