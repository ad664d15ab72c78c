"""Replay: a uniform sample of everything seen, learned again beside each batch, across crashes."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from dendrite_zoo.contexts import PrototypeContext
from dendrite_zoo.lightning_modules import ContinualClassifier, ReplayClassifier
from dendrite_zoo.lightning_modules.replay import Reservoir
from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.models.xdg import XdGClassifier
from dendrite_zoo.streams import PermutedTasks
from tests.processes import two_processes
from tests.training import Crash, CrashAt

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def test_a_reservoir_is_a_uniform_sample_of_all_rows_seen():
    hits = torch.zeros(60)
    for seed in range(600):
        reservoir = Reservoir(12, seed=seed)
        for batch in torch.arange(60).split(7):
            reservoir.add(batch, -batch)
        rows, others = reservoir.rows
        assert len(rows.unique()) == 12 and rows.equal(-others)
        hits[rows] += 1
    assert (hits / 600 - 12 / 60).abs().max() < 0.07  # four standard deviations


def test_while_there_is_room_everything_is_kept():
    reservoir = Reservoir(10)
    reservoir.add(torch.arange(4))
    assert len(reservoir) == 4 and sorted(reservoir.sample(9)[0].tolist()) == [0, 1, 2, 3]
    assert len(reservoir.sample(3)[0].unique()) == 3
    with pytest.raises(ValueError, match="Expected `size` to be an integer of at least 1, but got 0"):
        Reservoir(0)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def fit(module, callbacks=(), checkpoint=None, epochs=8, **kwargs):
    stream = PermutedTasks("digits", 3, epochs_per_task=epochs, batch_size=64)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    quiet |= {"enable_model_summary": False, **stream.trainer_kwargs()}
    trainer = Trainer(**{**quiet, **kwargs}, callbacks=list(callbacks))
    trainer.fit(module, stream, ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_a_memory_of_another_size_is_refused():
    reservoir = Reservoir(10)
    reservoir.add(torch.arange(4))
    with pytest.raises(ValueError, match="Expected `buffer_size` to be 10, as in the checkpoint, but got 20"):
        Reservoir(20).load_state_dict(reservoir.state_dict())


def test_what_is_rehearsed_is_not_forgotten():
    plain = fit(ContinualClassifier(network(), lr=5e-3)).callback_metrics["val/task_0/acc"]
    replayed = fit(ReplayClassifier(network(), lr=5e-3, buffer_size=200)).callback_metrics["val/task_0/acc"]
    assert replayed > plain + 0.1 and replayed > 0.75


def test_contexts_of_remembered_rows_are_inferred():
    model = ActiveDendriteMLP(64, [32], 10, context_dim=64, num_segments=3)
    module = ReplayClassifier(model, context=PrototypeContext(64, 3), buffer_size=50)
    fit(module, epochs=1, limit_train_batches=3)
    assert len(module.reservoir) == 50 and module.reservoir.seen == 3 * 3 * 64


def test_a_run_that_crashed_goes_on_to_the_bit(tmp_path):
    def run(folder, crash=None, checkpoint=None):
        module = ReplayClassifier(network(), buffer_size=100)
        saving = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
        callbacks = [saving, *([CrashAt(crash)] if crash else [])]
        small = {"limit_train_batches": 3, "limit_val_batches": 0, "enable_checkpointing": True}
        fit(module, callbacks, checkpoint, epochs=1, **small)
        return torch.cat([t.flatten().float() for t in (*module.parameters(), *module.reservoir.rows)])

    expected = run(tmp_path / "whole")
    for step in (1, 4):
        with pytest.raises(Crash):
            run(tmp_path / str(step), crash=step)
        assert torch.equal(run(tmp_path / str(step), checkpoint=tmp_path / str(step) / "last.ckpt"), expected)


def test_a_run_that_remembered_nothing_does_not_go_on_with_a_memory(tmp_path):
    """The memory was empty, and earlier tasks were lost in silence."""
    small = {"limit_train_batches": 1, "limit_val_batches": 0}
    plain = ContinualClassifier(network())
    fit(plain, epochs=1, **small).save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="a checkpoint that has remembered rows, but got one of a module that keeps"):
        fit(ReplayClassifier(network()), checkpoint=tmp_path / "last.ckpt", epochs=2, **small)


def test_smoothing_goes_for_remembered_rows_too():
    torch.manual_seed(0)
    x, y = torch.randn(8, 64), torch.randint(10, (8,))
    for smoothing in (0.0, 0.3):
        module = ReplayClassifier(network(), label_smoothing=smoothing)
        module.log = lambda *args, **kwargs: None
        module.training_step((x, y), 0)
        loss = module.training_step((x, y), 1)  # the memory holds these very rows
        torch.testing.assert_close(loss, nn.functional.cross_entropy(module(x), y, label_smoothing=smoothing))


def test_a_context_that_cannot_be_inferred_is_refused():
    with pytest.raises(ValueError, match="Expected a context that can be inferred, .* but got OneHotContext"):
        ReplayClassifier(XdGClassifier(64, [20], 10, max_tasks=3), context_at_test="given")


class Held(Callback):
    """Writes down what each process holds at the start and at the end."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        self.write(trainer, pl_module, "start")

    def on_fit_end(self, trainer, pl_module):
        self.write(trainer, pl_module, "end")

    def write(self, trainer, pl_module, when):
        torch.save(list(pl_module.reservoir.rows), self.folder / f"{when}_{trainer.global_rank}.pt")


@pytest.mark.slow
def test_each_process_goes_on_with_its_own_memory(tmp_path):
    for name, checkpoint in (("first", None), ("second", tmp_path / "first" / "last.ckpt")):
        saving = ModelCheckpoint(tmp_path / name, save_last=True)
        (tmp_path / name).mkdir(exist_ok=True)
        small = {"limit_train_batches": 2, "limit_val_batches": 0, "enable_checkpointing": True}
        module = ReplayClassifier(network(), buffer_size=20)
        callbacks = [saving, Held(tmp_path / name), *([] if checkpoint else [CrashAt(4)])]
        with pytest.raises(ProcessRaisedException) if checkpoint is None else nullcontext():
            fit(module, callbacks, checkpoint, epochs=1, **two_processes(), **small)
    start = [torch.load(tmp_path / "second" / f"start_{rank}.pt") for rank in range(2)]
    assert not torch.equal(start[0][0], start[1][0]), "each its own"
    alone = ReplayClassifier(network(), buffer_size=20)
    with pytest.raises(ValueError, match="as many processes as there are now, 1, .* but got one of 2"):
        fit(alone, checkpoint=tmp_path / "first" / "last.ckpt", epochs=1)
