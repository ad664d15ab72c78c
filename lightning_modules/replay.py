"""Experience replay: the baseline that keeps some of the data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo._core.finite import unusable_rows
from dendrite_zoo._core.lightning import attached_trainer
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.ranks import gather_states, state_of_rank
from dendrite_zoo.lightning_modules.continual import Batch, ContinualClassifier


class Reservoir:
    """A uniform sample of all rows ever seen, of fixed size, in one pass (Vitter 1985, algorithm R).

    What it draws depends on its seed and on how many rows it has seen, and on nothing else: its state is its content.

    Args:
        size: how many rows it holds.
        seed: of the draws.

    Attributes:
        rows: the tensors of the rows in it, such as ``[x (N, F), y (N,)]``.
        seen: how many rows it was shown.

    Example:
        >>> reservoir = Reservoir(4)
        >>> for start in range(0, 100, 10):
        ...     reservoir.add(torch.arange(start, start + 10))
        >>> reservoir.rows[0].shape, reservoir.seen
        (torch.Size([4]), 100)
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        check_integers(1, size=size)
        self.size, self.seed, self.seen = size, seed, 0
        self.rows: list[Tensor] = []

    def __len__(self) -> int:
        return min(self.seen, self.size)

    @torch.no_grad()
    def add(self, *batch: Tensor) -> None:
        """Show it a batch: tensors with the same number of rows.

        Raises:
            ValueError: there is NaN or infinity in it; nothing is remembered of it.
        """
        for tensor in batch:
            if bad := unusable_rows(tensor):
                raise ValueError(f"Expected finite rows to remember, but got NaN or infinity in rows {bad[:8]}.")
        if not self.rows:
            self.rows = [tensor.new_zeros(self.size, *tensor.shape[1:]) for tensor in batch]
        count = torch.arange(self.seen, self.seen + len(batch[0]))
        drawn = (torch.rand(len(count), generator=self._generator(1), dtype=torch.float64) * (count + 1)).long()
        slots = torch.where(count < self.size, count, drawn).tolist()
        latest = {slot: row for row, slot in enumerate(slots) if slot < self.size}
        target, source = (torch.tensor(list(ids), dtype=torch.long) for ids in (latest, latest.values()))
        for stored, tensor in zip(self.rows, batch, strict=True):
            stored[target.to(stored.device)] = tensor[source.to(tensor.device)].to(stored)
        self.seen += len(count)

    def sample(self, count: int) -> list[Tensor]:
        """Draw so many different rows, or all where it holds fewer."""
        chosen = torch.randperm(len(self), generator=self._generator(2))[:count]
        return [stored[chosen.to(stored.device)] for stored in self.rows]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"seen": self.seen, "rows": list(self.rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state.

        Raises:
            ValueError: it is of a memory of another size.
        """
        stored = len(state["rows"][0]) if state["rows"] else self.size
        if stored != self.size:
            raise wrong_argument("buffer_size", f"{stored}, as in the checkpoint", self.size)
        self.seen, self.rows = state["seen"], list(state["rows"])

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.seen) * 4 + purpose)


@say_new_names
class ReplayClassifier(ContinualClassifier):
    """A `ContinualClassifier` that learns each batch together with as many rows of a small memory of all tasks.

    The memory is a reservoir, which needs no task boundaries (experience replay as in Chaudhry et al. 2019). A context
    of a remembered row is inferred from it. Under DDP each process remembers rows of its own.

    Args:
        model: as for `ContinualClassifier`, as are the other arguments.
        buffer_size: how many rows are remembered.
        **kwargs: for `ContinualClassifier`.

    Raises:
        ValueError: as there, or a context that cannot be inferred; a checkpoint of another number of processes,
            or without remembered rows.

    Example:
        >>> ReplayClassifier(nn.Linear(64, 10), buffer_size=200).reservoir.size
        200
    """

    def __init__(self, model: nn.Module | Mapping[str, Any] | str, *, buffer_size: int = 500, **kwargs: Any) -> None:
        check_integers(1, buffer_size=buffer_size)
        super().__init__(model, **kwargs)
        if self.untrained is not None:
            raise wrong_argument("model", "one that is trained", "RidgeClassifier", "ContinualClassifier takes it.")
        if self.adapted is not None:
            remedy = "Each task has gates of its own, which no other changes. ContinualClassifier takes it."
            raise wrong_argument("model", "one that tasks share", "AdaptedBackbone", remedy)
        if self._takes_task or not getattr(self.context, "inferable", True):
            got = "a model that takes `task`" if self.context is None else type(self.context).__name__
            raise ValueError(
                f"Expected a context that can be inferred, such as PrototypeContext, for remembered rows have no task, "
                f"but got {got}."
            )
        self.reservoir = Reservoir(buffer_size)
        self.save_hyperparameters({"buffer_size": buffer_size})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean of the losses of the batch and of remembered rows."""
        loss = super().training_step(batch, batch_idx)
        if len(self.reservoir):
            x, y = self.reservoir.sample(len(batch[0]))
            loss = (loss + self.loss(self(x.to(self.device)), y.to(self.device))) / 2
        self.reservoir.add(*batch)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the memory, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reservoirs"] = gather_states(self.reservoir.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the memory, too."""
        super().on_load_checkpoint(checkpoint)
        states, trainer = checkpoint.get("reservoirs", []), attached_trainer(self)
        fitting = trainer is not None and trainer.state.fn == "fit"
        processes = 1 if trainer is None else trainer.world_size
        if fitting and not states:
            raise ValueError(
                "Expected a checkpoint that has remembered rows, but got one of a module that keeps none. Go on as it "
                "was, or start anew."
            )
        if states and (fitting or len(states) == processes):
            self.reservoir.load_state_dict(state_of_rank(states, self.global_rank, processes, "remembered rows"))
