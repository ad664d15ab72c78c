"""An update of soft actor-critic in ten tasks, each with its part of shared networks, against ten small networks apart.

    python benchmarks/sac_subnetworks.py [--rounds 15]

512-512 units of which each task activates 96 (`winners="context"`), 64 steps of each task in a batch, policy and twin
critics: a round of 50 updates, before which the tasks' parts are cut out, and after which they are put back. Also
960-960 units of which each task has 96 for itself. Baseline: ten subnetworks of 96-96 units with weights of their own,
all in one `torch.baddbmm`, twin critics in the same product, one fused Adam; and ten tasks in plain MLPs of 96-96
units. One thread.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import compare, in_turn, rounds_asked
from torch import Tensor, nn

from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.rl.sac import ActorCritic
from dendrite_zoo.rl.transitions import Transitions

NAME, TASKS, ROWS, ACTIVE, UPDATES = "SAC in ten tasks", 10, 64, 96, 50
SUBNETWORKS = {"hidden_features": [512, 512], "winners": "context", "activation_density": ACTIVE / 512}
DISJOINT = {"hidden_features": [960, 960], "winners": "context", "activation_density": 0.1, "overlap": 0.0}
PLAIN = {"hidden_features": [ACTIVE, ACTIVE], "num_segments": 0, "activation": "relu", "append_task": True}


def batch() -> Transitions:
    """As many steps of each task, sorted by task."""
    rows, task = TASKS * ROWS, torch.arange(TASKS).repeat_interleave(ROWS)
    return Transitions(
        torch.randn(rows, 39), torch.rand(rows, 4) * 2 - 1, torch.randn(rows), torch.randn(rows, 39), task
    )


def ours(steps: Transitions, options: dict) -> Callable[[], None]:
    """A round of updates of the library's networks."""
    policy = ActiveDendritePolicy(
        [f"task {t}" for t in range(TASKS)], weight_density=1.0, dendrite_layers=None, **options
    )
    critic = TwinCritic.like(policy)
    slow = copy.deepcopy(critic).requires_grad_(False)
    log_alpha = nn.Parameter(torch.zeros(TASKS))
    networks = ActorCritic(policy, critic, slow, log_alpha)
    optimizer = DendriteAdam([*policy.parameters(), *critic.parameters(), log_alpha], lr=3e-4)

    def update() -> None:
        losses = networks.losses(steps, torch.randn_like, discount=0.99, reward_scale=1.0, target_entropy=None)
        (losses.critic + losses.actor + losses.alpha).backward()
        optimizer.step()
        optimizer.zero_grad()
        networks.follow(5e-3)

    def round_() -> None:
        with networks.compact(optimizer):
            for _ in range(UPDATES):
                update()

    return round_


def apart(steps: Transitions) -> Callable[[], None]:
    """A round of updates of small networks of each task, in one product."""

    def network(count: int, inputs: int, outputs: int) -> list[nn.Parameter]:
        sizes = [(inputs, ACTIVE), (ACTIVE, ACTIVE), (ACTIVE, outputs)]
        pairs = [(torch.randn(count, i, o) / math.sqrt(i), torch.zeros(count, 1, o)) for i, o in sizes]
        return [nn.Parameter(tensor) for pair in pairs for tensor in pair]

    def forward(weights: list[Tensor], x: Tensor) -> Tensor:
        for layer in range(3):
            x = torch.baddbmm(weights[2 * layer + 1], x, weights[2 * layer])
            x = x.relu() if layer < 2 else x
        return x

    policy, critic = network(TASKS, 39, 8), network(2 * TASKS, 43, 1)
    slow, log_alpha = [p.detach().clone() for p in critic], nn.Parameter(torch.zeros(TASKS))
    optimizer = torch.optim.Adam([*policy, *critic, log_alpha], lr=3e-4, fused=True)
    observation, action, reward, following = (tensor.view(TASKS, ROWS, -1).squeeze(-1) for tensor in steps[:4])

    def act(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = forward(policy, x).chunk(2, -1)
        log_std = log_std.clamp(-20, 2)
        noise = torch.randn_like(mean)
        before = mean + log_std.exp() * noise
        squash = 2 * (math.log(2) - before - F.softplus(-2 * before))
        return before.tanh(), (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi) - squash).sum(-1)

    def judge(weights: list[Tensor], x: Tensor, a: Tensor) -> Tensor:
        both = torch.cat([x, a], -1)
        return forward(weights, torch.cat([both, both])).view(2, TASKS, ROWS)

    def update() -> None:
        alpha = log_alpha.exp().unsqueeze(1)
        with torch.no_grad():
            next_action, log_prob = act(following)
            target = reward + 0.99 * (judge(slow, following, next_action).amin(0) - alpha * log_prob)
        loss = 0.5 * (judge(critic, observation, action) - target).square().mean((1, 2)).sum()
        own, log_prob = act(observation)
        value = judge([p.detach() for p in critic], observation, own).amin(0) - alpha.detach() * log_prob
        (loss - value.mean() - (alpha * (log_prob.detach() - 4)).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(slow, [p.detach() for p in critic], 5e-3)

    def round_() -> None:
        for _ in range(UPDATES):
            update()

    return round_


def main() -> None:
    """Print a line for each comparison."""
    rounds = rounds_asked(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps = batch()
    cases = {
        "subnetworks of shared weights": ours(steps, SUBNETWORKS),
        "disjoint subnetworks": ours(steps, DISJOINT),
        "ten networks apart": apart(steps),
        "plain MLPs": ours(steps, PLAIN),
    }
    seconds = in_turn(cases, rounds)
    compare(NAME, seconds, "subnetworks of shared weights", "ten networks apart", "<= 1.5")
    compare(NAME, seconds, "disjoint subnetworks", "ten networks apart", "<= 1.5")
    compare(NAME, seconds, "subnetworks of shared weights", "plain MLPs")


if __name__ == "__main__":
    main()
