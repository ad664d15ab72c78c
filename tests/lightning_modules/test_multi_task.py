"""MultiTaskClassifier: each row in the context of its task, whatever the model; metrics by task."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.contexts import ClusterContext, OneHotContext, PrototypeContext
from dendrite_zoo.lightning_modules import ContinualClassifier, MultiTaskClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.streams import MixedTasks, PermutedTasks
from tests.lightning_modules.quiet import QUIET, fit
from tests.streams.toy import tensors
from tests.training import Crash, CrashAt


def mixed(num_tasks=3, epochs=1, **kwargs):
    return MixedTasks(PermutedTasks("digits", num_tasks, batch_size=64, **kwargs), epochs=epochs)


def test_a_new_network_learns_with_the_learning_rate_that_its_width_asks_for():
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(64, [128, 128], 10, max_tasks=2, context="one-hot")
    trainer = fit(MultiTaskClassifier(model), mixed(2, epochs=5))
    assert min(float(trainer.callback_metrics[f"val/task_{j}/acc"]) for j in range(2)) > 0.75
    wide = ActiveDendriteClassifier(8, [2048, 64], 3, max_tasks=2)
    plain = ActiveDendriteClassifier(8, [64], 3, max_tasks=2, activation="relu")
    parts = ActiveDendriteClassifier(8, [2048], 3, max_tasks=2, winners="context")
    known = ActiveDendriteClassifier(8, [64], 3, max_tasks=2)
    known.context.start_task(0, [torch.randn(4, 8)])
    rates = [ContinualClassifier(each).learning_rate for each in (known, wide, plain, parts)]
    assert rates == [5e-4, 5e-4, 5e-4, 4e-3], "a model that knows tasks is fine-tuned"


def test_where_nobody_says_for_how_many_epochs_the_trainer_does():
    data = MixedTasks(PermutedTasks(tensors(), 2))
    assert (data.max_epochs, data.epochs) == (200, 200)
    model = ActiveDendriteClassifier(4, [8], 3, max_tasks=2, context="one-hot")
    trainer = Trainer(**{**data.trainer_kwargs(), "max_epochs": 3}, **QUIET)
    trainer.fit(MultiTaskClassifier(model), data)
    assert (trainer.current_epoch, data.epochs, data.max_epochs) == (3, 3, 200)
    with pytest.raises(ValueError, match="to have max_epochs=5, but got 3"):
        trainer.fit(MultiTaskClassifier(model), MixedTasks(PermutedTasks(tensors(), 2), epochs=5))


class Embedding(nn.Module):
    """A stranger's network that takes the task."""

    def __init__(self, features=64, classes=10):
        super().__init__()
        self.tasks, self.output = nn.Embedding(3, features), nn.Linear(features, classes)

    def forward(self, x, task):
        return self.output(torch.relu(x + self.tasks(task)))


def test_predicts_each_row_in_the_context_of_its_task():
    module = MultiTaskClassifier(Embedding().eval())
    x, y, task = torch.randn(6, 64), torch.zeros(6), torch.tensor([0, 1, 2, 2, 1, 0])
    classes = module.model(x, task).argmax(1)
    mixed_loader = DataLoader(TensorDataset(x, y, task), batch_size=4)
    assert torch.cat(Trainer(**QUIET).predict(module, mixed_loader)).equal(classes)
    assert module.predict_step((x, y), 0, 1).equal(module.model(x, torch.ones(6).long()).argmax(1)), "the loader"


@pytest.mark.parametrize("at_once", [False, True])
def test_predicts_the_test_rows_of_a_stream(at_once):
    stream = PermutedTasks("digits", 2, epochs_per_task=1)
    module = MultiTaskClassifier(Embedding())
    predicted = Trainer(**QUIET).predict(module, MixedTasks(stream) if at_once else stream)
    for task, batches in enumerate(predicted):
        x = torch.cat([x for x, _ in stream.task_loader(task, "test")])
        assert torch.cat(batches).equal(module.model(x, torch.tensor(task)).argmax(1))


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


MLP = {"context_dim": 3, "num_segments": 2}


