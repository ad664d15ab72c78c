"""Habits of the network and its optimization: what else a callback could disturb, or not see."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SubnetworkLogger
from tests.strangers.people import EPOCHS, ONE_FIT, TASKS, ByEpoch, pipeline
from tests.strangers.witness import accuracy, check, matrix_by_hand, with_and_without

T = len(TASKS)
LAST = [EPOCHS - 1 + EPOCHS * j for j in range(T)]


@pipeline
def adversarial(callbacks):
    """A GAN: two optimizers, manual optimization, its own random numbers; how often the critic is right."""

    class Gan(ByEpoch):
        automatic_optimization = False

        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(16, 1)))
            self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))

        def training_step(self, batch, batch_idx):
            (x, _), (first, second) = batch, self.optimizers()
            fake = self.generator(torch.randn(len(x), 4))
            loss = nn.functional.softplus(-self(x)).mean() + nn.functional.softplus(self(fake.detach())).mean()
            first.zero_grad()
            self.manual_backward(loss)
            first.step()
            second.zero_grad()
            self.manual_backward(nn.functional.softplus(-self(fake)).mean())
            second.step()
            self.log("train/critic", loss)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, _ = batch
            shifted = x.roll(1, dims=1) + 1
            right = torch.cat([self(x) > 0, self(shifted) <= 0]).float().mean()
            self.log("val/critic", right, batch_size=len(x))

        def configure_optimizers(self):
            return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.net, self.generator)]

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Gan())


def critic(module, task):
    x, _ = TASKS[task][1].tensors
    real = sum(float(module(one[None])) > 0 for one in x)
    fake = sum(float(module(one[None].roll(1, dims=1) + 1)) <= 0 for one in x)
    return (real + fake) / (2 * len(x))


def test_adversarial(folder):
    log = ForgettingLogger("val/critic", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(adversarial, [log, SparsityLogger()], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST), critic), logged=seen.witness.logged[-1])


@pipeline
def convolutions(callbacks):
    """BatchNorm, Dropout and a functional ReLU: state that a forward pass changes."""

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(1, 6, 3, padding=1), nn.BatchNorm1d(6)
            self.drop, self.head = nn.Dropout(0.3), nn.Linear(48, 3)

        def forward(self, x):
            x = nn.functional.relu(self.norm(self.conv(x[:, None])))
            return self.head(self.drop(x.flatten(1)))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(ByEpoch(Conv()))


@pipeline
def recurrent(callbacks):
    """An LSTM: its output is a tuple."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 12, batch_first=True), nn.Linear(12, 3)

        def forward(self, x):
            states, _ = self.lstm(x.unflatten(1, (4, 2)))
            return self.head(states[:, -1])

    Trainer(**ONE_FIT, callbacks=callbacks).fit(ByEpoch(Recurrent()))


