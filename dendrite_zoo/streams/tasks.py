"""Ways to make many tasks of one data set, and their names, such as ``permuted-mnist``."""

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo._core.checks import check_choice, wrong_argument
from dendrite_zoo.streams.sampling import class_order, permutation, rotation_angle, task_share
from dendrite_zoo.streams.sources import SOURCES, Source, SourceLike
from dendrite_zoo.streams.stream import TaskStream

__all__ = ["BlurredTasks", "ContrastTasks", "PermutedTasks", "RotatedTasks", "SplitTasks", "benchmark_stream"]


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Rotate square images about their centre, counter-clockwise, bilinear; corners are filled with 0.

    Shape:
        ``(B, C, S, S)`` to ``(B, C, S, S)``.

    Example:
        >>> rotate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 90).round(decimals=4).tolist()
        [[[[2.0, 4.0], [1.0, 3.0]]]]
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # For each output pixel the place in the input, with y pointing down.
    origin = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]], dtype=images.dtype, device=images.device)
    grid = F.affine_grid(origin, [1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)


class PermutedTasks(TaskStream):
    """Every task permutes the features of ``x`` in its own way, the first one not at all (permuted MNIST).

    With ``flatten=False`` these are the pixels of an image, over all its channels. For the arguments see `TaskStream`.

    Example:
        >>> stream = PermutedTasks("digits", num_tasks=10, epochs_per_task=5)
        >>> x, y = next(iter(stream.task_loader(3)))
        >>> x.shape, y.shape
        (torch.Size([256, 64]), torch.Size([256]))
        >>> stream.trainer_kwargs()
        {'max_epochs': 50, 'reload_dataloaders_every_n_epochs': 1, 'num_sanity_val_steps': 0}
    """

    kind = "permuted"

    def transform(self, x: Tensor, task: int) -> Tensor:
        """Permute the features."""
        return x if task == 0 else x.index_select(1, _permutation_on(x.device, self.seed, task, x.shape[1]))


@lru_cache(maxsize=16)
def _permutation_on(device: torch.device, seed: int, task: int, num_features: int) -> Tensor:
    return permutation(seed, task, num_features).to(device)


class RotatedTasks(TaskStream):
    """Every task rotates the images by an angle of its own, the first one not at all (rotated MNIST).

    The angles lie between 0 and 180 degrees and depend on seed and task alone. For the arguments see
    `TaskStream`; the source must hold square images.

    Example:
        >>> stream = RotatedTasks("digits", num_tasks=5)
        >>> x, y = next(iter(stream.task_loader(4, "test")))
        >>> x.shape
        torch.Size([256, 64])
    """

    kind = "rotated"

    def check_source(self, source: Source) -> None:
        """Refuse a source without square images."""
        _image_shape(source)

    def transform(self, x: Tensor, task: int) -> Tensor:
        """Rotate the images."""
        if task == 0:
            return x
        return rotate(x.unflatten(1, _image_shape(self.source)), rotation_angle(self.seed, task)).flatten(1)


def _image_shape(source: Source) -> tuple[int, int, int]:
    """Channels, height and width, the latter two equal; a flat row is one channel."""
    _refuse_tokens(source)
    side = math.isqrt(source.num_features)
    shape = source.shape if len(source.shape) > 1 else (side, source.num_features // side)
    if shape[-1] != shape[-2] or math.prod(shape) != source.num_features:
        raise ValueError(
            f"Expected the rows of RotatedTasks and BlurredTasks to be square images, (..., S, S) or flat with S * S "
            f"features, but got the shape {source.shape}. Crop or pad them."
        )
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _refuse_tokens(source: Source) -> None:
    if source.has_tokens:
        raise TypeError("Expected pixels for such tasks, but got numbers of tokens (int64). Use x.float() for pixels.")


class BlurredTasks(TaskStream):
    """Every task blurs the images by a width of its own, the first one not at all: domains that are near to each other.

    The standard deviations of the Gaussian lie between 0 and an eighth of the side (3.5 pixels of 28) and depend on
    seed and task alone. For the arguments see `TaskStream`; the source must hold square images.

    Example:
        >>> stream = BlurredTasks("digits", num_tasks=5)
        >>> x, y = next(iter(stream.task_loader(4, "test")))
        >>> x.shape
        torch.Size([256, 64])
    """

    kind = "blurred"

    def check_source(self, source: Source) -> None:
        """Refuse a source without square images."""
        _image_shape(source)

    def transform(self, x: Tensor, task: int) -> Tensor:
        """Blur the images."""
        shape = _image_shape(self.source)
        width = task_share(self.seed, task) * shape[-1] / 8
        return x if width == 0 else blur(x.unflatten(1, shape), width).flatten(1)


class ContrastTasks(TaskStream):
    """Every task lowers the contrast by a factor of its own, the first one not at all: domains near to each other.

    What an image has above or below its own mean is multiplied by a factor between 0.1 and 1, which depends on seed and
    task alone. For the arguments see `TaskStream`.

    Example:
        >>> stream = ContrastTasks("digits", num_tasks=5)
        >>> x, y = next(iter(stream.task_loader(4, "test")))
        >>> x.shape
        torch.Size([256, 64])
    """

    kind = "contrast"

    def check_source(self, source: Source) -> None:
        """Refuse numbers of tokens."""
        _refuse_tokens(source)

    def transform(self, x: Tensor, task: int) -> Tensor:
        """Lower the contrast."""
        return torch.lerp(x, x.mean(1, keepdim=True), 0.9 * task_share(self.seed, task))


def blur(images: Tensor, width: float) -> Tensor:
    """Blur images by a Gaussian of a standard deviation in pixels; beyond the edge they go on as at the edge.

    Shape:
        ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Example:
        >>> blur(torch.eye(3)[None, None] * 4, 0.5)[0, 0, 0]
        tensor([3.2372, 0.7163, 0.0472])
    """
    reach = max(1, math.ceil(3 * width))
    kernel = torch.exp(-torch.arange(-reach, reach + 1, device=images.device).square() / (2 * width**2))
    kernel = (kernel / kernel.sum()).to(images.dtype)
    rows = images.flatten(0, 1).unsqueeze(1)
    rows = F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None, :])
    rows = F.conv2d(F.pad(rows, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None])
    return rows.view_as(images)


