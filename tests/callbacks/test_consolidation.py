"""Consolidation by callback is consolidation in the loss: any module, any way of optimizing, across crashes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import ElasticWeightConsolidation, SynapticIntelligence
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.streams import PermutedTasks
from tests.callbacks.strangers import trainer
from tests.processes import two_processes
from tests.training import Crash, CrashAt, data

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*torch.distributed|.*Gloo|.*destroy_process_group"),
    pytest.mark.filterwarnings("ignore:.*Experiment logs directory|.*Checkpoint directory"),
]
TASKS, BATCHES, STRENGTH = 3, 4, 2.0
flat = nn.utils.parameters_to_vector


class Net(LightningModule):
    """Somebody's classifier; ``way`` is how it optimizes."""

    def __init__(self, way="automatic", clip=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Dropout(0.0), nn.Linear(12, 3))
        self.way, self.clip = way, clip
        self.automatic_optimization = way == "automatic"

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        if self.way == "automatic":
            return loss
        optimizers = self.optimizers(use_pl_optimizer=self.way != "past the callbacks")
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return None

    def on_before_optimizer_step(self, optimizer):
        if self.clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        """Nothing is measured here."""

    def configure_optimizers(self):
        if self.way == "two optimizers":
            return [torch.optim.Adam(layer.parameters(), lr=0.02) for layer in (self.net[0], self.net[3])]
        return torch.optim.Adam(self.parameters(), lr=0.02)


def stream(batch_size=4):
    return PermutedTasks(data(16), TASKS, batch_size=batch_size)


def fit(folder, callback, net=None, crash=None, **kwargs):
    """Train on three tasks; the module and the callback as they are at the end."""
    net = net or Net()
    callbacks = [callback, *([CrashAt(*crash)] if crash else [])]
    quiet = {"limit_val_batches": 0, "enable_checkpointing": "enable_checkpointing" in kwargs}
    if kwargs.pop("enable_checkpointing", False):
        callbacks.insert(0, ModelCheckpoint(Path(folder) / "checkpoints", every_n_train_steps=1, save_last=True))
    last = Path(folder) / "checkpoints" / "last.ckpt"
    run = trainer(folder, callbacks, epochs=TASKS, **{**quiet, **kwargs})
    run.fit(net, stream(), ckpt_path=last if last.exists() else None, weights_only=True)
    return net, callback


def outcome(net, callback):
    state = callback.regularizer.state_dict()
    tensors = [tensor for name in ("importance", "anchor") for tensor in state[name].values()]
    return torch.cat([t.detach().flatten() for t in (*net.parameters(), *tensors)])


