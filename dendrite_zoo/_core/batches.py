"""Batches that somebody gives: what is none is refused before anything is computed from it."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")

ROWS = 256
"""Of inputs, by which their scale is judged."""
FEW, SIZES = 8, (0.01, 50.0)
"""Of fewer rows nothing is said; root mean squares of columns, between which a network learns from them."""
LABELS = ("labels", "label")
"""What the labels are called in a dictionary that is a batch, as transformers collate one."""
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.RMSNorm)


def input_batches(batches: Any) -> Iterator[Any]:
    """Batches of inputs, tensors or dictionaries of them, one after another.

    Args:
        batches: an iterable of them; or of lists of one, or of pairs of inputs and labels ``(B,)``, as a DataLoader
            gives, of which the inputs are taken.

    Raises:
        TypeError: it is no iterable, or a tensor, whose rows would pass for batches; or a batch is something else.

    Example:
        >>> import torch
        >>> next(input_batches(torch.rand(3, 4)))
        Traceback (most recent call last):
        TypeError: Expected batches of inputs, but got a tensor. Put it into a list: [x].
    """
    for number, batch in enumerate(_iterated(batches, "batches of inputs", "[x]")):
        pair = with_labels_apart(batch)
        x = pair[0] if pair is not batch or _has_inputs_first(batch) else batch
        if not _is_input(x):
            got = f"{_named(x)} as batch {number} (from 0)"
            remedy = "Give the inputs alone, as tensors: (x for x, _ in loader)."
            raise TypeError(f"Expected batches of inputs, but got {got}. {remedy}")
        yield x


def labelled_batches(batches: Any) -> Iterator[tuple[Any, Tensor]]:
    """Batches of inputs with their labels, one after another.

    Raises:
        TypeError: they are no iterable, or a batch is no pair.

    Example:
        >>> import torch
        >>> x, y = next(labelled_batches([(torch.rand(3, 4), torch.zeros(3))]))
        >>> x.shape, y.shape
        (torch.Size([3, 4]), torch.Size([3]))
    """
    expected = "pairs of tensors, inputs and labels, such as [(x, y)] or a DataLoader gives"
    for number, batch in enumerate(map(with_labels_apart, _iterated(batches, f"batches of {expected}", "[(x, y)]"))):
        is_pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not is_pair or not _is_input(batch[0]) or not isinstance(batch[1], Tensor):
            raise TypeError(f"Expected batches of {expected}, but got {_named(batch)} as batch {number} (from 0).")
        yield batch[0], batch[1]


def first_batches(batches: Iterable[T], rows: int, size: Callable[[T], int]) -> list[T]:
    """The first of some batches, until these have so many rows; fewer where there are no more.

    Args:
        batches: an iterator goes on with the others.
        rows: how many.
        size: counts those of a batch.

    Example:
        >>> first_batches(iter([[0, 1], [2, 3], [4, 5]]), 3, len)
        [[0, 1], [2, 3]]
    """
    found: list[T] = []
    for batch in batches:
        found.append(batch)
        if (rows := rows - size(batch)) <= 0:
            break
    return found


def with_labels_apart(batch: Any) -> Any:
    """A dictionary of inputs and labels as a pair of the two; any other batch as it is.

    Example:
        >>> import torch
        >>> x, y = with_labels_apart({"input_ids": torch.zeros(2, 5), "labels": torch.ones(2)})
        >>> list(x), y
        (['input_ids'], tensor([1., 1.]))
    """
    if not isinstance(batch, Mapping):
        return batch
    key = next((key for key in LABELS if isinstance(batch.get(key), Tensor) and len(batch) > 1), None)
    return batch if key is None else ({name: x for name, x in batch.items() if name != key}, batch[key])


def inputs_of(batch: Any) -> Any:
    """The inputs in a batch: its first part, where it has several, or a dictionary without its labels."""
    batch = with_labels_apart(batch)
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def warn_of_pixels(x: Any) -> None:
    """Warn of floats that look like pixels from 0 to 255: of images, or whole numbers that reach 255.

    Args:
        x: inputs ``(N, ...)``, of which the first rows are looked at.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
        return
    x = x[:ROWS].detach()
    low, high = (float(end) for end in x.aminmax())
    if low >= 0 and ((x.ndim > 2 and 128 <= high <= 255) or (high == 255 and bool((x == x.round()).all()))):
        warnings.warn(
            f"The inputs are floats from {low:g} to {high:g}. If they are pixels, divide them by 255, or give uint8, "
            "where that is scaled: networks learn badly from numbers that large, and read them wrongly where they were "
            "trained on others.",
            stacklevel=2,
        )


def warn_of_size(x: Any, network: nn.Module, pixels: bool) -> None:
    """Warn of rows of numbers that a network learns badly from, for they are large, or all of them small.

    Args:
        x: inputs ``(N, features)``, of which the first rows are looked at; of others nothing is said, nor of pixels.
        network: about to be trained on them; of one that begins with a norm nothing is said.
        pixels: warn of pixels, too.
    """
    if pixels:
        warn_of_pixels(x)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 2 or len(x) < FEW:
        return
    first = next((m for m in network.modules() if any(True for _ in m.parameters(recurse=False))), None)
    x = x[:ROWS].detach().float()
    if isinstance(first, NORMS) or (x.min() >= 0 and x.max() == 255):
        return
    sizes = x.square().mean(0).sqrt()
    largest = float(sizes.max())
    if 0 < largest < SIZES[0] or largest > SIZES[1]:
        which = f"of about {largest:.3g} in column {int(sizes.argmax())}" if largest > 1 else f"{largest:.1g} at most"
        warnings.warn(
            f"The inputs are {which}: networks learn badly from such numbers. Bring each column to mean 0 and standard "
            "deviation 1, x = (x - mean) / std, with the mean and std of the training rows for all rows. A "
            "RidgeClassifier needs none of it.",
            stacklevel=2,
        )


def _is_input(x: Any) -> bool:
    return isinstance(x, (Tensor, Mapping))


def _has_inputs_first(batch: Any) -> bool:
    """Whether a batch is a list of inputs alone, or a pair of inputs and labels; not one of two inputs."""
    if not isinstance(batch, (tuple, list)) or not batch or not _is_input(batch[0]):
        return False
    return len(batch) == 1 or (len(batch) == 2 and isinstance(batch[1], Tensor) and batch[1].ndim == 1)


def _iterated(batches: Any, expected: str, remedy: str) -> Iterable[Any]:
    if isinstance(batches, Tensor):
        raise TypeError(f"Expected {expected}, but got a tensor. Put it into a list: {remedy}.")
    if not isinstance(batches, Iterable):
        raise TypeError(f"Expected {expected}, but got {type(batches).__name__}. Give a list or a DataLoader.")
    return batches


def _named(batch: Any) -> str:
    """What a batch is, and what its parts are."""
    if isinstance(batch, (tuple, list)) and 0 < len(batch) <= 4:
        return f"({', '.join(type(part).__name__ for part in batch)})"
    return type(batch).__name__
