"""Synaptic intelligence and elastic weight consolidation, for any LightningModule."""

from __future__ import annotations

import contextlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from dendrite_zoo import regularizers
from dendrite_zoo._core.lightning import transfer_batch, unscale_gradients
from dendrite_zoo.regularizers import QuadraticPenalty, select_parameters
from dendrite_zoo.tasks import TaskBoundary, current_task, unknown_task

__all__ = ["ElasticWeightConsolidation", "SynapticIntelligence"]

R = TypeVar("R", bound=QuadraticPenalty)
Task = Callable[[Trainer], int]
LogLikelihood = Callable[[LightningModule, Any], Tensor]
OTHER_LIKELIHOOD = "Pass log_likelihood=, a function of the module and a batch."


class Consolidation(Callback, ABC, Generic[R]):
    """What both have in common: when tasks end, whose gradients are read, and what a checkpoint holds.

    The penalty's gradient is added once before each optimizer step, after the task's gradient was complete
    (accumulated, averaged over processes, unscaled) and before it is clipped: as if the penalty stood in the loss.
    Manual optimization, with one or more optimizers, works likewise; who clips there by hand does it in the module's
    ``on_before_optimizer_step``, which runs after the callbacks'.

    Where a gradient is sparse, the cost of a step follows the rows that it covers, and these alone are pulled: the
    others do not move. (The stored tasks of EWC would move them: its anchor is a mean.)

    Which task is on is asked of ``task=``, else of the module's ``current_task``, else of the datamodule's: when a
    batch comes, and again before the step, for a module that finds its task in the batch.

    Parameters are those that learn. One that begins to later, or that takes the place of another, is held from the
    epoch on in which it does, as important to no task so far.
    """

    def __init__(self, include: str | Sequence[str], exclude: str | Sequence[str], task: Task | None) -> None:
        self.include = [include] if isinstance(include, str) else list(include)
        self.exclude = [exclude] if isinstance(exclude, str) else list(exclude)
        self.task = task
        self.regularizer: R | None = None
        self._boundary = TaskBoundary()
        self._loaded: dict[str, Any] | None = None
        self.make_regularizer({})  # which checks the numbers

    @abstractmethod
    def make_regularizer(self, parameters: Mapping[str, Tensor]) -> R:
        """The regularizer of these parameters."""

    @abstractmethod
    def end_task(self, trainer: Trainer, pl_module: LightningModule, task: int) -> None:
        """Consolidate a task that has ended."""

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state."""
        return self._generate_state_key(include=self.include, exclude=self.exclude)

    def state_dict(self) -> dict[str, Any]:
        """The importance of weights, and the task trained on."""
        state = self._loaded if self.regularizer is None else self.regularizer.state_dict()
        return {"boundary": self._boundary.state_dict(), "regularizer": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._boundary.load_state_dict(state_dict["boundary"])
        self._loaded, self.regularizer = state_dict["regularizer"], None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse two callbacks that would read each other's gradients."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if other is self:
                break
            if isinstance(other, Consolidation):
                both = self._names(pl_module) & other._names(pl_module)
                if both:
                    raise ValueError(
                        f"{type(other).__name__} and {type(self).__name__} both hold {sorted(both)[0]!r}; expected "
                        "parameters of one callback each. Part them by include= and exclude=."
                    )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take hold of the parameters, with what is known of them from a checkpoint or an earlier fit."""
        parameters, known = dict(pl_module.named_parameters()), self._loaded
        if self.regularizer is not None:
            held, known = self.regularizer.parameters, self.regularizer.state_dict()
            parameters = {name: p for name, p in parameters.items() if held.get(name) is p}
            if not parameters:
                raise ValueError(
                    f"This {type(self).__name__} knows what is important to another model, from an earlier fit; "
                    "expected a new callback for each model. To carry it over: new.load_state_dict(old.state_dict())."
                )
        chosen = self._parameters(pl_module)
        if known is not None:
            parameters = {name: p for name, p in parameters.items() if name in known["importance"]}
            if not parameters:
                raise ValueError(
                    f"A checkpoint of {type(self).__name__} knows {sorted(known['importance'])[0]!r}, which is no "
                    f"parameter of {type(pl_module).__name__}; expected the model that the checkpoint was made of."
                )
        self.regularizer = self.make_regularizer(chosen if known is None else parameters)
        if known is not None:
            self.regularizer.load_state_dict(known)
        self.regularizer.hold(chosen)
        self._loaded = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether a task has ended, and in a new epoch whether other parameters learn."""
        self._look_for_boundary(trainer, pl_module)
        if batch_idx == 0:
            assert self.regularizer is not None
            self.regularizer.hold(self._parameters(pl_module))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the penalty's gradient to the task's."""
        assert self.regularizer is not None
        self._look_for_boundary(trainer, pl_module)
        if self._boundary.task is None:
            raise unknown_task(trainer, type(self).__name__)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if unscale_gradients(trainer, optimizer) and not _all_finite(parameters):
            return  # the scaler skips this step
        self.before_step(parameters)

    def before_step(self, parameters: Sequence[Tensor]) -> None:
        """Work on the gradients of the parameters that a step is about to move."""
        assert self.regularizer is not None
        self.regularizer.add_gradient(parameters)

    def _parameters(self, pl_module: LightningModule) -> dict[str, torch.nn.Parameter]:
        return select_parameters(pl_module, self.include, self.exclude)

    def _names(self, pl_module: LightningModule) -> set[str]:
        return set(self._parameters(pl_module))

    def _look_for_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ended, _ = self._boundary.update(self._current_task(trainer, pl_module))
        if ended is not None:
            self.end_task(trainer, pl_module, ended)

    def _current_task(self, trainer: Trainer, pl_module: LightningModule) -> int | None:
        if self.task is None and hasattr(pl_module, "current_task"):  # None until it finds the task in a batch
            return current_task(trainer, lambda _: cast(Any, pl_module).current_task)
        return current_task(trainer, self.task)


