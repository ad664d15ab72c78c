"""What LightningModules share that train one network on several tasks from labelled data."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from dendrite_zoo._core.batches import inputs_of, warn_of_size
from dendrite_zoo._core.checks import check_choice, check_positive, check_share, wrong_argument
from dendrite_zoo._core.lightning import attached_trainer, averaging
from dendrite_zoo.contexts import FoundContext, TaskContext
from dendrite_zoo.contexts.base import measuring
from dendrite_zoo.lightning_modules.finite import check_output
from dendrite_zoo.lightning_modules.losses import (
    NUMBERED,
    check_images,
    check_loss,
    check_targets,
    cross_entropy,
    logits_of,
    right_labels,
    shape_explained,
)
from dendrite_zoo.lightning_modules.new_tasks import NewTaskModule
from dendrite_zoo.lightning_modules.outcome import Outcome
from dendrite_zoo.lightning_modules.schedules import Schedule
from dendrite_zoo.models import AdaptedBackbone, RidgeClassifier
from dendrite_zoo.models.loading import as_model, saved_config

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ContextAtTest = Literal["inferred", "given", "constant"]
Loss: TypeAlias = nn.Module | Callable[[Tensor, Tensor], Tensor]
Metrics: TypeAlias = Metric | MetricCollection | dict[str, Metric]


class TaskClassifier(NewTaskModule):
    """Trains one network on several tasks; what `ContinualClassifier` and `MultiTaskClassifier` have in common.

    Args:
        model: as for `ContinualClassifier`, as are the other arguments.
        **hparams: hyperparameters of the subclass.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any] | str,
        *,
        context: TaskContext | None,
        lr: float | None,
        optimizer: OptimizerFactory | None,
        lr_schedule: Schedule | None,
        label_smoothing: float,
        loss: Loss | None,
        metrics: Metrics | None,
        context_at_test: ContextAtTest,
        **hparams: Any,
    ) -> None:
        super().__init__()
        self._has_looked = False  # at the scale of an input
        self._outcome = Outcome()
        self.model = as_model(model, nn.Module)
        self.untrained = nn.Parameter(torch.zeros(())) if isinstance(self.model, RidgeClassifier) else None
        self.given_context = context
        if self.untrained is not None:
            _check_untrained(context=context, optimizer=optimizer, lr_schedule=lr_schedule, smoothing=label_smoothing)
        self._takes_task = _check_context(self.model, context)
        _check_context_at_test(self.context, context_at_test, self._takes_task)
        self.default_lr = getattr(self.model, "default_lr", 5e-4)
        check_positive(lr=self.default_lr if lr is None else lr)
        check_share(label_smoothing=label_smoothing)
        if lr_schedule is not None:
            check_choice(get_args(Schedule), lr_schedule=lr_schedule)
        if loss is not None:
            check_loss(loss, label_smoothing)
        _check_factory(optimizer)
        self._optimizer_factory, self.loss_function = optimizer, loss
        self._metrics = _named(metrics)  # in no ModuleDict: they are no layers of the network
        self._metrics_of_tasks: dict[str, Metric] = {}
        self.save_hyperparameters({"model": saved_config(self.model), "lr": lr, "lr_schedule": lr_schedule, **hparams})
        self.save_hyperparameters({"label_smoothing": label_smoothing, "context_at_test": context_at_test})
        self.save_hyperparameters({"loss": None if loss is None else _name(loss)})

    @property
    def context(self) -> TaskContext | None:
        """Where the context comes from: the model's own, or the one given."""
        own = getattr(self.model, "context", None)
        return own if isinstance(own, TaskContext) else self.given_context

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """The model's output for ``x``, in the context of ``task``, inferred where None.

        Raises:
            ValueError: ``x`` is flat and the model a convolution's, or the other way round.
        """
        arguments: list[Any] = [x]
        keywords: dict[str, Any] = {}
        if self.given_context is not None:
            arguments.append(self.given_context(x, task))
        elif self.context is not None:
            keywords["task"] = task
        elif self._takes_task and task is not None:
            keywords["task"] = torch.as_tensor(task, device=x.device).expand(len(x))
        with shape_explained(self.model, x):
            return logits_of(self.network(*arguments, **keywords))

    @property
    def enough_epochs(self) -> int | None:
        """Epochs a task that will do where nobody says how many; None for as many as a stream takes."""
        solved = isinstance(self.model, AdaptedBackbone) and self.model.config["head"] == "ridge"
        return 1 if self.untrained is not None else 3 if solved else None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Judge the scale of the first inputs, where the model does not."""
        super().on_train_batch_start(batch, batch_idx)
        if self._has_looked or isinstance(self.model, AdaptedBackbone | RidgeClassifier):
            return
        self._has_looked = True
        if isinstance(batch, tuple | list) and batch:
            warn_of_size(batch[0], self.model, pixels=not hasattr(self.datamodule, "task_loader"))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take note of the loss, where it says how much of a task was learned."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.untrained is None and self.loss_function is None and type(self).loss is TaskClassifier.loss:
            self._outcome.note(self.trainer, self.boundary.task or 0, outputs, batch)

    def on_train_end(self) -> None:
        """Say what was not learned, and what was forgotten."""
        self._outcome.say(self.trainer, self.model, self.context, kept=self.new is not None)
        self._outcome = Outcome()

    def start_context(self, task: int, batches: Iterable[Any]) -> None:
        """Compute the context of a task, as it is to be once a batch of the task was trained on."""
        assert self.context is not None
        self.keep_until_trained(self.context)
        self.context.start_task(task, batches)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The training loss of a batch: the argument ``loss``, else cross-entropy. Override it for one of your own."""
        check_targets(output, target, self.loss_function)
        if self.loss_function is not None:
            return self.loss_function(output, target)
        return cross_entropy(output, target, self.hparams["label_smoothing"])

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The class of each row, with a ``loss`` of one's own the model's output; in the context that tests see.

        Where the context is given, the loader is the task. Of a batch that is a tuple or list, the first part counts.
        """
        output = self(inputs_of(batch), self._task_at_test(self._task_to_predict(batch, dataloader_idx)))
        return output.argmax(1) if self.loss_function is None else output

    def _task_to_predict(self, batch: Any, dataloader_idx: int) -> int | Tensor:
        return dataloader_idx

    def _task_at_test(self, task: int | Tensor) -> int | Tensor | None:
        """The task whose context a test sees; None where it is inferred."""
        known: dict[str, int | Tensor] = {"given": task, "constant": 0}
        return known.get(self.hparams["context_at_test"])

    def log_scores(self, stage: str, x: Tensor, y: Tensor, task: int) -> None:
        """Log what a batch of one task adds to its metrics: accuracy, the share of contexts found, ``metrics=``.

        One of ``metrics=`` takes the place of ours of that name.
        """
        seen_as = self._task_at_test(task)
        right: dict[str, Tensor | None] = {}
        if self.context is not None and seen_as is None:
            with shape_explained(self.model, x):
                seen_as = self.context.infer(x)
            right["context_acc"] = self._is_context_of(task, seen_as)
        with measuring():
            output = self(x, seen_as)
        check_output(output, f"{stage}/task_{task}")
        right["acc"] = right_labels(output, y, self.loss_function)
        # In float64, which MPS has not, Lightning's mean over batches is that of whole counts; float32 rounds each.
        exact = torch.float32 if y.device.type == "mps" else torch.float64
        for name, ones in right.items():
            if ones is not None and name not in self._metrics:
                self.log_means({f"{stage}/task_{task}/{name}": ones.to(exact).sum() / max(1, len(ones))}, len(ones))
        if self.loss_function is not None and "loss" not in self._metrics:
            self.log_means({f"{stage}/task_{task}/loss": self.loss(output, y)}, len(y))
        output = output.float() if output.is_floating_point() else output
        for name, metric in self._metrics.items():
            key = f"{stage}/task_{task}/{name}"
            if key not in self._metrics_of_tasks:
                self._metrics_of_tasks[key] = metric.clone().to(self.device)
            self._metrics_of_tasks[key].update(output, y)
            self.log(key, self._metrics_of_tasks[key], on_epoch=True, add_dataloader_idx=False, metric_attribute=key)

    def _is_context_of(self, task: int, contexts: Tensor) -> Tensor:
        return contexts == task

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the one optimizer, newly made."""
        if self._optimizer_factory is None:
            return super().configure_optimizers()
        return self._optimizer_factory(self.trained_parameters())

    def knows_tasks(self) -> bool:
        """Whether the context of a task is known."""
        return self.context is not None and self.context.num_tasks > 0

    def setup(self, stage: str) -> None:
        """Refuse a datamodule that the model has no room for, before anything is trained."""
        super().setup(stage)
        for things, owner in (("tasks", self.context), ("classes", self.model)):
            name = "max_tasks" if things == "tasks" else "num_classes"
            most, given = getattr(owner, name, None), getattr(self.datamodule, f"num_{things}", None)
            if most is not None and given is not None and given > most:
                remedy = f"Build the model, or load it with from_pretrained, with {name}={given}." + NUMBERED[things]
                if isinstance(self.model, AdaptedBackbone) and isinstance(self.model.config[name], list):
                    remedy = "Number the classes of each task from 0, or give `num_classes` one number for all."
                expected = f"a datamodule of at most {most} {things}, for which the model has room"
                raise ValueError(f"Expected {expected}, but got {given}. {remedy}")
        check_images(self.model, self.datamodule)
        if stage == "fit" and (trainer := attached_trainer(self)) is not None:
            self._refuse_averages(*averaging(trainer))

    def _refuse_averages(self, callback: str, buffers: bool) -> None:
        """What is computed from data, and not trained, must not be averaged with what it was before."""
        model = self.model
        if callback and isinstance(model, AdaptedBackbone | RidgeClassifier):
            why = "whose head is solved and not trained: it would be taken back to an earlier one"
            if isinstance(model, AdaptedBackbone) and model.config["head"] != "ridge":
                why = "which trains the gates of one task after another: an average would mix them"
            raise ValueError(f"Expected no {callback} of {type(model).__name__}, {why}. Leave the callback out.")
        if buffers and self.context is not None and self.context.inferable:
            raise ValueError(
                f"Expected EMAWeightAveraging(use_buffers=False) beside {type(self.context).__name__}, whose buffers "
                "are computed and not trained, but got one that averages buffers, too. Tasks would not be found."
            )


