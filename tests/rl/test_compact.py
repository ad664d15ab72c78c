"""Training of compact parts gives what training of the whole networks gives."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.rl.sac import ActorCritic
from dendrite_zoo.rl.transitions import Transitions


class Learner:
    """Networks and their optimizer."""

    def __init__(self, start_policy=False, **options):
        torch.manual_seed(0)
        arguments = {"observation_size": 5, "action_size": 2, "num_segments": 2, "dendrite_layers": None, **options}
        policy = ActiveDendritePolicy(["a", "b", "c"], winners="context", **arguments).double()
        critic = TwinCritic.like(policy).double()
        slow, log_alpha = copy.deepcopy(critic).requires_grad_(False), nn.Parameter(torch.zeros(3).double())
        self.optimizer = DendriteAdam([*policy.parameters(), *critic.parameters(), log_alpha], lr=0.02)
        self.policy_parameters = [*policy.parameters(), log_alpha]
        start = copy.deepcopy(policy).requires_grad_(False) if start_policy else None
        self.networks = ActorCritic(policy, critic, slow, log_alpha, start)

    def update(self, steps, number, kl_coef=0.0, alone=False):
        draws = torch.Generator().manual_seed(number)
        losses = self.networks.losses(
            steps,
            lambda like: torch.randn(like.shape, generator=draws).to(like),
            discount=0.9,
            reward_scale=1.0,
            target_entropy=None,
            critics_alone=alone,
        )
        losses.total(kl_coef).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.networks.follow(0.1)
        return losses.critic.item()

    def state(self):
        networks = self.networks
        models = networks.policy, networks.critic, networks.slow_critic
        weights = [p.detach() for model in models for p in model.parameters()] + [networks.log_alpha.detach()]
        moments = self.optimizer.state_dict()["state"]
        return weights, {i: moment for i, moment in moments.items() if moment}


def batch(task, seed):
    draws, rows = torch.Generator().manual_seed(seed), len(task)
    sizes = (rows, 5), (rows, 2), (rows,), (rows, 5)
    numbers = [torch.randn(size, generator=draws).double() for size in sizes]
    return Transitions(*numbers, torch.tensor(task), torch.rand(rows, generator=draws) < 0.3)


@settings(max_examples=12, deadline=None)
@given(
    task=st.sampled_from([[0] * 8 + [1] * 8 + [2] * 8, [2] * 8 + [0] * 8, [1] * 8, [0, 1, 2, 2, 0] * 5]),
    overlap=st.sampled_from([None, 0.0, 0.5]),
    dendrite_layers=st.sampled_from([None, [1]]),
    weight_density=st.sampled_from([1.0, 0.5]),
    layer_norm=st.booleans(),
    append_task=st.booleans(),
    delay=st.sampled_from([1, 2]),
    start_policy=st.booleans(),
)
def test_weights_and_moments_are_those_of_training_the_whole_networks(task, delay, start_policy, **options):
    """In two rounds, the second of which goes on where the first ended; units that gave nothing rest in both."""
    options |= {"hidden_features": [40, 40], "activation_density": 0.1}
    whole, compact = (Learner(start_policy, **options) for _ in range(2))
    for round_ in range(2):
        numbers = range(4 * round_, 4 * round_ + 4)
        expected = [whole.update(batch(task, n), n, 0.5, alone=n % delay > 0) for n in numbers]
        with compact.networks.compact(compact.optimizer):
            losses = [compact.update(batch(task, n), n, 0.5, alone=n % delay > 0) for n in numbers]
        torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(compact.state(), whole.state(), rtol=1e-6, atol=1e-6)
