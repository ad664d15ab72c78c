"""What the modules share: the Trainer's clipping of sparse gradients, and names of earlier versions in checkpoints."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dendrite_zoo
from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import BehaviorCloning, ContinualClassifier, MultiTaskSAC, ReplayClassifier
from dendrite_zoo.lightning_modules.new_tasks import Thaw
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy
from dendrite_zoo.streams import PermutedTasks, TaskSequence
from tests.lightning_modules.quiet import QUIET, fit
from tests.models.adapters.networks import set_few_random_features


def classifier(kind=ContinualClassifier, **arguments):
    return kind(ActiveDendriteClassifier(8, [8], 3, max_tasks=2, num_segments=2), **arguments)


def policy():
    return ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8])


def checkpoint_of(module, path, **renamed):
    """A checkpoint with hyperparameters under the names of an earlier version."""
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=False)
    checkpoint = torch.load(path, weights_only=True)
    for new, old in renamed.items():
        checkpoint["hyper_parameters"][old] = checkpoint["hyper_parameters"].pop(new)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    "make, new, old",
    [
        (lambda: BehaviorCloning(policy()), "ema_decay", "average"),
        (lambda: MultiTaskSAC(policy()), "kl_coef", "anchor"),
        (lambda: MultiTaskSAC(policy()), "init_alpha", "entropy_coefficient"),
        (lambda: classifier(), "lr_schedule", "anneal"),
        (lambda: classifier(ReplayClassifier, buffer_size=5), "buffer_size", "memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_with_an_old_name_is_refused_with_the_new_one(make, new, old, tmp_path):
    module = make()
    assert new in module.hparams
    kind, path = type(module), checkpoint_of(module, tmp_path / "a.ckpt")
    kind.load_from_checkpoint(path, weights_only=True)
    path = checkpoint_of(module, tmp_path / "b.ckpt", **{new: old})
    with pytest.raises((TypeError, ValueError), match=f"`{old}` is now `{new}`.$"):
        kind.load_from_checkpoint(path, weights_only=True)
    with pytest.raises(TypeError, match=f"^`{old}` is now `{new}`.$"):
        kind(module.model, **{old: 1})


def test_so_is_one_that_a_fit_would_go_on_from(tmp_path):
    stream = PermutedTasks("digits", num_tasks=1, epochs_per_task=1)
    path = checkpoint_of(ContinualClassifier(torch.nn.Linear(64, 10)), tmp_path / "a.ckpt", lr_schedule="anneal")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(**stream.trainer_kwargs(), **quiet, accelerator="cpu")
    with pytest.raises(ValueError, match="^The checkpoint is of an earlier version: `anneal` is now `lr_schedule`.$"):
        trainer.fit(ContinualClassifier(torch.nn.Linear(64, 10)), stream, ckpt_path=path, weights_only=True)


def test_gradients_of_segments_are_clipped_in_every_module():
    """Torch clips dense gradients alone. By hand: all gradients as one vector, which is scaled to length 1."""
    module = BehaviorCloning(ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8], winners="activation"))
    optimizer = module.configure_optimizers()
    rows = torch.randn(16, 39), torch.rand(16, 4) * 2 - 1, torch.zeros(16, dtype=torch.long)
    (100 * module.loss_of(rows)).backward()
    assert any(p.grad.is_sparse for p in module.parameters() if p.grad is not None)
    before = [p.grad.to_dense().clone() for p in module.parameters() if p.grad is not None]
    length = torch.cat([gradient.flatten() for gradient in before]).norm()
    assert length > 1
    module.configure_gradient_clipping(optimizer, 1.0, "norm")
    after = [p.grad.to_dense() for p in module.parameters() if p.grad is not None]
    for now, then in zip(after, before, strict=True):
        torch.testing.assert_close(now, then / length, rtol=1e-4, atol=1e-7)


def test_validating_and_fitting_with_one_trainer_says_nothing_of_callbacks_in_the_way(caplog):
    """What lets the network learn again after an exception is there once, also where a Trainer runs twice."""
    module = ContinualClassifier(dendrite_zoo.load("permuted-digits"), learn="new")
    stream = PermutedTasks("digits", num_tasks=11, first_task=10, epochs_per_task=1)
    trainer = Trainer(**stream.trainer_kwargs(), limit_train_batches=1, limit_val_batches=1, **QUIET)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        trainer.validate(module, stream, verbose=False)
        trainer.fit(module, stream)
    assert "override" not in caplog.text and sum(isinstance(one, Thaw) for one in trainer.callbacks) == 1


class Stops(Callback):
    """Raises in a batch, before it is trained on."""

    def __init__(self, batch):
        self.batch = batch

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step >= self.batch:
            raise RuntimeError("stopped")


@pytest.mark.parametrize("context, learn", [("prototype", "all"), ("ridge", "all"), ("one-hot", "new")])
def test_a_task_of_which_no_batch_was_trained_is_not_learned(context, learn):
    way = "given" if context == "one-hot" else "inferred"
    model = ActiveDendriteClassifier(64, [16], 10, max_tasks=3, context=context)
    module = ContinualClassifier(model, learn=learn, context_at_test=way)
    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=1)
    before = {name: buffer.clone() for name, buffer in model.context.named_buffers()}
    log = ForgettingLogger("val/acc", verbose=False)
    trained = {"limit_train_batches": 2, "callbacks": [log, Stops(0)]}
    for _ in range(2):  # the logger does not take the second fit for one of the next task
        with pytest.raises(RuntimeError, match="stopped"):
            fit(module, stream, **trained)
        assert model.num_tasks == 0 and module.boundary.task is None
        assert all(buffer.equal(before[name]) for name, buffer in model.context.named_buffers())
    with pytest.raises(RuntimeError, match="stopped"):
        fit(module, stream, **trained | {"callbacks": [ForgettingLogger("val/acc", verbose=False), Stops(1)]})
    assert model.num_tasks == 1 and module.boundary.task == 0, "one batch was trained"


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*number of training batches")
def test_pixels_of_a_plain_loader_are_a_warning():
    x, y = torch.arange(256.0).repeat(8, 1), torch.arange(8) % 2
    for scale in (255, 1):
        loader = DataLoader(TensorDataset(x / scale, y), batch_size=4)
        trainer = Trainer(max_epochs=1, **QUIET)
        expected = "floats from 0 to 255. If they are pixels, divide them by 255"
        with pytest.warns(UserWarning, match=expected) if scale == 1 else nullcontext() as said:
            trainer.fit(ContinualClassifier(nn.Linear(256, 2)), loader, loader)
        assert scale == 255 or len([one for one in said if "pixels" in str(one.message)]) == 1


@pytest.mark.parametrize(
    ("scale", "network", "said"),
    [
        (700.0, nn.Linear(4, 2), "The inputs are of about 7.* in column 2: .*x - mean"),
        (1e-3, nn.Linear(4, 2), "The inputs are 0.001 at most: "),
        (700.0, nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)), None),
        (5.0, nn.Linear(4, 2), None),
    ],
)
def test_columns_that_a_network_learns_badly_from_are_a_warning(scale, network, said):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 1e-3
    x[:, 2] = scale
    stream = TaskSequence([(x, torch.arange(40) % 2)], epochs_per_task=1)
    with pytest.warns(UserWarning, match=said) if said else nullcontext():
        fit(ContinualClassifier(network), stream)


def test_labels_that_do_not_begin_with_0_are_refused_with_what_to_do():
    stream = TaskSequence([(torch.randn(40, 4), 1 + torch.arange(40) % 3)], epochs_per_task=1)
    with pytest.raises(ValueError, match=r"at most 3 classes.*but got 4.*do not begin with 0.*numpy.unique"):
        fit(ContinualClassifier(ActiveDendriteClassifier(4, [8], 3, max_tasks=1)), stream)


def test_a_trainer_that_goes_on_with_another_module_says_what_that_raises():
    trainer = Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, **QUIET)
    loader = PermutedTasks("digits", num_tasks=1, epochs_per_task=1).task_loader(0)
    trainer.fit(ContinualClassifier(nn.Linear(64, 10)), loader, loader)

    class Other(LightningModule):
        def training_step(self, batch):
            raise RuntimeError("of its own")

        def configure_optimizers(self):
            return torch.optim.SGD([nn.Parameter(torch.zeros(1))])

    trainer.fit_loop.max_epochs = 2
    with pytest.raises(RuntimeError, match="of its own"):
        trainer.fit(Other(), loader)


def test_dendrites_on_a_backbone_do_not_count_a_task_of_which_no_batch_was_trained(monkeypatch):
    set_few_random_features(monkeypatch.setattr)
    network = nn.Sequential(nn.Linear(64, 8), nn.ReLU())
    model = dendrite_zoo.add_dendrites(network, layers="0", num_classes=10, max_tasks=3)
    module, stream = ContinualClassifier(model), PermutedTasks("digits", num_tasks=1, epochs_per_task=1)
    fit(module, stream, limit_train_batches=2)
    known = model.column.clone()
    stream = PermutedTasks("digits", num_tasks=2, first_task=1, epochs_per_task=1)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(module, stream, callbacks=[Stops(0)])
    assert model.num_tasks == 1 and model.learning == 0 and model.column.equal(known) and model.columns[0].equal(known)
    fit(module, stream, limit_train_batches=2)
    assert model.num_tasks == 2 and model.columns[0].equal(known)


@pytest.mark.filterwarnings("error:This fit trained nothing")
@pytest.mark.parametrize("limit", [{"max_epochs": 1}, {"max_epochs": -1, "max_steps": 2}])
def test_a_trainer_that_has_done_its_epochs_is_said(limit, tmp_path):
    """Such as where one skill after another is given to the same Trainer: the second would not be trained."""
    rows = TensorDataset(torch.rand(8, 39), torch.rand(8, 4), torch.zeros(8).long())
    loader = DataLoader(rows, batch_size=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**limit, **quiet, enable_checkpointing=False, num_sanity_val_steps=0)
    trainer.validate(BehaviorCloning(policy(), warmup=0), loader, verbose=False)
    trainer.fit(BehaviorCloning(policy(), warmup=0), loader, loader)
    trainer.validate(BehaviorCloning(policy(), warmup=0), loader, verbose=False)
    with pytest.raises(
        UserWarning, match="trained nothing: its Trainer had done all .* Make a new Trainer for each fit"
    ):
        trainer.fit(BehaviorCloning(policy(), warmup=0), loader, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer.fit(BehaviorCloning(policy(), warmup=0), loader, loader, ckpt_path=tmp_path / "last.ckpt")