def ways_at_test(context: TaskContext) -> list[ContextAtTest]:
    """In which ways the context of an input can be had at test."""
    impossible = {"inferred": not context.inferable, "given": isinstance(context, FoundContext)}
    return [way for way in get_args(ContextAtTest) if not impossible.get(way)]


def _check_untrained(smoothing: float, **arguments: Any) -> None:
    """Refuse what would have no effect on a model that is not trained."""
    for name, value in {**arguments, "label_smoothing": smoothing or None}.items():
        if value is not None:
            got = type(value).__name__ if isinstance(value, nn.Module) or callable(value) else value
            remedy = "It is solved for, not trained, and takes no context."
            raise wrong_argument(name, "left out for RidgeClassifier", got, remedy)


def _check_context(model: nn.Module, context: TaskContext | None) -> bool:
    """Refuse a context that is missing or too much; return whether the model has no context and takes ``task``."""
    own = isinstance(getattr(model, "context", None), TaskContext)
    if own and context is not None:
        raise ValueError(f"{type(model).__name__} has a context of its own; leave context= out.")
    parameters = inspect.signature(model.forward).parameters
    takes_task = context is None and not own and "task" in parameters
    needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    if len(needed) - takes_task > 1 and context is None:
        raise ValueError(
            f"Expected a `context` for {type(model).__name__}, whose forward takes ({', '.join(needed)}), but got "
            "none. Give one of dendrite_zoo.contexts, such as context=PrototypeContext(num_features, max_tasks)."
        )
    return takes_task