def naive(kind, accumulate=1, clip=None, anew=False):
    """The same in plain PyTorch: the penalty stands in the loss, the task's gradient is taken apart from it.

    With ``anew``, each task has an optimizer of its own, as with one fit a task.
    """
    net, tasks = Net(), stream()
    parameters = dict(net.named_parameters())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    importance = {name: torch.zeros_like(p) for name, p in parameters.items()}
    kappa = STRENGTH if kind is SynapticIntelligence else STRENGTH / 2
    anchors = []
    for task in range(TASKS):
        if anew:
            optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        start = {name: p.detach().clone() for name, p in parameters.items()}
        path = {name: torch.zeros_like(p) for name, p in parameters.items()}
        batches = list(tasks.task_loader(task, epoch=0))
        for first in range(0, BATCHES, accumulate):
            group = batches[first : first + accumulate]
            loss = sum(F.cross_entropy(net(x), y) for x, y in group) / accumulate
            gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
            for weights, anchor in anchors if kind is ElasticWeightConsolidation else [(importance, start)]:
                loss = loss + kappa * sum((weights[n] * (p - anchor[n]) ** 2).sum() for n, p in parameters.items())
            before = {name: p.detach().clone() for name, p in parameters.items()}
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
                path[name] -= gradient * (p.detach() - before[name])
        if task < TASKS - 1 and kind is SynapticIntelligence:
            for name, p in parameters.items():
                importance[name] += path[name].clamp(min=0) / ((p.detach() - start[name]) ** 2 + 0.1)
        elif task < TASKS - 1:
            samples = [(x[i : i + 1], y[i : i + 1]) for x, y in tasks.task_loader(task) for i in range(len(x))]
            fisher = {name: torch.zeros_like(p) for name, p in parameters.items()}
            for x, y in samples:
                gradients = torch.autograd.grad(F.cross_entropy(net(x), y), list(parameters.values()))
                for name, gradient in zip(parameters, gradients, strict=True):
                    fisher[name] += gradient.square() / len(samples)
            anchors.append((fisher, {name: p.detach().clone() for name, p in parameters.items()}))
    return flat(net.parameters()).detach()


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
@pytest.mark.parametrize(
    "net, kwargs, plain",
    [
        ({}, {}, {}),
        ({}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.3}, {"accumulate": 2, "clip": 0.3}),
        ({"way": "manual", "clip": 0.3}, {}, {"clip": 0.3}),
        ({"way": "two optimizers"}, {}, {}),
    ],
    ids=["plain", "accumulated and clipped", "manual", "two optimizers"],
)
def test_is_what_the_penalty_in_the_loss_gives(tmp_path, kind, net, kwargs, plain):
    trained, callback = fit(tmp_path, kind(STRENGTH), Net(**net), **kwargs)
    torch.testing.assert_close(flat(trained.parameters()), naive(kind, **plain), rtol=1e-4, atol=1e-5)
    assert callback.regularizer.num_tasks == TASKS - 1
    without, _ = fit(tmp_path, kind(0.0), Net(**net), **kwargs)
    assert (flat(trained.parameters()) - flat(without.parameters())).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_steps_that_go_past_the_callbacks_are_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"the weights of Net changed by none .*`self.optimizers\(\)` gives"):
        fit(tmp_path, kind(STRENGTH), Net("past the callbacks"))


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
@pytest.mark.parametrize("kwargs", [{}, {"accumulate_grad_batches": 3}])
def test_a_run_that_crashed_goes_on_to_the_bit(tmp_path, kind, kwargs):
    expected = outcome(*fit(tmp_path / "whole", kind(STRENGTH), **kwargs))
    steps = TASKS * (BATCHES if not kwargs else 2)
    for step in range(1, steps):
        folder = tmp_path / str(step)
        with pytest.raises(Crash):
            fit(folder, kind(STRENGTH), crash=(step,), enable_checkpointing=True, **kwargs)
        resumed = outcome(*fit(folder, kind(STRENGTH), enable_checkpointing=True, **kwargs))
        assert torch.equal(resumed, expected), f"after step {step}"


def test_a_second_fit_goes_on(tmp_path):
    """Importance and the last task's path survive in the callback, as they do in a checkpoint."""
    callback, net = SynapticIntelligence(STRENGTH), Net()
    tasks = stream()
    trainer(tmp_path, [callback], epochs=TASKS, limit_val_batches=0).fit(net, tasks)
    path = {name: tensor.clone() for name, tensor in callback.regularizer.path.items()}
    importance = callback.regularizer.importance["net.0.weight"].clone()
    more = PermutedTasks(data(16), TASKS + 1, first_task=TASKS, batch_size=4)
    trainer(tmp_path, [callback], epochs=1, limit_val_batches=0, limit_train_batches=1).fit(net, more)
    assert path["net.0.weight"].abs().max() > 0 and callback.regularizer.num_tasks == TASKS
    assert (callback.regularizer.importance["net.0.weight"] > importance).any()


