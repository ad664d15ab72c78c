"""The losses of soft actor-critic on one batch of several tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dendrite_zoo.functional import sac
from dendrite_zoo.models.control import TaskParts
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.rl.compact import CompactTraining, follow, parts_of
from dendrite_zoo.rl.transitions import Transitions

Noise = Callable[[Tensor], Tensor]


class Losses(NamedTuple):
    """What one batch gives, ``()`` each; where the critics alone learn, all but theirs are None.

    Attributes:
        critic: loss of both critics.
        actor: loss of the policy.
        alpha: loss of the entropy coefficients.
        divergence: of the policy from an earlier one, not weighted; 0 without one.
        entropy: of the policy's actions, in nats.
    """

    critic: Tensor
    actor: Tensor | None = None
    alpha: Tensor | None = None
    divergence: Tensor | None = None
    entropy: Tensor | None = None

    def total(self, kl_coef: float = 0.0) -> Tensor:
        """The sum of the losses, which have parameters of their own each; the divergence with its weight."""
        if self.actor is None or self.alpha is None or self.divergence is None:
            return self.critic
        return self.critic + self.actor + self.alpha + kl_coef * self.divergence

    def learned(self, *, critics_alone: bool) -> "Losses":
        """The losses that were learned from, without gradients."""
        losses: list[Any] = [None if loss is None else loss.detach() for loss in self]
        return Losses(*losses[:1]) if critics_alone else Losses(*losses)


@dataclass
class ActorCritic:
    """The networks of soft actor-critic (Haarnoja et al. 2018), and what they learn from.

    Attributes:
        policy: maps ``(observation, task)`` to mean and log standard deviation of an action before it is squashed.
        critic: maps ``(observation, action, task)`` to two values.
        slow_critic: its copy, which follows slowly.
        log_alpha: logarithm of each task's entropy coefficient, ``(T,)``.
        start_policy: the policy as it was, to stay near to; None for none.
    """

    policy: nn.Module
    critic: nn.Module
    slow_critic: nn.Module
    log_alpha: Tensor
    start_policy: nn.Module | None = None
    _compact: CompactTraining | None = field(default=None, init=False, repr=False)

    def sample(self, observation: Tensor, task: Tensor | TaskParts, noise: Noise) -> tuple[Tensor, Tensor]:
        """Actions ``(B, A)`` and their log-densities ``(B,)``."""
        mean, log_std = self.policy(observation, task)
        return sac.tanh_gaussian(mean, log_std, noise(mean))

    def losses(
        self,
        batch: Transitions,
        noise: Noise,
        *,
        discount: float,
        reward_scale: float,
        target_entropy: float | None,
        critics_alone: bool = False,
    ) -> Losses:
        """The losses on a batch.

        Args:
            batch: of `dendrite_zoo.rl.replay.ReplayBuffer`.
            noise: gives standard normal numbers of the shape of its argument.
            discount: of the reward, per step, where the batch does not say its own.
            reward_scale: factor of all rewards.
            target_entropy: of the actions, in nats; None for minus their number of dimensions.
            critics_alone: whether they learn alone: then the policy is not computed for its own loss.
        """
        observation, action, reward, next_observation, task, terminated, factor = batch
        acting, judging, judging_slowly = self._parts(task)
        alpha = self.log_alpha.exp().index_select(0, task)
        fixed = alpha.detach()
        with torch.no_grad():
            next_action, next_log_prob = self.sample(next_observation, acting, noise)
            q1, q2 = self.slow_critic(next_observation, next_action, judging_slowly)
            next_value = sac.soft_value(q1, q2, next_log_prob, fixed)
            target = sac.td_target(
                reward * reward_scale, next_value, discount if factor is None else factor, terminated
            )
        q1, q2 = self.critic(observation, action, judging)
        critic_loss = sac.critic_loss(q1, q2, target)
        if critics_alone:
            return Losses(critic_loss)

        mean, log_std = self.policy(observation, acting)
        own_action, log_prob = sac.tanh_gaussian(mean, log_std, noise(mean))
        with nullcontext() if isinstance(judging, TaskParts) and judging.are_cut else self._critic_fixed():
            q1, q2 = self.critic(observation, own_action, judging.detach())
        entropy = -float(mean.shape[1]) if target_entropy is None else target_entropy
        divergence = torch.zeros((), device=mean.device)
        if self.start_policy is not None:
            with torch.no_grad():
                before = self.start_policy(observation, task)
            divergence = sac.gaussian_divergence(mean, log_std, *before).mean()
        actor_loss = sac.actor_loss(sac.soft_value(q1, q2, log_prob, fixed))
        alpha_loss = sac.entropy_loss(alpha, log_prob, entropy)
        return Losses(critic_loss, actor_loss, alpha_loss, divergence, -log_prob.detach().mean())

    def follow(self, rate: float) -> None:
        """Let the slow critic follow by a share of the distance; what does not learn, such as fixed segments, stays."""
        if self._compact is None:
            follow(zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True), rate)
        else:
            self._compact.follow(rate)

    @contextmanager
    def compact(self, optimizer: DendriteAdam) -> Iterator[None]:
        """For a number of updates train what their tasks use of the networks alone, see `CompactTraining`.

        What is computed stays the same, up to rounding. Meanwhile the networks are as they were before; at the end, or
        where it is broken off, they and the optimizer are as if they had been trained themselves.

        Args:
            optimizer: of policy and critics.
        """
        self._compact = CompactTraining(optimizer, [self.policy, self.critic, self.slow_critic])
        try:
            yield
        finally:
            self.put_back()
            self._compact = None

    def put_back(self) -> None:
        """Within `compact`, have the networks as they would be without it; they are trained themselves from then on."""
        if self._compact is not None:
            self._compact.end()

    def _parts(self, task: Tensor) -> list[Any]:
        """What policy, critics and slow critics take in the place of tasks, for all that is computed in one update."""
        if self._compact is not None:
            return self._compact.parts(task)
        return [parts_of(model, task) for model in (self.policy, self.critic, self.slow_critic)]

    @contextmanager
    def _critic_fixed(self) -> Iterator[None]:
        """Let gradients pass through the critic, to the action, without reaching its weights."""
        learning = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)


def means_of(losses: Sequence[Losses]) -> dict[str, float]:
    """The mean loss of the critics and of the policy, and its mean entropy, each over the updates that have one.

    Example:
        >>> means_of([Losses(torch.tensor(1.0)), Losses(torch.tensor(2.0), *torch.tensor([3.0, 4.0, 5.0, 6.0]))])
        {'critic_loss': 1.5, 'actor_loss': 3.0, 'entropy': 6.0}
    """
    values = {"critic_loss": "critic", "actor_loss": "actor", "entropy": "entropy"}
    found = {key: [x for one in losses if (x := getattr(one, name)) is not None] for key, name in values.items()}
    return {key: float(torch.stack(some).mean()) for key, some in found.items() if some}
