"""Elastic weight consolidation, for any LightningModule."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from dendrite_zoo import regularizers
from dendrite_zoo._core.checks import check_choice, check_integers
from dendrite_zoo._core.lightning import transfer_batch
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.torch import in_eval_mode
from dendrite_zoo.callbacks.consolidation import Consolidation

LogLikelihood = Callable[[LightningModule, Any], Tensor]
OTHER_LIKELIHOOD = "Or pass `log_likelihood=`, a function of the module and a batch."


@say_new_names
class ElasticWeightConsolidation(Consolidation[regularizers.ElasticWeightConsolidation]):
    """Elastic weight consolidation (Kirkpatrick et al. 2017; online: Schwarz et al. 2018) in any pipeline.

    When a task has ended, the module, in eval mode, goes once through the task's data for the Fisher information
    (`dendrite_zoo.regularizers.fisher_diagonal`), each process through its share. The gradient of every sample is taken
    by itself: for ``P`` parameters that costs about what reading and writing ``P`` numbers a few times costs, a sample.
    Of large networks and much data, a part (``max_batches``) gives nearly the same.

    Args:
        ewc_lambda: weight of the penalty, lambda.
        online: one running importance and the latest weights, instead of all tasks'.
        decay: of the running importance, gamma.
        log_likelihood: from the module and a batch to the log-likelihood of each sample, ``(B,)``; by default batches
            are ``(x, y)`` and the module maps ``x`` to logits, with ``task=``, integers ``(B,)``, where its ``forward``
            has it.
        data: from the Trainer and the task that ended to its batches; by default ``task_loader(task)`` of the
            datamodule, which streams have. Needed where the module finds its tasks by itself, and numbers them.
        max_batches: the number of batches that are looked at; None for all.
        fisher: ``"exact"``, from the gradient of each sample; or ``"estimate"``, from one backward pass a batch, which
            is right on average alone: of batches of 256 the error is about a third.
        include: names of the parameters, in ``pl_module.named_parameters()``, as `fnmatch` patterns.
        exclude: names to leave out; by default dendritic segments.
        task: from the Trainer to the task being trained, such as ``lambda trainer: trainer.current_epoch // 3``.

    Raises:
        ValueError: as for `SynapticIntelligence`; or neither ``data=`` nor the datamodule gives the data of a task that
            ended, or there is no ``log_likelihood=`` for a module without ``forward``, one whose output is no logits,
            or batches that are no classifier's: before training or at its first batch, with ``data=`` when the first
            task ends.

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
        fisher: Literal["exact", "estimate"] = "exact",
        include: str | Sequence[str] = "*",
        exclude: str | Sequence[str] = "*segments",
        task: Callable[[Trainer], int] | None = None,
    ) -> None:
        check_integers(1, max_batches=1 if max_batches is None else max_batches)
        check_choice(("exact", "estimate"), fisher=fisher)
        self.ewc_lambda, self.online, self.decay = ewc_lambda, online, decay
        self.log_likelihood, self.data, self.max_batches, self.fisher = log_likelihood, data, max_batches, fisher
        self._unchecked = False
        super().__init__(include, exclude, task)

    def make_regularizer(self, parameters: Mapping[str, Tensor]) -> regularizers.ElasticWeightConsolidation:
        """The regularizer of these parameters."""
        return regularizers.ElasticWeightConsolidation(
            parameters, self.ewc_lambda, online=self.online, decay=self.decay
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that there are the data of a task and its likelihood, before any work is done."""
        super().on_fit_start(trainer, pl_module)
        if self.log_likelihood is None and not is_overridden("forward", pl_module, LightningModule):
            raise ValueError(
                "Expected a module whose `forward` maps the x of a batch to logits, but "
                f"{type(pl_module).__name__} does not define `forward`. {OTHER_LIKELIHOOD}"
            )
        self._unchecked = self.log_likelihood is None and self.data is None
        if self.data is None and not hasattr(getattr(trainer, "datamodule", None), "task_loader"):
            raise ValueError(
                "ElasticWeightConsolidation needs the data of each task that ended, but the datamodule has no "
                "`task_loader(task)`. Pass `data=`, such as `data=lambda trainer, task: loaders[task]`, or take "
                "SynapticIntelligence, which needs none, as where tasks are learned by trial and error."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether a task has ended; and check the batch now, for its likelihood is computed much later."""
        if self.log_likelihood is None and self.data is None:
            _check_labelled(batch)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check the output at the first batch, when every module knows its task."""
        if self._unchecked:
            self._unchecked = False
            with in_eval_mode(pl_module), torch.no_grad():
                _classifier_log_likelihood(pl_module, batch, self._boundary.task or 0)

    def end_task(self, trainer: Trainer, pl_module: LightningModule, task: int) -> None:
        """Compute the task's Fisher information."""
        signs = torch.Generator().manual_seed(task)
        # A DataLoader draws its seed from the generator that training draws from.
        with torch.random.fork_rng(devices=[]), in_eval_mode(pl_module), torch.enable_grad():
            log_likelihood = self.log_likelihood or partial(_classifier_log_likelihood, task=task)
            fisher = regularizers.fisher_diagonal(
                self._started.parameters,
                _Pure(pl_module, log_likelihood).of,
                self._batches(trainer, task),
                exact=self.fisher == "exact",
                generator=signs,
            )
        self._started.end_task(fisher)

    def _batches(self, trainer: Trainer, task: int) -> Iterator[Any]:
        batches = trainer.datamodule.task_loader(task) if self.data is None else self.data(trainer, task)  # type: ignore[attr-defined]
        for batch in islice(batches, self.max_batches):
            batch = transfer_batch(trainer, batch)
            if self.log_likelihood is None:
                _check_labelled(batch)
            yield batch


class _Pure(nn.Module):
    """A log-likelihood as a function of a module's parameters, without changing the module."""

    def __init__(self, pl_module: LightningModule, log_likelihood: LogLikelihood) -> None:
        super().__init__()
        self.pl_module, self.log_likelihood = pl_module, log_likelihood

    def forward(self, batch: Any) -> Tensor:
        return self.log_likelihood(self.pl_module, batch)

    def of(self, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        named = {f"pl_module.{name}": tensor for name, tensor in parameters.items()}
        return torch.func.functional_call(self, named, (batch,))


def _classifier_log_likelihood(pl_module: LightningModule, batch: Any, task: int) -> Tensor:
    x, y = _check_labelled(batch)
    takes_task = "task" in inspect.signature(pl_module.forward).parameters
    logits = pl_module(x, task=torch.full((len(y),), task, device=y.device)) if takes_task else pl_module(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"Expected {type(pl_module).__name__} to map x to logits (B, classes) of at least two classes, but got "
            f"{_describe(logits)} for {len(y)} labels. {OTHER_LIKELIHOOD}"
        )
    return -F.cross_entropy(logits, y, reduction="none")


def _check_labelled(batch: Any) -> tuple[Any, Tensor]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError(f"Expected a batch to be (x, y), but got {_describe(batch)}. {OTHER_LIKELIHOOD}")
    x, y = batch
    if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(
            f"Expected targets to be class indices, (B,) integers, but got {_describe(y)}. {OTHER_LIKELIHOOD}"
        )
    return x, y


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__ + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