@pytest.mark.parametrize("kind", [SynapticIntelligence, partial(ElasticWeightConsolidation, online=True)])
def test_subnetworks_with_sparse_gradients_are_consolidated_as_with_dense_ones(tmp_path, kind, monkeypatch):
    """Where the context chooses the units, gradients hold these alone; dense ones, as under DDP, are zero elsewhere."""
    found = []
    for dense in (False, True):
        if dense:
            monkeypatch.setattr("dendrite_zoo.row_sparse.taken_rows._dense_needed", lambda device: True)
        torch.manual_seed(0)
        model = ActiveDendriteClassifier(
            8, [40, 30], 3, max_tasks=TASKS, num_segments=4, activation_density=0.2, winners="context"
        )
        callback = kind(STRENGTH)
        module = ContinualClassifier(model, optimizer=partial(DendriteAdam, lr=5e-3))
        fit(tmp_path, callback, module)
        assert model.mlp.output.weight.grad.is_sparse != dense
        found.append(outcome(module, callback))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert callback.regularizer.num_tasks == TASKS - 1


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_half_precision_keeps_importance_in_float32(tmp_path, kind):
    expected = fit(tmp_path, kind(STRENGTH))[1].regularizer.importance["net.0.weight"]
    for precision in ("bf16-mixed", "bf16-true"):
        importance = fit(tmp_path, kind(STRENGTH), precision=precision)[1].regularizer.importance["net.0.weight"]
        assert importance.dtype == torch.float32
        assert importance.sum().item() == pytest.approx(expected.sum().item(), rel=0.03)


def half_precision():
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3))


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_changes_nothing(tmp_path, kind, fused):
    """A fused optimizer unscales by itself, after the callbacks have read the gradients."""
    found = []
    for plugins in ([], [half_precision()]):
        net = Net()
        net.configure_optimizers = lambda net=net: torch.optim.Adam(net.parameters(), lr=0.02, fused=fused)
        callback = kind(STRENGTH)
        fit(tmp_path, callback, net, plugins=plugins)
        found.append(outcome(net, callback))
    torch.testing.assert_close(*found, rtol=0.05, atol=0.02)
    assert found[1].isfinite().all()


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_a_gradient_scaler_with_sparse_gradients(tmp_path, kind):
    model = ActiveDendriteClassifier(8, [40], 3, max_tasks=TASKS, num_segments=4, winners="context")
    callback = kind(STRENGTH)
    fit(tmp_path, callback, ContinualClassifier(model), plugins=[half_precision()])
    assert model.mlp.output.weight.grad.is_sparse and callback.regularizer.num_tasks == TASKS - 1


def test_two_callbacks_on_one_fused_optimizer_unscale_it_once(tmp_path):
    net = Net()
    net.configure_optimizers = lambda: torch.optim.Adam(net.parameters(), lr=0.02, fused=True)
    si = SynapticIntelligence(STRENGTH, include="net.0.*")
    ewc = ElasticWeightConsolidation(STRENGTH, include="net.3.*")
    run = trainer(tmp_path, [si, ewc], epochs=TASKS, limit_val_batches=0, plugins=[half_precision()])
    run.fit(net, stream())
    sizes = [max(t.abs().max() for t in callback.regularizer.importance.values()) for callback in (si, ewc)]
    assert all(0 < size < 10 for size in sizes), sizes


def test_skipped_steps_of_a_gradient_scaler_add_nothing(tmp_path):
    class Overflow(Callback):
        def on_after_backward(self, trainer, pl_module):
            for p in pl_module.parameters():
                p.grad.fill_(torch.inf)

    net, callback = Net(), SynapticIntelligence(STRENGTH)
    weights = flat(net.parameters()).detach().clone()
    run = trainer(tmp_path, [Overflow(), callback], epochs=TASKS, limit_val_batches=0, plugins=[half_precision()])
    run.fit(net, stream())
    assert all(tensor.eq(0).all() for tensor in callback.regularizer.path.values())
    assert torch.equal(flat(net.parameters()), weights)


class Thaw(Callback):
    """Lets the first layer learn from task 1 on, and puts another head there in task 2."""

    def on_fit_start(self, trainer, pl_module):
        pl_module.net[0].requires_grad_(False)

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pl_module.net[0].requires_grad_(True)
        if trainer.current_epoch == 2:
            pl_module.net[3] = nn.Linear(12, 3)
            trainer.optimizers[0].add_param_group({"params": list(pl_module.net[3].parameters())})


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_parameters_that_come_later_are_held_too(tmp_path, kind):
    net, callback = Net(), kind(STRENGTH)
    trainer(tmp_path, [callback, Thaw()], epochs=TASKS, limit_val_batches=0).fit(net, stream())
    held = callback.regularizer
    assert all(held.parameters[name] is p for name, p in net.named_parameters())
    assert held.importance["net.0.weight"].any(), "it learned in task 1"
    assert not held.importance["net.3.weight"].any(), "new in task 2, which has not ended"


