"""Random actions that last for a while, in the warm-up and in bursts, beside those of a policy that learns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_positive, check_range
from dendrite_zoo._core.rng import random_state

__all__ = ["Exploration"]

SHORTEST, LONGEST = 3, 10  # actions of a burst


@dataclass(frozen=True)
class Exploration:
    """What a learner plays beside its policy's own actions: random ones that last.

    Random actions that change with each step cancel out, and a robot hardly moves. In the warm-up an action lasts
    until, with the probability ``new_action``, the next one is drawn. After it, in a share of the episodes, a policy's
    actions are interrupted by bursts: one uniform action, 3 to 10 times in a row, which leads out of where a policy is
    content with little reward. Both are learned from as all else that is played; the statistics of training leave
    episodes with bursts out.

    Args:
        new_action: probability, in the warm-up, that an action is a new one; 0.2 holds one for five actions on average.
        burst_share: share of the episodes after the warm-up that have bursts.
        burst_start: probability, in these, that a burst begins with an action.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> Exploration(burst_share=0.35)
        Exploration(new_action=0.2, burst_share=0.35, burst_start=0.04)
    """

    new_action: float = 0.2
    burst_share: float = 0.0
    burst_start: float = 0.04

    def __post_init__(self) -> None:
        check_positive(new_action=self.new_action)
        check_range(0, 1, new_action=self.new_action, burst_share=self.burst_share, burst_start=self.burst_start)


class Explorer:
    """Does it, in many environments at once.

    Args:
        exploration: what is done.
        shape: of all actions, ``(N, A)``.
        seed: of the random numbers, which follow from it and from the number of a round.

    Attributes:
        has_bursts: ``(N,)``, whether the current episode has bursts.
    """

    def __init__(self, exploration: Exploration, shape: tuple[int, int], seed: tuple[int, ...]) -> None:
        self.exploration, self.seed = exploration, seed
        self.begin_round(0)
        self.held = self.random.uniform(-1, 1, shape)
        self.left = np.zeros(shape[0], dtype=np.int64)  # of a burst
        self.has_bursts = np.zeros(shape[0], dtype=bool)

    def begin_round(self, number: int) -> None:
        """Draw the numbers of a round from now on."""
        self.random = random_state(*self.seed, number)

    def __call__(
        self, action: NDArray[np.float64], at_random: bool, awake: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """The actions to play.

        Args:
            action: the policy's, or uniform ones, ``(N, A)``.
            at_random: whether this is the warm-up, with uniform actions.
            awake: ``(N,)``, which environments are played; None for all.
        """
        awake = np.ones(len(action), dtype=np.bool_) if awake is None else awake
        changes = self.random.uniform(size=len(action))
        if at_random:
            new = awake & (changes < self.exploration.new_action)
            self.held[new] = action[new]
            return self.held.copy()
        begins = awake & self.has_bursts & (self.left == 0) & (changes < self.exploration.burst_start)
        draws = self.random.uniform(-1, 1, self.held.shape), self.random.randint(SHORTEST, LONGEST + 1, len(action))
        self.held[begins], self.left[begins] = draws[0][begins], draws[1][begins]
        bursting = self.left > 0
        self.left -= bursting & awake
        return np.where(bursting[:, None], self.held, action)

    def end_episodes(self, ended: NDArray[np.bool_], at_random: bool) -> None:
        """Decide about the bursts of the episodes that begin where others ended, ``(N,)``."""
        chosen = (self.random.uniform(size=len(ended)) < self.exploration.burst_share) & (not at_random)
        self.has_bursts[ended], self.left[ended] = chosen[ended], 0

    def state_dict(self) -> dict[str, Any]:
        """The actions that last, and where there are bursts."""
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in ("held", "left", "has_bursts")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value.numpy().copy())
