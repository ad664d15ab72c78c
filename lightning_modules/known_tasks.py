"""Whether a model knows the tasks that count as learned before training starts."""

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_warn

from dendrite_zoo._core.describe import ranges
from dendrite_zoo._core.lightning import transfer_batch
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo.lightning_modules.losses import right_labels, unpack
from dendrite_zoo.models import AdaptedBackbone
from dendrite_zoo.tasks import current_task

if TYPE_CHECKING:
    from dendrite_zoo.lightning_modules.classifier import TaskClassifier

MARGIN = 0.2  # of the way from chance to 1


@torch.no_grad()
def warn_of_chance(module: "TaskClassifier") -> None:
    """Warn of tasks before the stream's ``first_task`` on which the model does hardly better than chance.

    Columns of an accuracy matrix that stand for what a model knows are about other data then: a
    ``PermutedTasks(own_tensors, first_task=10)`` permutes the new data in ten ways that the model has never seen. A
    batch of each task's validation rows is looked at, in eval mode. Chance is the share of the most frequent class.

    Args:
        module: about to be trained, on a datamodule with ``first_task`` and ``task_loader``.
    """
    data, training = module.datamodule, module.model.training
    if not getattr(data, "first_task", 0) or not hasattr(data, "task_loader"):
        return
    module.model.eval()
    at_chance, chances = {}, []
    for task in range(data.first_task):
        x, y = unpack(transfer_batch(module.trainer, next(iter(data.task_loader(task, "val")))), "x", "y")
        output = module(x, module._task_at_test(task))
        right = right_labels(output, y, module.loss_function)
        if right is None:
            break
        most = y[y >= 0].bincount(minlength=1).max()
        counts = torch.stack([right.sum(), most, torch.tensor(len(right), device=most.device)]).double()
        sum_over_ranks(counts)
        accuracy, chance = (counts[:2] / counts[2]).tolist()
        if accuracy < chance + MARGIN * (1 - chance):
            at_chance[task] = accuracy
            chances.append(chance)
    module.model.train(training)
    if at_chance:
        low, high = min(at_chance.values()), max(at_chance.values())
        rank_zero_warn(
            f"{type(data).__name__}(first_task={data.first_task}) says that the tasks before {data.first_task} were "
            f"learned, but on task{'s' * (len(at_chance) > 1)} {ranges(list(at_chance))} of them the accuracy of "
            f"{type(module.model).__name__} before training is {low:.2f} to {high:.2f}, hardly better than chance "
            f"({max(chances):.2f}): these are probably not the data that it learned. To go on with data of your own, "
            "let the stream that it was trained on stand for them: TaskSequence([PermutedTasks('digits', "
            f"num_tasks={data.first_task}), (x_train, y_train, x_test, y_test)], first_task={data.first_task})."
        )


def warn_of_known_task(module: "TaskClassifier", task: int) -> None:
    """Warn where a task about to be trained alone, by ``learn="new"``, was learned before."""
    parts = module.new is not None or isinstance(module.model, AdaptedBackbone)
    if parts and module.context is not None and module.context.counts[task] > 0:
        named = "Dendrites on a backbone" if module.new is None else "learn='new'"
        rank_zero_warn(
            f"{named}: task {task} was learned before. What it has for itself is trained again, and its "
            f"outputs change; those of all others do not. For a new task give first_task={module.context.num_tasks}."
        )


def warn_of_missing_task(module: "TaskClassifier") -> None:
    """Warn where a module is fitted again, and nobody says of which task the rows are."""
    if module.trainer.ckpt_path is None and module.context is not None and current_task(module.trainer) is None:
        task = module.boundary.task
        rank_zero_warn(
            f"{type(module).__name__}: nothing says which task this fit trains, so it goes on with task {task}, as the "
            f"fit before. For the next task set `module.current_task = {(task or 0) + 1}` before the fit, or train all "
            "tasks in one fit, with TaskSequence([...]) as the datamodule."
        )
