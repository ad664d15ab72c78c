"""ContinualClassifier: any classifier on any stream of tasks, by Lightning's own Trainer."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.contexts import OneHotContext, PrototypeContext
from dendrite_zoo.lightning_modules import ContinualClassifier, evaluate_contexts
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP, RidgeClassifier
from dendrite_zoo.streams import PermutedTasks, SplitTasks, TaskSequence

TINY = {"max_tasks": 3, "num_segments": 2}


def fit(module, stream, ckpt_path=None, **kwargs):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    trainer = Trainer(**stream.trainer_kwargs(), **{**quiet, "enable_model_summary": False, **kwargs})
    trainer.fit(module, stream, ckpt_path=ckpt_path)
    return trainer


def test_learns_two_tasks_and_finds_their_contexts():
    torch.manual_seed(0)
    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=6, batch_size=64)
    model = ActiveDendriteClassifier(64, [256, 256], 10, max_tasks=2, num_segments=4)
    trainer = fit(ContinualClassifier(model, lr=2e-3), stream)
    assert trainer.callback_metrics["val/task_0/acc"] > 0.75 and trainer.callback_metrics["val/task_1/acc"] > 0.85
    assert trainer.callback_metrics["val/task_0/context_acc"] > 0.95
    assert "val/acc" not in trainer.callback_metrics and model.num_tasks == 2
    x = torch.cat([x for x, _ in stream.task_loader(1)])
    torch.testing.assert_close(model.context.prototypes[1], x.mean(0), atol=1e-5, rtol=0)
    scores = evaluate_contexts(model.eval(), stream, accelerator="cpu", enable_progress_bar=False)
    assert not model.training, "the model is the caller's"
    assert scores["inferred"] == [float(trainer.callback_metrics[f"val/task_{j}/acc"]) for j in range(2)]
    assert scores["constant"][0] == scores["given"][0] and scores["constant"][1] < scores["given"][1]


class Plain(nn.Sequential):
    """A stranger's network."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.mark.parametrize(
    "make, context, at_test",
    [
        (Plain, None, "inferred"),
        (
            lambda: ActiveDendriteMLP(64, [32], 10, context_dim=64, num_segments=2),
            PrototypeContext(64, 3),
            "inferred",
        ),
        (lambda: ActiveDendriteMLP(64, [32], 10, context_dim=3, num_segments=2), OneHotContext(3), "given"),
        (lambda: ActiveDendriteClassifier(64, [32], 10, context="one-hot", **TINY), None, "given"),
        (lambda: ActiveDendriteClassifier(64, [32], 10, **TINY), None, "constant"),
    ],
)
def test_takes_any_module_that_maps_x_or_x_and_context(make, context, at_test):
    module = ContinualClassifier(make(), context=context, context_at_test=at_test)
    trainer = fit(module, PermutedTasks("digits", num_tasks=2, epochs_per_task=1), limit_train_batches=2)
    assert {"train/loss", "val/task_0/acc", "val/task_1/acc"} <= set(trainer.callback_metrics)
    assert ("val/task_1/context_acc" in trainer.callback_metrics) == (at_test == "inferred" and context is not None)


class Spy(torch.optim.Adam):
    """Adam that notes how much it remembers at each step."""

    remembered: list[int]

    def step(self, closure=None):
        self.remembered.append(len(self.state))
        return super().step(closure)


@pytest.mark.parametrize("reset", [True, False])
def test_the_optimizer_starts_anew_with_each_task(reset):
    Spy.remembered = []
    module = ContinualClassifier(Plain(), optimizer=lambda p: Spy(p, lr=1e-3), reset_optimizer=reset)
    fit(module, PermutedTasks("digits", num_tasks=2, epochs_per_task=2), limit_train_batches=2)
    assert Spy.remembered == [0, 4, 4, 4, 0 if reset else 4, 4, 4, 4]


