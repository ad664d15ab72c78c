"""A share of the environments, run one after another, and the table that holds their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig, Episodes
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
"""A row of the table. An environment is ``busy`` while it works, so that after a crash its task can be named."""


class Shard:
    """Environments by their rows of the table, which holds all inputs and outputs but the states.

    Args:
        table: ``(N,)`` of `ROW`.
        configs: of the environments, by their rows.
    """

    def __init__(self, table: NDArray[np.void], configs: Mapping[int, EpisodeConfig]) -> None:
        self._column = SimpleNamespace(**{name: table[name] for name in ROW.names or ()})
        self._episodes: dict[int, Episodes] = {}
        for row, config in configs.items():
            self._column.busy[row] = True  # stays True after an exception: this row caused it
            self._episodes[row] = Episodes(config)
            self._column.busy[row] = False

    def _busy(self) -> Iterator[tuple[int, Episodes]]:
        """Go through the rows, each busy in its turn."""
        busy = self._column.busy
        for row, episodes in self._episodes.items():
            busy[row] = True
            yield row, episodes
            busy[row] = False

    def reset(self) -> None:
        """Begin an episode in each environment."""
        for row, episodes in self._busy():
            episodes.restart()
            self._write(row, episodes)

    def _write(self, row: int, episodes: Episodes) -> None:
        self._column.observation[row] = episodes.observation
        self._column.finished[row] = episodes.finished

    def step(self) -> None:
        """Apply the actions in the table; where an episode ends, begin the next."""
        column = self._column
        for row, episodes in self._busy():
            column.goal[row] = episodes.goal
            if episodes.finished:
                column.reward[row], column.success[row], column.truncated[row] = 0.0, False, False
                continue
            result = episodes.step(column.action[row])
            column.final_observation[row] = result.observation
            column.reward[row], column.success[row] = result.reward, result.success
            column.truncated[row] = result.ended
            if result.ended:
                episodes.begin()
            self._write(row, episodes)

    def expert_actions(self) -> None:
        """Write the actions of the scripted experts into the table."""
        for row, episodes in self._busy():
            self._column.expert_action[row] = episodes.expert_action()

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return the state of each environment, by its row."""
        return {row: episodes.state_dict() for row, episodes in self._episodes.items()}

    def load_state_dict(self, states: Mapping[int, dict[str, Any]]) -> None:
        """Continue where `state_dict` was taken; rows of other shards are ignored."""
        for row, episodes in self._busy():
            episodes.load_state_dict(states[row])
            self._write(row, episodes)
