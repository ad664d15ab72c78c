"""Learning one task after another."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_choice, check_share, wrong_argument
from dendrite_zoo._core.lightning import second_pass, transfer_batch
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.hub import HubModel
from dendrite_zoo.lightning_modules.base import TaskModule, cosine, cross_entropy
from dendrite_zoo.models.loading import as_model, saved_config
from dendrite_zoo.tasks import current_task

Batch = tuple[Tensor, Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ContextAtTest = Literal["inferred", "given", "constant"]


@say_new_names
class ContinualClassifier(TaskModule):
    """Trains a classifier on a stream of tasks, one after another (Iyer et al. 2022, permuted MNIST).

    Which task is on comes from the datamodule's ``current_task`` (see `dendrite_zoo.streams`); without one there is
    just task 0. When a task starts, its context is computed in one pass over its inputs, and the optimizer starts
    anew. A context that finds tasks by itself (`dendrite_zoo.contexts.ClusterContext`) gets no task: it observes each
    batch, and the cluster that the batch joins is the ``current_task`` of this module.

    Args:
        model: an `ActiveDendriteClassifier` (it has its own context), any module that maps ``x`` to logits, or one
            that maps ``(x, context)``; or what `dendrite_zoo.load` takes; or the config of a registered model, from
            which it is built.
        context: where the context comes from (`dendrite_zoo.contexts`); needed where ``model`` takes ``(x, context)``.
        lr: learning rate of `dendrite_zoo.optim.DendriteAdam`, 1/step.
        optimizer: makes another optimizer from the parameters, with a learning rate of its own.
        reset_optimizer: forget the optimizer's moments when a task starts, as the paper does.
        lr_schedule: ``"cosine"`` lets the learning rate fall to 0 within each task, along half a cosine; the
            datamodule says how many ``epochs_per_task`` there are.
        label_smoothing: share of the target that goes to all classes alike, in training.
        context_at_test: ``"inferred"`` from each input, ``"given"`` with the task (where contexts are not found), or
            ``"constant"``: task 0's for every input, a control that shows what the dendrites give.

    Attributes:
        cluster_to_task: the task in which each cluster was first seen, where the context finds tasks; only what is
            logged depends on it.

    Logs:
        ``train/loss``, ``val/task_{j}/acc`` and, where contexts are inferred, ``val/task_{j}/context_acc``, the share
        of inputs whose task was found (none of a task that shares the cluster of an earlier one); ``test/...``
        likewise.

    Raises:
        ValueError: the model needs a context and none was given; at fit, model and datamodule do not fit together.

    Example:
        >>> from dendrite_zoo.models import ActiveDendriteClassifier
        >>> module = ContinualClassifier(ActiveDendriteClassifier(64, [32], 10, max_tasks=2), lr=1e-3)
        >>> module.configure_optimizers().param_groups[0]["lr"]
        0.001
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any] | str,
        *,
        context: TaskContext | None = None,
        lr: float = 5e-4,
        optimizer: OptimizerFactory | None = None,
        reset_optimizer: bool = True,
        lr_schedule: Literal["cosine"] | None = None,
        label_smoothing: float = 0.0,
        context_at_test: ContextAtTest = "inferred",
    ) -> None:
        super().__init__()
        self.model = as_model(model, nn.Module)
        self.given_context = context
        _check_context(self.model, context)
        _check_context_at_test(self.context, context_at_test)
        check_share(label_smoothing=label_smoothing)
        if lr_schedule is not None:
            check_choice(["cosine"], lr_schedule=lr_schedule)
        self._optimizer_factory = optimizer
        self._cluster: int | None = None  # of the batch at hand, where the context finds tasks by itself
        self.cluster_to_task: list[int] = []
        self.save_hyperparameters({"model": saved_config(self.model), "lr": lr, "reset_optimizer": reset_optimizer})
        self.save_hyperparameters({"lr_schedule": lr_schedule, "label_smoothing": label_smoothing})
        self.save_hyperparameters({"context_at_test": context_at_test})

    @property
    def context(self) -> TaskContext | None:
        """Where the context comes from: the model's own, or the one given."""
        own = getattr(self.model, "context", None)
        return own if isinstance(own, TaskContext) else self.given_context

    @property
    def current_task(self) -> int | None:
        """The task trained on: the context's cluster, where it finds tasks, else the datamodule's; None if unknown."""
        return self._cluster if isinstance(self.context, FoundContext) else self._stream_task

    @property
    def _stream_task(self) -> int | None:
        return getattr(self.datamodule, "current_task", None)

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Logits for ``x``, in the context of ``task``, inferred where None."""
        if self.given_context is not None:
            return self.model(x, self.given_context(x, task))
        return self.model(x) if self.context is None else self.model(x, task=task)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch in the context of the current task."""
        x, y = batch
        loss = cross_entropy(self(x, self.current_task or 0), y, self.hparams["label_smoothing"])
        self.log("train/loss", loss, prog_bar=True)
        if isinstance(self.context, FoundContext):
            self.log("train/clusters", float(self.context.num_tasks))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on task ``dataloader_idx``; in a fit with one loader alone, that is of the current task."""
        task, alone = self._stream_task, self.trainer.state.fn == "fit" and len(self.trainer.num_val_batches) == 1
        self._evaluation_step("val", batch, task=task if alone and task is not None else dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on task ``dataloader_idx``."""
        self._evaluation_step("test", batch, task=dataloader_idx)

    def predict_step(self, batch: Tensor | Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The class of each row, in the context that tests see; where it is given, the loader is the task."""
        return self(batch if isinstance(batch, Tensor) else batch[0], self._task_at_test(dataloader_idx)).argmax(1)

    def _task_at_test(self, task: int) -> int | None:
        """The task whose context a test sees; None where it is inferred."""
        return {"given": task, "constant": 0}.get(self.hparams["context_at_test"])

    def _evaluation_step(self, stage: str, batch: Batch, task: int) -> None:
        x, y = batch
        seen_as: int | Tensor | None = self._task_at_test(task)
        scores = {}
        if self.context is not None and seen_as is None:
            seen_as = self.context.infer(x)
            scores["context_acc"] = self._is_context_of(task, seen_as)
        scores["acc"] = self(x, seen_as).argmax(1) == y
        # In float64, which MPS has not, Lightning's mean over batches is that of whole counts; float32 rounds each.
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        means = {f"{stage}/task_{task}/{name}": correct.to(exact).mean() for name, correct in scores.items()}
        self.log_means(means, len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the one optimizer, newly made."""
        if self._optimizer_factory is None:
            return super().configure_optimizers()
        optimizer = self._optimizer_factory(self.parameters())
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return optimizer

    def setup(self, stage: str) -> None:
        """Refuse a datamodule that the model has no room for, before anything is trained."""
        for things, owner in (("tasks", self.context), ("classes", self.model)):
            name = "max_tasks" if things == "tasks" else "num_classes"
            most, given = getattr(owner, name, None), getattr(self.datamodule, f"num_{things}", None)
            if most is not None and given is not None and given > most:
                raise ValueError(
                    f"Expected a datamodule of at most {most} {things}, for which the model has room, but got {given}. "
                    f"Build the model, or load it with from_pretrained, with {name}={given}."
                )

    def on_fit_start(self) -> None:
        """Take the clusters of a loaded model for its tasks, in order."""
        if self.hparams["lr_schedule"] and not hasattr(self.datamodule, "epochs_per_task"):
            raise ValueError(
                "Expected a datamodule with epochs_per_task for lr_schedule='cosine', as PermutedTasks has, but got "
                "none. Leave lr_schedule= out, or give the datamodule that attribute."
            )
        if isinstance(self.context, FoundContext):
            self.cluster_to_task += range(len(self.cluster_to_task), self.context.num_tasks)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """When a task starts: compute its context, and let the optimizer start anew."""
        if self.hparams["lr_schedule"]:
            epochs = self.datamodule.epochs_per_task
            done = self.trainer.current_epoch % epochs + batch_idx / self.trainer.num_training_batches
            self.scale_learning_rate(cosine(done / epochs))
        if isinstance(self.context, FoundContext):
            self._cluster = self.context.observe(batch[0])
            if self._cluster == len(self.cluster_to_task):
                self.cluster_to_task.append(current_task(self.trainer) or 0)
        started = self.enter_task(self.current_task or 0)
        if started is not None:
            self._start_context(started)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which task was trained last, and in which tasks clusters were first seen."""
        super().on_save_checkpoint(checkpoint)
        if isinstance(self.model, HubModel) and self.model.origin is not None:
            checkpoint["base_model"] = self.model.origin.repo or self.model.origin.base_model
        checkpoint["clusters"] = {"current": self._cluster, "cluster_to_task": list(self.cluster_to_task)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore which task was trained last."""
        super().on_load_checkpoint(checkpoint)
        clusters = checkpoint.get("clusters", {"current": None, "cluster_to_task": []})
        self._cluster, self.cluster_to_task = clusters["current"], list(clusters["cluster_to_task"])

    def _start_context(self, task: int) -> None:
        """Compute the context of a task, where it is not found by itself."""
        if self.context is None or isinstance(self.context, FoundContext):
            return
        if self.current_task is None and self.context.num_tasks:
            raise ValueError(
                f"Expected a datamodule with a current_task, for the model knows {self.context.num_tasks} tasks and "
                "would overwrite the first, but got none. Use one such as PermutedTasks(first_task=model.num_tasks)."
            )
        self.context.start_task(task, self._inputs_of_current_task())

    def _is_context_of(self, task: int, contexts: Tensor) -> Tensor:
        return self._task_of_context(contexts) == task

    def _task_of_context(self, context: Tensor) -> Tensor:
        """The task of each context: its own number, but for a cluster that was first seen in another."""
        assert self.context is not None
        tasks = [*self.cluster_to_task, *range(len(self.cluster_to_task), self.context.max_tasks)]
        return torch.tensor(tasks, device=context.device)[context]

    def _inputs_of_current_task(self) -> Iterator[Tensor]:
        data = self.datamodule
        loader = second_pass(self.trainer.train_dataloader if data is None else data.train_dataloader())
        batches = self.trainer.num_training_batches  # of a loader without end it is what the Trainer takes
        for batch in islice(loader, None if math.isinf(batches) else int(batches)):
            yield transfer_batch(self.trainer, batch)[0]


def _check_context(model: nn.Module, context: TaskContext | None) -> None:
    if isinstance(getattr(model, "context", None), TaskContext) and context is not None:
        raise ValueError(f"A {type(model).__name__} has a context of its own; leave context= out.")
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    if len(needed) > 1 and context is None:
        raise ValueError(
            f"Expected a `context` for {type(model).__name__}, whose forward takes ({', '.join(needed)}), but got "
            "none. Give one of dendrite_zoo.contexts, such as context=PrototypeContext(num_features, max_tasks)."
        )


def ways_at_test(context: TaskContext) -> list[ContextAtTest]:
    """In which ways the context of an input can be had at test."""
    impossible = {"inferred": not context.inferable, "given": isinstance(context, FoundContext)}
    return [way for way in get_args(ContextAtTest) if not impossible.get(way)]


def _check_context_at_test(context: TaskContext | None, at_test: ContextAtTest) -> None:
    check_choice(get_args(ContextAtTest), context_at_test=at_test)
    if context is not None and at_test not in (ways := ways_at_test(context)):
        why = "which cannot be inferred from inputs" if at_test == "inferred" else "whose clusters no task id names"
        expected = f"{' or '.join(map(repr, ways))} for a {type(context).__name__}, {why}"
        raise wrong_argument("context_at_test", expected, at_test)