def test_what_was_frozen_in_between_still_has_its_importance(tmp_path):
    net, callback = Net(), ElasticWeightConsolidation(STRENGTH)
    fit(tmp_path, callback, net)
    before = callback.regularizer.importance["net.0.weight"].clone()
    net.net[0].requires_grad_(False)
    more = PermutedTasks(data(16), TASKS + 2, first_task=TASKS, batch_size=4)
    trainer(tmp_path, [callback], epochs=2, limit_val_batches=0).fit(net, more)
    after = callback.regularizer.importance["net.0.weight"]
    assert callback.regularizer.num_tasks == TASKS + 1 and after.shape == before.shape
    assert torch.equal(after, before), "its Fisher information is not computed, and nothing is forgotten of it"


def test_reading_a_tasks_data_draws_nothing_from_the_generator_of_training(tmp_path):
    ends = []
    reads = ElasticWeightConsolidation(
        0.0, data=lambda trainer, task: loader, task=lambda trainer: trainer.current_epoch
    )
    for callbacks in ([], [reads]):
        net, loader = Net(), DataLoader(TensorDataset(*data(16)[:2]), batch_size=4, shuffle=True)
        torch.manual_seed(1)
        trainer(tmp_path, callbacks, epochs=3, limit_val_batches=0).fit(net, loader, loader)
        ends.append(flat(net.parameters()))
    assert reads.regularizer.num_tasks == 2 and torch.equal(*ends)


