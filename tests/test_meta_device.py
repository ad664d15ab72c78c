"""No path of training or inference waits for a device or mixes devices.

Tensors on ``meta`` have shapes alone: what asks for a value (``.item()``, ``nonzero``, ``unique``), as a program does
that waits for a GPU, raises there, and so does an operation between two devices.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dendrite_zoo import metrics
from dendrite_zoo.contexts import ClusterContext, HotellingContext, OneHotContext, PrototypeContext, RidgeContext
from dendrite_zoo.functional import GATES
from dendrite_zoo.layers import ActiveDendriteConv2d, ActiveDendriteLinear, KWinners, SparseLinear
from dendrite_zoo.lightning_modules import BehaviorCloning, ContinualClassifier, MultiTaskClassifier, MultiTaskSAC
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    TwinCritic,
    XdGClassifier,
)
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.regularizers import SynapticIntelligence
from dendrite_zoo.rl.transitions import Transitions

META, B, C = torch.device("meta"), 8, 5


def ids(*shape):
    return torch.zeros(shape, dtype=torch.long, device=META)


CONTEXTS = {
    "one": lambda: torch.randn(C, device=META),
    "rows": lambda: torch.randn(B, C, device=META),
    "codebook": lambda: (torch.randn(3, C, device=META), ids(B)),
    "ids": lambda: ids(B),
    "id": lambda: ids(),
    "int": lambda: 1,
}
OPTIMIZERS = {
    "DendriteAdam": DendriteAdam,
    "Adam": torch.optim.Adam,
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
}


def step(modules, loss, kind="DendriteAdam"):
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[kind](learning)
    for _ in range(2):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert all(p.device == META for module in modules for p in module.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", CONTEXTS)
@pytest.mark.parametrize("gate", GATES)
def test_layers(gate, form, optimizer):
    with META:
        options = {"context_dim": C, "num_segments": 3, "gate": gate, "segment_density": 0.5}
        linear = ActiveDendriteLinear(6, 4, weight_density=0.5, **options)
        conv = ActiveDendriteConv2d(1, 4, 3, **options)
        x, image = torch.randn(B, 6), torch.randn(B, 1, 6, 6)
    context = CONTEXTS[form]()
    step([linear, conv], lambda: linear(x, context).sum() + conv(image, context).sum(), optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", CONTEXTS)
@pytest.mark.parametrize("winners", ["activation", "context"])
def test_networks(winners, form, optimizer):
    with META:
        model = ActiveDendriteMLP(6, [40, 40], 3, context_dim=C, num_segments=3, winners=winners)
        x = torch.randn(B, 6)
    context = CONTEXTS[form]()
    step([model], lambda: model(x, context).sum(), optimizer)


@pytest.mark.parametrize("winners", ["activation", "context"])
@pytest.mark.parametrize("context", ["prototype", "one-hot", "clusters"])
def test_classifiers(context, winners):
    with META:
        model = ActiveDendriteClassifier(6, [16], 3, max_tasks=4, context=context, winners=winners)
        x = torch.randn(B, 6)
    step([model], lambda: F.cross_entropy(model(x, task=0), ids(B)))
    model.eval()
    with torch.no_grad():
        assert model(x, task=ids(B)).shape == (B, 3)


def test_other_models():
    with META:
        options = {"hidden_features": [16, 16], "winners": "context", "dendrite_layers": None}
        policy = ActiveDendritePolicy(["a", "b"], **options)
        critic, xdg = TwinCritic.like(policy), XdGClassifier(6, [16], 3, max_tasks=4)
        plain = torch.nn.Sequential(SparseLinear(6, 10, density=0.5), KWinners(density=0.3))
        x, observation = torch.randn(B, 6), torch.randn(B, 39)
    step([xdg, plain], lambda: xdg(x, task=ids(B)).sum() + plain(x).sum())
    step([policy, critic], lambda: sum(q.sum() for q in critic(observation, policy(observation, ids(B))[0], ids(B))))


CONTEXT_CLASSES = {
    "one-hot": lambda: OneHotContext(4),
    "prototype": lambda: PrototypeContext(6, 4),
    "hotelling": lambda: HotellingContext(6, 4, context_dim=4),
    "clusters": lambda: ClusterContext(6, 4),
    "ridge": lambda: RidgeContext(6, 4, random_features=16),
}


@pytest.mark.parametrize("kind", CONTEXT_CLASSES)
def test_contexts(kind):
    context, x = CONTEXT_CLASSES[kind]().to(META), torch.randn(B, 6, device=META)
    for task in (0, ids(B)):
        given = context(x, task)
        assert all(part.device == META for part in (given if isinstance(given, tuple) else (given,)))
    if kind != "one-hot":
        assert context.infer(x).device == META


@pytest.mark.parametrize("task", [0, "rows"])
@pytest.mark.parametrize("kind", [metrics.TaskAccuracy, metrics.AccuracyMatrix, metrics.Forgetting])
def test_metrics_count_without_waiting(kind, task):
    metric, scores, task = kind(3).to(META), torch.randn(B, 4, device=META), ids(B) if task == "rows" else task
    metric.update(scores, ids(B), task, *[] if kind is metrics.TaskAccuracy else [1])
    assert metric.total.device == META


@pytest.mark.parametrize("kind", CONTEXT_CLASSES)
def test_contexts_off_the_meta_device_know_no_task(kind):
    with META:
        context = CONTEXT_CLASSES[kind]()
    context.to_empty(device="cpu")
    fresh = CONTEXT_CLASSES[kind]()
    for name, buffer in context.named_buffers():
        if name == "features":  # drawn at random
            assert len(set(buffer.tolist())) == 4 and 0 <= buffer.min() and buffer.max() < 6
        else:
            assert torch.equal(buffer, fresh.get_buffer(name)), name
    assert context.num_tasks == 0


def test_masks_off_the_meta_device():
    """``to_empty`` gives random memory, and ``reset_parameters`` leaves masks as they are."""
    waste = [torch.ones(64, 20, dtype=torch.bool) for _ in range(20)]
    del waste
    with META:
        layers = torch.nn.Sequential(SparseLinear(20, 64, density=0.5), torch.nn.ModuleList())
        options = {"context_dim": 10, "num_segments": 3, "segment_density": 0.3}
        layers[1].append(ActiveDendriteLinear(20, 64, weight_density=0.25, **options))
        layers[1].append(ActiveDendriteConv2d(1, 64, 3, **options))
        gated = XdGClassifier(6, [50], 3, max_tasks=4)
    for module in (layers, gated):
        module.to_empty(device="cpu")
    sparse, (linear, conv) = layers
    for layer in (sparse, linear, conv):
        layer.reset_parameters()
    assert (sparse.mask.sum(1) == 10).all() and (linear.mask.sum(1) == 5).all()
    assert (gated.gates[0].sum(1) == 10).all()
    for layer in (linear, conv):
        assert layer.segments.abs().max() <= 3**-0.5 and (layer.segments[layer.segment_mask] != 0).all()
        assert (layer.segment_mask.sum(-1) == 3).all() and layer.segment_mask.float().mean((0, 1)).std() > 0
    assert (sparse.weight[~sparse.mask] == 0).all() and (linear.segments[~linear.segment_mask] == 0).all()
    kept = SparseLinear(20, 64, density=0.5)
    mask = kept.mask.clone()
    assert torch.equal(kept.to(torch.float64).mask, mask), "what was never there is not drawn anew"


def test_synaptic_intelligence():
    weight = torch.nn.Parameter(torch.randn(3, 4, device=META))
    regularizer = SynapticIntelligence({"weight": weight})
    optimizer = torch.optim.Adam([weight])
    for _ in range(2):
        (weight.square().sum() + regularizer.penalty()).backward()
        regularizer.before_step()
        optimizer.step()
        regularizer.after_step()
    regularizer.end_task()
    assert regularizer.importance["weight"].device == META


def learn(module, loss):
    optimizer = module.configure_optimizers()
    loss().backward()
    optimizer.step()
    assert all(parameter.device == META for parameter in module.parameters())


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")  # without a Trainer
@pytest.mark.parametrize("winners", ["activation", "context"])
def test_lightning_modules_of_classifiers(winners):
    with META:
        model = ActiveDendriteClassifier(6, [16], 3, max_tasks=4, winners=winners)
        module, mixed, x = ContinualClassifier(model), MultiTaskClassifier(model), torch.randn(B, 6)
    learn(module, lambda: module.training_step((x, ids(B)), 0))
    learn(mixed, lambda: mixed.training_step((x, ids(B), ids(B)), 0))


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("winners", ["activation", "context"])
def test_lightning_modules_of_control(winners):
    with META:
        policy = ActiveDendritePolicy(["a", "b"], hidden_features=[16], winners=winners, dendrite_layers=None)
        sac, cloning = MultiTaskSAC(policy), BehaviorCloning(policy)
        rows = [torch.randn(B, size) for size in (39, 4, 1, 39)]
        batch = Transitions(rows[0], rows[1], rows[2][:, 0], rows[3], ids(B), torch.zeros(B, dtype=torch.bool))
    options = {"discount": 0.9, "reward_scale": 1.0, "target_entropy": None}

    def loss():
        losses = sac.networks.losses(batch, torch.randn_like, **options)
        return losses.critic + losses.actor + losses.alpha

    learn(sac, loss)
    sac.networks.follow(0.1)
    learn(cloning, lambda: cloning.training_step((batch.observation, batch.action, batch.task), 0))


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("winners", ["activation", "context"])
def test_a_new_task_begins(winners):
    with META:
        policy = ActiveDendritePolicy(["a", "b"], hidden_features=[16, 16], winners=winners, dendrite_layers=None)
        cloning = BehaviorCloning(policy, learn="new")
        batch = torch.randn(B, 39), torch.randn(B, 4), ids(B)
    cloning.new.own([1], earlier=[0])
    step([cloning.new], lambda: cloning.training_step(batch, 0))
