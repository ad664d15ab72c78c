"""Losses and targets: what fits together, and what to do where something does not."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.batches import with_labels_apart
from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.models import RidgeClassifier

NUMBERED = {
    "tasks": "",
    "classes": " If labels do not begin with 0, or have gaps, number them: names, y = numpy.unique(y, "
    "return_inverse=True).",
}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SERIES = (nn.Conv1d, nn.RNNBase, nn.MultiheadAttention)


def right_labels(output: Tensor, target: Tensor, loss: Any = None) -> Tensor | None:
    """Which labels an output gets right, ``(N,)`` of bool; None where the targets are no classes of the output.

    Args:
        output: ``(B, classes, ...)``, as torch's losses have it; or ``(B, ..., classes)``, as language models do.
        target: ``(B, ...)``.
        loss: whose ``ignore_index`` is the label that does not count; else it is -100, torch's default.

    Example:
        >>> import torch
        >>> right_labels(torch.eye(3), torch.tensor([0, 2, -100]))
        tensor([ True, False])
    """
    if target.is_floating_point() or output.ndim != target.ndim + 1:
        return None
    classes_second = output.shape[:1] + output.shape[2:] == target.shape
    if not classes_second and output.shape[:-1] != target.shape:
        return None
    target = target.long()  # of 8 bits one is -100, too
    right = output.argmax(1 if classes_second else -1) == target
    return right[target != getattr(loss, "ignore_index", -100)]


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """The mean cross-entropy; a ValueError where a label has no class."""
    labels = labels if labels.is_floating_point() else labels.long()  # of all integers torch takes these alone
    try:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    except IndexError:
        raise ValueError(
            f"Expected labels from 0 to {logits.shape[1] - 1} for a model of {logits.shape[1]} classes, but got labels "
            f"from {int(labels.min())} to {int(labels.max())}. Number them from 0, or build a model of more classes."
        ) from None


def check_loss(loss: Any, label_smoothing: float) -> None:
    """Refuse what is no loss, as the name that a checkpoint holds, and label smoothing beside a loss of one's own.

    Raises:
        TypeError: it cannot be called.
        ValueError: there is smoothing, too.
    """
    if not callable(loss):
        remedy = "A checkpoint holds the name of a loss alone: load_from_checkpoint(path, loss=...)."
        raise TypeError(f"Expected `loss` to be a module or function of (output, target), but got {loss!r}. {remedy}")
    if label_smoothing:
        remedy = "It belongs to the cross-entropy that `loss` replaces: give nn.CrossEntropyLoss(label_smoothing=...)."
        raise wrong_argument("label_smoothing", "0 beside `loss`", label_smoothing, remedy)


def check_targets(output: Tensor, target: Tensor, loss: Any) -> None:
    """Refuse targets for which a loss is not meant, and those with which it would compare every row with every other.

    Args:
        output: of the model, ``(B, ...)``.
        target: ``(B, ...)``.
        loss: of one's own, or None for cross-entropy.

    Raises:
        ValueError: float targets for cross-entropy, unless they are the probabilities of all classes; labels of more
            dimensions than the output has for them; targets ``(B,)`` for an output ``(B, 1)``, or the other way round.
    """
    if loss is None and target.is_floating_point():
        soft = target.ndim > 1 and target.shape == output.shape and bool((target.sum(1) - 1).abs().max() < 1e-2)
        if not soft:
            raise ValueError(
                f"Expected class labels, integers of shape ({len(output)},), for cross-entropy, but got {target.dtype} "
                f"targets of shape {tuple(target.shape)}. Convert labels with .long(); for a regression give "
                "loss=nn.MSELoss(), for several labels a row loss=nn.BCEWithLogitsLoss()."
            )
    elif loss is None and not target.is_floating_point() and target.ndim > 1 and output.ndim != target.ndim + 1:
        raise ValueError(
            f"Expected class labels, integers of shape ({len(output)},), for an output {tuple(output.shape)}, but got "
            f"{tuple(target.shape)}. {_remedy_of_labels(output, target)}"
        )
    elif target.is_floating_point() and target.shape != output.shape and target.numel() == output.numel():
        raise ValueError(
            f"Expected targets of shape {tuple(output.shape)}, as the output of the model, but got "
            f"{tuple(target.shape)}: a loss would compare each row with each other. Pass y.unsqueeze(1), or squeeze "
            "the output."
        )


def _remedy_of_labels(output: Tensor, target: Tensor) -> str:
    """What to do about integers ``(B, ...)`` for an output of too few dimensions."""
    if target.numel() == len(target):
        return "Pass y.reshape(-1)."
    if target.shape == output.shape:
        return (
            "Pass y.argmax(1) where one class is marked; for several a row y.float() and loss=nn.BCEWithLogitsLoss()."
        )
    return "A label for each position takes a network whose output is (B, classes, ...)."


def logits_of(output: Any) -> Tensor:
    """The output of a model as a tensor: itself, or the ``logits`` of an object that has them.

    Raises:
        TypeError: it is neither.
    """
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        got = type(output).__name__
        raise TypeError(f"Expected a model that returns a tensor, but got {got}. Wrap it in a module that does.")
    return output


def wrong_shape(model: nn.Module, x: Tensor) -> ValueError | None:
    """The error to raise where a model failed on rows of another shape than its kind takes; else None.

    Rows may be flat or images where the model takes series, flat where it convolves, or images where it does not.
    """
    convolves = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
    name, shape = type(model).__name__, tuple(x.shape)
    if any(isinstance(module, SERIES) for module in model.modules()) and x.ndim != 3:
        remedy = ""
        if x.ndim == 2 and x.is_floating_point():
            remedy = "Rows of a stream are flat: begin the network with nn.Unflatten(1, shape), the shape of a series."
        elif x.ndim == 4 and shape[1] == 1:
            remedy = "With flatten=False series are images of one channel: begin the network with nn.Flatten(1, 2)."
        if remedy:
            return ValueError(f"Expected series for {name}, such as (B, length, features), but got {shape}. {remedy}")
    if convolves and x.ndim == 2:
        remedy = "Build the stream with flatten=False, such as PermutedTasks(..., flatten=False)."
        return ValueError(f"Expected images (B, C, H, W) for {name}, which has convolutions, but got {shape}. {remedy}")
    if not convolves and x.ndim == 4:
        remedy = "Leave flatten=False of the stream out, or begin the network with nn.Flatten()."
        return ValueError(f"Expected flat rows (B, features) for {name}, but got images of shape {shape}. {remedy}")
    return None


def check_images(model: nn.Module, data: Any) -> None:
    """Refuse images whose rows flatten to as many numbers as a model expects, in another order.

    Raises:
        ValueError: such as channels last for a model of channels first.
    """
    given: Any = model.config["input_shape"] if isinstance(model, RidgeClassifier) else 0
    expected: tuple[int, ...] = () if isinstance(given, int) else tuple(given)
    for part in getattr(data, "parts", [data]) if expected else ():
        shape: tuple[int, ...] = getattr(getattr(part, "source", None), "shape", ())
        if len(shape) < 2 or math.prod(shape) != math.prod(expected):  # flat rows; other sizes are said elsewhere
            continue
        if [size for size in shape if size != 1] != [size for size in expected if size != 1]:
            remedy = "Pass x.permute(0, 3, 1, 2)." if shape[-1] == expected[0] else "Pass images of that shape."
            raise ValueError(f"Expected images of shape {expected}, as the model's, but got {shape}. {remedy}")


@contextmanager
def shape_explained(model: nn.Module, x: Any) -> Iterator[None]:
    """Where a model fails on an input within it, say so if `wrong_shape` knows why."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        of_shape = isinstance(error, RuntimeError) or "to be 2D or 3D" in str(error)  # as a GRU's
        if of_shape and isinstance(x, Tensor) and (wrong := wrong_shape(model, x)):
            raise wrong from error
        raise