class Save(Callback):
    """Writes what this process ends with."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        found = torch.cat([outcome(pl_module, callback) for callback in trainer.callbacks[:2]])
        torch.save(found, self.folder / f"{trainer.world_size}_{trainer.global_rank}.pt")


def sample_by_sample(trainer, task):
    loader = stream(batch_size=trainer.world_size)
    loader.trainer = trainer
    return loader.task_loader(task)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    """One callback holds the first layer, the other the second."""
    for world in (1, 2):
        si = SynapticIntelligence(STRENGTH, include="net.0.*")
        ewc = ElasticWeightConsolidation(STRENGTH, include="net.3.*", data=sample_by_sample)
        processes = two_processes() if world > 1 else {}
        callbacks = [si, ewc, Save(tmp_path)]
        run = trainer(tmp_path, callbacks, epochs=TASKS, limit_val_batches=0, **processes)
        run.fit(net := Net(), stream())
        states = [callback.state_dict()["regularizer"] for callback in (si, ewc)]  # in the process that asks
        held = [(net.parameters(), state["importance"].values(), state["anchor"].values()) for state in states]
        asked = torch.cat([flat(tensors).detach() for parts in held for tensors in parts])
        assert torch.equal(asked, torch.load(tmp_path / f"{world}_0.pt"))
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one, rtol=1e-3, atol=1e-5)


def test_bad_input(tmp_path):
    batches = stream().task_loader(0)
    with pytest.raises(ValueError, match=r"SynapticIntelligence needs the index of the task .*task=lambda"):
        trainer(tmp_path, [SynapticIntelligence()], limit_val_batches=0).fit(Net(), batches, batches)
    with pytest.raises(ValueError, match=r"needs the data of each task .* Pass `data=`"):
        trainer(tmp_path, [ElasticWeightConsolidation()], limit_val_batches=0).fit(Net(), batches, batches)
    both = [SynapticIntelligence(include="net.0.*"), SynapticIntelligence(include="*.weight")]
    with pytest.raises(ValueError, match=r"consolidated by one callback, .* both consolidate 'net.0.weight'"):
        trainer(tmp_path, both, limit_val_batches=0).fit(Net(), stream())
    with pytest.raises(ValueError, match=r"\['conv\*'\] match none"):
        fit(tmp_path, SynapticIntelligence(include="conv*"))
    with pytest.raises(ValueError, match=r"be \(x, y\), but got torch.float32 of .* pass `log_likelihood="):
        fit(tmp_path, ElasticWeightConsolidation(data=lambda trainer, task: [torch.zeros(2, 8)]))
    triples = [(torch.zeros(2, 8), torch.zeros(2).long(), torch.zeros(2))]
    with pytest.raises(ValueError, match=r"Expected a batch to be \(x, y\), but got tuple of 3"):
        fit(tmp_path, ElasticWeightConsolidation(data=lambda trainer, task: triples))
    numbers = [(torch.zeros(2, 8), torch.zeros(2, 1))]
    with pytest.raises(ValueError, match=r"to be class indices, .* but got torch.float32 of shape \(2, 1\)"):
        fit(tmp_path, ElasticWeightConsolidation(data=lambda trainer, task: numbers))
    for bad, message in (
        ({"ewc_lambda": -2.0}, "Expected `ewc_lambda` to be a number of at least 0, but got -2.0"),
        ({"decay": 0.5}, "but got 0.5 and online=False"),
        ({"max_batches": 0}, "Expected `max_batches` to be an integer of at least 1, but got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ElasticWeightConsolidation(**bad)
    with pytest.raises(ValueError, match="Expected `eps` to be a positive number, .* but got 0.0"):
        SynapticIntelligence(eps=0.0)
    _, used = fit(tmp_path, SynapticIntelligence())
    with pytest.raises(ValueError, match="Expected a new SynapticIntelligence for each model"):
        fit(tmp_path, used)


class NoForward(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        """Nothing is measured here."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Two(NoForward):
    """Gives its inputs, too; ``modes`` are those of its calls."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return self.net(x), x


def test_a_module_whose_likelihood_is_not_known_is_refused_early(tmp_path):
    def run(module, **kwargs):
        made = trainer(tmp_path, [ElasticWeightConsolidation(**kwargs)], epochs=TASKS, limit_val_batches=0)
        try:
            made.fit(module, stream())
        finally:
            module.steps = made.global_step

    module = NoForward()
    with pytest.raises(ValueError, match="NoForward does not define `forward`. Or pass `log_likelihood="):
        run(module)
    assert module.steps == 0
    run(module, log_likelihood=lambda module, batch: -F.cross_entropy(module.net(batch[0]), batch[1], reduction="none"))
    assert module.steps == TASKS * BATCHES

    for batches, steps in ((None, 1), (lambda trainer, task: stream().task_loader(task), BATCHES)):
        module = Two()
        with pytest.raises(
            ValueError,
            match=r"map x to logits .* got tuple of 2 for [14] .* `log_likelihood=",
        ):
            run(module, data=batches)
        assert module.steps == steps and module.modes == [False] and module.training


def test_the_likelihood_of_a_regression_is_asked_for_at_the_first_batch(tmp_path):
    class Numbers(PermutedTasks):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch[0], batch[1].float()[:, None]

    class Regression(Net):
        def training_step(self, batch, batch_idx):
            return F.mse_loss(self(batch[0])[:, :1], batch[1])

    run = trainer(tmp_path, [ElasticWeightConsolidation()], epochs=TASKS, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"class indices, .* got torch.float32 .* Or pass `log_likelihood="):
        run.fit(Regression(), Numbers(data(16), TASKS, batch_size=4))
    assert run.global_step == 0


@pytest.mark.parametrize("how", [{}, {"fisher": "estimate"}, {"online": True}], ids=["exact", "estimate", "online"])
def test_one_row_of_nan_does_not_reach_the_weights(tmp_path, how):
    """A training may skip its batch, but the Fisher information is of all rows; and no other warning says why."""
    x, y, *_ = data(16)
    x[3, 0] = torch.nan
    net, ewc = Net(), ElasticWeightConsolidation(STRENGTH, data=lambda *_: [(x, y)], **how)
    fit = trainer(tmp_path, [ewc], epochs=TASKS, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"Expected the Fisher information of the task to be finite, but got NaN"):
        fit.fit(net, stream())
    assert fit.current_epoch == 1 and flat(net.parameters()).isfinite().all()


class Heads(Net):
    """Each row goes through the output of its own task: row ``i`` of the table is added."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(TASKS, 3))

    def forward(self, x, task=None):
        shift = 0.0 if task is None else self.table[task]
        assert task is None or task.shape == x.shape[:1] and not task.is_floating_point()
        return self.net(x) + shift

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x, torch.full((len(x),), self.trainer.current_epoch)), y)