@pytest.mark.parametrize(
    "make, arguments",
    [
        (Plain, {}),
        (Embedding, {}),
        (lambda: ActiveDendriteMLP(64, [32], 10, **MLP), {"context": OneHotContext(3)}),
        (lambda: ActiveDendriteMLP(64, [32], 10, context_dim=64, num_segments=2), {"context": PrototypeContext(64, 3)}),
        (lambda: ActiveDendriteClassifier(64, [32], 10, max_tasks=3), {"context_at_test": "inferred"}),
        (lambda: ActiveDendriteClassifier(64, [32], 10, max_tasks=3, context="one-hot"), {}),
    ],
)
def test_takes_any_module_and_logs_each_task(make, arguments):
    module, data = MultiTaskClassifier(make(), **arguments), mixed()
    trainer = fit(module, data, limit_train_batches=4)
    model = module.model.eval()
    for task in range(3):
        x, y = (torch.cat(column) for column in zip(*data.task_loader(task, "val"), strict=True))
        ids = torch.full((len(x),), task)
        if "context" in arguments:
            output = model(x, module.given_context(x, ids))
        elif isinstance(model, ActiveDendriteClassifier) and arguments:
            output = model(x)
        else:
            output = model(x) if isinstance(model, Plain) else model(x, task=ids)
        right = int((output.argmax(1) == y).sum())
        assert trainer.callback_metrics[f"val/task_{task}/acc"] == pytest.approx(right / len(x), abs=1e-6)


def test_a_batch_of_several_tasks_gives_each_row_its_own_context():
    """The loss of a mixed batch is the mean over rows, each computed alone in the context of its task."""
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(64, [32], 10, max_tasks=3)
    for task in range(3):
        model.context.start_task(task, [torch.randn(20, 64) + task])
    module = MultiTaskClassifier(model)
    module.log = lambda *args, **kwargs: None
    x, y, task = torch.randn(12, 64), torch.randint(10, (12,)), torch.arange(12) % 3
    alone = [nn.functional.cross_entropy(model(x[i : i + 1], task=int(task[i])), y[i : i + 1]) for i in range(12)]
    torch.testing.assert_close(module.training_step((x, y, task), 0), torch.stack(alone).mean())


def test_prototypes_are_the_means_of_each_tasks_inputs_and_stay():
    module, data = MultiTaskClassifier(ActiveDendriteClassifier(64, [32], 10, max_tasks=3)), mixed(epochs=2)
    fit(module, data)
    for task in range(3):
        x = torch.cat([x for x, _ in data.task_loader(task)])
        torch.testing.assert_close(module.context.prototypes[task], x.mean(0), atol=1e-5, rtol=0)
    assert module.context.counts[:3].tolist() == [1438] * 3


def test_where_the_task_decides_the_labels_only_a_network_that_knows_it_learns():
    x, y, x_test, y_test = tensors(rows=120, test_rows=60, features=3)
    y, y_test = x.argmax(1), x_test.argmax(1)
    relabelled = [(x, (y + shift) % 3, x_test, (y_test + shift) % 3) for shift in range(3)]
    scores = {}
    for name, model in {"knows": Embedding(3, 3), "not": nn.Linear(3, 3)}.items():
        if name == "knows":
            model = ActiveDendriteClassifier(3, [64], 3, max_tasks=3, context="one-hot", activation_density=0.5)
        data = MixedTasks(relabelled, epochs=40)
        data.stream.batch_size = 60
        metrics = fit(MultiTaskClassifier(model, lr=0.02), data).callback_metrics
        scores[name] = [float(metrics[f"val/task_{task}/acc"]) for task in range(3)]
    assert min(scores["knows"]) > 0.8 and sum(scores["not"]) / 3 < 0.5  # of a third each it may be right in one


