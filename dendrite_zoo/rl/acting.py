"""A policy as it plays a round, in this process or in another."""

import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo.models.control import ControlModel
from dendrite_zoo.models.loading import as_model, saved_config
from dendrite_zoo.models.unused import put_used, used_alone
from dendrite_zoo.rl.compact import parts_of
from dendrite_zoo.rl.spec import pickler

__all__ = ["Acting"]


@dataclass
class Acting:
    """Samples a policy's actions, or uniform ones, with random numbers of its own: all that another process needs.

    Args:
        policy: maps ``(observation, task)`` to mean and log standard deviation of an action before it is squashed; None
            for uniform actions.
        tasks: ``(T,)``, the numbers in the policy of the tasks that are played.
        action_size: numbers in an action.
        seed: of the random numbers.

    Example:
        >>> act = Acting(None, torch.arange(2), action_size=4, seed=0)
        >>> act(torch.zeros(3, 39), torch.tensor([0, 0, 1])).shape
        torch.Size([3, 4])
    """

    policy: nn.Module | None
    tasks: Tensor
    action_size: int
    seed: int

    def __post_init__(self) -> None:
        self._generator = torch.Generator(self.tasks.device).manual_seed(self.seed)
        self._asked: tuple[Tensor, Any] | None = None  # the tasks of the last call, and what the policy takes for them

    @torch.no_grad()
    def __call__(self, observation: Tensor, task: Tensor) -> Tensor:
        """Actions ``(N, A)`` for observations ``(N, O)`` in tasks ``(N,)``."""
        shape = len(observation), self.action_size
        if self.policy is None:
            return torch.rand(shape, generator=self._generator, device=observation.device) * 2 - 1
        if self._asked is None or self._asked[0] is not task:
            self._asked = task, parts_of(self.policy, self.tasks[task])
        mean, log_std = self.policy(observation, self._asked[1])
        noise = torch.randn(shape, generator=self._generator, device=mean.device, dtype=mean.dtype)
        return torch.addcmul(mean, log_std.exp(), noise).tanh()

    def sent(self) -> tuple[Any, ...]:
        """What `Received` makes the same of in another process.

        Raises:
            ValueError: the policy cannot be sent.
        """
        if self.policy is None:
            return None, None, self.tasks.cpu(), self.action_size, self.seed
        try:
            recipe = pickler().dumps(saved_config(self.policy) or self.policy)
        except Exception as error:
            raise ValueError(
                f"Expected a policy that can be sent to the process that collects ahead, but got {error}. Give an "
                "ActiveDendritePolicy or a module of pickle's kind, or leave collect_ahead out."
            ) from None
        weights = {
            name: w.detach().cpu() if isinstance(w, Tensor) else w for name, w in self.policy.state_dict().items()
        }
        if isinstance(self.policy, ControlModel):
            weights = used_alone(self.policy.config, weights)
        return recipe, weights, self.tasks.cpu(), self.action_size, self.seed


class Received:
    """Makes `Acting` of what another process sent; a policy of the same form is built once."""

    def __init__(self) -> None:
        self._recipe: bytes | None = None
        self._policy: nn.Module | None = None

    def __call__(self, recipe: bytes | None, weights: Any, *others: Any) -> Acting:
        """The same as in the other process, on the CPU."""
        if recipe is None:
            return Acting(None, *others)
        if recipe != self._recipe:
            self._recipe, self._policy = recipe, as_model(pickle.loads(recipe), nn.Module).cpu()
        assert self._policy is not None
        if isinstance(self._policy, ControlModel):
            with torch.no_grad():
                put_used(self._policy.config, weights, self._policy.state_dict())
        else:
            self._policy.load_state_dict(weights)
        return Acting(self._policy, *others)