class SplitTasks(TaskStream):
    """Every task has classes of its own, for instance the first two of ten, then the next two (split MNIST).

    Classes are in the order of their labels for seed 0, for other seeds in a fixed random order. Labels
    stay as they are: all tasks share one head (class-incremental learning). For the arguments see
    `TaskStream`. Where the classes do not divide evenly, the first tasks have one more, as in `numpy.array_split`.

    Example:
        >>> stream = SplitTasks("digits", num_tasks=5)
        >>> stream.classes(1)
        [2, 3]
    """

    kind = "split"

    def check_source(self, source: Source) -> None:
        """Refuse more tasks than classes."""
        if source.num_classes is None:
            raise ValueError("Expected integer labels for SplitTasks, but got float targets. Use .long().")
        if source.num_classes < self.num_tasks:
            expected = f"at most {source.num_classes}, the number of classes"
            raise wrong_argument("num_tasks", expected, self.num_tasks, "Lower it.")

    def classes(self, task: int) -> list[int]:
        """The classes of a task."""
        return class_order(self.seed, self.num_classes or 0).tensor_split(self.num_tasks)[task].tolist()

    def task_rows(self, task: int, labels: Tensor) -> Tensor:
        """Choose the rows of the task's classes."""
        return torch.isin(labels, torch.tensor(self.classes(task), device=labels.device))


KINDS: list[type[TaskStream]] = [PermutedTasks, RotatedTasks, SplitTasks, BlurredTasks, ContrastTasks]
STREAMS = {str(stream.kind): stream for stream in KINDS}


def benchmark_stream(name: str, num_tasks: int, *, source: SourceLike | None = None, **kwargs: Any) -> TaskStream:
    """The stream of a benchmark.

    Args:
        name: such as ``permuted-digits``.
        num_tasks: number of tasks.
        source: of the data, in place of the one that the name says.
        **kwargs: for the stream.

    Raises:
        ValueError: there is no such benchmark.

    Example:
        >>> benchmark_stream("rotated-digits", 3)
        RotatedTasks('digits', num_tasks=3, first_task=0)
    """
    kind, _, data = name.partition("-")
    if kind not in STREAMS or (data not in SOURCES and source is None):
        check_choice([f"{kind}-{data}" for kind in STREAMS for data in SOURCES], name=name)
    return STREAMS[kind](data if source is None else source, num_tasks, **kwargs)
