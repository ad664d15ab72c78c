"""Who shows Meta-World's tasks: its own scripted experts, and ours where those miss goals or cannot stay there."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.tasks import metaworld

__all__ = ["OWN", "expert_of", "own_experts"]

OPEN, CLOSED = -1.0, 1.0
"""The gripper's force."""


class Expert(Protocol):
    """Such as those of ``metaworld.policies``."""

    def get_action(self, observation: NDArray[np.float64]) -> NDArray[Any]:
        """The action ``(4,)`` for an observation ``(39,)``."""


@dataclass(frozen=True)
class DragExpert:
    """Takes a ball or a puck and drags it to the goal.

    Meta-World's own pushes the ball by a touch at a time, from one side or the other, which is too fine to be imitated,
    and loses a puck in one of ten.

    Args:
        low: how far over the middle of the object the hand grips, in metres.
        above: how far over the object the hand is before it is lowered, in metres.
        gripped: how far the gripper is open at most, of 1, once it has the object.

    Example:
        >>> DragExpert().get_action(np.zeros(39)).shape
        (4,)
    """

    low: float = 0.02
    above: float = 0.13
    gripped: float = 0.7

    def get_action(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the object, down, grip, and to the goal."""
        hand, opened, thing, goal = observation[:3], observation[3], observation[4:7], observation[-3:]
        beside, at = float(np.linalg.norm((hand - thing)[:2])), thing + (0.0, 0.0, self.low)
        if beside > 0.04 or (beside > 0.02 and opened > self.gripped + 0.1):
            to, force = thing + (0.0, 0.0, self.above), OPEN
        elif hand[2] > at[2] + 0.015 and opened > self.gripped + 0.05:
            to, force = at, OPEN
        else:
            to, force = (np.array([*goal[:2], at[2]]) if opened <= self.gripped else hand), CLOSED
        return np.append(np.clip(10 * (to - hand), -1, 1), force)


@dataclass(frozen=True)
class PressExpert:
    """Presses a handle down to the goal, and stays where it is pressed so far.

    Meta-World's own presses on, as far as the handle goes.

    Args:
        beside: how far the hand is in front of the handle's middle, in metres.
        stiffness: of the hand's height, by how far the handle is from the goal.
        damping: of the hand's height, by how fast the handle moves.

    Example:
        >>> PressExpert().get_action(np.zeros(39)).shape
        (4,)
    """

    beside: float = 0.0
    stiffness: float = 25.0
    damping: float = 50.0

    def get_action(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the handle, then down to it, and as far as the goal."""
        hand, handle, before, goal = observation[:3], observation[4:7], observation[22:25], observation[-3:]
        to = handle - (0.0, self.beside, 0.0)
        move = 25 * (to - hand)
        if np.linalg.norm((hand - to)[:2]) > 0.02:
            move[2] += 25 * 0.2
        elif hand[2] > handle[2] + 0.1:
            move[2] = -1.0
        else:
            move[2] = self.stiffness * (goal - handle)[2] - self.damping * (handle - before)[2]
        return np.append(np.clip(move, -1, 1), OPEN)


OWN: dict[str, Expert] = {
    "soccer-v3": DragExpert(),
    "push-back-v3": DragExpert(low=0.03),
    "handle-press-v3": PressExpert(beside=0.02),
    "handle-press-side-v3": PressExpert(),
}
"""The experts of ours, by task; they remember nothing. Files of demonstrations name them with all of their numbers."""


def own_experts(tasks: Iterable[str]) -> dict[str, str]:
    """Which of some tasks an expert of ours shows, and which.

    Example:
        >>> own_experts(["reach-v3", "handle-press-side-v3"])
        {'handle-press-side-v3': 'PressExpert(beside=0.0, stiffness=25.0, damping=50.0)'}
    """
    return {task: repr(OWN[task]) for task in tasks if task in OWN}


def expert_of(task: str) -> Expert:
    """Make the expert that shows a task.

    Args:
        task: one of MT50's.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
    """
    metaworld()
    if (own := OWN.get(task)) is not None:
        return own
    made: Expert = import_module("metaworld.policies").ENV_POLICY_MAP[task]()
    return made
