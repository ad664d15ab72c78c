"""Twin critics that are computed in one product equal both apart, gradients included."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.models import TwinCritic
from dendrite_zoo.optim import DendriteAdam


@pytest.mark.parametrize("task", [[0, 0, 1, 1], [2, 0, 1, 2, 2, 2, 2, 1, 0]])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("weight_density", [1.0, 0.7])
@pytest.mark.parametrize("owned", [False, True])
def test_both_in_one_product(task, layer_norm, weight_density, owned):
    torch.manual_seed(0)
    options = {"winners": "context", "dendrite_layers": None, "activation_density": 0.1, "num_segments": 3}
    sizes = {"observation_size": 5, "action_size": 2, "hidden_features": [40, 40]}
    critic = TwinCritic(["a", "b", "c"], layer_norm=layer_norm, weight_density=weight_density, **options, **sizes)
    learning = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    optimizer = DendriteAdam(learning) if owned else None
    task = torch.tensor(task)
    x, action = torch.randn(len(task), 5), torch.randn(len(task), 2)
    together = critic.parts(task)
    assert len(together.networks) == 1
    values, gradients = [], []
    for given in (together, task):
        critic.zero_grad()
        q1, q2 = critic(x, action, given)
        (q1.square() + q2 * torch.arange(len(task))).sum().backward()
        values.append(torch.stack([q1, q2]))
        gradients.append([parameter.grad.to_dense() for parameter in learning])
    torch.testing.assert_close(*values, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)
    q1, q2 = critic(x, action.requires_grad_(), together.detach())
    (gradient,) = torch.autograd.grad((q1 + q2).sum(), action)
    assert gradient.any() and len(optimizer.param_groups if owned else [0]) == 1
