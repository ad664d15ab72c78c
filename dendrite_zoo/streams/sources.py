"""The data that tasks are made of: images or feature vectors with labels, in memory."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.streams import mnist

__all__ = ["Source", "load_source"]

NAMES = ("x_train", "y_train", "x_test", "y_test")
DIGITS = Path(__file__).with_name("digits.safetensors")
DIGITS_MEAN, DIGITS_STD = 0.3057, 0.3761  # of the training pixels, from 0 to 1


@dataclass(frozen=True)
class Source:
    """Training and test data, flat, and the statistics to normalise a batch by: ``(x - mean) / std``.

    Attributes:
        x_train: ``(N, F)``, uint8 or float32, not normalised yet.
        y_train: ``(N,)``, int64, in ``0 .. num_classes - 1``.
        x_test: ``(M, F)``.
        y_test: ``(M,)``.
        num_classes: number of classes.
        shape: of one row before it was flattened, such as ``(28, 28)``.
        mean: in the units of ``x_train``.
        std: in the units of ``x_train``.
        name: what a benchmark of these data is called by: ``"digits"``, ``"mnist"`` or ``"custom"``.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    num_classes: int
    shape: tuple[int, ...]
    mean: float = 0.0
    std: float = 1.0
    name: str = "custom"

    @property
    def num_features(self) -> int:
        """F, the length of a row."""
        return self.x_train.shape[1]

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise float rows in place.

        Shape:
            ``(B, F)`` to ``(B, F)``.
        """
        return x.sub_(self.mean).div_(self.std) if (self.mean, self.std) != (0.0, 1.0) else x

    def to(self, device: torch.device | str) -> "Source":
        """Return the same source with its tensors on ``device``."""
        return replace(self, **{name: getattr(self, name).to(device) for name in NAMES})


SourceLike: TypeAlias = str | os.PathLike[str] | Source | Sequence[Tensor]


def load_source(source: SourceLike) -> Source:
    """Load the data that ``source`` names.

    Args:
        source: ``"digits"``: 1,438 + 359 images of 8 x 8 pixels, part of the package. They are the UCI
            "Optical Recognition of Handwritten Digits" of E. Alpaydin and C. Kaynak as scikit-learn's
            ``load_digits`` has them, CC BY 4.0, split here. ``"mnist"``: 60,000 + 10,000 images of 28 x 28,
            the Hub's ``ylecun/mnist``, downloaded once. A folder with the layout of that repository. Or tensors
            of your own, ``(x_train, y_train, x_test, y_test)``: x of any shape is flattened; float values stay as
            they are, uint8 is scaled to [0, 1]; labels are integers from 0.

    Returns:
        The source.

    Raises:
        FileNotFoundError: no such name or folder.
        ImportError: MNIST without the ``[mnist]`` extra.
        TypeError: tensors of the wrong kind.
        ValueError: tensors that do not fit together, labels out of range.

    Example:
        >>> digits = load_source("digits")
        >>> digits.num_features, digits.num_classes, len(digits.x_train), len(digits.x_test)
        (64, 10, 1438, 359)
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return _from_tensors(source)
    if source == "digits":
        return _from_images(load_file(DIGITS), DIGITS_MEAN * 16, DIGITS_STD * 16, "digits")
    if source != "mnist" and not Path(source).is_dir():
        raise FileNotFoundError(
            f"Expected `source` to be 'digits', 'mnist', a folder that holds {mnist.FILES['train']}, or a tuple "
            f"({', '.join(NAMES)}), but got {os.fspath(source)!r}. Check the name or the path."
        )
    files = mnist.download() if source == "mnist" else mnist.local_files(Path(source))
    arrays = mnist.read(files)
    name = "mnist" if source == "mnist" or mnist.is_mnist(arrays) else "custom"
    return _from_images(arrays, mnist.MEAN * 255, mnist.STD * 255, name)


def _from_images(arrays: dict[str, Tensor], mean: float, std: float, name: str) -> Source:
    """From flat, square uint8 images, as in ``digits.safetensors``."""
    labels = {name: arrays[name].long() for name in ("y_train", "y_test")}
    side = math.isqrt(arrays["x_train"].shape[1])
    num_classes = int(labels["y_train"].max()) + 1
    return Source(**{**arrays, **labels}, num_classes=num_classes, shape=(side, side), mean=mean, std=std, name=name)


def _from_tensors(tensors: Sequence[Tensor]) -> Source:
    if not isinstance(tensors, Sequence) or len(tensors) != 4:
        found = f"{len(tensors)} items" if isinstance(tensors, Sequence) else f"a {type(tensors).__name__}"
        raise TypeError(f"Expected `source` to be four tensors ({', '.join(NAMES)}), but got {found}. Pass all four.")
    x_train, y_train, x_test, y_test = (torch.as_tensor(tensor) for tensor in tensors)
    shape, dtype = tuple(x_train.shape[1:]), x_train.dtype
    for x, y, split in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        _check_split(x, y, split)
    if x_test.shape[1:] != x_train.shape[1:] or x_test.dtype != dtype:
        expected, found = f"{shape} {dtype}, as those of `x_train`", f"{tuple(x_test.shape[1:])} {x_test.dtype}"
        raise ValueError(f"Expected the rows of `x_test` to be {expected}, but got {found}. Prepare both alike.")
    num_classes = int(y_train.max()) + 1
    if (label := int(y_test.max())) >= num_classes:
        known = f"labels from 0 to {num_classes - 1}, as `y_train`"
        raise ValueError(f"Expected `y_test` to hold {known}, but got {label}. Leave its rows out, or train on some.")
    scale = 255.0 if dtype == torch.uint8 else 1.0
    x_train, x_test = (x.flatten(1) if dtype == torch.uint8 else x.flatten(1).float() for x in (x_train, x_test))
    return Source(x_train, y_train.long(), x_test, y_test.long(), num_classes, shape, std=scale)


def _check_split(x: Tensor, y: Tensor, split: str) -> None:
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise TypeError(f"Expected `x_{split}` to be float, or uint8 pixels, but got {x.dtype}. Use .float().")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"Expected `x_{split}` to have the shape (rows, ...), not empty, but got {tuple(x.shape)}.")
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise ValueError(f"Expected `x_{split}` to hold finite numbers, but got NaN or infinity. Clean the data first.")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"Expected `y_{split}` to hold integers, but got {y.dtype}. Convert it with .long().")
    if y.shape != (len(x),):
        expected = f"of the shape ({len(x)},), a label for each row of `x_{split}`"
        raise wrong_argument(f"y_{split}", expected, tuple(y.shape), "Check that both are of the same rows.")
    if y.min() < 0:
        raise ValueError(f"Expected `y_{split}` to hold labels from 0, but got {int(y.min())}. Number classes from 0.")
