"""Weights may be averaged; what is computed from data must not be."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import nn

from dendrite_zoo import add_dendrites
from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, RidgeClassifier
from dendrite_zoo.streams import PermutedTasks

X = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a logger writes its matrix


def adapted(head="ridge"):
    return add_dendrites(nn.Sequential(nn.Linear(64, 8), nn.ReLU()), layers="0", num_classes=10, max_tasks=2, head=head)


def fit(model, average=None, module=None, **options):
    stream = PermutedTasks("digits", num_tasks=2, batch_size=128, epochs_per_task=1)
    log = ForgettingLogger("val/acc", pictures=False, verbose=False)
    average = EMAWeightAveraging(decay=0.5, **options) if average is None else average
    module = ContinualClassifier(model, **module or {})
    trainer = Trainer(**stream.trainer_kwargs(), callbacks=[average, log], **QUIET)
    trainer.fit(module, stream)
    return module, stream, log


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("make", [adapted, lambda: RidgeClassifier((8, 8), num_classes=10, random_features=64)])
def test_a_solved_head_is_not_averaged(make, use_buffers):
    with pytest.raises(ValueError, match="whose head is solved and not trained: .* Leave the callback out"):
        fit(make(), use_buffers=use_buffers)


@pytest.mark.parametrize("head", ["linear", "ridge"])
@pytest.mark.parametrize("kind", ["EMAWeightAveraging", "StochasticWeightAveraging"])
def test_gates_of_one_task_after_another_are_not_averaged(head, kind):
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=0.1) if "Stochastic" in kind else None
    why = "gates of one task after another" if head == "linear" else "whose head is solved"
    with pytest.raises(ValueError, match=rf"Expected no {kind} of AdaptedBackbone, .*{why}.* Leave the callback out"):
        fit(adapted(head), average)


def test_what_is_fixed_is_not_averaged_with_what_it_was():
    """The average over epochs would change the outputs of earlier tasks."""
    model = ActiveDendriteClassifier(64, [16], 10, max_tasks=2, context="one-hot")
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=0.1)
    with pytest.raises(ValueError, match="Expected no StochasticWeightAveraging beside learn='new'"):
        fit(model, average, {"learn": "new", "context_at_test": "given"})


def test_a_task_that_has_ended_goes_on_to_change_in_a_moving_average():
    """Its outputs when the next one began were those of the average then."""
    seen = []

    class Seen(EMAWeightAveraging):
        def on_validation_epoch_end(self, trainer, pl_module):
            seen.append(pl_module.model(X, task=0).detach())
            super().on_validation_epoch_end(trainer, pl_module)

    torch.manual_seed(0)
    model = ActiveDendriteClassifier(64, [16], 10, max_tasks=2, context="one-hot")
    average = Seen(decay=0.9, use_buffers=False)
    with pytest.warns(UserWarning, match="Beside Seen the weights of a task that has ended in this fit still change"):
        fit(model, average, {"learn": "new", "context_at_test": "given"})
    assert not torch.equal(seen[0], seen[-1])


def test_prototypes_are_not_averaged():
    model = ActiveDendriteClassifier(64, [32], 10, max_tasks=2)
    with pytest.raises(ValueError, match=r"Expected EMAWeightAveraging\(use_buffers=False\) beside PrototypeContext"):
        fit(model)
    module, stream, log = fit(model, use_buffers=False)
    for task in range(2):
        x = torch.cat([x for x, _ in stream.task_loader(task)])
        torch.testing.assert_close(model.context.prototypes[task], x.mean(0))
    module.eval()
    rows = [list(stream.task_loader(task, "test")) for task in range(2)]
    with torch.no_grad():
        right = [torch.cat([module(x).argmax(1) == y for x, y in batches]).float().mean() for batches in rows]
    torch.testing.assert_close(log.matrix[-1], torch.stack(right))


def test_features_are_no_logits():
    with pytest.raises(ValueError, match="Expected `head` to be 'ridge' or 'linear' for cross-entropy, as features"):
        ContinualClassifier(adapted(head=None))
    assert ContinualClassifier(adapted(head=None), loss=nn.MSELoss()).loss_function is not None
