"""An update whose networks are cut into parts once equals one that calls whole networks each time."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dendrite_zoo.functional import GATES
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.rl.sac import ActorCritic
from dendrite_zoo.rl.transitions import Transitions
from tests.models.test_context_winners import dense_and_masked


class Naive(nn.Module):
    """A policy or critics of the same parameters that go through the rows of a batch, and mask whole networks."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        *inputs, task = inputs
        x = self.model._inputs(inputs[0], task, *inputs[1:])
        one_hot = torch.eye(self.model.num_tasks).to(x)[task]
        if isinstance(self.model, TwinCritic):
            return tuple(dense_and_masked(network, x, one_hot).squeeze(1) for network in self.model.critics)
        return self.model._gaussian(dense_and_masked(self.model.mlp, x, one_hot))


def networks(**options):
    arguments = {"observation_size": 5, "action_size": 2, "hidden_features": [24, 20], "num_segments": 3, **options}
    policy = ActiveDendritePolicy(["a", "b", "c"], winners="context", **arguments).double()
    critic = TwinCritic.like(policy).double()
    return policy, critic, copy.deepcopy(critic).requires_grad_(False), nn.Parameter(torch.zeros(3).double())


def batch(task):
    rows = len(task)
    numbers = torch.randn(rows, 5), torch.rand(rows, 2) * 2 - 1, torch.randn(rows), torch.randn(rows, 5)
    return Transitions(*(tensor.double() for tensor in numbers), torch.tensor(task), torch.rand(rows) < 0.3)


def losses_of(actor_critic, steps):
    generator = torch.Generator().manual_seed(0)
    options = {"discount": 0.9, "reward_scale": 2.0, "target_entropy": None}
    return actor_critic.losses(steps, lambda like: torch.randn(like.shape, generator=generator).to(like), **options)


@settings(max_examples=12, deadline=None)
@given(
    task=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    density=st.sampled_from([0.1, 0.5]),
    dendrite_layers=st.sampled_from([None, [1]]),
    append_task=st.booleans(),
    layer_norm=st.booleans(),
    gate=st.sampled_from(GATES),
    owned=st.booleans(),
    seed=st.integers(0, 5),
)
def test_losses_and_gradients_equal_the_naive_loop(task, density, owned, seed, **options):
    torch.manual_seed(seed)
    policy, critic, slow, log_alpha = networks(activation_density=density, **options)
    steps = batch(task)
    learning = [p for p in (*policy.parameters(), *critic.parameters(), log_alpha) if p.requires_grad]
    naive = ActorCritic(Naive(policy), Naive(critic), Naive(slow), log_alpha)
    expected = losses_of(naive, steps)
    gradients = torch.autograd.grad(expected.critic + expected.actor + expected.alpha, learning, allow_unused=True)
    optimizer = DendriteAdam(learning) if owned else torch.optim.Adam(learning)
    losses = losses_of(ActorCritic(policy, critic, slow, log_alpha), steps)
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-6)
    (losses.critic + losses.actor + losses.alpha).backward()
    for parameter, gradient in zip(learning, gradients, strict=True):
        torch.testing.assert_close(parameter.grad.to_dense(), gradient, atol=1e-6, rtol=1e-6)
    assert optimizer.param_groups


@pytest.mark.parametrize("task", [[0, 0, 1, 1, 2, 2], [2, 0, 1, 2, 2, 1]])
def test_each_update_sees_the_weights_and_the_tasks_of_its_own(task):
    torch.manual_seed(0)
    policy, critic, slow, log_alpha = networks()
    ours = ActorCritic(policy, critic, slow, log_alpha)
    naive = ActorCritic(Naive(policy), Naive(critic), Naive(slow), log_alpha)
    optimizer = DendriteAdam([*policy.parameters(), *critic.parameters(), log_alpha], lr=0.05)
    steps = batch(task)
    for number in range(4):
        if number == 2:
            steps.task.copy_(steps.task.flip(0))  # the same tensor, other tasks
        losses = losses_of(ours, steps)
        torch.testing.assert_close(losses, losses_of(naive, steps), atol=1e-6, rtol=1e-6)
        optimizer.zero_grad()
        (losses.critic + losses.actor + losses.alpha).backward()
        optimizer.step()
        ours.follow(0.1)


def test_a_row_may_bring_a_discount_of_its_own():
    """Two rows of three steps and one where the task ended, against the targets written out."""
    torch.manual_seed(0)
    policy, critic, slow, log_alpha = networks()
    steps = batch([0, 1, 2])._replace(terminated=torch.tensor([False, False, True]))
    factor = torch.tensor([0.9**3, 0.9**3, 0.0]).double()
    ours = losses_of(ActorCritic(policy, critic, slow, log_alpha), steps._replace(discount=factor))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean, log_std = policy(steps.next_observation, steps.task)
        noise = torch.randn(mean.shape, generator=draws).double()
        normal = torch.distributions.Normal(mean, log_std.exp())
        before = mean + log_std.exp() * noise
        log_prob = (normal.log_prob(before) - torch.log1p(-(before.tanh() ** 2))).sum(1)
        value = torch.minimum(*slow(steps.next_observation, before.tanh(), steps.task)) - log_prob
        target = 2.0 * steps.reward + factor * value
        errors = [(q - target).square().mean() / 2 for q in critic(steps.observation, steps.action, steps.task)]
    torch.testing.assert_close(ours.critic.detach(), sum(errors))
