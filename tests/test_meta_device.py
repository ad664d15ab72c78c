"""No path of training or inference waits for a device or mixes devices.

Tensors on ``meta`` have shapes alone: what asks for a value (``.item()``, ``nonzero``, ``unique``), as a program does
that waits for a GPU, raises there, and so does an operation between two devices.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dendrite_zoo.functional import GATES
from dendrite_zoo.layers import ActiveDendriteConv2d, ActiveDendriteLinear, KWinners, SparseLinear
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    TwinCritic,
    XdGClassifier,
)
from dendrite_zoo.optim import DendriteAdam

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