class LearningRates(Callback):
    """Notes the learning rate of each step."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def _half_a_cosine(step, steps):
    return (1 + math.cos(math.pi * step / steps)) / 2


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("schedule", ["cosine", "inverse"])
@pytest.mark.parametrize("context", ["prototype", "clusters"])
def test_the_learning_rate_falls_within_each_task_and_a_resume_goes_on(tmp_path, schedule, context):
    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=3, batch_size=256)
    size = {**TINY, "context": context}

    def module():
        return ContinualClassifier(ActiveDendriteClassifier(64, [8], 10, **size), lr=0.1, lr_schedule=schedule)

    whole, first, rest = LearningRates(), LearningRates(), LearningRates()
    fit(module(), stream, callbacks=[whole])
    steps = len(stream.task_loader(0)) * 3
    factors = [_half_a_cosine(step, steps) if schedule == "cosine" else 1 / (1 + step / 200) for step in range(steps)]
    assert whole.rates == pytest.approx(2 * [0.1 * factor for factor in factors])

    def saving():
        return ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1)

    fit(module(), stream, callbacks=[first, saving()], enable_checkpointing=True)
    checkpoint = next(tmp_path.glob("*step=7.ckpt"))
    fit(module(), stream, ckpt_path=checkpoint, callbacks=[rest, saving()], enable_checkpointing=True)
    assert first.rates[:7] + rest.rates == whole.rates


def test_without_epochs_per_task_the_learning_rate_falls_with_the_batches_of_the_task():
    x, y = torch.randn(40, 64), torch.randint(0, 10, (40,))
    loader, rates = DataLoader(TensorDataset(x, y), batch_size=4), LearningRates()
    module = ContinualClassifier(Plain(), lr=0.1, lr_schedule="inverse")
    for task in (0, 1, 0):
        module.current_task = task
        Trainer(max_epochs=1, callbacks=[rates], logger=False, enable_checkpointing=False, accelerator="cpu").fit(
            module, loader, loader
        )
    once = [0.1 / (1 + step / 200) for step in range(20)]
    assert rates.rates == pytest.approx(once[:10] + once[:10] + once[10:])


def test_label_smoothing_enters_the_training_loss_alone():
    module = ContinualClassifier(Plain(), label_smoothing=0.2)
    module.log = lambda *args, **kwargs: None
    x, y = torch.randn(5, 64), torch.tensor([0, 3, 9, 1, 1])
    log_p = module.model(x).log_softmax(1)
    by_hand = -(0.8 * log_p[range(5), y] + 0.2 * log_p.mean(1)).mean()
    torch.testing.assert_close(module.training_step((x, y), 0), by_hand)


def test_configure_optimizers_needs_no_trainer():
    optimizer = ContinualClassifier(Plain(), lr=0.25).configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[0]["lr"] == 0.25


def test_a_checkpoint_holds_the_config_and_loads_with_weights_only(tmp_path):
    model = ActiveDendriteClassifier(64, [32], 10, **TINY)
    module = ContinualClassifier(model, lr=0.01)
    trainer = fit(module, PermutedTasks("digits", num_tasks=2, epochs_per_task=1), limit_train_batches=1)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    again = ContinualClassifier.load_from_checkpoint(path, weights_only=True)
    x = torch.randn(3, 64)
    assert again.hparams["lr"] == 0.01 and again.model.num_tasks == 2
    assert torch.equal(again.eval()(x), module.eval()(x))
    assert torch.load(path, weights_only=True)["task_boundary"] == {"task": 1}
    other = ContinualClassifier.load_from_checkpoint(path, weights_only=True, model=model)
    assert other.model is model


def test_predicts_classes():
    module = ContinualClassifier(ActiveDendriteClassifier(64, [32], 10, **TINY))
    assert module.predict_step(torch.randn(5, 64), 0).shape == (5,)
    assert module.predict_step((torch.randn(5, 64), torch.zeros(5)), 0).shape == (5,)


def test_predicts_in_the_context_that_a_test_sees():
    model = ActiveDendriteClassifier(64, [32], 10, **TINY, context="one-hot")
    given, constant = (ContinualClassifier(model, context_at_test=way) for way in ("given", "constant"))
    x = torch.randn(50, 64)
    assert given.predict_step(x, 0, 2).equal(model(x, task=2).argmax(1))
    assert constant.predict_step(x, 0, 2).equal(model(x, task=0).argmax(1))


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"Expected a `context` for TwoArguments, whose forward takes \(x, c\), .*context="
    ):

        class TwoArguments(nn.Module):
            def forward(self, x, c):
                return x

        ContinualClassifier(TwoArguments())
    with pytest.raises(
        ValueError, match="`context_at_test` to be one of 'inferred', 'given', 'constant', but got 'guessed'"
    ):
        ContinualClassifier(Plain(), context_at_test="guessed")
    with pytest.raises(ValueError, match="to be 'given' or 'constant' for OneHotContext, which cannot be inferred"):
        ContinualClassifier(Plain(), context=OneHotContext(2))
    with pytest.raises(ValueError, match="has a context of its own; leave context= out"):
        ContinualClassifier(ActiveDendriteClassifier(64, [8], 10, **TINY), context=OneHotContext(2))
    with pytest.raises(ValueError, match="datamodule of at most 3 tasks, .* but got 5. .* max_tasks=5"):
        fit(
            ContinualClassifier(ActiveDendriteClassifier(64, [8], 10, **TINY)),
            PermutedTasks("digits", num_tasks=5, epochs_per_task=1),
        )
    with pytest.raises(ValueError, match="datamodule of at most 4 classes, .* but got 10. .* num_classes=10"):
        fit(
            ContinualClassifier(ActiveDendriteClassifier(64, [8], 4, **TINY)),
            PermutedTasks("digits", num_tasks=2, epochs_per_task=1),
        )
    with pytest.raises(ValueError, match="'permuted-digit'.* 'permuted-digits'"):
        ContinualClassifier("permuted-digit")


def test_annealing_needs_the_length_of_a_task_and_smoothing_a_share():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 64), torch.zeros(8).long()))
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False,
                      enable_model_summary=False, accelerator="cpu", limit_val_batches=0)  # fmt: skip
    with pytest.raises(ValueError, match="epochs_per_task for lr_schedule='cosine'"):
        trainer.fit(ContinualClassifier(Plain(), lr_schedule="cosine"), loader, loader)
    with pytest.raises(ValueError, match="Expected `label_smoothing` to be a number from 0 to below 1, but got 1.5"):
        ContinualClassifier(Plain(), label_smoothing=1.5)
    for lr in (-1.0, 0.0, "a", float("nan")):
        with pytest.raises(ValueError, match=f"Expected `lr` to be a number above 0, but got {lr!r}"):
            ContinualClassifier(Plain(), lr=lr)


def test_what_a_model_knows_is_not_overwritten_when_the_task_is_unknown():
    model = ActiveDendriteClassifier(64, [8], 10, **TINY)
    model.context.start_task(0, [torch.rand(4, 64)])
    loader = PermutedTasks("digits", num_tasks=1, epochs_per_task=1).task_loader(0)
    with pytest.raises(ValueError, match="datamodule with a current_task, for the model knows 1 tasks"):
        Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False).fit(
            ContinualClassifier(model), loader, loader
        )


def test_a_checkpoint_imports_nothing(tmp_path):
    module = ContinualClassifier(Plain())
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["model"] = {"class_path": "antigravity.Fly", "init_args": {}}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="There is no class antigravity.Fly"):
        ContinualClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert "antigravity" not in sys.modules


def test_labels_out_of_range_and_models_that_are_none():
    stream = PermutedTasks("digits", num_tasks=1, epochs_per_task=1)
    with pytest.raises(
        ValueError, match=r"Expected labels from 0 to 4 for a model of 5 classes, but got labels from 0 to 9"
    ):
        fit(ContinualClassifier(nn.Linear(64, 5)), stream)
    with pytest.raises(TypeError, match="Expected `model` to be of type Module, .* but got int"):
        ContinualClassifier(5)


class Rows(LightningDataModule):
    """Somebody's data, normalised on their way to the device; the loader is kept, with its workers."""

    def __init__(self, **kwargs):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(64, 8, generator=generator) + 5, torch.randint(3, (64,), generator=generator)
        self.loader = DataLoader(TensorDataset(x, y), batch_size=16, **kwargs)

    def train_dataloader(self):
        return self.loader

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] - 5, batch[1]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] / 10, batch[1]


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*smaller than the logging")
@pytest.mark.parametrize("at_test", ["inferred", "given"])
def test_one_loader_is_that_of_the_current_task(at_test, tmp_path):
    class OneByOne(Rows):
        @property
        def current_task(self):
            return self.trainer.current_epoch

        val_dataloader = Rows.train_dataloader

    log = ForgettingLogger("val/acc", folder=tmp_path, pictures=False)
    module = ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, **TINY), context_at_test=at_test)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    kwargs = {"max_epochs": 3, "num_sanity_val_steps": 0, "enable_model_summary": False, "callbacks": [log]}
    Trainer(**quiet, **kwargs).fit(module, OneByOne())
    assert log.matrix.isfinite().tolist() == torch.eye(3, dtype=torch.bool).tolist()


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*smaller than the logging")
@pytest.mark.parametrize("by", ["module", "logger", "epochs"])
def test_without_a_stream_the_task_is_that_of_the_module_or_of_a_callback(by, tmp_path):
    """Three loaders, three contexts: each the mean of its own loader's rows."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(40, 8, generator=generator) + 3 * task for task in range(3)]
    loaders = [DataLoader(TensorDataset(x, torch.arange(40) % 3), batch_size=20) for x in rows]

    class ByEpoch(LightningDataModule):
        def train_dataloader(self):
            return loaders[self.trainer.current_epoch // 2]

        def val_dataloader(self):
            return loaders

    module = ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, **TINY))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0}
    log = ForgettingLogger("val/acc", folder=tmp_path, epochs_per_task=2 if by == "epochs" else None, pictures=False)
    if by == "epochs":
        Trainer(max_epochs=6, reload_dataloaders_every_n_epochs=2, callbacks=[log], **quiet).fit(module, ByEpoch())
    for task, loader in enumerate(loaders if by != "epochs" else ()):
        setattr(*((module, "current_task") if by == "module" else (log, "task")), task)
        Trainer(max_epochs=2, callbacks=[log], **quiet).fit(module, loader, loaders)
    torch.testing.assert_close(module.context.prototypes, torch.stack([x.mean(0) for x in rows]), atol=1e-5, rtol=0)
    assert log.matrix.isfinite().all() and log.matrix.shape == (3, 3)


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*no `val_dataloader`|.*smaller than the logging")
def test_data_without_end_are_seen_as_far_as_they_are_trained_on():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.ones(8), 0

    module = ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, **TINY))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, limit_train_batches=3, enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(Endless(), batch_size=4))
    assert module.context.counts[0] == 12 and trainer.global_step == 3
    module = ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, **TINY))
    trainer = Trainer(max_steps=2, accumulate_grad_batches=2, enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(Endless(), batch_size=4))
    assert module.context.counts[0] == 16 and trainer.global_step == 2


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*no `val_dataloader`")
def test_data_that_can_be_read_but_once_are_refused():
    class Once(IterableDataset):
        def __init__(self):
            self.rows = iter([(torch.ones(8), 0)] * 20)

        def __iter__(self):
            return self.rows

    def rows():
        yield from [(torch.ones(4, 8), torch.zeros(4, dtype=torch.long))] * 5

    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    for loader in (DataLoader(Once(), batch_size=4), rows()):
        module = ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, **TINY))
        trainer = Trainer(max_epochs=1, enable_model_summary=False, limit_val_batches=0, **quiet)
        with pytest.raises(ValueError, match="training data that can be read more than once.*Let __iter__ begin anew"):
            trainer.fit(module, loader)


def test_images_of_channels_last_are_no_images_of_channels_first():
    x, y = np.random.default_rng(0).integers(256, size=(20, 8, 8, 3), dtype="uint8"), np.arange(20) % 2
    stream = TaskSequence([(x, y)], epochs_per_task=1)
    module = ContinualClassifier(RidgeClassifier((3, 8, 8), num_classes=2, random_features=32))
    trainer = Trainer(**stream.trainer_kwargs(), logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\), .*, but got \(8, 8, 3\). Pass x.permute\(0, 3, 1, 2\)"):
        trainer.fit(module, stream)


@pytest.mark.parametrize("epochs", [None, 2])
def test_a_model_that_learns_in_one_pass_gets_one_where_nobody_says_otherwise(epochs):
    stream = SplitTasks("digits", num_tasks=5, epochs_per_task=epochs)
    trainer = Trainer(**stream.trainer_kwargs(), logger=False, enable_checkpointing=False, accelerator="cpu")
    assert trainer.max_epochs == (500 if epochs is None else 10)
    module = ContinualClassifier(RidgeClassifier((8, 8), num_classes=10, random_features=64))
    trainer.fit(module, stream)
    assert trainer.current_epoch == trainer.max_epochs == 5 * stream.epochs_per_task == (epochs or 1) * 5
    assert module.model.head.counts.gt(0).all()


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*no `val_dataloader`|.*smaller than the logging")
@pytest.mark.parametrize("kwargs", [{}, {"num_workers": 1, "persistent_workers": True}], ids=["plain", "persistent"])
def test_a_prototype_is_the_mean_of_what_the_model_sees_and_no_batch_is_lost(kwargs):
    class Watched(ContinualClassifier):
        seen = ()

        def training_step(self, batch, batch_idx):
            self.seen = (*self.seen, batch[0].clone())
            return super().training_step(batch, batch_idx)

    module, data = Watched(ActiveDendriteClassifier(8, [16], 3, **TINY)), Rows(**kwargs)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    Trainer(max_epochs=2, limit_val_batches=0, enable_model_summary=False, **quiet).fit(module, datamodule=data)
    assert len(module.seen) == 8
    torch.testing.assert_close(module.context.prototypes[0], torch.cat(module.seen).mean(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_contexts_are_evaluated_in_the_precision_of_the_weights(precision):
    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=1)
    model = ActiveDendriteClassifier(64, [16], 10, **TINY).to(precision)
    for task in range(2):
        model.context.start_task(task, (x.to(precision) for x, _ in stream.task_loader(task)))
    scores = evaluate_contexts(model, stream, accelerator="cpu", enable_progress_bar=False)
    assert min(scores["context"]) > 0.9 and len(scores["inferred"]) == 2
