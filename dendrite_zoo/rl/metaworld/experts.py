"""Who shows Meta-World's tasks: its own scripted experts, and one of ours where its own is hard to imitate."""

from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.tasks import metaworld

__all__ = ["expert_of"]

OPEN, CLOSED = -1.0, 1.0
"""The gripper's force."""


class Expert(Protocol):
    """Such as those of ``metaworld.policies``."""

    def get_action(self, observation: NDArray[np.float64]) -> NDArray[Any]:
        """The action ``(4,)`` for an observation ``(39,)``."""


class SoccerExpert:
    """Takes the ball and drags it to the goal.

    Meta-World's own pushes it by a touch at a time, from one side or the other, which is too fine to be imitated.

    Example:
        >>> SoccerExpert().get_action(np.zeros(39)).shape
        (4,)
    """

    above = np.array([0.0, 0.0, 0.13])
    """The hand over the ball before it is lowered, in metres; it grips ``low`` over the ball's middle."""

    low = np.array([0.0, 0.0, 0.02])
    gripped = 0.7
    """How far the gripper is open at most, of 1, once it has the ball."""

    def get_action(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the ball, down, grip, and to the goal."""
        hand, opened, ball, goal = observation[:3], observation[3], observation[4:7], observation[-3:]
        beside, at = float(np.linalg.norm((hand - ball)[:2])), ball + self.low
        if beside > 0.04 or (beside > 0.02 and opened > self.gripped + 0.1):
            to, force = ball + self.above, OPEN
        elif hand[2] > at[2] + 0.015 and opened > self.gripped + 0.05:
            to, force = at, OPEN
        else:
            to, force = (np.array([*goal[:2], at[2]]) if opened <= self.gripped else hand), CLOSED
        return np.append(np.clip(10 * (to - hand), -1, 1), force)


def expert_of(task: str) -> Expert:
    """Make the expert that shows a task.

    Args:
        task: one of MT50's.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
    """
    metaworld()
    own: dict[str, Any] = {"soccer-v3": SoccerExpert}
    made: Expert = (own.get(task) or import_module("metaworld.policies").ENV_POLICY_MAP[task])()
    return made