class Transformer(nn.Module):
    """PyTorch's own encoder layers, which call functions for their activations."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="relu", batch_first=True)
        self.embed, self.encoder = nn.Linear(2, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x.unflatten(1, (4, 2)))).mean(1))


@pipeline
def transformer_encoder(callbacks):
    """`nn.TransformerEncoder`, which has a fast path of its own in evaluation."""
    Trainer(**ONE_FIT, callbacks=callbacks).fit(ByEpoch(Transformer()))


class Shared(nn.Module):
    """One `nn.ReLU` behind two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 24), nn.Linear(24, 24), nn.Linear(24, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


@pipeline
def one_relu_used_twice(callbacks):
    """One activation module at two places of the same width."""
    Trainer(**ONE_FIT, callbacks=callbacks).fit(ByEpoch(Shared()))


@pipeline
def dictionaries_as_batches(callbacks):
    """Batches are dicts, the network returns one, and the labels have names of their own."""

    class Net(ByEpoch):
        def forward(self, inputs):
            return {"logits": self.net(inputs)}

        def collate(self, pairs):
            x, y = zip(*pairs, strict=True)
            return {"inputs": torch.stack(x), "labels": torch.stack(y)}

        def train_dataloader(self):
            task = min(self.trainer.current_epoch // EPOCHS, T - 1)
            return DataLoader(TASKS[task][0], 16, shuffle=True, collate_fn=self.collate)

        def val_dataloader(self):
            return [DataLoader(test, 24, collate_fn=self.collate) for _, test in TASKS]

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch["inputs"])["logits"], batch["labels"])

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            right = self(batch["inputs"])["logits"].argmax(1) == batch["labels"]
            self.log("val/acc", right.float().mean(), batch_size=len(right))

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def a_head_for_each_task(callbacks):
    """Multi-head: `dataloader_idx` chooses the head; its parameters appear with the task."""

    class Net(ByEpoch):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(8, 24), nn.ReLU()))
            self.heads = nn.ModuleList(nn.Linear(24, 3) for _ in TASKS)

        def training_step(self, batch, batch_idx):
            x, y = batch
            head = self.heads[min(self.current_epoch // EPOCHS, T - 1)]
            return nn.functional.cross_entropy(head(self(x)), y)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log("val/acc", (self.heads[dataloader_idx](self(x)).argmax(1) == y).float().mean())

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


def by_head(module, task):
    x, y = TASKS[task][1].tensors
    return float((module.heads[task](module(x)).argmax(1) == y).float().mean())


def by_name(module, task):
    x, y = TASKS[task][1].tensors
    return float((module(x)["logits"].argmax(1) == y).float().mean())


def by_batch(module, task):
    """The fast path of an encoder in evaluation is compared batch by batch."""
    x, y = TASKS[task][1].tensors
    return float((module(x).argmax(1) == y).float().mean())


HABITS = {
    convolutions: accuracy,
    recurrent: accuracy,
    transformer_encoder: by_batch,
    one_relu_used_twice: accuracy,
    dictionaries_as_batches: by_name,
    a_head_for_each_task: by_head,
}


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_network(habit, folder):
    """A recurrent layer has its activations in its kernel: both watchers say that they see none."""
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    warns = [f"{name}: Expected activation modules" for name in ("SparsityLogger", "SubnetworkLogger")]
    ours = [log, SparsityLogger(), SubnetworkLogger()]
    seen = with_and_without(habit, ours, folder / "habit", warns=warns if habit is recurrent else [])
    check(log, matrix_by_hand(seen, seen.at_epochs(*LAST), HABITS[habit]), logged=seen.witness.logged[-1])


def zeros(outputs):
    """The shares of a layer's outputs that are zero, and of its units that are never active."""
    outputs = torch.cat([one.flatten(0, -2) for one in outputs])
    return float((outputs == 0).float().mean()), float((outputs == 0).all(0).float().mean())


def test_sparsity_of_one_relu_used_twice(folder):
    """Two layers, each with its own dead units."""
    sparsity = SparsityLogger()
    seen = with_and_without(one_relu_used_twice, [sparsity], folder / "habit")
    net = seen.network(seen.fits()[-1]).net
    x = torch.cat([test.tensors[0] for _, test in TASKS])
    with torch.no_grad():
        first = net.first(x).relu()
        second = net.second(first).relu()
    values = [zeros([first]), zeros([second])]
    watched = {name: v for name, v in sparsity.values.items() if "activation_sparsity" in v}
    assert len(watched) == 2, list(sparsity.values)
    got = [(v["activation_sparsity"], v["dead_units"]) for v in watched.values()]
    assert [pytest.approx(v, abs=1e-6) for v in values] == got


def test_sparsity_of_a_transformer_encoder(folder):
    """What `linear1` gives, behind the ReLU, in each of the two blocks: by hand from the weights."""
    sparsity = SparsityLogger()
    seen = with_and_without(transformer_encoder, [sparsity], folder / "habit")
    net, expected = seen.network(seen.fits()[-1]).net, []
    x = torch.cat([test.tensors[0] for _, test in TASKS]).unflatten(1, (4, 2))
    with torch.no_grad():
        h = net.embed(x)
        for block in net.encoder.layers:
            h = block.norm1(h + block.self_attn(h, h, h, need_weights=False)[0])
            hidden = block.linear1(h).relu()
            expected.append(zeros([hidden]))
            h = block.norm2(h + block.linear2(hidden))
    for i, (share, dead) in enumerate(expected):
        (name,) = [n for n, v in sparsity.values.items() if f"layers.{i}" in n and "activation_sparsity" in v]
        assert sparsity.values[name]["activation_sparsity"] == pytest.approx(share, abs=2e-3)
        assert sparsity.values[name]["dead_units"] == pytest.approx(dead, abs=1e-6)
    shapes = {n: v["weight_sparsity"] for n, v in sparsity.values.items() if "weight_sparsity" in v}
    assert len(shapes) >= 6 and set(shapes.values()) == {0.0}
