"""What a new task of a classifier should know of the one output that all its tasks share."""

from collections.abc import Iterable

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dendrite_zoo.models import ActiveDendriteClassifier

SHARE = 0.2
"""Of the rows of a new task: so many are given one of its classes in an earlier task, where that has them, too."""


@torch.no_grad()
def warn_of_classes(
    model: ActiveDendriteClassifier, x: Tensor | None, has: Tensor, untrained: Tensor, earlier: Iterable[int]
) -> None:
    """Warn of classes that may win over those of earlier tasks, or that a task cannot learn.

    Args:
        model: about to learn a task by ``learn="new"``.
        x: a batch of the task; None where it was looked at before.
        has: which classes the task has, ``(num_classes,)``.
        untrained: which were never trained, ``(num_classes,)``.
        earlier: the tasks before.
    """
    earlier = list(earlier)
    if x is None or not earlier:
        return
    if added := (has & untrained).nonzero().flatten().tolist():
        rank_zero_warn(
            f"learn='new': the task has classes that no earlier one had, {added}. The logits of all other classes are "
            "equal to the bit in earlier tasks, but the output is shared: a new class may win there too, with the task "
            "given, and their accuracy may fall. Compare the logits of a task's own classes alone."
        )
        return
    if all(has[model(x, task=task).argmax(1)].float().mean() < SHARE for task in earlier):
        rank_zero_warn(
            f"learn='new': earlier tasks hardly ever give a class of this one, {has.nonzero().flatten().tolist()}, as "
            "if none had had them. Their rows of the output were trained with the first task and stay as they are, so "
            "that this task may learn nothing. Train the first with as many classes as it has, and load the model with "
            "num_classes= when a task brings more."
        )
