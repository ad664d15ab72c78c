"""Policy and critics of which the parts that tasks use are trained as parameters of their own."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo.functional import sac
from dendrite_zoo.models.control import ControlModel, TaskParts
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.row_sparse.compact import Compact, Exchange
from dendrite_zoo.row_sparse.groups import Take
from dendrite_zoo.row_sparse.taken_rows import take_together


class CompactTraining:
    """Has an optimizer train the parts of policy and critics that a batch uses, as long as all batches use the same.

    Parts are cut out of networks and out of the optimizer's moments once, and put back at the `end`: an update costs
    what the parts cost. Where winners are not chosen by the context there are no parts, and nothing is different.

    Args:
        optimizer: of policy and critics.
        models: policy, critics and their slow copies.
    """

    def __init__(self, optimizer: DendriteAdam, models: Sequence[nn.Module]) -> None:
        self.optimizer, self.models = optimizer, models
        self._task: Tensor | None = None  # of all batches
        self._taken: list[Compact] = []  # of each model
        self._cuttings: list[Any] = []  # what was taken, where it is what is trained
        self._exchange: Exchange | None = None
        self._following: list[tuple[Tensor, Tensor]] = []  # what follows at each update, and what it follows
        self._left = 1.0  # of the distance between slow critics and critics where nothing learns

    def parts(self, task: Tensor) -> list[Any]:
        """What the models take in the place of the tasks of a batch ``(B,)``."""
        if self._task is None:
            self._begin(task)
        elif not task.equal(self._task):
            self.end()
        if self._cuttings:
            return self._cuttings
        parts = self._cut(task)
        if self._taken and all(isinstance(one, TaskParts) and one.are_parameters for one in parts):
            self._cuttings = parts
        return parts

    def _begin(self, task: Tensor) -> None:
        self._task, self._taken = task.clone(), [Compact() for _ in self.models]
        with torch.no_grad():
            self._cut(task)
        rows = [rows for taken in self._taken for rows in taken.rows]
        if all(rows.are_alike(self.optimizer) for rows in rows):
            self._exchange = Exchange(self.optimizer, rows)
        else:
            self._taken = []
        self._following = self._pairs(are_taken=False)
        if self._taken:
            pairs = zip(self._taken[2].rows, self._taken[1].rows, strict=True)
            self._following += [(slow.value, critic.value) for slow, critic in pairs]

    def _cut(self, task: Tensor) -> list[Any]:
        takes: Sequence[Take] = self._taken or [take_together for _ in self.models]
        return [parts_of(model, task, take) for model, take in zip(self.models, takes, strict=True)]

    def follow(self, rate: float) -> None:
        """Let the slow critics follow; what the tasks do not use follows at the end."""
        follow(self._following, rate)
        self._left *= 1 - rate

    def end(self) -> None:
        """Put back what was trained; from then on the models themselves are."""
        if self._exchange is not None:
            self._exchange.end()
            self._exchange = None
        follow(self._pairs(are_taken=True), 1 - self._left)
        for each in self._taken:
            each.put_back()
        self._taken, self._cuttings = [], []
        self._following = self._pairs(are_taken=False)

    def _pairs(self, *, are_taken: bool) -> list[tuple[Tensor, Tensor]]:
        """The parameters of the slow critics, and those that they follow: of which rows were taken, or the others."""
        _, critic, slow = self.models
        taken = {id(p) for each in self._taken[1:2] for rows in each.rows for p in rows.parameters}
        pairs = zip(slow.parameters(), critic.parameters(), strict=True)
        return [pair for pair in pairs if (id(pair[1]) in taken) == are_taken]


def follow(pairs: Iterable[tuple[Tensor, Tensor]], rate: float) -> None:
    """Let the first of each pair follow the second by a share of the distance, where that learns."""
    learning = [pair for pair in pairs if pair[1].requires_grad]
    if learning:
        slow, fast = zip(*learning, strict=True)
        sac.polyak_(slow, fast, rate)


def parts_of(module: nn.Module, task: Tensor, take: Take = take_together) -> Tensor | TaskParts:
    """The parts of a model of ours that the tasks of a batch use, for all that is computed in one update."""
    return module.parts(task, take) if isinstance(module, ControlModel) else task
