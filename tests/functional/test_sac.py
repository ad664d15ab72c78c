import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

from dendrite_zoo.functional import sac


def test_an_action_has_the_density_of_a_squashed_gaussian():
    mean, log_std, noise = 0.7 * torch.randn(3, 50, 4, dtype=torch.float64)
    action, log_prob = sac.tanh_gaussian(mean, log_std, noise)
    gaussian = Independent(Normal(mean, log_std.exp()), 1)
    oracle = TransformedDistribution(gaussian, [TanhTransform(cache_size=1)])
    assert action.abs().max() < 1
    torch.testing.assert_close(log_prob, oracle.log_prob(action))


def test_densities_integrate_to_one():
    a = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
    mean, log_std = torch.full((len(a), 1), 0.3), torch.full((len(a), 1), -0.5)
    noise = (a.atanh()[:, None] - mean) / log_std.exp()
    _, log_prob = sac.tanh_gaussian(mean, log_std, noise)
    assert torch.trapezoid(log_prob.exp(), a).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("far", [-60.0, 60.0])
def test_a_saturated_action_has_finite_density_and_gradient(far):
    mean = torch.full((1, 4), far, requires_grad=True)
    action, log_prob = sac.tanh_gaussian(mean, torch.zeros(1, 4), torch.zeros(1, 4))
    log_prob.sum().backward()
    assert action.abs().max() == 1
    # log(1 - tanh(u)^2) = log 4 - 2|u| far out
    expected = -4 * (0.5 * math.log(2 * math.pi) + math.log(4) - 2 * abs(far))
    assert log_prob.item() == pytest.approx(expected, rel=1e-6)
    assert mean.grad.tolist() == [[math.copysign(2, far)] * 4]


def test_losses_by_hand():
    """Two rows, worked out on paper: alpha 0.5 and 2, gamma 0.9."""
    q1, q2 = torch.tensor([4.0, 1.0]), torch.tensor([3.0, 5.0])
    log_prob, alpha = torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 2.0])
    value = sac.soft_value(q1, q2, log_prob, alpha)
    assert value.tolist() == [3 + 1, 1 - 2]
    target = sac.td_target(torch.tensor([1.0, 0.0]), value, 0.9)
    torch.testing.assert_close(target, torch.tensor([4.6, -0.9]))
    # ((4 - 4.6)^2 + (1 + .9)^2 + (3 - 4.6)^2 + (5 + .9)^2) / 4
    assert sac.critic_loss(q1, q2, target).item() == pytest.approx((0.36 + 3.61 + 2.56 + 34.81) / 4)
    assert sac.actor_loss(value).item() == pytest.approx(-(4 - 1) / 2)
    # -(0.5 (-2 - 4) + 2 (1 - 4)) / 2
    assert sac.entropy_loss(alpha, log_prob, -4.0).item() == pytest.approx((3 + 6) / 2)


def test_losses_as_a_loop_over_rows():
    q1, q2, log_prob, reward, target = torch.randn(5, 20, dtype=torch.float64)
    alpha = torch.rand(20, dtype=torch.float64)
    value = sac.soft_value(q1, q2, log_prob, alpha)
    loop = []
    for i in range(20):
        lower = min(q1[i].item(), q2[i].item())
        loop.append(lower - alpha[i].item() * log_prob[i].item())
    torch.testing.assert_close(value.tolist(), loop)
    naive = sum((a - t) ** 2 + (b - t) ** 2 for a, b, t in zip(q1.tolist(), q2.tolist(), target.tolist(), strict=True))
    assert sac.critic_loss(q1, q2, target).item() == pytest.approx(naive / 2 / 20)
    assert sac.td_target(reward, value, 0.99).tolist() == pytest.approx(
        [r + 0.99 * v for r, v in zip(reward.tolist(), loop, strict=True)]
    )


def test_a_coefficient_rises_where_there_is_too_little_entropy():
    log_alpha = torch.zeros(3, requires_grad=True)
    task = torch.tensor([0, 0, 1, 1, 2, 2])
    log_prob = torch.tensor([5.0, 5.0, 0.0, 0.0, 4.0, 4.0])  # entropy -5, 0 and -4: too low, too high, on target
    sac.entropy_loss(log_alpha.exp()[task], log_prob, -4.0).backward()
    assert (-log_alpha.grad).sign().tolist() == [1, -1, 0]


def test_the_divergence_is_that_of_the_library():
    mean, log_std, other_mean, other_log_std = torch.randn(4, 30, 4, dtype=torch.float64)
    ours = sac.gaussian_divergence(mean, log_std, other_mean, other_log_std)
    policy, other = (Independent(Normal(m, s.exp()), 1) for m, s in ((mean, log_std), (other_mean, other_log_std)))
    torch.testing.assert_close(ours, kl_divergence(other, policy))


def test_targets_follow_slowly():
    slow, fast = [torch.zeros(2), torch.ones(1)], [torch.ones(2), torch.full((1,), 3.0)]
    for _ in range(3):
        sac.polyak_(slow, fast, 0.1)
    torch.testing.assert_close(slow, [torch.full((2,), 1 - 0.9**3), torch.tensor([3 - 2 * 0.9**3])])
