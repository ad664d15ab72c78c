"""Learning one task after another."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from dendrite_zoo._core.lightning import transfer_batch
from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.hub import HubModel, build, full_config
from dendrite_zoo.models import load
from dendrite_zoo.optim import DendriteAdam, clip_gradients_
from dendrite_zoo.tasks import TaskBoundary, current_task

__all__ = ["ContinualClassifier"]

Batch = tuple[Tensor, Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ContextAtTest = Literal["inferred", "given", "constant"]


class ContinualClassifier(LightningModule):
    """Trains a classifier on a stream of tasks, one after another (Iyer et al. 2022, permuted MNIST).

    Which task is on comes from the datamodule's ``current_task`` (see `dendrite_zoo.streams`); without one there is
    just task 0. When a task starts, its context is computed in one pass over its inputs, and the optimizer starts
    anew. A context that finds tasks by itself (`dendrite_zoo.contexts.ClusterContext`) is told nothing: each batch is
    shown to it, and the cluster that the batch joins is the ``current_task`` of this module.

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
            ``"constant"``: task 0's for every input, a control that tells what the dendrites give.

    Attributes:
        cluster_to_task: the task in which each cluster was founded, where the context finds tasks; only what is logged
            depends on it.

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
        self.model = _as_module(model)
        self.given_context = context
        _check_contexts(self.model, context, self._has_own_context, context_at_test)
        if self.context is not None and not self.context.inferable and context_at_test == "inferred":
            raise ValueError(
                f"A {type(self.context).__name__} cannot be inferred from inputs; expected context_at_test='given'."
            )
        if isinstance(self.context, FoundContext) and context_at_test == "given":
            raise ValueError(
                f"context_at_test='given' came with a {type(self.context).__name__}, whose clusters no task id names; "
                "expected 'inferred' or 'constant'."
            )
        if lr_schedule not in (None, "cosine"):
            raise ValueError(f"Expected `lr_schedule` to be 'cosine' or None, but got {lr_schedule!r}. Choose one.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} came; expected a share below 1, such as 0.1.")
        self._optimizer_factory = optimizer
        self._boundary = TaskBoundary()
        self._cluster: int | None = None  # of the batch at hand, where the context finds tasks by itself
        self.cluster_to_task: list[int] = []
        self.save_hyperparameters(
            {
                "model": full_config(self.model) if isinstance(self.model, HubModel) else None,
                "lr": lr,
                "reset_optimizer": reset_optimizer,
                "lr_schedule": lr_schedule,
                "label_smoothing": label_smoothing,
                "context_at_test": context_at_test,
            }
        )

    @property
    def _has_own_context(self) -> bool:
        return isinstance(getattr(self.model, "context", None), TaskContext)

    @property
    def context(self) -> TaskContext | None:
        """Where the context comes from: the model's own, or the one given."""
        return cast(TaskContext, self.model.context) if self._has_own_context else self.given_context

    @property
    def current_task(self) -> int | None:
        """The task trained on, as the context found it, else as the datamodule tells; None where nobody knows."""
        if isinstance(self.context, FoundContext):
            return self._cluster
        return self._told_task

    @property
    def _told_task(self) -> int | None:
        return getattr(getattr(self._trainer, "datamodule", None), "current_task", None)

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Logits for ``x``, in the context of ``task``, inferred where None."""
        if self._has_own_context:
            return self.model(x, task=task)
        if self.context is not None:
            return self.model(x, self.context(x, task))
        return self.model(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch in the context of the current task."""
        x, y = batch
        loss = cross_entropy(self(x, self._current_task()), y, self.hparams["label_smoothing"])
        self.log("train/loss", loss, prog_bar=True)
        if isinstance(self.context, FoundContext):
            self.log("train/clusters", float(self.context.num_tasks))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on task ``dataloader_idx``; in a fit with one loader alone, that is of the current task."""
        told = self._told_task
        alone = self.trainer.state.fn == "fit" and len(self.trainer.num_val_batches) == 1
        self._evaluation_step("val", batch, task=told if alone and told is not None else dataloader_idx)

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
            scores["context_acc"] = self._founding_task(seen_as) == task
        scores["acc"] = self(x, seen_as).argmax(1) == y
        # In float64, which MPS has not, Lightning's mean over batches is that of whole counts; float32 rounds each.
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        for name, correct in scores.items():
            self.log(
                f"{stage}/task_{task}/{name}",
                correct.to(exact).mean(),
                batch_size=len(y),
                on_epoch=True,
                sync_dist=True,
                add_dataloader_idx=False,
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one optimizer, made anew."""
        if self._optimizer_factory is not None:
            return self._optimizer_factory(self.parameters())
        return DendriteAdam(self.parameters(), lr=self.hparams["lr"])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer is told to, the sparse gradients of segments included."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_val and any(p.grad is not None and p.grad.is_sparse for p in parameters):
            clip_gradients_(parameters, gradient_clip_val, gradient_clip_algorithm or "norm")  # type: ignore[arg-type]
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_end(self) -> None:
        """Give the segments back, so that any optimizer may train them next."""
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, DendriteAdam):
                optimizer.release()

    def setup(self, stage: str) -> None:
        """Refuse a datamodule that the model has no room for, before anything is trained."""
        data = getattr(self.trainer, "datamodule", None)
        for ours, theirs, unit in (
            (getattr(self.context, "max_tasks", None), getattr(data, "num_tasks", None), "tasks"),
            (getattr(self.model, "num_classes", None), getattr(data, "num_classes", None), "classes"),
        ):
            if ours is not None and theirs is not None and theirs > ours:
                raise ValueError(
                    f"The datamodule has {theirs} {unit}, the model has room for {ours}; expected at most {ours}. "
                    f"Build the model, or load it with from_pretrained, with "
                    f"{'max_tasks' if unit == 'tasks' else 'num_classes'}={theirs}."
                )

    def on_fit_start(self) -> None:
        """Take the clusters of a loaded model for its tasks, in order."""
        if self.hparams["lr_schedule"] == "cosine" and not hasattr(
            getattr(self.trainer, "datamodule", None), "epochs_per_task"
        ):
            raise ValueError(
                "Expected a datamodule with epochs_per_task for lr_schedule='cosine', as PermutedTasks has, but got "
                "none, so that nobody says how long a task is trained. Leave lr_schedule= out, or give the datamodule "
                "that attribute."
            )
        if isinstance(self.context, FoundContext):
            self.cluster_to_task += range(len(self.cluster_to_task), self.context.num_tasks)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """When a task starts: compute its context, and let the optimizer start anew."""
        if self.hparams["lr_schedule"] == "cosine":
            self._anneal(batch_idx)
        if isinstance(self.context, FoundContext):
            self._cluster = self.context.observe(batch[0])
            if self._cluster == len(self.cluster_to_task):
                self.cluster_to_task.append(current_task(self.trainer) or 0)
        ended, started = self._boundary.update(self._current_task())
        if started is None:
            return
        if self.context is not None and not isinstance(self.context, FoundContext):
            if self.current_task is None and self.context.num_tasks:
                raise ValueError(
                    f"The model knows {self.context.num_tasks} tasks, and nobody says which one is trained on; "
                    "expected a datamodule with a current_task, such as PermutedTasks(first_task=model.num_tasks), or "
                    "what is known of task 0 would be overwritten."
                )
            self.context.start_task(started, self._inputs_of_current_task())
        if ended is not None and self.hparams["reset_optimizer"]:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep which task was trained last, and in which tasks clusters were founded."""
        checkpoint["task_boundary"] = self._boundary.state_dict()
        if isinstance(self.model, HubModel) and self.model.origin is not None:
            checkpoint["base_model"] = self.model.origin.repo or self.model.origin.base_model
        checkpoint["clusters"] = {"current": self._cluster, "cluster_to_task": list(self.cluster_to_task)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore which task was trained last."""
        self._boundary.load_state_dict(checkpoint.get("task_boundary", {"task": None}))
        clusters = checkpoint.get("clusters", {"current": None, "cluster_to_task": []})
        self._cluster, self.cluster_to_task = clusters["current"], list(clusters["cluster_to_task"])

    def _anneal(self, batch_idx: int) -> None:
        epochs = self.trainer.datamodule.epochs_per_task  # type: ignore[attr-defined]
        done = (self.trainer.current_epoch % epochs + batch_idx / self.trainer.num_training_batches) / epochs
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 + math.cos(math.pi * done)) / 2

    def _current_task(self) -> int:
        return self.current_task or 0

    def _founding_task(self, context: Tensor) -> Tensor:
        """The task of each context: its own number, but for a cluster that was founded in another."""
        assert self.context is not None
        tasks = [*self.cluster_to_task, *range(len(self.cluster_to_task), self.context.max_tasks)]
        return torch.tensor(tasks, device=context.device)[context]

    def _inputs_of_current_task(self) -> Iterator[Tensor]:
        data = getattr(self.trainer, "datamodule", None)
        loader = data.train_dataloader() if data is not None else self.trainer.train_dataloader
        assert loader is not None
        loader = copy.copy(loader)  # training may be on it
        if getattr(loader, "persistent_workers", False):
            loader._iterator = None
        batches = self.trainer.num_training_batches  # of a loader without end it is what the Trainer takes
        for batch in islice(loader, None if math.isinf(batches) else int(batches)):
            yield transfer_batch(self.trainer, batch)[0]


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """The mean cross-entropy; a ValueError where a label has no class."""
    try:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    except IndexError:
        raise ValueError(
            f"Labels from {int(labels.min())} to {int(labels.max())} came to a model of {logits.shape[1]} classes; "
            f"expected 0 to {logits.shape[1] - 1}. Build the model with more classes, or number the labels from 0."
        ) from None


