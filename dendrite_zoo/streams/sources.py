"""The data that tasks are made of: images or feature vectors with labels, in memory."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch.utilities import rank_zero_info
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from dendrite_zoo._core.batches import warn_of_pixels
from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import nearest
from dendrite_zoo.streams import mnist
from dendrite_zoo.streams.datasets import (
    is_dataset,
    is_rows,
    no_source,
    read_array,
    read_dataset,
    remedy_of_labels,
    splits,
    warn_of_scales,
)
from dendrite_zoo.streams.hub_source import HubSource, mirrored
from dendrite_zoo.streams.images import ImageFolder
from dendrite_zoo.streams.sampling import hold_out

__all__ = ["Source", "load_source"]

NAMES = ("x_train", "y_train", "x_test", "y_test")
DIGITS = Path(__file__).with_name("digits.safetensors")
HUB = {  # and the mean and standard deviation of the training pixels, from 0 to 1
    "fashion-mnist": (HubSource("zalando-datasets/fashion_mnist"), 0.2860, 0.3530),
    "omniglot": (HubSource("local/omniglot-8-alphabets", size=28), 0.0804, 0.2180),
    "banking77": (HubSource("PolyAI/banking77", text="text"), 0.0, 1.0),
}
SOURCES = ("digits", "mnist", *HUB)
TOKENS = (torch.int64, torch.int32)
TEST_SHARE = 0.2  # of the rows, where there are no test data
DIGITS_MEAN, DIGITS_STD = 0.3057, 0.3761  # of the training pixels, from 0 to 1


@dataclass(frozen=True)
class Source:
    """Training and test data, flat, and the statistics to normalise a batch by: ``(x - mean) / std``.

    Attributes:
        x_train: ``(N, F)``, uint8 or float32, not normalised yet; or int64, numbers of tokens.
        y_train: ``(N,)``, int64, in ``0 .. num_classes - 1``; or float32 targets ``(N, ...)``.
        x_test: ``(M, F)``.
        y_test: ``(M, ...)``.
        num_classes: number of classes; None where the targets are floats.
        shape: of one row before it was flattened, such as ``(28, 28)``.
        mean: in the units of ``x_train``.
        std: in the units of ``x_train``.
        name: what a benchmark of these data is called by: ``"digits"``, ``"mnist"`` or ``"custom"``.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    num_classes: int | None
    shape: tuple[int, ...]
    mean: float = 0.0
    std: float = 1.0
    name: str = "custom"

    @property
    def num_features(self) -> int:
        """F, the length of a row."""
        return self.x_train.shape[1]

    @property
    def has_tokens(self) -> bool:
        """Whether rows are numbers of tokens, which nothing scales."""
        return self.x_train.dtype == torch.int64

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a row; rows of shape ``(H, W)`` have one channel.

        Raises:
            ValueError: the rows are no images, or have their channels last.
        """
        shape = (1, *self.shape) if len(self.shape) == 2 else self.shape
        if len(shape) != 3 or (shape[0] > 4 and shape[2] <= 4):
            cure = "x.permute(0, 3, 1, 2)" if len(shape) == 3 else "x.reshape(-1, channels, height, width)"
            raise ValueError(
                f"Expected images for flatten=False, rows of shape (C, H, W) or (H, W), but got rows of {shape}. Pass "
                f"{cure}, or leave flatten=False out."
            )
        return shape[0], shape[1], shape[2]

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise float rows in place.

        Shape:
            ``(B, F)`` to ``(B, F)``.
        """
        return x.sub_(self.mean).div_(self.std) if (self.mean, self.std) != (0.0, 1.0) else x

    def to(self, device: torch.device | str) -> "Source":
        """Return the same source with its tensors on ``device``."""
        return replace(self, **{name: getattr(self, name).to(device) for name in NAMES})


SourceLike: TypeAlias = (
    str
    | os.PathLike[str]
    | Source
    | HubSource
    | ImageFolder
    | Dataset[Any]
    | Sequence[Tensor]
    | Sequence[Dataset[Any]]
    | Mapping[str, Any]
)


