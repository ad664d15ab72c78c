"""Checkpoints without the replay buffer: they are small, and a run that goes on from one fills it again first."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback

from dendrite_zoo._core.describe import describe
from dendrite_zoo.callbacks.recipe_config import LEFT_OUT
from tests.rl.test_ahead import AfterRounds, fit
from tests.rl.test_solved_tasks import data, learner

pytest.importorskip("gymnasium")
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:.*does not have many workers")


class Notes(Callback):
    """After each round: how many updates there were, which tasks were played, and whether at random."""

    def __init__(self):
        self.updates, self.places, self.at_random = [], [], []

    def on_train_batch_end(self, trainer, module, *_):
        practice = trainer.datamodule.practice
        self.updates.append(trainer.global_step)
        self.places.append(practice.places)
        if practice.player is not None and hasattr(practice.player, "statistics"):
            self.at_random.append(practice.player.statistics._at_random)


def resumed(path, **options):
    notes, module, stream = Notes(), learner(), data(**options)
    fit(module, stream, notes, ckpt_path=path)
    return notes, module, stream


def test_a_run_fills_its_buffer_again_by_its_own_policy_before_it_learns_on(tmp_path):
    options = {"solved_every": 4, "save_replay": False, "env_steps": 16 * 12, "epochs": 4}
    notes = Notes()
    fit(learner(), whole := data(**options), notes, AfterRounds(tmp_path / "last.ckpt", 12))
    assert notes.places[8:12] == [None, [1], [1], [1]], "one task is solved, and rests"
    assert "resumed" not in whole.description
    (state,) = torch.load(tmp_path / "last.ckpt", weights_only=True)["OnlineTasks"]["processes"]
    assert state["replay"] is None and state["environments"]
    notes, module, stream = resumed(tmp_path / "last.ckpt", **options)
    assert notes.places == [None] * 4, "twenty episodes have to say again what is solved"
    assert notes.updates == [33, 36, 39, 42] and not any(notes.at_random)
    assert stream.rounds == 16 and stream.env_steps == 6 * (9 * 2 + 3 + 8)
    assert stream.replay.sizes.tolist() == [24, 24]
    assert stream.description.endswith("Times resumed with an empty replay buffer: 1.")
    asked, done = (describe(one, LEFT_OUT) for one in (whole, stream))
    assert done == {**asked, "refills": 1}, "no seed of the recipe: it did not give what it would have"
    _, again, _ = resumed(tmp_path / "last.ckpt", **options)
    for name, weight in module.state_dict().items():
        assert weight.equal(again.state_dict()[name]), name


@pytest.mark.slow
def test_a_round_that_was_played_ahead_goes_into_the_empty_buffer(tmp_path):
    options = {"solved_every": 4, "save_replay": False, "env_steps": 16 * 12, "epochs": 4}
    options |= {"collect_ahead": True, "environments": {}}
    fit(learner(), data(**options), AfterRounds(tmp_path / "last.ckpt", 11))
    notes, _, again = resumed(tmp_path / "last.ckpt", **options)
    assert notes.places == [[1], None, None, None, None] and notes.updates == [30, 30, 33, 36, 39]
    assert again.replay.sizes.tolist() == [24, 30] and again.env_steps == 6 * (9 * 2 + 2 + 1 + 4 * 2)


def test_a_record_says_whether_a_policy_was_trained_before():
    module, stream = learner(), data(epochs=1)
    module.model.fit_normalizer(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))
    fit(module, stream)
    assert stream.description == "Learned by reinforcement, from a trained policy: 144 steps of the simulation."
    fit(learner(), stream := data(epochs=1))
    assert stream.description == "Learned by reinforcement, without demonstrations: 144 steps of the simulation."