def _check_factory(optimizer: Any) -> None:
    """Refuse an optimizer that is made already, or named."""
    if optimizer is not None and not callable(optimizer):
        got = repr(optimizer) if isinstance(optimizer, str) else type(optimizer).__name__
        remedy = "Pass such as `lambda parameters: torch.optim.SGD(parameters, lr=0.1)`."
        raise TypeError(f"Expected `optimizer` to be a function that makes one of parameters, but got {got}. {remedy}")


def _check_context_at_test(context: TaskContext | None, at_test: ContextAtTest, takes_task: bool) -> None:
    check_choice(get_args(ContextAtTest), context_at_test=at_test)
    if takes_task and at_test == "inferred":
        expected = "'given' or 'constant' for a model that takes `task`, which it cannot infer"
        raise wrong_argument("context_at_test", expected, at_test)
    if context is not None and at_test not in (ways := ways_at_test(context)):
        why = "which cannot be inferred from inputs" if at_test == "inferred" else "whose clusters no task id names"
        expected = f"{' or '.join(map(repr, ways))} for {type(context).__name__}, {why}"
        raise wrong_argument("context_at_test", expected, at_test)


def _named(metrics: Metrics | None) -> dict[str, Metric]:
    named: dict[str, Any] = {type(metrics).__name__: metrics}
    if not isinstance(metrics, Metric):
        named = dict(metrics.items()) if metrics is not None else {}
    for name, metric in named.items():
        if not isinstance(metric, Metric):
            expected = "a Metric of torchmetrics, a MetricCollection, or a dictionary of metrics by name"
            raise TypeError(f"Expected `metrics` to be {expected}, but got {type(metric).__name__} for {name!r}.")
    return named


def _name(loss: Loss) -> str:
    return repr(loss) if isinstance(loss, nn.Module) else getattr(loss, "__qualname__", type(loss).__name__)
