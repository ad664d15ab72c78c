"""Data sets of others, read into memory: torch's, those of the Hub's ``datasets``, and their pairs of splits."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

LABELS = ("label", "labels", "target", "targets", "y")
ROWS, FEW = 4096, 32  # by which the scale of rows is judged; of fewer nothing is said
TEST = ("test", "validation", "val")


def is_dataset(source: Any) -> bool:
    """Whether something is a data set that can be indexed; a tuple, a list and a tensor are none.

    Example:
        >>> is_dataset(TensorDataset(torch.zeros(3, 2), torch.zeros(3))), is_dataset((1, 2)), is_dataset(torch.zeros(3))
        (True, False, False)
    """
    plain = isinstance(source, (tuple, list, Tensor, np.ndarray, Mapping, IterableDataset))
    plain = plain or hasattr(source, "to_numpy")  # a table or a column of pandas or polars
    return not plain and hasattr(source, "__getitem__") and hasattr(source, "__len__")


def is_rows(source: Any) -> bool:
    """Whether something is a list of rows, pairs or dictionaries, as those of a data set.

    Example:
        >>> is_rows([(torch.zeros(2), 0), (torch.ones(2), 1)]), is_rows([torch.zeros(2, 3), torch.zeros(2)])
        (True, False)
    """
    return isinstance(source, list) and bool(source) and all(isinstance(row, (tuple, Mapping)) for row in source)


def no_source(source: Any, names: Sequence[str]) -> TypeError:
    """What to say where something is no data set that can be read, and what to give in its place."""
    found = f"{len(source)} items" if isinstance(source, Sequence) else type(source).__name__
    expected = f"({', '.join(names)}), (x, y), or a Dataset that can be indexed"
    remedy = "Pass one of these."
    if isinstance(source, Iterable) and not isinstance(source, Sequence):  # such as an IterableDataset
        remedy = (
            "Pass as many rows (x, y) as the task is to have, list(itertools.islice(source, 10_000)); or fit each task "
            "by loaders of your own, and set module.current_task = 0, 1, ... before."
        )
    remedy = "Pass its `dataset`." if is_dataset(getattr(source, "dataset", None)) else remedy
    return TypeError(f"Expected `source` to be {expected}, but got {found}. {remedy}")


def splits(source: Mapping[str, Any]) -> tuple[Any, ...]:
    """The data sets to train and to test on, of a dictionary of splits as ``datasets.load_dataset`` returns it.

    Raises:
        ValueError: there is no split to train on.
    """
    if "train" not in source:
        got = ", ".join(map(repr, source))
        raise ValueError(f"Expected a split 'train' in the data set, but got {got}. Name one of them so.")
    return source["train"], *(source[name] for name in [name for name in TEST if name in source][:1])


def differ(scale: tuple[float, float], other: tuple[float, float], *, by: float) -> bool:
    """Whether numbers of a mean and a standard deviation are of another scale than others, by a factor or more."""
    (mean, spread), (other_mean, other_spread) = scale, other
    return not spread / by <= other_spread <= by * spread or abs(other_mean - mean) > by * spread


def warn_of_scales(train: Tensor, test: Tensor) -> None:
    """Warn of test rows of another scale than those of training, as where only these were normalised.

    Args:
        train: rows ``(N, ...)``, of which some thousand are looked at.
        test: rows ``(M, ...)``; of a few nothing is said.
    """
    if len(test) < FEW or not train.is_floating_point():
        return
    (mean, spread), (other_mean, other) = ((float(x.mean()), float(x.std())) for x in (train[:ROWS], test[:ROWS]))
    if differ((mean, spread), (other_mean, other), by=4):
        warnings.warn(
            f"The training rows have mean {mean:.3g} and standard deviation {spread:.3g}, the test rows "
            f"{other_mean:.3g} and {other:.3g}. Prepare both alike: what is measured on the test rows is worth little "
            "if only the others were scaled.",
            stacklevel=2,
        )


def read_array(values: Any, name: str) -> Tensor:
    """Numbers of any kind as a tensor: a tensor, an array, lists, a table or a column of pandas.

    Args:
        values: the numbers.
        name: of the argument, for errors; labels begin with "y".

    Raises:
        TypeError: there are no numbers, but text or nothing that can be read.

    Example:
        >>> read_array([[1.0, 2.0]], "x")
        tensor([[1., 2.]])
        >>> read_array(np.array(["cat", "dog"]), "y_train")
        Traceback (most recent call last):
            ...
        TypeError: Expected `y_train` to hold numbers, but got text, such as 'cat'. Number the classes from 0: ...
    """
    try:
        if isinstance(values, Tensor):
            return values
        array = np.asarray(values)
        if array.dtype == object or isinstance(values, list | tuple) and array.dtype.kind == "f":
            array = array.astype(np.float32)  # columns of several types, all of them numbers; or Python's, as in torch
        native = array.dtype.newbyteorder("=")  # files of FITS or IDX have the other; pandas gives what is only to read
        if array.dtype != native or not array.flags.writeable or min(array.strides, default=0) < 0:
            array = np.array(array, dtype=native, order="C")  # x[::-1] goes backwards
        return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        text = next((value for value in np.asarray(values, dtype=object).flat if isinstance(value, str)), None)
        if text is None:
            got = f"{type(values).__name__}: {error}."
            if hasattr(values, "toarray"):  # of scipy
                got = f"{type(values).__name__}, which is sparse. Use .toarray()."
            if isinstance(values, Mapping):
                columns = ", ".join(map(repr, values))
                got = f"a dictionary of {columns}. Pass its columns, as (x_train, y_train, x_test, y_test)."
            raise TypeError(f"Expected `{name}` to hold numbers, but got {got}") from None
        remedy = "Give each text column one column of 0 and 1 for each of its values, such as by pandas.get_dummies."
        if name.startswith("y"):
            remedy = "Number the classes from 0: names, y = numpy.unique(y, return_inverse=True)."
        raise TypeError(f"Expected `{name}` to hold numbers, but got text, such as {text!r}. {remedy}") from None


def read_dataset(dataset: Any) -> tuple[Tensor, Tensor]:
    """All items of a data set, in order.

    Args:
        dataset: whose items are pairs ``(x, y)``, or dictionaries of an input and a label (``label``, ``labels``,
            ``target``, ``targets`` or ``y``). Inputs are tensors, arrays, lists or PIL images, which become
            ``(C, H, W)`` uint8.

    Returns:
        ``x (N, ...)`` and ``y (N, ...)``.

    Raises:
        TypeError: items of another kind.
        ValueError: items of different shapes.

    Example:
        >>> x, y = read_dataset([(torch.zeros(3), 0), (torch.ones(3), 1)])
        >>> x.shape, y
        (torch.Size([2, 3]), tensor([0, 1]))
    """
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[0], dataset.tensors[1]
    rows = [_pair(dataset[i]) for i in range(len(dataset))]
    if not rows:
        raise ValueError(f"Expected items in {type(dataset).__name__}, but got none. Check the data set.")
    columns = []
    for name, column in zip(("inputs", "labels"), zip(*rows, strict=True), strict=True):
        if isinstance(column[0], str):
            remedy = "Number the classes from 0, such as by names.index(label)."
            if name == "inputs":
                remedy = (
                    "Name the columns of a data set of the Hub, HubSource(..., text=...), or give numbers for texts."
                )
            raise TypeError(
                f"Expected {name} of {type(dataset).__name__} to be numbers, but got {column[0]!r}. {remedy}"
            )
        tensors = [_tensor(value) for value in column]
        if other := next((i for i, tensor in enumerate(tensors) if tensor.shape != tensors[0].shape), None):
            shapes = f"{tuple(tensors[0].shape)}, but got {tuple(tensors[other].shape)} in item {other}"
            raise ValueError(f"Expected {name} of one shape in {type(dataset).__name__}, {shapes}. Resize them.")
        columns.append(torch.stack(tensors))
    return columns[0], columns[1]


def _pair(item: Any) -> tuple[Any, Any]:
    """The input and the label of an item."""
    if isinstance(item, Mapping):
        labels = [name for name in item if name in LABELS]
        inputs = [name for name in item if name not in labels]
        if len(labels) != 1 or len(inputs) != 1:
            expected = f"one column of inputs and one of labels ({', '.join(LABELS)})"
            remedy = "Keep two, such as dataset.select_columns(['image', 'label'])."
            raise TypeError(f"Expected a data set with {expected}, but got {', '.join(map(repr, item))}. {remedy}")
        return item[inputs[0]], item[labels[0]]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        got = f"{len(item)} parts" if isinstance(item, (tuple, list)) else type(item).__name__
        raise TypeError(f"Expected a data set of pairs (x, y), but got items of {got}. Wrap it in a Dataset of pairs.")
    return item[0], item[1]


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.array(value)
    is_color_image = type(value).__module__.startswith("PIL.") and array.ndim == 3
    return torch.from_numpy(array.transpose(2, 0, 1) if is_color_image else array)


def remedy_of_labels(x: Tensor, y: Tensor) -> str:
    """What to do about integers as labels ``(rows, ...)`` of more than one dimension, or of other rows than x."""
    if y.ndim < 2 or len(y) != len(x):
        return "Check that both are of the same rows."
    if y.shape[1:].numel() == 1:
        return "Pass y.reshape(-1)."
    if y.ndim == 2 and bool((y.sum(1) == 1).all()) and bool((y >= 0).all()):
        return "Pass y.argmax(1) where one class of each row is marked; several labels a row are floats, y.float()."
    return (
        "Several labels a row, 0 or 1, are floats, y.float(). A label for each position, as in segmentation, is for no "
        "stream: give loaders of (x, y), one fit for each task (docs/how-to/one-fit-a-task.md), to "
        "ContinualClassifier(network), whose output is (B, classes, ...)."
    )
