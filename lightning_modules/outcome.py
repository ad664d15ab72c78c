"""What a fit has not learned, or has forgotten, said when it ends, where something can be done about it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from dendrite_zoo._core.batches import with_labels_apart
from dendrite_zoo._core.describe import ranges
from dendrite_zoo.contexts import FoundContext, PrototypeContext, TaskContext
from dendrite_zoo.models import ActiveDendriteClassifier, AdaptedBackbone
from dendrite_zoo.models.adapters.context import AdapterContext
from dendrite_zoo.models.config import default_density
from dendrite_zoo.row_sparse.subnetworks import num_active

FEW_STEPS = 100  # of the optimizer, for a task
FEW_UNITS = 10  # active in a layer
HARDLY, BADLY = 0.7, 0.3  # of the loss of a guess that knows how frequent the classes are
FOUND = 0.3  # of the way from chance to 1
FORGOTTEN = 0.15  # of accuracy, in the mean over tasks
SHARED = (
    "for tasks share units. To forget nothing, give each a subnetwork that later ones leave as it is, in layers with "
    "room for all: ActiveDendriteClassifier(..., winners='context', context='ridge') and ContinualClassifier(..., "
    "learn='new'). Wider layers, and SynapticIntelligence or ElasticWeightConsolidation among the callbacks, keep "
    "more, too."
)
KEPT = (
    "though nothing that they use has changed: their rows are taken for those of other tasks, or classes that were "
    "learned later win. context='ridge' tells tasks apart by whatever differs, and a RidgeClassifier weighs all "
    "classes alike."
)


class Outcome:
    """How long each task of a fit was trained, how well its last batch fitted, and how it did before the next."""

    def __init__(self) -> None:
        self._batches: dict[int, tuple[int, Tensor, Tensor]] = {}
        self._learned: dict[int, float] = {}  # accuracy after each task, when the next begins

    def note(self, trainer: Trainer, task: int, outputs: Any, batch: Any) -> None:
        """Take note of a batch that was trained on.

        Args:
            trainer: whose metrics are those of the last validation.
            task: of the batch.
            outputs: the loss, as a Trainer gives it to ``on_train_batch_end``.
            batch: ``(x, y, ...)``; of others no note is taken, nor where ``y`` are not classes ``(B,)``.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        parts = with_labels_apart(batch)
        labels = parts[1] if isinstance(parts, (list, tuple)) and len(parts) > 1 else None
        if isinstance(loss, Tensor) and isinstance(labels, Tensor):
            if labels.ndim == 1 and not labels.is_floating_point():
                if task not in self._batches:
                    self._learned = {**_accuracies(trainer, self._batches), **self._learned}
                self._batches[task] = (self._batches[task][0] + 1 if task in self._batches else 1, loss, labels)

    def fits(self, accumulated: int) -> dict[int, "Fit"]:
        """How well each task was learned, as its last batch says; none of those whose labels are all of one class."""
        found: dict[int, Fit] = {}
        for task, (batches, loss, labels) in sorted(self._batches.items()):
            if (guess := entropy(labels)) > 0:
                found[task] = Fit(max(1, batches // accumulated), float(loss) * accumulated, guess)
        return found

    def say(self, trainer: Trainer, model: nn.Module, context: TaskContext | None, *, kept: bool) -> None:
        """Warn of what was not learned, and of what was forgotten; ``kept`` where nothing that tasks use changes."""
        if getattr(trainer, "fast_dev_run", False):
            return  # which is to learn nothing
        if not (isinstance(model, AdaptedBackbone) and model.config["head"] == "ridge"):  # which needs no steps
            fits = self.fits(trainer.accumulate_grad_batches)
            warn_of_few_steps(trainer, fits)
            warn_of_few_units(model, fits)
            if kept:
                warn_of_columns(model, fits)
        if not warn_of_lost_contexts(trainer, context):
            warn_of_forgetting(trainer, model, self._learned, kept)


class Fit(NamedTuple):
    """How well a task was learned."""

    steps: int
    loss: float
    guess: float
    """The loss of one who knows how frequent the classes are, and no more."""


def entropy(labels: Tensor) -> float:
    """The cross-entropy of a guess that knows how frequent the classes ``(B,)`` are, and no more.

    Example:
        >>> round(entropy(torch.tensor([0, 0, 1, 1])), 3)
        0.693
    """
    labels = labels.long()  # unsigned ones cannot be compared
    shares = labels[labels >= 0].bincount().double()
    shares = shares[shares > 0] / shares.sum()
    return -float((shares * shares.log()).sum())


def warn_of_few_steps(trainer: Trainer, fits: Mapping[int, Fit]) -> None:
    """Warn where tasks had so few steps that a network can hardly have learned them, and their loss says the same."""
    found = [task for task, fit in fits.items() if fit.steps < FEW_STEPS and fit.loss > HARDLY * fit.guess]
    if not found:
        return
    task = min(found, key=lambda task: fits[task].steps)
    steps, reached, guess = fits[task]
    epochs, remedy = getattr(getattr(trainer, "datamodule", None), "epochs_per_task", None), "more epochs"
    if isinstance(epochs, int):
        remedy = f"epochs_per_task={max(2, FEW_STEPS * epochs // steps)} or more"
    rank_zero_warn(
        f"The network has hardly learned task{'s' * (len(found) > 1)} {ranges(found)}: task {task} had {steps} "
        f"step{'s' * (steps > 1)} of the optimizer, and its last batch a loss of {reached:.2f}, where a guess by the "
        f"frequencies of the classes has {guess:.2f}. Train longer, with {remedy}, or a smaller batch_size; a "
        "RidgeClassifier needs one pass over the data."
    )


def badly_learned(fits: Mapping[int, Fit]) -> list[int]:
    """The tasks that had steps enough, and were learned badly."""
    return [task for task, fit in fits.items() if fit.steps >= FEW_STEPS and fit.loss > BADLY * fit.guess]


def warn_of_few_units(model: nn.Module, fits: Mapping[int, Fit]) -> None:
    """Warn where tasks were learned badly in a network of whose hidden layers one has hardly any active units."""
    if not isinstance(model, ActiveDendriteClassifier) or model.config["activation"] != "k-winners":
        return
    units, density = min(model.config["hidden_features"]), model.config["activation_density"]
    active = num_active(density, units)
    found = badly_learned(fits)
    if found and active < FEW_UNITS:
        first = fits[found[0]]
        more = f"activation_density={most:.2g}, or " if density < (most := default_density(units)) else ""
        rank_zero_warn(
            f"The network has learned task{'s' * (len(found) > 1)} {ranges(found)} badly (loss {first.loss:.2f}, of a "
            f"guess {first.guess:.2f}), and {active} of the {units} units of a hidden layer are active "
            f"with activation_density={density:g}: fewer than ten learn little. Give {more}wider layers."
        )


def warn_of_columns(model: nn.Module, fits: Mapping[int, Fit]) -> None:
    """Warn where tasks were learned badly that had columns of segments alone to learn with."""
    config = model.config if isinstance(model, ActiveDendriteClassifier) else {}
    if config.get("context") != "one-hot" or config["winners"] == "context" or config["additive_segments"]:
        return
    if later := [task for task in badly_learned(fits) if task > 0]:  # the first has all of the network
        fit = fits[later[-1]]
        rank_zero_warn(
            f"The network has learned task{'s' * (len(later) > 1)} {ranges(later)} badly (loss {fit.loss:.2f}, of a "
            f"guess {fit.guess:.2f}): with learn='new' a task trains its columns of segments, which open and shut what "
            "earlier tasks have trained, and no more. Load it with additive_segments=True, by which a task adds "
            "something of its own, or build it with winners='context'."
        )


def warn_of_forgetting(trainer: Trainer, model: nn.Module, learned: Mapping[int, float], kept: bool) -> None:
    """Warn where a network of ours has forgotten much of the tasks that it learned before its last.

    Args:
        trainer: whose metrics are those of the last validation.
        model: the network.
        learned: the accuracy on each earlier task, after it was learned.
        kept: whether nothing that an earlier task uses has changed.
    """
    now = _accuracies(trainer, learned)
    lost = [learned[task] - now[task] for task in now]
    if not lost or not isinstance(model, ActiveDendriteClassifier) or (share := sum(lost) / len(lost)) < FORGOTTEN:
        return
    why = KEPT if kept else SHARED
    rank_zero_warn(
        f"The network has forgotten much of task{'s' * (len(now) > 1)} {ranges(list(now))}: accuracy fell by "
        f"{share:.2f} since they were learned, to {sum(now.values()) / len(now):.2f}, {why}"
    )


def _accuracies(trainer: Trainer, tasks: Iterable[int]) -> dict[int, float]:
    """Accuracy on tasks in the last validation, of those that it had."""
    metrics = trainer.callback_metrics
    found = {task: float(metrics[key]) for task in tasks if (key := f"val/task_{task}/acc") in metrics}
    return {task: accuracy for task, accuracy in found.items() if not math.isnan(accuracy)}


def warn_of_lost_contexts(trainer: Trainer, context: TaskContext | None) -> bool:
    """Warn where the last validation found hardly any row's task, though each has a context of its own; say whether."""
    if isinstance(context, FoundContext):
        return _warn_of_one_cluster(trainer, context)
    return context is not None and _warn_of_few_found(trainer, context)


def _warn_of_few_found(trainer: Trainer, context: TaskContext) -> bool:
    """Warn where the last validation found the tasks of not many more rows than a guess does."""
    metrics = trainer.callback_metrics
    known = context.counts.nonzero().flatten().tolist()
    shares = [metrics[key] for task in known if (key := f"val/task_{task}/context_acc") in metrics]
    if len(shares) < 2:
        return False
    share, chance = float(torch.stack([torch.as_tensor(s).float().cpu() for s in shares]).nanmean()), 1 / len(known)
    if share >= chance + FOUND * (1 - chance):
        return False
    remedy, finder = "Where the task is known at test, give it: context_at_test='given'.", context
    if isinstance(context, AdapterContext) and context.inner is not None:
        finder = context.inner
    if isinstance(finder, PrototypeContext):
        remedy = (
            "It knows the mean input of each task, and these have nearly the same, as where each column was "
            "brought to mean 0: context='ridge' finds tasks by whatever differs. " + remedy
        )
    rank_zero_warn(
        f"{type(finder).__name__} finds the task of {share:.0%} of the validation rows of {len(known)} tasks "
        f"(chance: {chance:.0%}), so that most rows are answered as those of another task. {remedy} Where tasks "
        "want the same answers, this costs little: evaluate_contexts(model, stream) says how much."
    )
    return True


def _warn_of_one_cluster(trainer: Trainer, context: FoundContext) -> bool:
    """Warn where all tasks of a stream were taken for one, so that dendrites have done nothing."""
    data = getattr(trainer, "datamodule", None)
    first, last = getattr(data, "first_task", 0), getattr(data, "current_task", None)
    if not isinstance(last, int) or last <= first or context.num_tasks > 1:
        return False
    rank_zero_warn(
        f"{type(context).__name__} finds the task of no row: it took tasks {first} to {last} for one cluster, so "
        "that every input has the same context. Their means are nearly the same, as where each column was brought "
        "to mean 0. Where tasks want different answers, and it is known when one begins, context='ridge' tells "
        "them apart."
    )
    return True
