"""What a network reads of an observation: sums and differences of its numbers, by a fixed matrix."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import nearest

__all__ = ["Features", "features_of"]

SIZES = {"observation_size": 39, "action_size": 4}
"""Of Meta-World."""


class Features(NamedTuple):
    """Linear features of an observation, ``(observation @ matrix - mean) / scale``.

    Attributes:
        matrix: ``(O, F)``; None for the numbers of the observation themselves.
        mean: ``(F,)``.
        scale: ``(F,)``, in the units of the observation.
        known: whether mean and scale are those of the features, and not to be measured.
    """

    matrix: Tensor | None
    mean: Tensor
    scale: Tensor
    known: bool = False


def normalised(x: Tensor, mean: Tensor, scale: Tensor, clip: float | None) -> Tensor:
    """Numbers ``(..., F)`` less their mean, in units of their scale, none further from 0 than ``clip``."""
    x = (x - mean) / scale
    return x if clip is None else x.clamp(-clip, clip)


def statistics_of(x: Tensor, smallest: float | None) -> tuple[Tensor, Tensor]:
    """Mean and scale, ``(F,)`` each, to normalise numbers ``(N, F)`` by; what never changes has the scale 1.

    Args:
        x: the numbers.
        smallest: no scale of what changes is less; None for what float32 tells from the rounding of the mean.

    Example:
        >>> statistics_of(torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 2e-4]]), None)[1]
        tensor([1.0000e+00, 1.0000e+00, 1.0000e-04])
    """
    mean, spread, never = x.mean(0), x.std(0, correction=0), x.amin(0) == x.amax(0)
    least = (1e-6 * mean.abs()).clamp(min=1e-8) if smallest is None else torch.full_like(mean, smallest)
    return mean, spread.maximum(least).where(~never, 1.0)


class Normalization(nn.Module):
    """Reads `Features` of observations ``(B, O)``, by itself: what a policy without its dendrites begins with.

    Args:
        features: the matrix, the mean and the scale; they are copied.
        clip: no number is read as more than this; None for no bound.

    Example:
        >>> read = Normalization(Features(None, torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])), clip=5.0)
        >>> read(torch.tensor([[3.0, -9.0]]))
        tensor([[ 1., -5.]])
    """

    matrix: Tensor | None
    mean: Tensor
    scale: Tensor

    def __init__(self, features: Features, clip: float | None = None) -> None:
        super().__init__()
        for name in ("matrix", "mean", "scale"):
            part = getattr(features, name)
            self.register_buffer(name, None if part is None else part.clone())
        self.clip = clip

    def forward(self, observation: Tensor) -> Tensor:
        """What is read, ``(B, F)``."""
        x = observation if self.matrix is None else observation @ self.matrix
        return normalised(x, self.mean, self.scale, self.clip)


def features_of(features: str | Sequence[Sequence[float]] | None, observation_size: int) -> Features:
    """The features that an argument stands for.

    Args:
        features: None for the numbers of the observation; a matrix ``(O, F)``; or a name: of Meta-World's observations,
            ``"metaworld-raw"`` are the 39 numbers in their scales (15 cm around the middle of the table; quaternions by
            one half), and ``"metaworld"`` has, in place of the frame before, how far hand and objects moved since, in
            centimetres, and the ways from hand to object, from both to the goal and between the objects, in decimetres.
        observation_size: O.

    Raises:
        ValueError: there is no such name, or the matrix is for observations of another size.

    Example:
        >>> features_of("metaworld", 39).matrix.shape
        torch.Size([39, 43])
    """
    if features is None:
        return Features(None, torch.zeros(observation_size), torch.ones(observation_size))
    if not isinstance(features, str):
        widths = {len(row) for row in features}
        if len(features) != observation_size or len(widths) != 1 or widths == {0}:
            got = f"{len(features)} rows of {sorted(widths)} numbers"
            raise ValueError(
                f"Expected `observation_features` to be a matrix of {observation_size} rows, one for each number of an "
                f"observation, each as long as the others, but got {got}. Transpose it, or set `observation_size`."
            )
        matrix = torch.tensor(features, dtype=torch.float32)
        return Features(matrix, torch.zeros(matrix.shape[1]), torch.ones(matrix.shape[1]))
    if features not in METAWORLD:
        expected = f"{' or '.join(map(repr, METAWORLD))}, or a matrix"
        raise wrong_argument("observation_features", expected, features, nearest(features, METAWORLD).strip())
    if observation_size != SIZES["observation_size"]:
        remedy = "Give a matrix of your own, or leave it out."
        expected = f"one for {observation_size} numbers (that of Meta-World is for 39)"
        raise wrong_argument("observation_features", expected, features, remedy)
    return _metaworld(relative=features == "metaworld")


def plain_features(features: Any) -> Any:
    """A matrix of features as a config holds it, lists of floats: no whole number there is below 0.

    Anything else is returned as it is.

    Example:
        >>> plain_features(np.array([[1, -1], [0, 1]]))
        [[1.0, -1.0], [0.0, 1.0]]
    """
    rows = features.tolist() if isinstance(features, np.ndarray | Tensor) else features
    if not isinstance(rows, Sequence) or not all(isinstance(row, list | tuple) for row in rows):
        return features
    return [[float(number) if isinstance(number, Real) else number for number in row] for row in rows]


METAWORLD = ("metaworld", "metaworld-raw")

# Of each frame: the hand, how far the gripper is open, and place and quaternion of two objects.
HAND, GRIPPER, FIRST, SECOND, TURNS = range(3), 3, range(4, 7), range(11, 14), (*range(7, 11), *range(14, 18))
BEFORE = 18  # where the frame before begins
GOAL = range(36, 39)
CENTRE = (0.0, 0.6, 0.2)  # of the table, in metres


def _metaworld(*, relative: bool) -> Features:
    columns: list[tuple[dict[int, float], float, float]] = []  # coefficients, mean and scale of each feature

    def places(start: int) -> None:
        for part in (HAND, FIRST, SECOND):
            columns.extend(({start + i: 1.0}, centre, 0.15) for i, centre in zip(part, CENTRE, strict=True))
        columns.append(({start + GRIPPER: 1.0}, 0.7, 0.3))
        columns.extend(({start + i: 1.0}, 0.0, 0.5) for i in TURNS)

    places(0)
    columns.extend(({i: 1.0}, centre, 0.15) for i, centre in zip(GOAL, CENTRE, strict=True))
    if relative:
        moving = [(i, 0.01) for i in (*HAND, *FIRST, *SECOND)] + [(GRIPPER, 0.05)]
        columns.extend(({i: 1.0, BEFORE + i: -1.0}, 0.0, scale) for i, scale in moving)
        for end, start in ((FIRST, HAND), (GOAL, FIRST), (GOAL, HAND), (SECOND, FIRST)):
            columns.extend(({i: 1.0, j: -1.0}, 0.0, 0.1) for i, j in zip(end, start, strict=True))
    else:
        places(BEFORE)
    matrix = torch.zeros(39, len(columns))
    for column, (coefficients, _, _) in enumerate(columns):
        for number, coefficient in coefficients.items():
            matrix[number, column] = coefficient
    means, scales = (torch.tensor([column[k] for column in columns]) for k in (1, 2))
    return Features(matrix, means, scales, known=True)
