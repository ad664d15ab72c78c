"""The moving average of a module's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Weights = dict[str, Tensor]


class WeightAverage(Callback):
    """The exponential moving average of a module's weights, which replaces them wherever the module is used.

    The average is torch's. Lightning's ``EMAWeightAveraging`` is not enough here: it shows the average only between
    ``on_validation_epoch_start`` and ``on_validation_epoch_end``, not to callbacks that save or publish after that, nor
    to those that act with the module between two updates; it begins anew with the weights after the first update; and
    it leaves the average in the module where a validation raises. As a callback this class hears of such an exception.

    Args:
        module: whose parameters are averaged.

    Attributes:
        aside: by name of parameter, the average, or while it is in the module the trained weights; empty before the
            first update.
        is_shown: whether the average is in the module.

    Example:
        >>> import torch
        >>> module = LightningModule()
        >>> module.weight = torch.nn.Parameter(torch.zeros(1))
        >>> average = WeightAverage(module)
        >>> average.start()
        >>> _ = module.weight.data.fill_(1.0)
        >>> average.update(decay=0.9)
        >>> with average.shown():
        ...     module.weight
        Parameter containing:
        tensor([0.1000], requires_grad=True)
        >>> module.weight
        Parameter containing:
        tensor([1.], requires_grad=True)
    """

    def __init__(self, module: LightningModule) -> None:
        self.module = module
        self.aside: Weights = {}
        self.is_shown = False

    def start(self) -> None:
        """Begin with the weights as they are, unless there is an average."""
        if not self.aside:
            self.aside = {name: weight.clone() for name, weight in self._weights()}

    def update(self, decay: float) -> None:
        """Follow the weights: ``average = decay * average + (1 - decay) * weights``."""
        get_ema_multi_avg_fn(decay)([*self.aside.values()], [weight for _, weight in self._weights()], 0)

    def show(self, shown: bool = True) -> None:
        """Have the average in the module, or the trained weights."""
        if self.aside and shown != self.is_shown:
            for name, weight in self._weights():  # in place: a validation, in inference mode, makes no such tensors
                before = weight.clone()
                weight.copy_(self.aside[name])
                self.aside[name].copy_(before)
            self.is_shown = shown

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Have the average in the module for a while."""
        before = self.is_shown
        self.show()
        try:
            yield
        finally:
            self.show(before)

    def reset(self, average: Weights | None = None) -> None:
        """Take what is in the module for the trained weights, and go on with another average, or none."""
        self.aside, self.is_shown = dict(average or {}), False

    def on_exception(self, *_: Any) -> None:
        """Have the trained weights in the module."""
        self.show(False)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Have the average as the checkpoint's weights, and the trained ones beside it."""
        state = checkpoint["state_dict"]
        checkpoint["trained"] = {name: (self.aside if self.is_shown else state)[name] for name in self.aside}
        if not self.is_shown:
            state.update(self.aside)

    def load(self, checkpoint: dict[str, Any]) -> Weights:
        """Have the trained weights as the checkpoint's; return the average, empty where the checkpoint has none."""
        state, trained = checkpoint["state_dict"], checkpoint.get("trained", {})
        average = {name: state[name].clone() for name in trained}
        state.update(trained)
        return average

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        state = self.module.state_dict(keep_vars=True)  # by which a checkpoint names them
        return ((name, x.detach()) for name, x in state.items() if isinstance(x, nn.Parameter))