def _as_module(model: nn.Module | Mapping[str, Any] | str) -> nn.Module:
    if isinstance(model, str):
        model = load(model)
    elif isinstance(model, Mapping):
        if "library_name" not in model:
            raise ValueError(_not_understood(model))
        model = cast(nn.Module, build(model))
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"ContinualClassifier got a model of type {type(model).__name__}; expected an nn.Module, a name or folder "
            "that dendrite_zoo.load takes, or a config. A checkpoint of your own network needs "
            "load_from_checkpoint(path, model=...)."
        )
    return model.train() if isinstance(model, HubModel) else model  # loaded models come in eval mode


def _not_understood(model: Mapping[str, Any]) -> str:
    """What is wrong with a class and its arguments that the command line took for a mere dictionary."""
    if "class_path" not in model:
        return (
            f"No class of model takes {', '.join(map(repr, model))}; expected arguments of the class in the recipe, "
            "the config of a saved model, or class_path and init_args. Is one misspelt?"
        )
    path, given = str(model["class_path"]), dict(model.get("init_args") or {})
    module, _, name = path.rpartition(".")
    try:
        taken = inspect.signature(getattr(sys.modules[module], name)).parameters  # a checkpoint imports nothing
    except (KeyError, AttributeError, TypeError, ValueError):
        return f"There is no class {path}; expected one such as dendrite_zoo.models.ActiveDendriteClassifier."
    unknown = [key for key in given if key not in taken]
    if not unknown:
        return f"{path} came with {given}, of which one has another type than expected; see its documentation."
    near = difflib.get_close_matches(unknown[0], taken, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{path} has no argument {unknown[0]!r}{hint}; expected some of {', '.join(taken)}."


def _check_contexts(model: nn.Module, context: TaskContext | None, has_own_context: bool, at_test: str) -> None:
    if at_test not in get_args(ContextAtTest):
        raise ValueError(f"context_at_test={at_test!r} came; expected one of {', '.join(get_args(ContextAtTest))}.")
    if has_own_context and context is not None:
        raise ValueError(f"A {type(model).__name__} has a context of its own; leave context= out.")
    needed = [
        p.name
        for p in inspect.signature(model.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1 and context is None:
        raise ValueError(
            f"{type(model).__name__}.forward takes ({', '.join(needed)}) and no context was given; expected "
            "ContinualClassifier(model, context=...). Take one of dendrite_zoo.contexts, such as "
            "PrototypeContext(num_features, max_tasks)."
        )
