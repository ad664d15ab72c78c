"""Tasks that nobody announces: found in the batches, from the training step to the callbacks."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from dendrite_zoo.callbacks import SynapticIntelligence
from dendrite_zoo.contexts import ClusterContext, HotellingContext
from dendrite_zoo.lightning_modules import ContinualClassifier, evaluate_contexts
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.streams import PermutedTasks
from tests.training import Crash, CrashAt

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")
TASKS, BATCHES = 3, 4
QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "limit_train_batches": BATCHES,
}


def make(context=None, **kwargs):
    torch.manual_seed(0)
    context = context or ClusterContext(64, 6)
    model = ActiveDendriteMLP(64, [128], 10, context_dim=context.context_dim, num_segments=4, activation_density=0.2)
    return ContinualClassifier(model, context=context, lr=5e-3, **kwargs)


def fit(folder, module, callbacks, epochs=2, checkpoint=None, **kwargs):
    stream = PermutedTasks("digits", TASKS, epochs_per_task=epochs, batch_size=64)
    trainer = Trainer(
        **{**QUIET, **stream.trainer_kwargs(), "enable_checkpointing": False, **kwargs},
        callbacks=callbacks,
        default_root_dir=folder,
    )
    trainer.fit(module, stream, ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_finds_tasks_and_their_contexts(tmp_path):
    module, si = make(), SynapticIntelligence()
    trainer = fit(tmp_path, module, [si], epochs=8, limit_train_batches=None)
    metrics = trainer.callback_metrics
    assert module.context.num_tasks == TASKS and metrics["train/clusters"] == TASKS
    assert all(metrics[f"val/task_{j}/context_acc"] > 0.98 and metrics[f"val/task_{j}/acc"] > 0.6 for j in range(TASKS))
    assert si.regularizer.num_tasks == TASKS - 1
    stream = PermutedTasks("digits", TASKS, epochs_per_task=1)
    scores = evaluate_contexts(module.model, stream, context=module.context, enable_progress_bar=False)
    assert scores["inferred"] == [metrics[f"val/task_{j}/acc"].item() for j in range(TASKS)]
    assert min(scores["context"]) > 0.98


def test_boundaries_come_from_the_clusters_at_the_first_batch_of_each():
    """Two clusters a task, by a test that is too fine: the optimizer and the callbacks follow the clusters."""

    class Alternating(ClusterContext):
        def observe(self, x):
            found = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5][int(self.counts.sum() / 64)]
            self.counts[found] += len(x)
            return found

    class Watch(SynapticIntelligence):
        def end_task(self, trainer, pl_module, task):
            ended.append((task, trainer.global_step))
            super().end_task(trainer, pl_module, task)

    ended: list[tuple[int, int]] = []
    module = make(Alternating(64, 6))
    fit(None, module, [Watch()], epochs=1)
    assert ended == [(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)]
    assert module.cluster_to_task == [0, 0, 1, 1, 2, 2]
    assert module._task_of_context(torch.tensor([0, 1, 2, 5])).tolist() == [0, 0, 1, 2]


def test_a_run_that_crashed_goes_on_to_the_bit(tmp_path):
    def run(folder, crash=None, checkpoint=None):
        module = make()
        saving = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
        callbacks = [SynapticIntelligence(si_lambda=1.0), saving, *([CrashAt(crash)] if crash else [])]
        fit(folder, module, callbacks, epochs=1, checkpoint=checkpoint, enable_checkpointing=True, limit_val_batches=0)
        return {**module.state_dict(), "founded": torch.tensor(module.cluster_to_task)}

    expected = run(tmp_path / "whole")
    for step in (1, 4, 5, 8, 11):
        with pytest.raises(Crash):
            run(tmp_path / str(step), crash=step)
        resumed = run(tmp_path / str(step), checkpoint=tmp_path / str(step) / "last.ckpt")
        assert resumed.keys() == expected.keys()
        assert all(torch.equal(resumed[name], expected[name]) for name in expected), f"after step {step}"


def test_a_classifier_with_clusters_is_saved_loaded_and_given_room(tmp_path):
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(64, [32], 10, max_tasks=TASKS, num_segments=3, context="clusters")
    fit(tmp_path, ContinualClassifier(model), [], epochs=1)
    model.eval().save_pretrained(tmp_path / "model")
    again, x = ActiveDendriteClassifier.from_pretrained(tmp_path / "model", max_tasks=5), torch.randn(4, 64)
    assert again.num_tasks == TASKS and again.max_tasks == 5 and torch.equal(again(x), model(x))
    assert again.context.observe(torch.randn(64, 64) + 5) == TASKS


def test_the_papers_clusters_train_too(tmp_path):
    context = HotellingContext(64, 20, context_dim=32, num_exemplars=64)
    module = make(context)
    fit(tmp_path, module, [], epochs=1)
    assert TASKS <= context.num_tasks <= 20


def test_clusters_of_a_loaded_model_are_its_tasks(tmp_path):
    module = make()
    fit(tmp_path, module, [], epochs=1)
    again = make(module.context)
    fit(tmp_path, again, [], epochs=1)
    assert again.cluster_to_task == [0, 1, 2] and again.context.num_tasks == TASKS


def test_clusters_more_than_tasks_belong_to_the_task_whose_inputs_they_hold(tmp_path):
    """Two clusters for task 0; the evaluation of a loaded model, which knows of no task, sees whose they are."""
    stream = PermutedTasks("digits", 2, batch_size=64, epochs_per_task=1)
    context = ClusterContext(64, 6)
    module = make(context)
    for task, loader in enumerate(stream.task_loader(task) for task in (0, 1)):
        for x, _ in loader:
            context._join(task + 1, x.double().mean(0), x.double().var(0).sum(), len(x))
    half = next(iter(stream.task_loader(0)))[0][:8]
    context._join(0, half.double().mean(0), half.double().var(0).sum(), len(half))
    scores = evaluate_contexts(module.model, stream, context=context, enable_progress_bar=False)
    assert min(scores["context"]) > 0.98 and "given" not in scores
    with pytest.raises(ValueError, match="to be 'inferred' or 'constant' for ClusterContext, .* but got 'given'"):
        make(context, context_at_test="given")
