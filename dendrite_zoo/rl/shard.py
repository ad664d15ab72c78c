"""A share of the environments, run one after another, and the table that holds their numbers."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig, Episodes
from dendrite_zoo.rl.metaworld.tasks import ACTION_SIZE, OBSERVATION_SIZE

ROW = np.dtype(
    [
        *((name, np.float64, ACTION_SIZE) for name in ("action", "expert_action")),
        *((name, np.float64, OBSERVATION_SIZE) for name in ("observation", "final_observation")),
        *(("reward", np.float64), ("goal", np.int64)),
        *((name, np.bool_) for name in ("success", "truncated", "finished", "busy")),
    ],
    align=True,
)
"""A row of the table. An environment is ``busy`` while it works, so that after a crash its task can be named."""


class Shard:
    """Environments by their rows of the table, which holds all inputs and outputs but the states.

    Args:
        table: ``(N,)`` of `ROW`.
    """

    def __init__(self, table: NDArray[np.void]) -> None:
        self._column = SimpleNamespace(**{name: table[name] for name in ROW.names or ()})
        self._episodes: dict[int, Episodes] = {}

    def make(self, configs: Mapping[int, EpisodeConfig]) -> None:
        """Make the environments, by their rows; before all else."""
        for row, config in configs.items():
            self._column.busy[row] = True  # stays True after an exception: this row caused it
            self._episodes[row] = Episodes(config)
            self._column.busy[row] = False

    def _busy(self) -> Iterator[tuple[int, Episodes]]:
        """Go through the rows, each busy in its turn, and write where its episodes are then."""
        column = self._column
        for row, episodes in self._episodes.items():
            column.busy[row] = True
            yield row, episodes
            column.observation[row], column.finished[row] = episodes.observation, episodes.finished
            column.busy[row] = False

    def reset(self) -> None:
        """Begin an episode in each environment."""
        for _, episodes in self._busy():
            episodes.restart()

    def step(self) -> None:
        """Apply the actions in the table; where an episode ends, begin the next."""
        column = self._column
        for row, episodes in self._busy():
            column.goal[row] = episodes.goal
            if episodes.finished:
                column.reward[row], column.success[row], column.truncated[row] = 0.0, False, False
                continue
            result = episodes.step(column.action[row])
            column.final_observation[row], column.reward[row], column.success[row], column.truncated[row] = result
            if result.ended:
                episodes.begin()

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
