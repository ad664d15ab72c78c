"""The heads of the tasks of a backbone with dendrites: from its features to classes."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo._core.torch import full_precision, keep_precision
from dendrite_zoo.layers import PatchFeatures, RandomFeatures, RidgeHead

HeadKind = Literal["ridge", "linear"]
HIDDEN, HIDDEN_OF_INPUTS = 1024, 2048  # random features of a ridge head
WEIGHT_OF_INPUTS, WEIGHT_OF_PATCHES = 0.5, 3.0  # the latter vary as much as the features of the network, then
FLOOR = 0.1  # of the deviation in a block of features: what varies less is not made larger
PENALTIES = 0.1, 1.0, 10.0  # of a ridge head; rows that are left out choose: the larger, the noisier their labels
HELD, LEAST_HELD, MOST_HELD = 7, 32, 2048  # each so many-th row is left out; at least and at most so many in all


class TaskHeads(nn.Module):
    """Normalises the features of each task, and maps them to classes.

    The linear head of a task is trained, and is an argument; that of a ridge is solved, by `fit`.

    Args:
        kind: ``"ridge"``, ``"linear"``, or None for normalised features.
        means: sizes of the parts of a row of features, one a stage; a linear head has no others.
        spreads: those of the parts that follow.
        inputs: numbers of the input, of which a ridge head has random features, too; or the shape of an image, whose
            patches it takes (`PatchFeatures`).
        num_classes: size of the output.
        max_tasks: how many tasks there is room for.
    """

    def __init__(
        self,
        kind: HeadKind | None,
        means: list[int],
        spreads: list[int],
        inputs: int | list[int],
        num_classes: int,
        max_tasks: int,
    ) -> None:
        super().__init__()
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

    def forward(self, z: Tensor, task: int, linear: tuple[Tensor, Tensor] | None, *, trains: bool = False) -> Tensor:
        """Logits ``(B, num_classes)`` of features ``(B, F)``.

        Args:
            z: features, and numbers of the input where the head is a ridge's; for others means alone.
            task: whose they are.
            linear: weight and bias of the trained head.
            trains: whether that one is being trained, and is the one to use.
        """
        with full_precision(z.device):
            z = self.normalised(z, task)
            if linear is None:
                return z
            weight, bias = linear
            output = F.linear(z[:, : self.num_means], weight.view(self.num_classes, -1), bias)
            if self.kind != "ridge" or trains:
                return output
            solved = F.linear(self._hidden(z), self.ridge_weight[task], self.ridge_bias[task])
            return torch.where(self.is_solved[task], solved, output)

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
        blocks = [*self.means, *self.spreads]
        if self.takes_inputs:  # which differ in what they say by how much they vary
            pixels, varied = mean[self.num_features :], variance[self.num_features :]
            if isinstance(self.inputs, list):
                varied += (pixels - pixels.mean()).square()
                pixels.fill_(pixels.mean())
            varied.fill_(varied.mean())
            blocks.append(self.input_features)
        floor = torch.cat([part.mean().expand(len(part)) for part in variance.split(blocks)]) * FLOOR**2
        scale = torch.maximum(variance, floor).sqrt()
        self.centre[task], self.scale[task] = mean.float(), scale.where(scale > 0, 1.0).float()
        if self.kind == "ridge":
            self.is_solved[task] = False
            if isinstance(patches := self.random[-1], PatchFeatures):
                x = self.normalised(z.float(), task)[:, self.num_features :]
                patches.start([(x, x[:, 0])])

    @torch.no_grad()
    def fit(self, task: int, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Solve the ridge head of a task from features and labels, over all processes; they are gone through once.

        Its penalty is that with which it is right most often for some of the rows, when it is solved without them.

        Raises:
            ValueError: labels out of range, no rows, or features that are not finite: then nothing has changed.
        """
        head = RidgeHead(self.ridge_weight.shape[2], self.num_classes, penalty=PENALTIES[0])
        head.to(self.ridge_weight.device)
        held = [(self.ridge_weight[0, :0], self.is_solved[:0].long())]

        def rows() -> Iterator[tuple[Tensor, Tensor]]:
            seen = 0
            for z, y in batches:
                h = self._hidden(self.normalised(z, task))
                if sum(len(labels) for _, labels in held) < MOST_HELD:
                    some = slice(-seen % HELD, None, HELD)
                    held.append((h[some], y[some].to(held[0][1])))
                seen += len(h)
                yield h, y

        head.learn(rows())
        h, y = (torch.cat(parts) for parts in zip(*held, strict=True))
        sum_over_ranks(count := torch.tensor(len(y), device=h.device))
        if count >= LEAST_HELD:
            head.choose_penalty(h, y, PENALTIES)
        self.ridge_weight[task], self.ridge_bias[task], self.is_solved[task] = head.weight, head.bias, True

    def one(self, task: int) -> "TaskHeads":
        """The head of one task, for which there is room alone."""
        head = TaskHeads(self.kind, self.means, self.spreads, self.inputs, self.num_classes, 1)
        head.to(self.centre.device)
        tables = ("centre", "scale", "ridge_weight", "ridge_bias", "is_solved")
        state = self.state_dict()
        head.load_state_dict({k: v[task : task + 1].clone() if k in tables else v.clone() for k, v in state.items()})
        return head

    def _hidden(self, z: Tensor) -> Tensor:
        parts = [self.random[0](z[:, : self.num_features])]
        if len(self.random) > 1:
            weight = WEIGHT_OF_PATCHES if isinstance(self.inputs, list) else WEIGHT_OF_INPUTS
            parts.append(self.random[1](z[:, self.num_features :]) * weight)
        return torch.cat(parts, 1)

    def _apply(self, fn: Any, recurse: bool = True) -> "TaskHeads":
        keep_precision(self, super()._apply, fn, recurse)
        return self