class SynapticIntelligence(Consolidation[regularizers.SynapticIntelligence]):
    """Synaptic intelligence (Zenke et al. 2017) in anybody's pipeline.

    See `dendrite_zoo.regularizers.SynapticIntelligence` for the method; the defaults are those of permuted MNIST, where
    the optimizer is not reset between tasks.

    Args:
        si_lambda: weight of the penalty.
        eps: bounds the importance of weights that hardly moved.
        include: names of the parameters, in ``pl_module.named_parameters()``, as `fnmatch` patterns.
        exclude: names to leave out; by default dendritic segments.
        task: tells the task that is trained on, such as ``lambda trainer: trainer.current_epoch // 3``.

    Raises:
        ValueError: a negative si_lambda, or a eps that is not positive; at fit: patterns that match nothing,
            parameters that another such callback holds, a model that is another than in an earlier fit, or nobody says
            which task is trained on.

    Example:
        >>> SynapticIntelligence(si_lambda=0.1, eps=0.1, include="*.weight").regularizer is None    # until a fit
        True
    """

    def __init__(
        self,
        si_lambda: float = 0.1,
        eps: float = 0.1,
        *,
        include: str | Sequence[str] = "*",
        exclude: str | Sequence[str] = "*segments",
        task: Task | None = None,
    ) -> None:
        self.si_lambda, self.eps = si_lambda, eps
        super().__init__(include, exclude, task)

    def make_regularizer(self, parameters: Mapping[str, Tensor]) -> regularizers.SynapticIntelligence:
        """The regularizer of these parameters."""
        return regularizers.SynapticIntelligence(parameters, self.si_lambda, self.eps)

    def before_step(self, parameters: Sequence[Tensor]) -> None:
        """Read the gradients of the task's loss, then add the penalty's."""
        assert self.regularizer is not None
        self.regularizer.before_step(parameters)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See the step that was taken."""
        assert self.regularizer is not None
        self.regularizer.after_step()

    def end_task(self, trainer: Trainer, pl_module: LightningModule, task: int) -> None:
        """Turn the task's path into importance."""
        assert self.regularizer is not None
        self.regularizer.end_task()


