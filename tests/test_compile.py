"""Networks become one graph, of any batch size, whatever form the context has; what each layer computes stays."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.layers import ActiveDendriteConv2d, ActiveDendriteLinear
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    TwinCritic,
    XdGClassifier,
)

B, C = 8, 5
ROWS = torch.arange(B) % 2
OPTIONS = {"context_dim": C, "num_segments": 3}


def policy():
    return ActiveDendritePolicy(["a", "b"], hidden_features=[16], winners="context", dendrite_layers=None)


def clusters():
    model = ActiveDendriteClassifier(6, [16], 3, max_tasks=4, context="clusters").eval()
    for task in range(2):
        model.context.observe(torch.randn(40, 6) + 9 * task)
    return model


CASES = {
    "linear, one context": (lambda: ActiveDendriteLinear(6, 4, **OPTIONS), (6,), torch.randn(C)),
    "linear, an int": (lambda: ActiveDendriteLinear(6, 4, **OPTIONS), (6,), 1),
    "convolution, ids": (lambda: ActiveDendriteConv2d(1, 4, 3, **OPTIONS), (1, 6, 6), ROWS),
    "network, codebook": (lambda: ActiveDendriteMLP(6, [40], 3, **OPTIONS), (6,), (torch.randn(3, C), ROWS)),
    "network, a context a row": (lambda: ActiveDendriteMLP(6, [40], 3, **OPTIONS), (6,), torch.randn(B, C)),
    "policy, tasks": (policy, (39,), ROWS),
    "gated, tasks": (lambda: XdGClassifier(6, [16], 3, max_tasks=4), (6,), ROWS),
    "classifier, clusters inferred": (clusters, (6,)),
}


def compiled(model):
    torch.compiler.reset()
    return torch.compile(model, backend="eager", fullgraph=True, dynamic=True)


@pytest.mark.parametrize("case", CASES)
def test_one_graph(case):
    torch.manual_seed(0)
    make, shape, *context = CASES[case]
    model, x = make(), torch.randn(B, *shape)
    torch.testing.assert_close(compiled(model)(x, *context), model(x, *context))


def test_twin_critics_become_one_graph():
    critic = TwinCritic.like(policy())
    inputs = torch.randn(B, 39), torch.randn(B, 4), ROWS
    torch.testing.assert_close(compiled(critic)(*inputs), critic(*inputs))


def test_under_autocast_too():
    model, x = ActiveDendriteMLP(6, [40], 3, **OPTIONS), torch.randn(B, 6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(model)(x, ROWS), model(x, ROWS))
