"""Soft actor-critic in equations (Haarnoja et al. 2018, arXiv 1812.05905), for batches of several tasks."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo._core.torch import for_each


def tanh_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """An action ``a = tanh(u)`` with ``u = mean + std * noise``, and the logarithm of its density (appendix C).

    ``log p(a) = sum_i [log N(u_i) - log(1 - tanh(u_i)^2)]``, the last term as ``2 (log 2 - u - softplus(-2u))``, which
    stays finite where the tanh saturates.

    Args:
        mean: of the Gaussian before the tanh.
        log_std: logarithm of its standard deviation.
        noise: standard normal.

    Shape:
        ``(B, A)`` all to actions ``(B, A)`` and log-densities ``(B,)``.

    Example:
        >>> action, log_prob = tanh_gaussian(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
        >>> action, log_prob
        (tensor([[0.]]), tensor([-0.9189]))
    """
    before = torch.addcmul(mean, log_std.exp(), noise)
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squash = 2 * (math.log(2) - before - F.softplus(-2 * before))
    return before.tanh(), (normal - squash).sum(-1)


def soft_value(q1: Tensor, q2: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """The value of a state by the lower of two critics: ``V = min(Q1, Q2) - alpha log p`` (equation 3).

    Args:
        q1: of the sampled action.
        q2: the same by the other critic.
        log_prob: of the sampled action.
        alpha: entropy coefficient, of each row's task.

    Shape:
        ``(B,)`` all.

    Example:
        >>> soft_value(torch.tensor([3.0]), torch.tensor([2.0]), torch.tensor([-1.0]), torch.tensor([0.5]))
        tensor([2.5000])
    """
    return torch.minimum(q1, q2) - alpha * log_prob


def td_target(reward: Tensor, next_value: Tensor, discount: float | Tensor, terminated: Tensor | None = None) -> Tensor:
    """What a critic should say: ``r + gamma V(s')``, and ``r`` where the task ended (equation 2).

    Where an episode's length cut it off, the task has not ended: there is a value beyond.

    Args:
        reward: of the step, or the discounted sum of several.
        next_value: soft value of where it led.
        discount: gamma, per step; or of each row by itself, such as ``gamma^n`` after n steps.
        terminated: where the task ended with the step; None for nowhere.

    Shape:
        ``(B,)``.

    Example:
        >>> reward, value = torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0])
        >>> td_target(reward, value, 0.5, terminated=torch.tensor([False, True]))
        tensor([6., 1.])
    """
    if terminated is not None:
        next_value = next_value.masked_fill(terminated, 0.0)
    if isinstance(discount, Tensor):
        return torch.addcmul(reward, next_value, discount)
    return torch.add(reward, next_value, alpha=discount)


def critic_loss(q1: Tensor, q2: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error of each of two critics, summed (equation 5).

    Args:
        q1: of the action taken.
        q2: the same by the other critic.
        target: see `td_target`.

    Shape:
        ``(B,)`` all to a scalar.

    Example:
        >>> critic_loss(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([0.0]))
        tensor(5.)
    """
    return 0.5 * (F.mse_loss(q1, target) + F.mse_loss(q2, target))


def actor_loss(value: Tensor) -> Tensor:
    """The policy climbs the soft value of its own actions: ``mean(alpha log p - min(Q1, Q2))`` (equation 7).

    Args:
        value: see `soft_value`; the gradient reaches the policy through the action.

    Shape:
        ``(B,)`` to a scalar.

    Example:
        >>> actor_loss(torch.tensor([1.0, 3.0]))
        tensor(-2.)
    """
    return -value.mean()


def entropy_loss(alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Raises each task's coefficient where its entropy is below the target: ``mean(-alpha (log p + H))`` (equation 18).

    Args:
        alpha: entropy coefficient, of each row's task, with gradient.
        log_prob: of the sampled action.
        target_entropy: H, in nats; minus the number of action dimensions by default.

    Shape:
        ``(B,)`` both to a scalar.

    Example:
        >>> entropy_loss(torch.tensor([2.0]), torch.tensor([1.0]), -4.0)
        tensor(6.)
    """
    return -(alpha * (log_prob.detach() + target_entropy)).mean()


def gaussian_divergence(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """How far a Gaussian policy is from another: ``KL(other || policy)``, in nats; the tanh after it changes nothing.

    Args:
        mean: of the policy.
        log_std: of the policy.
        other_mean: of the policy it is compared with.
        other_log_std: of the policy it is compared with.

    Shape:
        ``(B, A)`` all to ``(B,)``.

    Example:
        >>> zero = torch.zeros(1, 1)
        >>> gaussian_divergence(zero + 2, zero, zero, zero)
        tensor([2.])
    """
    ratio = (other_log_std - log_std).exp().square()
    distance = ((other_mean - mean) / log_std.exp()).square()
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


@torch.no_grad()
def polyak_(target: Iterable[Tensor], source: Iterable[Tensor], rate: float) -> None:
    """Move each target a little: ``target <- (1 - tau) target + tau source``.

    Args:
        target: parameters of the slow network, changed in place.
        source: those of the learning one.
        rate: tau, per update.

    Example:
        >>> slow = [torch.tensor([0.0])]
        >>> polyak_(slow, [torch.tensor([1.0])], 0.25)
        >>> slow
        [tensor([0.2500])]
    """
    for_each("lerp_", list(target), list(source), rate)