class ElasticWeightConsolidation(Consolidation[regularizers.ElasticWeightConsolidation]):
    """Elastic weight consolidation (Kirkpatrick et al. 2017; online: Schwarz et al. 2018) in anybody's pipeline.

    When a task has ended, the module, in eval mode, goes once through the task's data for the Fisher information
    (`dendrite_zoo.regularizers.fisher_diagonal`), each process through its share.

    Args:
        ewc_lambda: weight of the penalty, lambda.
        online: one running importance and the latest weights, instead of all tasks'.
        decay: of the running importance, gamma.
        log_likelihood: from the module and a batch to the log-likelihood of each sample, ``(B,)``; by default batches
            are ``(x, y)`` and the module maps ``x`` (with ``task=``, where its ``forward`` has it) to logits.
        data: from the Trainer and the task that ended to its batches; by default ``task_loader(task)`` of the
            datamodule, which streams have. Needed where the module finds its tasks by itself, and counts them so.
        max_batches: look at so many batches only; None for all.
        include: names of the parameters, in ``pl_module.named_parameters()``, as `fnmatch` patterns.
        exclude: names to leave out; by default dendritic segments.
        task: tells the task that is trained on, such as ``lambda trainer: trainer.current_epoch // 3``.

    Raises:
        ValueError: as for `SynapticIntelligence`; or nobody gives the data of a task that ended, or there is no
            ``log_likelihood=`` for a module without ``forward``, one whose output is no logits, or batches that are
            no classifier's: before training or at its first batch, with ``data=`` when the first task ends.

    Example:
        >>> ElasticWeightConsolidation(ewc_lambda=500, online=True, decay=0.9).regularizer is None    # until a fit
        True
    """

    def __init__(
        self,
        ewc_lambda: float = 500.0,
        *,
        online: bool = False,
        decay: float = 1.0,
        log_likelihood: LogLikelihood | None = None,
        data: Callable[[Trainer, int], Iterable[Any]] | None = None,
        max_batches: int | None = None,
        include: str | Sequence[str] = "*",
        exclude: str | Sequence[str] = "*segments",
        task: Task | None = None,
    ) -> None:
        if max_batches is not None and max_batches < 1:
            raise ValueError(f"max_batches={max_batches} came; expected one at least, or None for all.")
        self.ewc_lambda, self.online, self.decay = ewc_lambda, online, decay
        self.log_likelihood, self.data, self.max_batches = log_likelihood, data, max_batches
        self._untried = False
        super().__init__(include, exclude, task)

    def make_regularizer(self, parameters: Mapping[str, Tensor]) -> regularizers.ElasticWeightConsolidation:
        """The regularizer of these parameters."""
        return regularizers.ElasticWeightConsolidation(
            parameters, self.ewc_lambda, online=self.online, decay=self.decay
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that somebody gives the data of a task and its likelihood, before any work is done."""
        super().on_fit_start(trainer, pl_module)
        if self.log_likelihood is None and not is_overridden("forward", pl_module, LightningModule):
            raise ValueError(
                f"{type(pl_module).__name__} has no forward; expected one that maps the x of a batch to logits. "
                f"{OTHER_LIKELIHOOD}"
            )
        self._untried = self.log_likelihood is None and self.data is None
        if self.data is None and not hasattr(getattr(trainer, "datamodule", None), "task_loader"):
            raise ValueError(
                "ElasticWeightConsolidation needs the data of each task that ended, and the datamodule has no "
                "task_loader(task). Pass data=, such as "
                "ElasticWeightConsolidation(data=lambda trainer, task: loaders[task])."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether a task has ended, and at once whether its likelihood will be known."""
        if self.log_likelihood is None and self.data is None:
            _check_labelled(batch)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See at the first batch, when every module knows its task, whether its output can be used when a task ends."""
        if self._untried:
            self._untried = False
            with _in_eval_mode(pl_module), torch.no_grad():
                _classifier_log_likelihood(pl_module, batch, self._boundary.task or 0)

    def end_task(self, trainer: Trainer, pl_module: LightningModule, task: int) -> None:
        """Compute the task's Fisher information."""
        assert self.regularizer is not None
        signs = torch.Generator().manual_seed(task)
        # A DataLoader draws its seed from the generator that training draws from.
        with torch.random.fork_rng(devices=[]), _in_eval_mode(pl_module), torch.enable_grad():
            log_likelihoods = self._log_likelihoods(trainer, pl_module, task)
            fisher = regularizers.fisher_diagonal(self.regularizer.parameters, log_likelihoods, signs)
        self.regularizer.end_task(fisher)

    def _log_likelihoods(self, trainer: Trainer, pl_module: LightningModule, task: int) -> Iterator[Tensor]:
        batches = trainer.datamodule.task_loader(task) if self.data is None else self.data(trainer, task)  # type: ignore[attr-defined]
        for batch in islice(batches, self.max_batches):
            batch = transfer_batch(trainer, batch)
            if self.log_likelihood is None:
                yield _classifier_log_likelihood(pl_module, batch, task)
            else:
                yield self.log_likelihood(pl_module, batch)


@contextlib.contextmanager
def _in_eval_mode(pl_module: LightningModule) -> Iterator[None]:
    training = {module: module.training for module in pl_module.modules()}
    pl_module.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _classifier_log_likelihood(pl_module: LightningModule, batch: Any, task: int) -> Tensor:
    x, y = _check_labelled(batch)
    takes_task = "task" in inspect.signature(pl_module.forward).parameters
    logits = pl_module(x, task=task) if takes_task else pl_module(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        came = f"an output of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(pl_module).__name__} gave {came} for {len(y)} labels; expected logits (B, classes) of two classes "
            f"or more. {OTHER_LIKELIHOOD}"
        )
    return -F.cross_entropy(logits, y, reduction="none")


def _check_labelled(batch: Any) -> tuple[Any, Tensor]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        what = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"A batch came as {what}; expected (x, y). {OTHER_LIKELIHOOD}")
    x, y = batch
    if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        came = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"Targets came as {came}; expected class numbers, (B,) integers. {OTHER_LIKELIHOOD}")
    return x, y


def _all_finite(parameters: Iterable[Tensor]) -> bool:
    gradients = [p.grad._values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    return not gradients or bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all())
