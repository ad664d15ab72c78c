"""A classifier that learns classes one after another without training, and forgets none."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo._core.batches import labelled_batches
from dendrite_zoo._core.checks import check_positive, wrong_argument
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers import PatchFeatures, RandomFeatures, RidgeHead
from dendrite_zoo.layers.patch_features import PER_FILTER
from dendrite_zoo.layers.ridge import with_dropped, without_dropped
from dendrite_zoo.models.config import Arguments, check_value, takes

__all__ = ["RidgeClassifier"]

TOKENS = (
    "Rows of whole numbers (int64) are learned as sizes. Where they are numbers of tokens, give counts of these, such "
    "as F.one_hot(x, vocabulary).sum(1).float(); else x.float()."
)


@dataclass(kw_only=True)
class RidgeArguments(Arguments):
    """The arguments of `RidgeClassifier`."""

    input_shape: int | Sequence[int] = field(kw_only=False)
    num_classes: int = field(kw_only=False)
    random_features: int = 4096
    penalty: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty is not None:
            check_positive(penalty=self.penalty)
        shape = [self.input_shape] if isinstance(self.input_shape, int) else list(self.input_shape)
        if len(shape) not in (1, 2, 3):
            expected = "the size of a row, or the shape (H, W) or (C, H, W) of an image"
            raise wrong_argument("input_shape", expected, self.input_shape)
        for size in shape:
            check_value("input_shape", int, size)
        if len(shape) == 3 and shape[0] > 4 >= shape[2]:
            raise wrong_argument("input_shape", "channels first, (C, H, W)", self.input_shape, "Permute the images.")
        if len(shape) > 1 and self.random_features % PER_FILTER:
            raise wrong_argument("random_features", f"a multiple of {PER_FILTER} for images", self.random_features)


@register_model("ridge-classifier")
class RidgeClassifier(HubModel, nn.Module):
    """Classes from running sums over fixed features of an input (`RidgeHead`): nothing is trained, nothing forgotten.

    It sees the data once, task after task in any order, keeps no rows, and gives the solution that all of them together
    would give. So it learns classes one after another (`dendrite_zoo.streams.SplitTasks`), where networks that are
    trained forget. Rare classes count as much as frequent ones. Images meet filters that are patches of the first ones
    (`PatchFeatures`), rows of numbers random units (`RandomFeatures`).

    `dendrite_zoo.lightning_modules.ContinualClassifier` has it learn each task of a stream when the task starts;
    without a Trainer call `learn`.

    Args:
        input_shape: ``(H, W)`` or ``(C, H, W)`` for images, flattened or not; the size of a row for what is none.
        num_classes: of all tasks together; classes not seen yet are never given.
        random_features: ``F``, for images a multiple of 32. Memory and file grow as ``4 * F ** 2`` bytes, the time for
            a task as ``F ** 3``, that for a row as ``F ** 2``.
        penalty: of `dendrite_zoo.functional.ridge_discriminant`. None chooses it anew whenever more was learned: the
            fewer rows a class has and the noisier they are, the larger.
        seed: of the features.

    Shape:
        x ``(B, ...)`` to logits ``(B, num_classes)``, whose softmax is a probability. uint8 pixels are scaled to
        [0, 1], as in streams.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from dendrite_zoo.streams import SplitTasks
        >>> stream = SplitTasks("digits", num_tasks=5)
        >>> model = RidgeClassifier((8, 8), num_classes=10, random_features=512)
        >>> for task in range(5):
        ...     model.learn(stream.task_loader(task))
        >>> x, y = next(iter(stream.task_loader(0, "test")))
        >>> (model(x).argmax(1) == y).float().mean() > 0.95
        tensor(True)
    """

    changeable = ("num_classes",)

    @takes(RidgeArguments)
    def __init__(self, config: RidgeArguments) -> None:
        super().__init__()
        self.config = config.as_config()
        shape = [config.input_shape] if isinstance(config.input_shape, int) else list(config.input_shape)
        self.features: PatchFeatures | RandomFeatures
        if len(shape) == 1:
            self.features = RandomFeatures(shape[0], config.random_features, seed=config.seed)
        else:
            self.features = PatchFeatures([1, *shape][-3:], config.random_features, seed=config.seed)
        self.head = RidgeHead(config.random_features, config.num_classes, penalty=config.penalty)

    def drop_sums(self) -> None:
        """Give up the sums from which more is learned, nearly all of an artifact; outputs stay as they are."""
        self.head.drop_sums()

    @classmethod
    def to_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leave out sums that were given up."""
        return without_dropped(state)

    @classmethod
    def from_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Note that they were."""
        return with_dropped(state, "head")

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Load with more classes; those known stay as they are."""
        new, known = {**config, **changes}, config["num_classes"]
        RidgeArguments(**new)  # which checks them
        if new["num_classes"] < known:
            raise wrong_argument("num_classes", f"at least {known}", new["num_classes"], "No class is ever dropped.")
        head = RidgeHead(config["random_features"], new["num_classes"])
        grown = {
            f"head.{name}": torch.cat([state[f"head.{name}"], empty[known:].to(state[f"head.{name}"])])
            for name, empty in head.state_dict().items()
            if len(empty) == new["num_classes"] and name != "triangle"
        }
        return new, {**state, **grown}, []

    @property
    def num_classes(self) -> int:
        """Size of the output."""
        return self.head.num_classes

    @torch.no_grad()
    def learn(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Learn the rows of all batches, in one pass and over all processes; they add to those before.

        Args:
            batches: ``(x, y)``, such as a DataLoader gives.

        Raises:
            TypeError: batches are no pairs of tensors.
            ValueError: there are no rows; rows of another size, NaN, infinity or numbers too large, labels out of
                range or no integers: then nothing has changed.
        """

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for number, (x, y) in enumerate(labelled_batches(batches)):
                x = self._checked(x)
                if number == 0:
                    self.features.warn_of_scale(x)
                    if x.dtype == torch.int64:
                        warnings.warn(TOKENS, stacklevel=2)
                yield x.where(x.isfinite(), torch.nan) if x.is_floating_point() else x, y  # the sums refuse NaN

        with self.features.set_by_accepted_rows():
            self.head.learn((self.features(x), y) for x, y in self.features.start(pairs()))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``."""
        x = self._checked(x)
        self.features.warn_of_scale(x)
        return self.head(self.features(x))

    def _checked(self, x: Tensor) -> Tensor:
        shape = self.config["input_shape"]
        if not isinstance(x, Tensor):
            raise TypeError(f"Expected `x` to be a tensor (batch, {shape}), but got {type(x).__name__}.")
        if math.prod(x.shape[1:]) != (shape if isinstance(shape, int) else math.prod(shape)):
            raise wrong_argument("x", f"of shape (batch, {shape}), or one that flattens to it", tuple(x.shape))
        own = [shape] if isinstance(shape, int) else [side for side in shape if side != 1]
        sides = [side for side in x.shape[1:] if side != 1]
        if sides != own and sorted(sides) == sorted(own):
            remedy = "Permute the images: channels last are x.permute(0, 3, 1, 2)."
            raise wrong_argument("x", f"of shape (batch, {shape}), as `input_shape`", tuple(x.shape), remedy)
        return x / 255 if x.dtype == torch.uint8 else x  # as streams scale pixels