@pytest.mark.parametrize("how", ["exact", "estimate"])
def test_a_forward_is_given_the_task_of_each_row(tmp_path, how):
    """As the network of a `ContinualClassifier` is; what a task does not use is of no importance to it."""
    _, ewc = fit(tmp_path, ElasticWeightConsolidation(STRENGTH, fisher=how), Heads())
    important = ewc.regularizer.importance["table"].sum(1) > 0
    assert important.tolist() == [True, True, False]  # the last has not ended


def test_an_estimate_is_a_choice(tmp_path):
    exact, estimate = (fit(tmp_path, ElasticWeightConsolidation(0.0, fisher=way))[1] for way in ("exact", "estimate"))
    one, other = (flat(callback.regularizer.importance.values()) for callback in (exact, estimate))
    assert not torch.allclose(one, other, rtol=0.05) and one.sum() == pytest.approx(float(other.sum()), rel=1)
    with pytest.raises(
        ValueError, match="Expected `fisher` to be one of 'exact', 'estimate', but got 'exakt'. Did you"
    ):
        ElasticWeightConsolidation(fisher="exakt")


class OneTask(LightningDataModule):
    """One task of the stream, for a fit of its own; it does not say which."""

    def __init__(self, task):
        super().__init__()
        self.task, self.tasks = task, stream()

    def train_dataloader(self):
        return self.tasks.task_loader(self.task, epoch=0)

    val_dataloader = train_dataloader


WAYS = ["an index", "a closure", "its state", "a checkpoint"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_one_fit_a_task_equals_the_naive_loop(kind, way, tmp_path):
    """The usual habit: a Trainer and an optimizer for each task, and the same callback, or a new one with its state."""
    net, made, file = Net(), [], tmp_path / "last.ckpt"
    for task in range(TASKS):
        options = (
            {"data": lambda trainer, task: stream().task_loader(task)} if kind is ElasticWeightConsolidation else {}
        )
        new = not made or way in ("its state", "a checkpoint")
        callback = kind(STRENGTH, **options) if new else made[-1]
        callback.task = (lambda trainer, task=task: task) if way == "a closure" else task
        if made and way == "its state":
            callback.load_state_dict(made[-1].state_dict())
        if made and way == "a checkpoint":
            callback.load_state_dict(torch.load(file, weights_only=True)["callbacks"][callback.state_key])
        made.append(callback)
        run = trainer(tmp_path, [callback], epochs=1, limit_val_batches=0)
        run.fit(net, OneTask(task))
        run.save_checkpoint(file)
    assert made[-1].regularizer.num_tasks == TASKS - 1
    torch.testing.assert_close(flat(net.parameters()).detach(), naive(kind, anew=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_a_new_callback_without_the_state_of_the_old_warns(kind, tmp_path):
    options = {"data": lambda trainer, task: stream().task_loader(task)} if kind is ElasticWeightConsolidation else {}

    def fit_one(net, task, callback):
        trainer(tmp_path, [callback], epochs=1, limit_val_batches=0).fit(net, OneTask(task))

    net = Net()
    fit_one(net, 0, kind(STRENGTH, task=0, **options))
    for says in (1, 0):  # the right index, or what a count of epochs says in each fit
        with pytest.warns(match=f"it begins with task {says} and has the importance of no earlier task"):
            fit_one(net, 1, kind(STRENGTH, task=says, **options))
    fit_one(Net(), 0, kind(STRENGTH, task=0, **options))  # another module


@pytest.mark.parametrize("kind", [SynapticIntelligence, ElasticWeightConsolidation])
def test_without_a_penalty_weights_are_those_of_no_callback(kind, tmp_path):
    ends = []
    for callbacks in ([], [kind(0.0)]):
        net = Net()
        trainer(tmp_path, callbacks, epochs=TASKS, limit_val_batches=0).fit(net, stream())
        ends.append(flat(net.parameters()))
    assert torch.equal(*ends)