def load_source(source: SourceLike) -> Source:
    """Load the data that ``source`` names.

    Args:
        source: ``"digits"``: 1,438 + 359 images of 8 x 8 pixels, part of the package. They are the UCI
            "Optical Recognition of Handwritten Digits" of E. Alpaydin and C. Kaynak as scikit-learn's
            ``load_digits`` has them, CC BY 4.0, split here. ``"mnist"``: 60,000 + 10,000 images of 28 x 28,
            the Hub's ``ylecun/mnist``, downloaded once; ``"fashion-mnist"``: as many images of clothes;
            ``"omniglot"``: 242 letters of eight alphabets, 15 + 5 images of each, brought to 28 x 28;
            ``"banking77"``: 10,003 + 3,080 questions of a bank's customers of 77 kinds, as `hashed_ngrams`. Any other
            data set of the Hub: a `HubSource`. A folder of images with a folder for each class (see `ImageFolder`), or
            with the parquet files of a repository. Or data of your own: tensors ``(x_train, y_train, x_test, y_test)``
            or ``(x, y)``, or under these names, as in ``np.load("mnist.npz")``; a `torch.utils.data.Dataset` or a pair
            of them, ``(train, test)``; a list of rows; or what ``datasets.load_dataset`` returns; they are read into
            memory, once. Without test data a fifth of the rows, of each class alike, is held out for testing. x of any
            shape is flattened. Float values stay as they are: normalise them yourself. uint8 is scaled from 0 .. 255 to
            [0, 1]; int64 ``(rows, length)`` is numbers of tokens, which stay so. Labels are integers from 0; float
            targets, of any shape, are those of a regression or of several labels a row.

    Returns:
        The source.

    Raises:
        FileNotFoundError: no such name or folder.
        ImportError: data sets of the Hub or images without the ``[mnist]`` extra.
        TypeError: data of the wrong kind.
        ValueError: tensors that do not fit together, labels out of range.

    Example:
        >>> digits = load_source("digits")
        >>> digits.num_features, digits.num_classes, len(digits.x_train), len(digits.x_test)
        (64, 10, 1438, 359)
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, (HubSource, ImageFolder)):
        arrays = source.read()
        return _from_tensors([arrays[part] for part in NAMES if part in arrays])
    if not isinstance(source, (str, os.PathLike)):
        return _from_tensors(_tensors(source))
    if source == "digits":
        return _from_images(load_file(DIGITS), DIGITS_MEAN * 16, DIGITS_STD * 16, "digits")
    if source == "mnist":
        return _mnist(_mnist_files(), source)
    if isinstance(source, str) and source in HUB:
        return _named(source)
    if not Path(source).is_dir():
        raise FileNotFoundError(
            f"Expected `source` to be {', '.join(map(repr, SOURCES))}, a folder of images or with files of the Hub, or "
            f"a tuple ({', '.join(NAMES)}), but got {(text := os.fspath(source))!r}."
            f"{nearest(text, SOURCES) or ' Check the name or the path.'}"
        )
    if (files := mnist.local_files(Path(source))) is not None:
        return _mnist(files, "custom")
    has_tables = any(Path(source).rglob("*.parquet"))
    return load_source(HubSource(os.fspath(source)) if has_tables else ImageFolder(source))


def _mnist_files() -> dict[str, Path]:
    folder = mirrored(mnist.REPO)
    files = None if folder is None else mnist.local_files(folder)
    return mnist.download() if files is None else files


def _mnist(files: dict[str, Path], name: str) -> Source:
    arrays = mnist.read(files)
    return _from_images(arrays, mnist.MEAN * 255, mnist.STD * 255, "mnist" if mnist.is_mnist(arrays) else name)


def _named(name: str) -> Source:
    """A data set of the Hub that has a name here; pixels are normalised, as those of MNIST."""
    given, mean, std = HUB[name]
    arrays = given.read()
    if name == "omniglot":
        arrays |= {split: 255 - arrays[split] for split in ("x_train", "x_test")}  # ink is 1, as in MNIST
    source = _from_tensors([arrays[part] for part in NAMES])
    return replace(source, mean=mean * source.std, std=std * source.std, name=name)


def _from_images(arrays: dict[str, Tensor], mean: float, std: float, name: str) -> Source:
    """From flat, square uint8 images, as in ``digits.safetensors``."""
    labels = {name: arrays[name].long() for name in ("y_train", "y_test")}
    side = math.isqrt(arrays["x_train"].shape[1])
    num_classes = int(labels["y_train"].max()) + 1
    return Source(**{**arrays, **labels}, num_classes=num_classes, shape=(side, side), mean=mean, std=std, name=name)


def _tensors(source: Any) -> Sequence[Tensor]:
    """Four tensors, or two without test data."""
    if is_rows(source):
        return read_dataset(source)
    if isinstance(source, Mapping):
        is_named = set(NAMES) <= set(source)  # such as Keras's mnist.npz
        source = [source[name] for name in NAMES] if is_named else splits(source)
    parts = (source,) if is_dataset(source) else source
    if not isinstance(parts, Sequence) or len(parts) not in (1, 2, 4):
        raise no_source(source, NAMES)
    if all(map(is_dataset, parts)):
        return [torch.as_tensor(part) for dataset in parts for part in read_dataset(dataset)]
    names = NAMES if len(parts) == 4 else ("x", "y")
    return [read_array(part, name) for part, name in zip(parts, names, strict=False)]


def _from_tensors(tensors: Sequence[Tensor]) -> Source:
    tensors = [part.detach() for part in tensors]  # such as features of a network
    for x, y, split in zip(tensors[::2], tensors[1::2], ("train", "test"), strict=False):
        _check_split(x, y, split)
    if len(tensors) == 2:
        x, y = tensors
        remedy = "Pass (x_train, y_train, x_test, y_test)."
        test = hold_out(y, TEST_SHARE, seed=0, name="the share held out for testing", remedy=remedy)
        which = f"A fifth of the {len(x)} rows, and none of a class of one row"
        rank_zero_info(f"{which}, is held out as the test split, for no test data were given.")
        tensors = x[~test], y[~test], x[test], y[test]
    x_train, y_train, x_test, y_test = tensors
    for name, test, train in (("x", x_test, x_train), ("y", y_test, y_train)):
        expected, found = (f"{tuple(part.shape[1:])} {_kind(part)}" for part in (train, test))
        if found != expected:
            like = f"{expected}, as those of `{name}_train`"
            raise ValueError(f"Expected the rows of `{name}_test` to be {like}, but got {found}. Prepare both alike.")
    shape, scale = tuple(x_train.shape[1:]), 255.0 if x_train.dtype == torch.uint8 else 1.0
    warn_of_pixels(x_train)
    warn_of_scales(x_train, x_test)
    if x_train.dtype in TOKENS:
        rank_zero_info("Rows of whole numbers are taken as numbers of tokens. Other numbers are floats: x.float().")
    x_train, x_test = (_as_kept(x.flatten(1)) for x in (x_train, x_test))
    if y_train.is_floating_point():
        return Source(x_train, y_train.float(), x_test, y_test.float(), None, shape, std=scale)
    y_train, y_test = y_train.long(), y_test.long()
    num_classes = int(y_train.max()) + 1
    if (label := int(y_test.max())) >= num_classes:
        known = f"labels from 0 to {num_classes - 1}, as `y_train`"
        raise ValueError(f"Expected `y_test` to hold {known}, but got {label}. Leave its rows out, or train on some.")
    return Source(x_train, y_train, x_test, y_test, num_classes, shape, std=scale)


def _as_kept(x: Tensor) -> Tensor:
    return x if x.dtype == torch.uint8 else x.long() if x.dtype in TOKENS else x.float()


def _kind(x: Tensor) -> str:
    return "integer labels" if x.ndim == 1 and not x.is_floating_point() else str(x.dtype)


def _check_split(x: Tensor, y: Tensor, split: str) -> None:
    if x.layout != torch.strided:
        raise TypeError(f"Expected `x_{split}` to be dense, but got {x.layout}. Use .to_dense().")
    if not (x.dtype == torch.uint8 or x.is_floating_point() or (x.dtype in TOKENS and x.ndim == 2)):
        expected = f"`x_{split}` to be float, uint8 pixels, or numbers of tokens (rows, length) of int64"
        raise TypeError(f"Expected {expected}, but got {x.dtype} of shape {tuple(x.shape)}. Use .float().")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"Expected `x_{split}` to have the shape (rows, ...), not empty, but got {tuple(x.shape)}.")
    _check_finite(x, f"x_{split}")
    _check_finite(y, f"y_{split}")
    if y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"Expected `y_{split}` to hold integers or floats, but got {y.dtype}. Use .long() or .float().")
    if len(y) != len(x) if y.is_floating_point() and y.ndim else y.shape != (len(x),):
        expected = f"of the shape ({len(x)},), a label for each row of `x_{split}`"
        raise wrong_argument(f"y_{split}", expected, tuple(y.shape), remedy_of_labels(x, y))
    if not y.is_floating_point() and (label := int(y.long().min())) < 0:  # unsigned ones have no minimum
        raise ValueError(f"Expected `y_{split}` to hold labels from 0, but got {label}. Number classes from 0.")


def _check_finite(values: Tensor, name: str) -> None:
    if not values.is_floating_point() or bool((finite := values.isfinite()).all()):
        return
    bad = ~finite.reshape(len(finite), -1)
    got = f"NaN or infinity in {int(bad.any(1).sum())} of {len(bad)} rows"
    if values.ndim == 2:
        columns = bad.any(0).nonzero().flatten().tolist()
        got += f", in {'columns' if len(columns) > 1 else 'column'} {', '.join(map(str, columns[:8]))}"
    remedy = "Leave these rows out, or fill them in, for instance with the mean of the column."
    raise ValueError(f"Expected `{name}` to hold finite numbers, but got {got}. {remedy}")
