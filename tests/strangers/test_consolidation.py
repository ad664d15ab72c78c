"""Consolidation put into somebody's pipeline, against plain loops over the same batches."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from dendrite_zoo.callbacks import ElasticWeightConsolidation, ForgettingLogger, SynapticIntelligence
from tests.strangers.people import EPOCHS, ONE_FIT, QUIET, TASKS, Plain, mlp, pipeline, val_loaders
from tests.strangers.witness import run, same

T, LR = len(TASKS), 0.1


def ordered(task):
    """Batches in one order: the loop by hand sees the same."""
    return DataLoader(TASKS[task][0], batch_size=16)


class Descent(Plain):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.net = mlp()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LR)


@pipeline
def all_tasks_in_one_fit(callbacks):
    """The task follows from the epoch."""

    class Net(Descent):
        def train_dataloader(self):
            return ordered(min(self.trainer.current_epoch // EPOCHS, T - 1))

        def val_dataloader(self):
            return val_loaders()

    Trainer(**ONE_FIT, callbacks=callbacks(None)).fit(Net())


@pipeline
def a_fit_for_each_task(callbacks):
    """A new Trainer for each task; epochs begin at 0 again."""
    net = Descent()
    for task in range(T):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET).fit(net, ordered(task), val_loaders())


@pipeline
def manual_optimization(callbacks):
    """Manual optimization, two steps a batch."""

    class Net(Descent):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
                optimizer.zero_grad()
                self.manual_backward(nn.functional.cross_entropy(self(x), y))
                optimizer.step()

    net = Net()
    for task in range(T):
        Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET).fit(net, ordered(task), val_loaders())


def gradients(net, x, y):
    loss = nn.functional.cross_entropy(net(x), y)
    return torch.autograd.grad(loss, list(net.parameters()))


def by_hand(method, strength, batch_size=16):
    """SGD on loss and penalty; ``method`` is "si" or "ewc"."""
    net = Descent().net
    theta = list(net.parameters())
    importance, anchor, path = ([torch.zeros_like(p) for p in theta] for _ in range(3))
    anchor = [p.detach().clone() for p in theta]
    old: list = []  # of EWC: Fisher and weights of each task
    for train, _ in TASKS:
        x, y = train.tensors
        for _ in range(EPOCHS):
            for first in range(0, len(y), batch_size):
                g = gradients(net, x[first : first + batch_size], y[first : first + batch_size])
                with torch.no_grad():
                    for k, p in enumerate(theta):
                        pull = 2 * strength * importance[k] * (p - anchor[k])
                        if method == "ewc":
                            pull = sum(strength * f[k] * (p - w[k]) for f, w in old) if old else 0.0
                        step = -LR * (g[k] + pull)
                        path[k] -= g[k] * step
                        p += step
        if method == "si":
            for k, p in enumerate(theta):
                importance[k] = importance[k] + path[k].clamp(min=0) / ((p.detach() - anchor[k]) ** 2 + 0.1)
                anchor[k], path[k] = p.detach().clone(), torch.zeros_like(p)
        else:
            squares = [torch.stack([g**2 for g in one]).mean(0) for one in zip(*each_sample(net, x, y), strict=True)]
            old.append((squares, [p.detach().clone() for p in theta]))
    return net


def each_sample(net, x, y):
    return [gradients(net, x[n : n + 1], y[n : n + 1]) for n in range(len(y))]


def consolidated(pipeline, make, folder):
    """Runs with a logger that says the task, and a penalty that asks it."""
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    alone = ForgettingLogger("val/acc", pictures=False, verbose=False)
    penalty = make()

    def callbacks(task):
        if task is None:
            return [log, penalty]
        alone.task = task
        return [alone, penalty]

    return run(pipeline, callbacks, folder / "habit")


def close(seen, net):
    got = {name.removeprefix("net."): value for name, value in seen.final.items()}
    for name, value in net.state_dict().items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("habit", [all_tasks_in_one_fit, a_fit_for_each_task], ids=lambda habit: habit.__name__)
def test_synaptic_intelligence(habit, folder):
    seen = consolidated(habit, lambda: SynapticIntelligence(si_lambda=0.5), folder)
    close(seen, by_hand("si", 0.5))
    with pytest.raises(AssertionError):
        close(seen, by_hand("si", 0.0))


@pytest.mark.parametrize("habit", [all_tasks_in_one_fit, a_fit_for_each_task], ids=lambda habit: habit.__name__)
def test_elastic_weight_consolidation(habit, folder):
    """Fisher information sample by sample, though the data come in batches of 48."""

    def make():
        return ElasticWeightConsolidation(20, data=lambda trainer, task: DataLoader(TASKS[task][0], batch_size=48))

    seen = consolidated(habit, make, folder)
    close(seen, by_hand("ewc", 20))
    with pytest.raises(AssertionError):
        close(seen, by_hand("ewc", 0.0))


def test_manual_optimization(folder):
    seen = consolidated(manual_optimization, lambda: SynapticIntelligence(si_lambda=0.5), folder)
    close(seen, by_hand("si", 0.5, batch_size=8))


@pytest.mark.parametrize("method", ["si", "ewc"])
def test_a_penalty_of_no_weight_changes_nothing(method, folder):
    """Not one bit, though the Fisher information takes passes of its own through the network."""
    penalty = SynapticIntelligence(0.0)
    if method == "ewc":
        penalty = ElasticWeightConsolidation(0.0, data=lambda trainer, task: ordered(task))
    log = ForgettingLogger("val/acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    bare = run(all_tasks_in_one_fit, lambda task: [], folder / "without")
    seen = run(all_tasks_in_one_fit, lambda task: [log, penalty], folder / "with")
    assert same(bare.final, seen.final) and torch.equal(bare.rng, seen.rng)
