"""Synaptic intelligence, for any LightningModule."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from dendrite_zoo import regularizers
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.consolidation import Consolidation
from dendrite_zoo.tasks import Task


@say_new_names
class SynapticIntelligence(Consolidation[regularizers.SynapticIntelligence]):
    """Synaptic intelligence (Zenke et al. 2017) in any pipeline.

    See `dendrite_zoo.regularizers.SynapticIntelligence` for the method; the defaults are those of permuted MNIST, where
    the optimizer is not reset between tasks.

    Args:
        si_lambda: weight of the penalty.
        eps: bounds the importance of weights that hardly moved.
        include: names of the parameters, in ``pl_module.named_parameters()``, as `fnmatch` patterns.
        exclude: names to leave out; by default dendritic segments.
        task: the task being trained: a function of the Trainer, such as ``lambda trainer: trainer.current_epoch // 3``,
            its import path, or an index; by default that of the module, the datamodule, or a `ForgettingLogger`.

    Raises:
        ValueError: a negative ``si_lambda``, or an ``eps`` that is not positive; at fit: patterns that match nothing,
            parameters that another such callback consolidates, a model that is another than in an earlier fit, or an
            unknown task.

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
        self._started.before_step(parameters)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """See the step that was taken."""
        self._started.after_step()

    def end_task(self, trainer: Trainer, pl_module: LightningModule, task: int) -> None:
        """Turn the task's path into importance."""
        self._started.end_task()
