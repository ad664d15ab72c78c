"""Numbers that are not finite stop a training before they reach the weights, or a checkpoint."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from dendrite_zoo._core.finite import unusable_parameter, unusable_rows

HALF = " Half precision cannot hold an optimizer's small numbers: use precision='bf16-mixed' or '32-true'."


def check_loss(module: LightningModule, loss: Tensor, batch: Any) -> None:
    """Raise where a loss is not finite, before it is propagated backward: say where it is from.

    A scaler of 16-bit gradients skips such a step by itself: there the error is left for bad inputs and bad weights.

    Args:
        module: in training.
        loss: about to be propagated backward.
        batch: what it was computed of, a tensor or a nest of them.

    Raises:
        ValueError: the loss is NaN or infinite.
    """
    value = float(loss.detach().sum())
    if math.isfinite(value):
        return
    trainer = module.trainer
    found = next((f"`{name}`, rows {rows[:8]}" for name, x in _tensors(batch) if (rows := unusable_rows(x))), "")
    half = HALF if trainer.precision == "16-true" else ""
    if found:
        cause = f"There is NaN or infinity in {found}. Leave these rows out, or mend the data."
    elif spoilt := unusable_parameter(module):
        cause = f"`{spoilt}` has not been finite since an earlier step. Lower `lr`, and start from a checkpoint.{half}"
    elif getattr(trainer.precision_plugin, "scaler", None) is not None:
        return
    else:
        remedy = "Lower `lr`, clip gradients with Trainer(gradient_clip_val=1.0), or check the targets."
        if "reward_scale" in module.hparams:  # optimized by hand, and a Trainer clips nothing of it
            remedy = "Lower `lr` or `reward_scale`, or give rewards of moderate size."
        cause = f"Data and weights are finite. {remedy}{half}"
    where = f"update {module.global_step} (epoch {trainer.current_epoch}, batch {trainer.fit_loop.batch_idx})"
    raise ValueError(f"Expected a finite loss, but got {value} in {where}, which was not made. {cause}")


def check_weights(module: LightningModule, consequence: str) -> None:
    """Raise where a weight is not finite.

    Args:
        module: with the weights.
        consequence: what is not done because of it, as a sentence.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    if spoilt := unusable_parameter(module):
        half = HALF if module.trainer.precision == "16-true" else ""
        remedy = "Lower `lr`, and start from an earlier checkpoint."
        raise ValueError(f"Expected finite weights, but `{spoilt}` has NaN or infinity. {consequence} {remedy}{half}")


def check_output(output: Tensor, where: str) -> None:
    """Raise where an output that is about to be measured has NaN, which metrics take for some class.

    Args:
        output: of a network, ``(B, ...)``.
        where: what is measured.

    Raises:
        ValueError: naming the rows.
    """
    if output.is_floating_point() and bool((wrong := output.isnan()).any()):
        rows = wrong.flatten(1).any(1).nonzero().flatten().tolist() if output.ndim > 1 else []
        remedy = "Look for rows of the data, and for weights of the model, that are not finite."
        raise ValueError(
            f"Expected outputs to measure for {where}, but got NaN in rows {rows[:8]} of a batch. {remedy}"
        )


@contextmanager
def batch_named(trainer: Trainer, batch_idx: int) -> Iterator[None]:
    """Put the number of the batch in front of the message of a ValueError about its rows."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Batch {batch_idx} of epoch {trainer.current_epoch}: {error}") from None


def _tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch, by what they are called in it."""
    if hasattr(batch, "_asdict"):  # a named tuple
        batch = batch._asdict()
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, (Mapping, tuple, list)):
        for key, item in batch.items() if isinstance(batch, Mapping) else enumerate(batch):
            yield from _tensors(item, f"{name}[{key!r}]")
