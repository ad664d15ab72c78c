"""The heads of the tasks of a backbone with dendrites: from its features to classes."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.batches import first_batches
from dendrite_zoo._core.finite import LARGEST, unusable_rows
from dendrite_zoo._core.ranks import all_gather, num_ranks, sum_over_ranks
from dendrite_zoo._core.torch import KeepsPrecision, full_precision
from dendrite_zoo.functional.ridge import UNSEEN
from dendrite_zoo.layers import PatchFeatures, RandomFeatures, RidgeHead
from dendrite_zoo.layers.random_features import spreads
from dendrite_zoo.layers.ridge import RunningSums
from dendrite_zoo.models.adapters.classes import with_absent

HeadKind = Literal["ridge", "linear"]
Found: TypeAlias = tuple[list[Tensor], Tensor, Tensor]
"""Features found in one way or in several, labels, and which rows are left out to choose by."""
HIDDEN, HIDDEN_OF_INPUTS = 1024, 2048  # random features of a ridge head
WEIGHT_OF_INPUTS, WEIGHT_OF_PATCHES = 0.5, 3.0  # the latter vary as much as the features of the network, then
FLOOR = 0.1  # of the deviation in a block of features: what varies less is not made larger
MOST_HELD = 2048  # rows that are left out; no more are kept
SAME = 1e-10  # of the mean square of rows, which makes equal ones differ


class TaskHeads(KeepsPrecision):
    """Normalises the features of each task, and maps them to classes.

    The linear head of a task is trained, and is an argument; that of a ridge is solved, by `fit`.

    Args:
        kind: ``"ridge"``, ``"linear"``, or None for normalised features.
        means: sizes of the parts of a row of features, one a stage; a linear head has no others.
        spreads: those of the parts that follow.
        inputs: numbers of the input, of which a ridge head has random features, too; or the shape of an image, whose
            patches it takes (`PatchFeatures`).
        classes: those of each task that there is room for.
        num_classes: size of the output, the most of them.
    """

    def __init__(
        self,
        kind: HeadKind | None,
        means: list[int],
        spreads: list[int],
        inputs: int | list[int],
        classes: list[int],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.classes, max_tasks = classes, len(classes)
        self.kind, self.means, self.spreads, self.inputs = kind, means, spreads, inputs
        self.num_means, self.num_features, self.num_classes = sum(means), sum(means + spreads), num_classes
        self.input_features = math.prod(inputs) if isinstance(inputs, list) else inputs
        wide = self.num_features + self.input_features * (kind == "ridge")
        self.centre = nn.Buffer(torch.zeros(max_tasks, wide, dtype=torch.float32))
        self.scale = nn.Buffer(torch.ones(max_tasks, wide, dtype=torch.float32))
        self.random = nn.ModuleList()
        if kind == "ridge":
            self.random.append(RandomFeatures(self.num_features, HIDDEN))
            if isinstance(inputs, list):
                self.random.append(PatchFeatures(inputs, HIDDEN_OF_INPUTS))
            elif inputs:
                self.random.append(RandomFeatures(inputs, HIDDEN_OF_INPUTS, seed=1))
            for random in self.random:
                if isinstance(random, RandomFeatures):
                    random.scale.fill_(1.0)  # what they are given is normalised
            hidden = sum(random.out_features for random in self.random)  # type: ignore[misc]
            self.ridge_weight = nn.Buffer(torch.zeros(max_tasks, num_classes, hidden, dtype=torch.float32))
            self.ridge_bias = nn.Buffer(torch.zeros(max_tasks, num_classes, dtype=torch.float32))
            self.is_solved = nn.Buffer(torch.zeros(max_tasks, dtype=torch.bool))

    @property
    def takes_inputs(self) -> bool:
        """Whether numbers of the input follow the features."""
        return self.kind == "ridge" and self.input_features > 0

    def needs(self, trains: bool = False) -> dict[str, bool]:
        """What of the features it is to be given, as arguments of a `FeatureExtractor`.

        Args:
            trains: as for `forward`.
        """
        return {"means": trains or self.kind != "ridge", "inputs": self.takes_inputs and not trains}

    def forward(self, z: Tensor, task: int, linear: tuple[Tensor, Tensor] | None, *, trains: bool = False) -> Tensor:
        """Logits ``(B, num_classes)`` of features ``(B, F)``.

        Args:
            z: features, as it `needs` them.
            task: whose they are.
            linear: weight and bias of the trained head, of the classes of the task.
            trains: whether that one is being trained, and is the one to use.
        """
        with full_precision(z.device):
            z = self.normalised(z, task)
            if linear is None:
                return z
            weight, bias = (part.to(z) for part in linear)  # of a model that was cast
            output = F.linear(z[:, : self.num_means], weight, bias)
            if self.kind == "ridge" and not trains:
                own = self.classes[task]
                solved = F.linear(self._hidden(z), self.ridge_weight[task, :own], self.ridge_bias[task, :own])
                output = torch.where(self.is_solved[task], solved, output)
            return with_absent(output, self.num_classes, task)

    def normalised(self, z: Tensor, task: int) -> Tensor:
        """Features, and numbers of the input if they follow, less the mean of a task's, over their deviation."""
        wide = z.shape[1]
        return (z - self.centre[task, :wide]) / self.scale[task, :wide]

    @torch.no_grad()
    def normalise(self, task: int, rows: list[Tensor]) -> None:
        """Set by which mean and deviation the features of a task are normalised: those of some rows.

        The filters of images are patches of the first task's, and stay.
        """
        z = torch.cat(rows).double()
        count = torch.full_like(z[0], len(z))
        sums = torch.stack([count, z.sum(0), z.square().sum(0)])
        sum_over_ranks(sums)
        mean = sums[1] / sums[0]
        variance = (sums[2] / sums[0] - mean.square()).clamp(min=0)
        blocks = variance[: self.num_features].split([*self.means, *self.spreads])
        floor = torch.cat([part.mean().expand(len(part)) for part in blocks]) * FLOOR**2
        scale = torch.maximum(variance[: self.num_features], floor).sqrt()
        if self.takes_inputs:
            own = slice(self.num_features, None)
            mean[own], of_inputs = self._scale_of_inputs(z[:, own], mean[own], variance[own], int(sums[0, 0]))
            scale = torch.cat([scale, of_inputs])
        self.centre[task], self.scale[task] = mean.float(), scale.where(scale > 0, 1.0).float()
        if self.kind == "ridge":
            self.is_solved[task] = False
            if isinstance(patches := self.random[-1], PatchFeatures):
                x = self.normalised(z.float(), task)[:, self.num_features :]
                patches.start([(x, x[:, 0])])

    def _scale_of_inputs(self, x: Tensor, mean: Tensor, variance: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """By which mean and spread numbers of the input are normalised, so that their mean square is 1.

        All pixels alike, for they differ in what they say by how much they vary; columns of a table each by itself.
        """
        if isinstance(self.inputs, list):
            varied = variance + (mean - mean.mean()).square()
            return mean.mean().expand_as(mean), varied.mean().sqrt().expand_as(mean)
        far = torch.stack(all_gather((x - mean).square().amax(0).cpu())).amax(0).to(mean)
        scale = spreads(mean, variance, far, rows)
        return mean, scale * (variance / scale.square()).mean().sqrt()

    @torch.no_grad()
    def fit(self, task: int, batches: Iterable[Found], ways: int = 1) -> int:
        """Solve the ridge head of a task from features and labels, over all processes; they are gone through once.

        Its features are those with which it is right most often for the rows that are left out, when it is solved
        without them; those found in the earlier way, where there is no difference.

        Args:
            task: whose head it is.
            batches: features, found in one way or in several, ``(B, F)`` each, those found first with numbers of the
                input; labels; and which rows are left out to choose by, ``(B,)``.
            ways: how many there are.

        Returns:
            In which way the features of the head are found.

        Raises:
            ValueError: labels out of range, no rows, or features that are not finite: then nothing has changed.
        """
        size, own = self.ridge_weight.shape[2], self.classes[task]
        hidden = self._hidden_rows(task, batches)
        few = FewRows(first_batches(hidden, size // 2 + 1, lambda batch: len(batch[1])), size // 2)
        heads = [RidgeHead(few.size or size, own).to(self.ridge_weight.device) for _ in range(ways)]
        sums = [RunningSums(head) for head in heads]
        held = [[head.weight[:0]] for head in heads]
        labels = [self.is_solved[:0].long()]
        for number, (rows, y, out) in enumerate(chain(few.batches, hidden)):
            if not all([one.take(h, y, number) for one, h in zip(sums, rows, strict=True)]):
                break
            if sum(map(len, labels)) < MOST_HELD:
                labels.append(y[out].to(labels[0]))
                for parts, h in zip(held, rows, strict=True):
                    parts.append(h[out])
        for head, added in zip(heads, sums, strict=True):
            head.add(added)
        best = _best(heads, [torch.cat(parts) for parts in held], torch.cat(labels))
        heads[best].solve()
        self.ridge_bias[task] = UNSEEN
        self.ridge_weight[task, :own] = few.back(heads[best].weight, best)
        self.ridge_bias[task, :own] = heads[best].bias
        self.is_solved[task] = True
        return best

    def _hidden_rows(self, task: int, batches: Iterable[Found]) -> Iterator[Found]:
        """Batches as `fit` takes them, with what its head is given in place of the features."""
        for found, y, out in batches:
            z = self.normalised(found[0], task)
            of_inputs = self._of_inputs(z)
            rows = [z, *(self.normalised(other, task) for other in found[1:])]
            yield [torch.cat([self._of_features(z), *of_inputs], 1) for z in rows], y, out

    def one(self, task: int) -> "TaskHeads":
        """The head of one task, for which there is room alone."""
        sizes = [self.classes[task]], self.num_classes
        head = TaskHeads(self.kind, self.means, self.spreads, self.inputs, *sizes)
        head.to(self.centre.device)
        tables = ("centre", "scale", "ridge_weight", "ridge_bias", "is_solved")
        state = self.state_dict()
        head.load_state_dict({k: v[task : task + 1].clone() if k in tables else v.clone() for k, v in state.items()})
        return head

    def _hidden(self, z: Tensor) -> Tensor:
        return torch.cat([self._of_features(z), *self._of_inputs(z)], 1)

    def _of_features(self, z: Tensor) -> Tensor:
        hidden: Tensor = self.random[0](z[:, : self.num_features])
        return hidden

    def _of_inputs(self, z: Tensor) -> list[Tensor]:
        weight = WEIGHT_OF_PATCHES if isinstance(self.inputs, list) else WEIGHT_OF_INPUTS
        return [random(z[:, self.num_features :]) * weight for random in self.random[1:]]


class FewRows:
    """Rows ``(N, F)`` in so many numbers each as there are rows, with the same products: those of a Cholesky factor.

    A ridge solution lies in what the rows span, so that it is the same but for rounding, and takes the cube of fewer.
    Rows stay as they are where they are many, are refused later, or are those of several processes.

    Args:
        batches: all of them, or the first.
        most: rows that are few.

    Attributes:
        batches: in these numbers.
        size: how many these are; 0 where rows stay as they are.
    """

    def __init__(self, batches: list[Found], most: int) -> None:
        sizes = [len(y) for _, y, _ in batches]
        self.batches, self.size = batches, 0
        if num_ranks() > 1 or not 0 < sum(sizes) <= most:
            return
        rows = [torch.cat(h).double() for h in zip(*(h for h, _, _ in batches), strict=True)]
        if any(len(h) != sum(sizes) or unusable_rows(h, LARGEST) for h in rows):
            return
        self.rows, self.size = rows, sum(sizes)
        self.factors = list(map(_factor, rows))
        parts = zip(*(factor.split(sizes) for factor in self.factors), strict=True)
        self.batches = [(list(h), y, out) for h, (_, y, out) in zip(parts, batches, strict=True)]

    def back(self, weight: Tensor, way: int) -> Tensor:
        """Weights ``(K, F)`` of the rows as they were, from those ``(K, N)`` of the numbers they have now."""
        if not self.size:
            return weight
        return torch.linalg.solve_triangular(self.factors[way].T, weight.T.double(), upper=True).T @ self.rows[way]


def _factor(h: Tensor) -> Tensor:
    products = h @ h.T
    products.diagonal().add_(SAME * float(products.diagonal().mean()) or 1.0)  # rows may be equal, or all of them 0
    factor: Tensor = torch.linalg.cholesky(products)
    return factor


def _best(heads: list[RidgeHead], held: list[Tensor], labels: Tensor) -> int:
    """Which head is right most often for rows it has learned, when it is solved without them."""
    sum_over_ranks(count := torch.tensor(len(labels), device=labels.device))
    if not count or len(heads) == 1:
        return 0
    right = [head.right_without(h, labels) for head, h in zip(heads, held, strict=True)]
    return right.index(max(right))