def unpack(batch: Any, *names: str) -> tuple[Tensor, ...]:
    """The tensors of a batch.

    Args:
        batch: of a loader.
        names: of the tensors that are expected, in order.

    Raises:
        TypeError: it is something else.

    Example:
        >>> import torch
        >>> len(unpack([torch.zeros(2, 3), torch.zeros(2)], "x", "y"))
        2
    """
    batch = with_labels_apart(batch) if len(names) == 2 else batch
    if isinstance(batch, (list, tuple)) and len(batch) == len(names):
        inputs, *others = batch
        named = isinstance(inputs, Mapping) and all(isinstance(x, Tensor) for x in inputs.values())  # keyword arguments
        if (named or isinstance(inputs, Tensor)) and all(isinstance(x, Tensor) for x in others):
            return tuple(batch)
    got = type(batch).__name__
    if isinstance(batch, (list, tuple)):
        got = f"({', '.join(type(part).__name__ for part in batch)})"
    remedies = {
        2: "For batches (x, y, task), as MixedTasks gives, use MultiTaskClassifier; to learn the data of several "
        "loaders one after another, give TaskSequence([...]).",
        3: "For batches (x, y) use ContinualClassifier; MixedTasks gives batches with their tasks.",
    }
    remedy = remedies[len(names)]
    if isinstance(batch, Mapping):
        labels = next((key for key in batch if str(key) in ("labels", "label", "y", "target", "targets")), "labels")
        collate = f"lambda rows: ((batch := default_collate(rows)), batch.pop({labels!r}))"
        remedy = f"Give pairs of a dictionary of inputs and the labels: DataLoader(..., collate_fn={collate})."
    raise TypeError(f"Expected batches of tensors ({', '.join(names)}), but got {got}. {remedy}")


def inputs_and_targets(batch: Any) -> tuple[Any, Tensor]:
    """The first two parts of a batch, which may have more for a training step of one's own.

    Raises:
        TypeError: it has no two parts.
    """
    parts = batch if isinstance(batch, (list, tuple)) and len(batch) > 1 else unpack(batch, "x", "y")
    return parts[0], parts[1]
