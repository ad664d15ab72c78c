"""ContinualClassifier trains with DendriteAdam, whatever the Trainer does with gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import Callback

from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.streams import PermutedTasks
from tests.lightning_modules import quiet


class SawSparse(Callback):
    """Whether segments had sparse gradients, and the norm of all gradients after they were clipped."""

    def __init__(self):
        self.sparse, self.norms = set(), []

    def on_before_zero_grad(self, trainer, module, optimizer):
        grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        self.sparse |= {g.is_sparse for name, g in grads.items() if name.endswith("segments")}
        dense = [g.to_dense().flatten() for g in grads.values()]
        self.norms += [float(torch.cat(dense).norm())] if dense else []


def fit(model, **kwargs):
    torch.manual_seed(1)
    stream = PermutedTasks("digits", num_tasks=2, batch_size=64, epochs_per_task=1)
    saw = SawSparse()
    module = ContinualClassifier(model, lr=1e-2)
    return quiet.fit(module, stream, limit_train_batches=6, callbacks=[saw], **kwargs), saw


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"gradient_clip_val": 0.1},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
    ],
    ids=lambda kwargs: next(iter(kwargs), "plain"),
)
def test_what_is_learned_does_not_depend_on_how_gradients_are_held(kwargs, monkeypatch):
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(64, [48, 48], 10, max_tasks=2, num_segments=5, activation_density=0.05)
    twin = copy.deepcopy(model)
    trainer, saw = fit(model, **kwargs)
    assert isinstance(trainer.optimizers[0], DendriteAdam) and saw.sparse == {True}
    if kwargs.get("gradient_clip_val") == 0.1:
        assert max(saw.norms) < 0.1001

    monkeypatch.setattr("dendrite_zoo.row_sparse.taken_rows._dense_needed", lambda device: True)  # as under DDP
    _, saw = fit(twin, **kwargs)
    assert saw.sparse == {False}
    tolerance = {"atol": 0.02, "rtol": 0.1} if "precision" in kwargs else {"atol": 1e-5, "rtol": 1e-4}
    for name, p in model.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], p, **tolerance, msg=lambda text, n=name: f"{n}: {text}")


def test_after_training_the_model_belongs_to_no_optimizer():
    model = ActiveDendriteClassifier(64, [16], 10, max_tasks=2, num_segments=5)
    trainer, _ = fit(model)
    stranger = copy.deepcopy(model)
    for network in (stranger, model):
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        network(torch.randn(3, 64), task=0).sum().backward()
        assert not network.mlp.hidden[0].segments.grad.is_sparse
        optimizer.step()
    assert trainer.optimizers


class SaveAt(Callback):
    """Saves a checkpoint after a step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("winners", ["activation", "context"])
@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_resumed_run_is_bit_equal(winners, step, tmp_path):
    def run(callbacks=(), ckpt_path=None):
        torch.manual_seed(0)
        model = ActiveDendriteClassifier(64, [64, 64], 10, max_tasks=2, num_segments=5, winners=winners)
        stream = PermutedTasks("digits", num_tasks=2, batch_size=256, epochs_per_task=1)  # six steps a task
        trainer = quiet.fit(ContinualClassifier(model, lr=1e-2), stream, ckpt_path, callbacks=list(callbacks))
        assert trainer.global_step == 12
        return model.state_dict(), trainer.optimizers[0].state_dict()["state"]

    weights, moments = run([SaveAt(step, tmp_path / "some.ckpt")])
    weights_again, moments_again = run(ckpt_path=tmp_path / "some.ckpt")
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert moments.keys() == moments_again.keys()
    for ours, theirs in zip(moments.values(), moments_again.values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(
    "given", [{}, {"lr": 0.02}, {"optimizer": lambda parameters: torch.optim.SGD(parameters, 4e-3)}]
)
@pytest.mark.parametrize(("kind", "whole", "new"), [("one-hot", 4e-3, 1e-2), ("prototype", 4e-3, 4e-3)])
def test_what_a_task_has_for_itself_learns_faster_unless_a_rate_is_given(kind, whole, new, given):
    torch.manual_seed(0)
    winners = "activation" if kind == "one-hot" else "context"
    model = ActiveDendriteClassifier(64, [32], 10, max_tasks=3, context=kind, winners=winners)
    rates = []

    class Seen(ContinualClassifier):
        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            rates.append(self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"])

    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=1)
    options = {"learn": "new", "context_at_test": "given" if kind == "one-hot" else "inferred", **given}
    quiet.fit(Seen(model, **options), stream, limit_train_batches=1)
    rates += [Seen(model, **options).configure_optimizers().param_groups[0]["lr"]]  # of one that knows tasks
    assert rates == ([given.get("lr", 4e-3)] * 3 if given else [whole, new, new])
