"""A share of the environments, run one after another, and the table that holds their numbers."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.episodes import EpisodeConfig, Episodes
from dendrite_zoo.rl.metaworld import episodes as metaworld
from dendrite_zoo.rl.metaworld.tasks import MetaWorldTask

RESULTS = ("reward", "success", "success_at_end", "truncated", "terminated", "steps")


def table_row(observation_size: int, action_size: int) -> np.dtype[np.void]:
    """The type of a row of the table, for environments of these sizes.

    An environment is ``busy`` while it works, so that after a crash its task can be named.
    """
    return np.dtype(
        [
            *((name, np.float64, (action_size,)) for name in ("action", "expert_action")),
            *((name, np.float64, (observation_size,)) for name in ("observation", "final_observation")),
            *(("reward", np.float64), ("goal", np.int64), ("steps", np.int64)),
            *((name, np.bool_) for name in ("success", "success_at_end", "truncated", "terminated")),
            *((name, np.bool_) for name in ("finished", "resting", "busy")),
        ],
        align=True,
    )


class Shard:
    """Environments by their rows of the table, which holds all inputs and outputs but the states.

    Args:
        table: ``(N,)`` of `table_row`.
    """

    def __init__(self, table: NDArray[np.void]) -> None:
        self._column = SimpleNamespace(**{name: table[name] for name in table.dtype.names or ()})
        self._episodes: dict[int, Episodes] = {}

    def make(self, configs: Mapping[int, EpisodeConfig]) -> None:
        """Make the environments, by their rows; before all else.

        Raises:
            ValueError: two of them are one.
        """
        for row, config in configs.items():
            self._column.busy[row] = True  # stays True after an exception: this row caused it
            own = config.spec is None or isinstance(config.spec, MetaWorldTask)
            episodes = metaworld.Episodes(config) if own else Episodes(config)
            if any(other.env is episodes.env for other in self._episodes.values()):
                raise ValueError(
                    f"Expected `make_env` of {config.task} to make a new environment each time, but got one that is in "
                    "use already: each of its episodes would move the other. Make it within: lambda: Env(), where it "
                    "is lambda: env."
                )
            self._episodes[row] = episodes
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
        """Apply the actions in the table, but in environments that rest; where an episode ends, begin the next."""
        column = self._column
        for row, episodes in self._busy():
            column.goal[row] = episodes.goal
            if episodes.finished or column.resting[row]:
                column.final_observation[row] = episodes.observation
                for name in RESULTS:
                    getattr(column, name)[row] = 0
                continue
            result = episodes.step(column.action[row])
            column.final_observation[row] = result.observation
            for name in RESULTS:
                getattr(column, name)[row] = getattr(result, name)
            if result.ended:
                episodes.begin()

    def expert_actions(self) -> None:
        """Write the actions of the scripted experts into the table."""
        for row, episodes in self._busy():
            self._column.expert_action[row] = episodes.expert_action()

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return the state of each environment, by its row."""
        return {row: episodes.state_dict() for row, episodes in self._episodes.items()}

    def load_state_dict(self, states: Mapping[int, dict[str, Any]]) -> list[int]:
        """Continue where `state_dict` was taken; rows of other shards are ignored.

        Returns:
            The rows that did not come back to where they were.
        """
        return [row for row, episodes in self._busy() if not episodes.load_state_dict(states[row])]

    def render(self, height: int, width: int) -> dict[int, NDArray[np.uint8]]:
        """Return a picture of each environment, by its row."""
        return {row: episodes.render(height, width) for row, episodes in self._busy()}

    def close(self) -> None:
        """Close the environments."""
        for episodes in self._episodes.values():
            episodes.close()


def shared(memory: Any, sizes: tuple[int, int]) -> Shard:
    """The share of a process, whose table lies in memory that the parent shares."""
    return Shard(np.frombuffer(memory, dtype=table_row(*sizes)))
