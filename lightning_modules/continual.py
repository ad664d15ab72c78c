"""Learning one task after another."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.lightning import attached_trainer, validation_of, whole_pass
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.hub import HubModel
from dendrite_zoo.lightning_modules.adapted import AdaptedTasks
from dendrite_zoo.lightning_modules.classifier import ContextAtTest, Loss, Metrics, OptimizerFactory
from dendrite_zoo.lightning_modules.finite import batch_named
from dendrite_zoo.lightning_modules.known_tasks import warn_of_chance, warn_of_known_task, warn_of_missing_task
from dendrite_zoo.lightning_modules.losses import inputs_and_targets, unpack
from dendrite_zoo.lightning_modules.new_classes import warn_of_classes
from dendrite_zoo.lightning_modules.new_tasks import Learn
from dendrite_zoo.lightning_modules.schedules import Schedule, cosine, inverse
from dendrite_zoo.models import ActiveDendriteClassifier, RidgeClassifier
from dendrite_zoo.tasks import callbacks_task, current_task

Batch = tuple[Tensor, Tensor]


@say_new_names
class ContinualClassifier(AdaptedTasks):
    """Trains a network on a stream of tasks, one after another (Iyer et al. 2022, permuted MNIST).

    Which task is on comes from the datamodule's ``current_task`` (see `dendrite_zoo.streams`); without one from what is
    written to ``module.current_task`` before a fit, or from a callback that was given it, as
    ``ForgettingLogger(epochs_per_task=3)``; else it is task 0. When a task starts, its context is computed in one
    pass over its inputs, and the optimizer starts anew. A context that finds tasks by itself
    (`dendrite_zoo.contexts.ClusterContext`) gets no task: it observes each batch, and the cluster that the batch joins
    is the ``current_task`` of this module. A `dendrite_zoo.models.RidgeClassifier` is not trained: it learns a task in
    one pass when that starts.

    With ``loss=`` and ``metrics=`` it trains more than classifiers: a regression, or several labels a row. For a loss
    that needs more than output and target override `loss`, or `training_step`.

    Args:
        model: an `ActiveDendriteClassifier` (it has its own context), any module that maps ``x`` to logits, or one
            that maps ``(x, context)``, or ``x`` and ``task=``, integers ``(B,)``; or what `dendrite_zoo.load` takes,
            such as ``"org/repo@revision"``; or the config of a registered model, from which it is built.
        context: where the context comes from (`dendrite_zoo.contexts`); needed where ``model`` takes ``(x, context)``.
        lr: learning rate of `dendrite_zoo.optim.DendriteAdam`, 1/step; by default the model's ``default_lr`` or 5e-4,
            and with ``learn="new"`` for what a new task has for itself 1e-2 (columns) or 4e-3 (a subnetwork).
        optimizer: makes another optimizer from the parameters, with a learning rate of its own.
        reset_optimizer: forget the optimizer's moments when a task starts, as the paper does.
        lr_schedule: the learning rate falls within each task. ``"cosine"``: to 0, where the datamodule has a number of
            ``epochs_per_task``. ``"inverse"``: as ``1 / (1 + n / 200)`` after ``n`` batches, for no end must be known.
        label_smoothing: share of the target that goes to all classes alike, in training.
        loss: of ``(output, target)``, in place of cross-entropy, such as ``nn.MSELoss()``. A checkpoint does not hold
            it: pass it to ``load_from_checkpoint``, too.
        metrics: one of torchmetrics, a dictionary of them or a ``MetricCollection``, updated with ``(output, target)``.
        learn: ``"all"`` trains all of the network; ``"new"`` only what no earlier task uses, so that the outputs of
            earlier tasks, given the task, stay as they are, to the bit: the task's columns of segments where contexts
            are one-hot, or where winners are chosen by the context its subnetwork, but for what is also in another's;
            and the output's rows of classes never trained, which may still win over those of earlier tasks.
        init_from: with ``learn="new"``, what a new task's columns, or its subnetwork, start as copies of: ``"nearest"``
            for the task that fits the first held-out batches best, or none (columns of zeros); or the index of a task;
            by default they stay as they are.
        context_at_test: ``"inferred"`` from each input, ``"given"`` with the task (where contexts are not found), or
            ``"constant"``: task 0's for every input, a control that shows what the dendrites give.

    Attributes:
        cluster_to_task: the task in which each cluster was first seen, where the context finds tasks; only what is
            logged depends on it.

    Logs:
        ``train/loss``; ``val/task_{j}/acc``, where targets are classes; ``val/task_{j}/loss``, where ``loss`` is given;
        ``val/task_{j}/{name}`` of each metric; and, where contexts are inferred, ``val/task_{j}/context_acc``, the
        share of inputs whose task was found (none of a task that shares the cluster of an earlier one); ``test/...``
        likewise.

    Raises:
        ValueError: the model needs a context and none was given; at fit, model and datamodule do not fit together.

    Example:
        >>> from dendrite_zoo.models import ActiveDendriteClassifier, RidgeClassifier
        >>> module = ContinualClassifier(ActiveDendriteClassifier(64, [32], 10, max_tasks=2), lr=1e-3)
        >>> module.configure_optimizers().param_groups[0]["lr"]
        0.001
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any] | str,
        *,
        context: TaskContext | None = None,
        lr: float | None = None,
        optimizer: OptimizerFactory | None = None,
        reset_optimizer: bool = True,
        lr_schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        loss: Loss | None = None,
        metrics: Metrics | None = None,
        context_at_test: ContextAtTest = "inferred",
        learn: Learn = "all",
        init_from: str | int | None = None,
    ) -> None:
        super().__init__(
            model,
            context=context,
            lr=lr,
            optimizer=optimizer,
            lr_schedule=lr_schedule,
            label_smoothing=label_smoothing,
            loss=loss,
            metrics=metrics,
            context_at_test=context_at_test,
            reset_optimizer=reset_optimizer,
        )
        self._cluster: int | None = None  # of the batch at hand, where the context finds tasks by itself
        self._own_task: int | None = None
        self.cluster_to_task: list[int] = []
        self._batches_learned: Counter[int] = Counter()  # of each task, for a learning rate that falls with them
        self._first_inputs: Tensor | None = None  # a batch of the task about to be trained, and its classes
        self._labels: Tensor | None = None
        if learn == "new" and isinstance(self.context, FoundContext):
            got = f"'new' with {type(self.context).__name__}, which finds tasks while they are trained"
            raise ValueError(f"Expected `learn` to be 'all', but got {got}. Use PrototypeContext, or learn='all'.")
        own = isinstance(self.model, ActiveDendriteClassifier)
        head = [name for name, _ in self.model.named_parameters() if own and name.startswith("mlp.output.")]
        self.choose_learning(learn, init_from, context=self.context, head=head)

    @property
    def current_task(self) -> int | None:
        """The task trained on; None if unknown.

        It is the context's cluster, where it finds tasks, else the datamodule's ``current_task``. Without a datamodule
        that has one, write it before each fit, ``module.current_task = 3``; else it is what a `ForgettingLogger` or
        another callback of the Trainer was given.
        """
        return self._cluster if isinstance(self.context, FoundContext) else self._stream_task

    @current_task.setter
    def current_task(self, task: int | None) -> None:
        self._own_task = task

    @property
    def _stream_task(self) -> int | None:
        task, trainer = getattr(self.datamodule, "current_task", self._own_task), attached_trainer(self)
        return callbacks_task(trainer) if task is None and trainer is not None else task

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch in the context of the current task."""
        if self.untrained is not None:  # learned when the task started
            return self.untrained * 0
        x, y = unpack(batch, "x", "y")
        loss = self.loss(self(x, self.current_task or 0), y)
        self.log("train/loss", loss, prog_bar=True)
        if isinstance(self.context, FoundContext):
            self.log("train/clusters", float(self.context.num_tasks))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on task ``dataloader_idx``; in a fit with one loader alone, that is of the current task."""
        task, alone = self._stream_task, self.trainer.state.fn == "fit" and len(self.trainer.num_val_batches) == 1
        x, y = unpack(batch, "x", "y")
        self.log_scores("val", x, y, task if alone and task is not None else dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on task ``dataloader_idx``."""
        x, y = unpack(batch, "x", "y")
        self.log_scores("test", x, y, dataloader_idx)

    def on_fit_start(self) -> None:
        """Take the clusters of a loaded model for its tasks, in order."""
        super().on_fit_start()
        if self.hparams["lr_schedule"] == "cosine" and not hasattr(self.datamodule, "epochs_per_task"):
            raise ValueError(
                "Expected a datamodule with epochs_per_task for lr_schedule='cosine', as PermutedTasks has, but got "
                "none. Give the datamodule that attribute, or use lr_schedule='inverse', which needs no end."
            )
        if isinstance(self.context, FoundContext):
            self.cluster_to_task += range(len(self.cluster_to_task), self.context.num_tasks)
        if self.untrained is not None and self.trainer.ckpt_path is None:
            self.boundary.task = None  # each fit has rows to learn, be it of the same task
        if self.boundary.task is None:
            warn_of_chance(self)
        else:
            warn_of_missing_task(self)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """When a task starts: compute its context, and let the optimizer start anew."""
        super().on_train_batch_start(batch, batch_idx)
        if isinstance(self.context, FoundContext):
            with batch_named(self.trainer, batch_idx):
                self._cluster = self.context.observe(batch[0])
            if self._cluster == len(self.cluster_to_task):
                self.cluster_to_task.append(current_task(self.trainer) or 0)
        task = self.current_task or 0
        if task != self.boundary.task:
            warn_of_known_task(self, task)
            self._start_context(task)  # first: where its inputs are refused, nothing has changed
            if isinstance(self.model, RidgeClassifier):
                self.model.learn(self.task_batches())
        self.enter_task(task)
        if self.hparams["lr_schedule"] == "cosine":
            epochs = self.datamodule.epochs_per_task
            done = self.trainer.current_epoch % epochs + batch_idx / self.trainer.num_training_batches
            self.scale_learning_rate(cosine(done / epochs))
        elif self.hparams["lr_schedule"] == "inverse":
            self.scale_learning_rate(inverse(self._batches_learned[task]))
            self._batches_learned[task] += 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which task was trained last, and in which tasks clusters were first seen."""
        super().on_save_checkpoint(checkpoint)
        if isinstance(self.model, HubModel) and self.model.origin is not None:
            checkpoint["base_model"] = self.model.origin.repo or self.model.origin.base_model
        checkpoint["batches_learned"] = dict(self._batches_learned)
        checkpoint["clusters"] = {"current": self._cluster, "cluster_to_task": list(self.cluster_to_task)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore which task was trained last."""
        super().on_load_checkpoint(checkpoint)
        clusters = checkpoint.get("clusters", {"current": None, "cluster_to_task": []})
        self._batches_learned = Counter(checkpoint.get("batches_learned", {}))
        self._cluster, self.cluster_to_task = clusters["current"], list(clusters["cluster_to_task"])

    def _start_context(self, task: int) -> None:
        """Compute the context of a task, where it is not found by itself."""
        if self.context is None or isinstance(self.context, FoundContext):
            return
        if self.current_task is None and self.context.num_tasks:
            raise ValueError(
                f"Expected a datamodule with a current_task, for the model knows {self.context.num_tasks} tasks and "
                "would overwrite the first, but got none. Use one such as PermutedTasks(first_task=model.num_tasks), "
                "or set module.current_task before the fit."
            )
        self._labels = None
        self.start_context(task, (x for x, _ in self.task_batches()))

    def first_tasks(self) -> Sequence[int]:
        """The task being trained."""
        return [self.current_task or 0]

    def earlier_tasks(self) -> Iterable[int]:
        """All others that were learned."""
        task = self.current_task or 0
        if self.context is None:
            return range(task)
        return [other for other in self.context.counts.nonzero().flatten().tolist() if other != task]

    def new_classes(self) -> Tensor | None:
        """Whose the classes are: those that were never trained, whose rows are zero, are the task's if it has them."""
        if not isinstance(self.model, ActiveDendriteClassifier):
            return None
        output = self.model.mlp.output
        untrained = ~output.weight.detach().any(1)
        if output.bias is not None:
            untrained &= output.bias.detach() == 0
        if self._labels is None:
            return untrained.long()
        sum_over_ranks(self._labels)
        has = self._labels.to(untrained.device) > 0
        x, self._first_inputs = self._first_inputs, None
        warn_of_classes(self.model, x, has, untrained, self.earlier_tasks())
        return untrained * torch.where(has, 1, -1)

    def loss_of(self, batch: Batch) -> Tensor:
        """The loss of a batch of the current task."""
        x, y = unpack(batch, "x", "y")
        return self.loss(self(x, self.current_task or 0), y)

    def held_out(self, task: int) -> Iterable[Batch]:
        """The validation loader of a task, else that of training."""
        return validation_of(self.trainer, task)

    def _is_context_of(self, task: int, contexts: Tensor) -> Tensor:
        return self._task_of_context(contexts) == task

    def _task_of_context(self, context: Tensor) -> Tensor:
        """The task of each context: its own number, but for a cluster that was first seen in another."""
        assert self.context is not None
        tasks = [*self.cluster_to_task, *range(len(self.cluster_to_task), self.context.max_tasks)]
        return torch.tensor(tasks, device=context.device)[context]

    def task_batches(self) -> Iterator[Batch]:
        """The training batches of the current task, as a step gets them."""
        for x, y in map(inputs_and_targets, whole_pass(self.trainer)):
            if self.new is not None:
                self._note_labels(x, y)
            yield x, y

    def _note_labels(self, x: Tensor, y: Tensor) -> None:
        """Remember which classes the task about to be trained has."""
        if isinstance(self.model, ActiveDendriteClassifier) and not y.is_floating_point():
            if self._labels is None:
                self._first_inputs, self._labels = x, torch.zeros(self.model.num_classes, device=y.device)
            self._labels[y[y >= 0]] = 1
