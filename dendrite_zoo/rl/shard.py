"""A share of the environments, played one after another, and the table in which their numbers lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.episodes import Episodes, Recipe
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, OBSERVATION_SIZE

__all__ = ["ROW", "Shard"]

ROW = np.dtype(
    [
        ("action", np.float64, ACTION_SIZE),
        ("expert_action", np.float64, ACTION_SIZE),
        ("observation", np.float64, OBSERVATION_SIZE),
        ("final_observation", np.float64, OBSERVATION_SIZE),
        ("reward", np.float64),
        ("goal", np.int64),
        ("success", np.bool_),
        ("truncated", np.bool_),
        ("finished", np.bool_),
        ("busy", np.bool_),
    ],
    align=True,
)
"""A row of the table. While an environment is at work it is ``busy``: so a crash has a name."""


class Shard:
    """Environments by their rows of the table. The table is all that goes in and out, other than states.

    Args:
        table: ``(N,)`` of `ROW`.
        recipes: row to what is played there.
    """

    def __init__(self, table: NDArray[np.void], recipes: Mapping[int, Recipe]) -> None:
        self._column = SimpleNamespace(**{name: table[name] for name in ROW.names or ()})
        self._episodes: dict[int, Episodes] = {}
        for row, recipe in recipes.items():
            self._column.busy[row] = True  # and stays so after an exception: the row at fault
            self._episodes[row] = Episodes(recipe)
            self._column.busy[row] = False

    def _busy(self) -> Iterator[tuple[int, Episodes]]:
        """Go through the rows, each of them busy while it is at work."""
        busy = self._column.busy
        for row, episodes in self._episodes.items():
            busy[row] = True
            yield row, episodes
            busy[row] = False

    def reset(self) -> None:
        """Begin an episode in each environment."""
        for row, episodes in self._busy():
            episodes.restart()
            self._show(row, episodes)

    def _show(self, row: int, episodes: Episodes) -> None:
        self._column.observation[row] = episodes.observation
        self._column.finished[row] = episodes.finished

    def step(self) -> None:
        """Play the actions of the table; where an episode ended, begin the next."""
        column = self._column
        for row, episodes in self._busy():
            column.goal[row] = episodes.goal
            if episodes.finished:
                column.reward[row], column.success[row], column.truncated[row] = 0.0, False, False
                continue
            outcome = episodes.step(column.action[row])
            column.final_observation[row] = outcome.observation
            column.reward[row], column.success[row] = outcome.reward, outcome.success
            column.truncated[row] = outcome.ended
            if outcome.ended:
                episodes.begin()
            self._show(row, episodes)

    def expert_actions(self) -> None:
        """Write down what the scripted experts would do now."""
        for row, episodes in self._busy():
            self._column.expert_action[row] = episodes.expert_action()

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Give the state of each environment, by its row."""
        return {row: episodes.state_dict() for row, episodes in self._episodes.items()}

    def load_state_dict(self, states: Mapping[int, dict[str, Any]]) -> None:
        """Go on where `state_dict` was taken; rows of other shards are left to them."""
        for row, episodes in self._busy():
            episodes.load_state_dict(states[row])
            self._show(row, episodes)