@pytest.mark.parametrize("schedule", ["cosine", "inverse"])
def test_the_learning_rate_falls_over_the_fit(schedule):
    rates = []

    class Watched(MultiTaskClassifier):
        def on_before_optimizer_step(self, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    fit(Watched(Plain(), lr=0.1, lr_schedule=schedule), mixed(num_tasks=1, epochs=2))
    steps = 2 * 23
    cosine, inverse = (
        [(1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)],
        [200 / (200 + i) for i in range(steps)],
    )
    assert rates == pytest.approx([0.1 * factor for factor in (cosine if schedule == "cosine" else inverse)])


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_run_that_crashed_goes_on_to_the_bit(tmp_path):
    def run(folder, crash=None, checkpoint=None):
        torch.manual_seed(0)
        module = MultiTaskClassifier(ActiveDendriteClassifier(64, [16], 10, max_tasks=2), lr_schedule="cosine")
        saving = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
        callbacks = [saving, *([CrashAt(crash)] if crash else [])]
        options = {"limit_train_batches": 3, "enable_checkpointing": True, "callbacks": callbacks}
        fit(module, mixed(num_tasks=2, epochs=2), checkpoint, **options)
        return torch.cat([tensor.flatten().float() for tensor in module.state_dict().values()])

    expected = run(tmp_path / "whole")
    for step in (2, 3, 5):
        with pytest.raises(Crash):
            run(tmp_path / str(step), crash=step)
        assert run(tmp_path / str(step), checkpoint=tmp_path / str(step) / "last.ckpt").equal(expected)


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*smaller than the logging")
def test_loaders_of_ones_own_may_mix_tasks_in_validation_too():
    x, y = torch.randn(90, 64), torch.randint(10, (90,))
    task = torch.arange(90) % 3
    loader = DataLoader(TensorDataset(x, y, task), batch_size=20)
    module = MultiTaskClassifier(ActiveDendriteClassifier(64, [16], 10, max_tasks=3, context="one-hot"))
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(module, loader, loader)
    right = module.model.eval()(x, task=task).argmax(1) == y
    for j in range(3):
        expected = float(right[task == j].float().mean())
        assert trainer.callback_metrics[f"val/task_{j}/acc"] == pytest.approx(expected, abs=1e-6)
    assert module.context.counts.tolist() == [30, 30, 30]


def test_what_is_refused():
    with pytest.raises(
        TypeError, match=r"Expected batches of tensors \(x, y, task\), but got \(Tensor, Tensor\)\. .* use Con"
    ):
        fit(MultiTaskClassifier(Plain()), PermutedTasks("digits", 1, epochs_per_task=1))
    with pytest.raises(
        TypeError, match=r"batches of tensors \(x, y\), but got \(Tensor, Tensor, Tensor\)\. .* MultiTaskC"
    ):
        fit(ContinualClassifier(Plain()), mixed(1))
    with pytest.raises(
        ValueError, match="to be a context of given tasks, but got 'ClusterContext'.*ContinualClassifier"
    ):
        model = ActiveDendriteMLP(64, [32], 10, context_dim=64, num_segments=2)
        MultiTaskClassifier(model, context=ClusterContext(64, 3), context_at_test="inferred")
    with pytest.raises(ValueError, match="datamodule of at most 2 tasks, .* but got 3"):
        fit(MultiTaskClassifier(ActiveDendriteClassifier(64, [8], 10, max_tasks=2)), mixed())
    with pytest.raises(ValueError, match="to be 'given' or 'constant' for a model that takes `task`, .* 'inferred'"):
        MultiTaskClassifier(Embedding(), context_at_test="inferred")
    with pytest.raises(ValueError, match="with max_epochs or max_steps for lr_schedule='cosine'"):
        loader = mixed(1).train_dataloader()
        Trainer(max_epochs=-1, limit_val_batches=1, **QUIET).fit(
            MultiTaskClassifier(Plain(), lr_schedule="cosine"), loader, loader
        )


def test_a_matrix_of_tasks_that_are_learned_at_once_has_one_row(tmp_path):
    """No task is trained on, and none can be counted by epochs: all are the first."""
    module, data = MultiTaskClassifier(Embedding()), mixed()
    options = {**data.trainer_kwargs(), **QUIET, "default_root_dir": tmp_path}
    with pytest.raises(ValueError, match=r"MixedTasks.*Where all tasks are learned at once.*, pass `task=0`; where"):
        Trainer(**options, callbacks=[ForgettingLogger()]).fit(module, data)
    log = ForgettingLogger(task=0, verbose=False)
    Trainer(**options, callbacks=[log]).fit(module, data)
    data.setup()
    for task in range(3):
        x, y = (torch.cat(part) for part in zip(*data.task_loader(task, "val"), strict=True))
        with torch.no_grad():
            right = (module(x, torch.full_like(y, task)).argmax(1) == y).float().mean()
        assert log.matrix[0, task].item() == pytest.approx(right.item(), abs=1e-6)
