"""A player in a process of its own, which plays a round while the one before is learned from."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from dendrite_zoo.rl.acting import Acting, Received
from dendrite_zoo.rl.metaworld.tasks import MetaWorldTask, metaworld
from dendrite_zoo.rl.player import Act, Played, Player
from dendrite_zoo.rl.spec import TaskSpec
from dendrite_zoo.rl.task_list import check_sent
from dendrite_zoo.rl.worker import CONTEXT, Worker


class RemotePlayer:
    """A `Player` in a process of its own, on one thread of a CPU.

    Args:
        specs: the tasks.
        first_task: as for `Player`.
        timeout: seconds to wait where no action is played; five times as many while the environments are made.
        **options: further arguments of `Player`.

    Raises:
        RuntimeError: from any method, when the process crashed, hung or raised an exception.
    """

    def __init__(self, specs: Sequence[TaskSpec], first_task: int, *, timeout: float = 60.0, **options: Any) -> None:
        if any(isinstance(spec, MetaWorldTask) for spec in specs):
            metaworld()  # which fails here, and not in the process, where the extra is missing
        check_sent(specs)
        self._names, self._timeout = ", ".join(spec.name for spec in specs), timeout
        self._num_played = CONTEXT.RawValue("q")  # played so far
        self._worker = Worker("dendrite_zoo.rl.ahead:ServedPlayer", self._num_played)
        self._ask("make", specs, first_task, options, timeout=5 * timeout)

    def begin(self, act: Act, steps: int, *, at_random: bool = False, places: list[int] | None = None) -> None:
        """Begin to play a round, for which `finish` waits.

        Args:
            act: an `Acting`.
            steps: actions in every environment.
            at_random: as in `Player.play`.
            places: likewise.

        Raises:
            ValueError: ``act`` is another function, or has a policy that cannot be sent.
        """
        if not isinstance(act, Acting):
            raise ValueError(
                f"Expected `act` to be a dendrite_zoo.rl.Acting where rounds are collected ahead, as another process "
                f"plays them, but got {type(act).__name__}. Give one, or leave collect_ahead out."
            )
        self._worker.send("play", act.sent(), steps, at_random, places)

    def finish(self) -> Played | None:
        """Wait for the round that was begun; None where there is none."""
        return self._receive(self._timeout) if self._worker.waiting else None

    def play(self, act: Act, steps: int, *, at_random: bool = False, places: list[int] | None = None) -> Played:
        """Wait for the round that was begun, or play one now, see `Player.play`."""
        if not self._worker.waiting:
            self.begin(act, steps, at_random=at_random, places=places)
        return self._receive(self._timeout)

    def state_dict(self) -> dict[str, Any]:
        """As `Player.state_dict`, between two rounds."""
        return self._ask("state_dict")

    def load_state_dict(self, state: dict[str, Any], rounds: int) -> None:
        """As `Player.load_state_dict`."""
        for message in self._ask("load_state_dict", state, rounds):
            warnings.warn(message, stacklevel=2)

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def _ask(self, name: str, *arguments: Any, timeout: float | None = None) -> Any:
        self._worker.send(name, *arguments)
        return self._receive(timeout or self._timeout)

    def _receive(self, timeout: float) -> Any:
        """Wait, for as long as actions are played."""
        before = -1
        while not self._worker.ready(timeout) and before != self._num_played.value:
            before = self._num_played.value
        try:
            return self._worker.receive(timeout)
        except RuntimeError as error:
            what, *traceback = str(error).partition("\n\n")
        self.close()
        raise RuntimeError(
            f"The process that collects ahead, playing {self._names}, {what}. Fit again from the last checkpoint, with "
            f"ckpt_path=; without collect_ahead a debugger can follow.{''.join(traceback)}"
        ) from None


class ServedPlayer:
    """What is in that process.

    Args:
        actions: counts them.
    """

    def __init__(self, actions: Any) -> None:
        torch.set_num_threads(1)
        self._num_played, self._received = actions, Received()

    def make(self, specs: Sequence[TaskSpec], first_task: int, options: dict[str, Any]) -> None:
        """Make the environments; before all else."""
        self._player = Player(specs, first_task, **options, num_processes=0, device=torch.device("cpu"))

    def play(self, sent: tuple[Any, ...], steps: int, at_random: bool, places: list[int] | None) -> Played:
        """Play a round."""
        acting = self._received(*sent)

        def act(observation: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            self._num_played.value += 1
            return acting(observation, task)

        return self._player.play(act, steps, at_random=at_random, places=places)

    def state_dict(self) -> dict[str, Any]:
        """See `Player.state_dict`."""
        return self._player.state_dict()

    def load_state_dict(self, state: dict[str, Any], rounds: int) -> list[str]:
        """See `Player.load_state_dict`; the warnings are returned."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self._player.load_state_dict(state, rounds)
        return [str(warning.message) for warning in caught]
