"""A small world that is nothing like Meta-World: other sizes, an end of its own, rewards of another scale.

Its makers stand in no test file, so that a process of environments need not import what that imports.
"""

from __future__ import annotations

import numpy as np


def spaces():
    import gymnasium

    return gymnasium.spaces


class Ledge:
    """A cart on a ledge of length 2, pushed by wind and two engines; it may fall off. Not even a `gymnasium.Env`.

    An observation is position, speed and wind; an action the force of two engines, from -3 to 1 and from 0 to 10. The
    reward is 500 a step near the middle, less farther off, and -1000 for a fall.
    """

    def __init__(self, wind: float = 0.0, length: int = 12, clock: bool = False) -> None:
        self.observation_space = spaces().Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces().Box(np.array([-3, 0], np.float32), np.array([1, 10], np.float32))
        self.wind, self.length, self.clock = wind, length, clock
        self.closed, self.pushes, self.resets = False, [], 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        self.generator = np.random.default_rng(seed)
        self.at, self.speed, self.steps = self.generator.uniform(-0.3, 0.3), 0.0, 0
        return self._see(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.pushes.append(action.copy())
        self.steps += 1
        force = action[0] + 1 + (action[1] - 5) / 10 + self.wind + self.generator.normal(0, 0.1)
        self.speed = 0.8 * self.speed + 0.1 * force
        self.at += self.speed
        fell = abs(self.at) > 1
        reward = -1000.0 if fell else 500 * (1 - abs(self.at))
        return self._see(), reward, fell, self.steps >= self.length, {"near": abs(self.at) < 0.1}

    def _see(self):
        seen = np.array([self.at, self.speed, self.wind], np.float32)
        return seen + np.float32(self.resets) if self.clock else seen

    def render(self):
        return np.full((4, 6, 3), 100 + int(50 * self.at), np.uint8)

    def close(self):
        self.closed = True


def calm():
    return Ledge()


def windy():
    return Ledge(wind=0.3)


class Easy(Ledge):
    """Is solved whatever is done."""

    def step(self, action):
        *result, _ = super().step(action)
        return (*result, {"near": True})


class Hard(Ledge):
    """Never is."""

    def step(self, action):
        *result, _ = super().step(action)
        return (*result, {"near": False})


def easy():
    return Easy(length=2)


def hard():
    return Hard(length=2)


def ledges(**options):
    from dendrite_zoo.rl import TaskSpec  # in a worker process it would bring torch

    return [
        TaskSpec("calm", calm, **{"success": "near", **options}),
        TaskSpec("windy", windy, **{"success": "near", **options}),
    ]
