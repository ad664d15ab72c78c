"""Rows of a batch sorted by the part of a network that they use, and the products of those parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo._core.torch import runs_eagerly
from dendrite_zoo.functional.dendrites import Gate, apply_gate
from dendrite_zoo.row_sparse.taken_rows import Rows, Taken, masked, take_together

GATHER = 8.0
"""What it costs to gather a weight for a group and scatter its gradient, in multiplications of a row by a weight."""


class Bucket(NamedTuple):
    """Groups of like size, each filled up to the largest.

    Attributes:
        groups: which groups.
        rows: which rows of the sorted batch.
        size: rows of each group.
    """

    groups: slice
    rows: slice
    size: int


class Groups:
    """The rows of a batch, sorted into groups; groups of like size stand together, and are filled up to one size.

    Args:
        index: which group each row belongs to, ``(B,)``.
        sizes: how many rows each group has, one or more, ``(K,)``.

    Attributes:
        order: the sorted batch is ``x[order]``, ``(N,)``, ``N >= B``: a group is filled up with its first row.
        groups: the groups in the order of the sorted batch, ``(K,)``.
        index: which of these each sorted row belongs to, ``(N,)``.
        buckets: groups that are multiplied in one product.

    Example:
        >>> groups = Groups(torch.tensor([1, 0, 1]), torch.tensor([1, 2]))
        >>> groups.order, groups.groups, groups.index
        (tensor([0, 2, 1, 1]), tensor([1, 0]), tensor([0, 0, 1, 1]))
    """

    def __init__(self, index: Tensor, sizes: Tensor) -> None:
        count, batch = len(sizes), torch.arange(len(index))
        sizes, self.groups = sizes.sort(descending=True, stable=True)
        rank = torch.empty_like(self.groups).index_copy_(0, self.groups, torch.arange(count))
        sorted_index, order = rank[index].sort(stable=True)
        starts = sizes.cumsum(0) - sizes
        self.buckets: list[Bucket] = []
        first, begin, lengths, filled = 0, 0, sizes.tolist(), sizes.clone()
        while first < count:
            size = lengths[first]
            last = next((g for g in range(first, count) if 2 * lengths[g] < size), count)
            end = begin + (last - first) * size
            self.buckets.append(Bucket(slice(first, last), slice(begin, end), size))
            filled[first:last] = size
            first, begin = last, end
        self.index = torch.arange(count).repeat_interleave(filled)
        places = batch + (filled.cumsum(0) - filled - starts)[sorted_index]
        self.order = order[starts][self.index].index_copy_(0, places, order)
        self._back = torch.empty_like(order).index_copy_(0, order, places)
        self._as_it_was = begin == len(index) and torch.equal(self.order, batch)

    def sort(self, x: Tensor) -> Tensor:
        """The rows of a batch, group by group."""
        return x if self._as_it_was else x.index_select(0, self.order)

    def unsort(self, x: Tensor, dim: int = 0) -> Tensor:
        """Sorted rows in the order of the batch, without those that fill groups up."""
        return x if self._as_it_was else x.index_select(dim, self._back)


class Part:
    """The units and inputs of a linear layer that each group of rows uses.

    Where the parts of all groups together come near the whole layer, the whole is computed, and the parts are taken
    out of the result; both are equal up to rounding, gradients included. Cost follows the size of the parts otherwise,
    as do sparse gradients where an optimizer owns the parameters (`dendrite_zoo.row_sparse.parameter`).

    Args:
        shape: of the layer's weight, ``(U, I)``.
        units: which each group uses, in the order of the sorted rows; None for all.
        inputs: likewise.
        groups: of the rows that will be given; None where one part is for all rows.
        strength: of the dendrites of these units, which gate what comes out; None without dendrites.
        gate: how.

    Shape:
        units and strength ``(K, u)``, inputs ``(K, i)``; ``K = 1`` without groups.

    Example:
        >>> weight, groups = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Groups(torch.tensor([0, 1]), torch.tensor([1, 1]))
        >>> units, inputs = torch.tensor([[0], [1]]), torch.tensor([[1], [0]])
        >>> Part(weight.shape, units, inputs, groups).of(weight, None)(torch.ones(2, 1))
        tensor([[2.],
                [3.]])
        >>> Part(weight.shape, units[:1], inputs[:1]).of(weight, None)(torch.ones(1))
        tensor([2.])
    """

    def __init__(
        self,
        shape: torch.Size,
        units: Tensor | None = None,
        inputs: Tensor | None = None,
        groups: Groups | None = None,
        strength: Tensor | None = None,
        gate: Gate = "abs_max",
    ) -> None:
        self.shape, self.units, self.inputs, self.groups = shape, units, inputs, groups
        self.strength, self.gate = strength, gate
        used = units if inputs is None else inputs
        self.whole = used is None or (groups is not None and _whole_is_cheaper(shape, units, inputs, groups))
        if used is None or self.whole:
            return
        rows = torch.arange(shape[0], device=used.device).unsqueeze(0) if units is None else units
        ids = rows if inputs is None else rows.unsqueeze(2) * shape[1] + inputs.unsqueeze(1)
        self.rows, self.ids = (Rows(each if groups is not None else each[0]) for each in (rows, ids))

    def of(self, weight: Tensor, bias: Tensor | None, mask: Tensor | None = None) -> "PartialLinear":
        """Cut it out of a layer's parameters; a mask multiplies the weight."""
        return cut([[self]], [[(weight, bias, mask)]])[0]

    @property
    def row_dims(self) -> int:
        """How many leading dimensions of the weight number the rows that are taken."""
        return 1 if self.inputs is None else 2


Parameters = tuple[Tensor, Tensor | None, Tensor | None]
"""Weight, bias and mask of a layer."""


Take = Callable[[Sequence[Taken]], list[Tensor]]
"""Takes rows out of parameters, as `dendrite_zoo.row_sparse.taken_rows.take_together`."""


def cut(
    parts: Sequence[Sequence[Part]], layers: Sequence[Sequence[Parameters]], take: Take = take_together
) -> "list[PartialLinear]":
    """Cut parts out of the layers of a network, or of several networks of one form, whose parts are as many as large.

    Args:
        parts: of each network, for each of its layers.
        layers: likewise.
        take: takes the rows out of the parameters.
    """
    wanted: list[Taken] = []
    for of_layer, parameters in zip(zip(*parts, strict=True), zip(*layers, strict=True), strict=True):
        weights, biases, masks = zip(*parameters, strict=True)
        if not of_layer[0].whole:
            wanted.append(Taken(weights, [part.ids for part in of_layer], of_layer[0].row_dims, masks))
            if biases[0] is not None:
                wanted.append(Taken(biases, [part.rows for part in of_layer], 1, [None] * len(biases)))
    taken = iter(take(wanted))
    result = []
    for of_layer, parameters in zip(zip(*parts, strict=True), zip(*layers, strict=True), strict=True):
        part, (weight, bias, mask) = of_layer[0], parameters[0]
        if part.whole:
            weight = masked(weight, mask)
        else:
            weight, bias = next(taken), None if bias is None else next(taken)
        strengths = [each.strength for each in of_layer if each.strength is not None]
        strength = torch.stack(strengths) if len(strengths) > 1 else part.strength
        result.append(PartialLinear(part, weight, bias, strength))
    return result


@dataclass
class PartialLinear:
    """The parts of a linear layer that groups of rows use, cut out once for any number of batches.

    Attributes:
        part: which.
        weight: of the units and inputs of each group, ``(K, u, i)``; or of the whole layer.
        bias: ``(K, u)``, or of the whole layer, or None.
        strength: of the dendrites, as in ``part``.

    Of ``N`` layers of one form, whose parts are multiplied in one product, these are ``(N, K, ...)``.

    Shape:
        Sorted rows ``(B, i)`` to ``(B, u)``; without groups rows ``(..., i)`` to ``(..., u)``; of ``N`` layers
        ``(N, B, i)`` to ``(N, B, u)``.
    """

    part: Part
    weight: Tensor
    bias: Tensor | None
    strength: Tensor | None

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Map rows, sorted as the groups are; with ``relu`` what is negative is 0, which takes no memory of its own."""
        part, groups, strength = self.part, self.part.groups, self.strength
        if groups is None:
            return self._gated(F.linear(x, self.weight, self.bias), None if strength is None else strength[0], relu)
        if part.whole:
            if part.inputs is not None:
                x = x.new_zeros(len(x), part.shape[1]).scatter(1, part.inputs[groups.index], x)
            y = F.linear(x, self.weight, self.bias)
            y = y if part.units is None else y.gather(1, part.units[groups.index])
            return self._gated(y, None if strength is None else strength[groups.index], relu)
        bias = self.bias
        if bias is not None and bias.shape != self.weight.shape[:-1]:  # of units that all groups use
            bias = bias.expand(self.weight.shape[:-1])
        if len(groups.buckets) == 1:
            return self._product(x, self.weight, bias, strength, groups.buckets[0].size, relu)
        parts = []
        for bucket in groups.buckets:
            of = (..., bucket.groups, slice(None))
            biases, gates = (None if each is None else each[of] for each in (bias, strength))
            weights = self.weight[(*of, slice(None))]
            parts.append(self._product(x[..., bucket.rows, :], weights, biases, gates, bucket.size, relu))
        return torch.cat(parts, -2)

    def detach(self) -> "PartialLinear":
        """The same, of which nothing learns."""
        bias = None if self.bias is None else self.bias.detach()
        return PartialLinear(self.part, self.weight.detach(), bias, self.strength)

    def _product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, strength: Tensor | None, size: int, relu: bool
    ) -> Tensor:
        if self.part.gate == "bias" and strength is not None:
            y = _GroupedProduct.apply(x, weight, bias, None, size, False)
            return self._gated(y, strength.repeat_interleave(size, -2), relu)
        return _GroupedProduct.apply(x, weight, bias, strength, size, relu)

    def _gated(self, y: Tensor, strength: Tensor | None, relu: bool) -> Tensor:
        y = y if strength is None else apply_gate(y, strength, self.part.gate)
        return torch.relu(y) if relu else y


class _GroupedProduct(torch.autograd.Function):
    """Rows ``(..., K * size, i)`` by weights ``(..., K, u, i)`` in one `torch.baddbmm`, gated where dendrites are.

    With ``relu`` what is negative is 0. The gradient lies in memory as the weights do; the gates do not learn.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, strength: Tensor | None, size: int, relu: bool
    ) -> Tensor:
        units, inputs = weight.shape[-2:]
        rows, weights = x.reshape(-1, size, inputs), weight.reshape(-1, units, inputs)
        added = x.new_zeros(1, 1, 1) if bias is None else bias.reshape(-1, 1, units)
        y = torch.baddbmm(added, rows, weights.transpose(1, 2))
        gate = None if strength is None else torch.sigmoid(strength.reshape(-1, 1, units).to(y.dtype))
        y = y if gate is None else y.mul_(gate)
        y = (y.relu_() if relu else y).view(*x.shape[:-1], units)
        ctx.save_for_backward(x, weight, gate, y if relu else None)
        ctx.size = size
        return y

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gate, y = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        units, inputs = weight.shape[-2:]
        grad = grad if y is None else torch.ops.aten.threshold_backward(grad, y, 0)
        grad = grad.reshape(-1, ctx.size, units)
        grad = grad if gate is None else grad * gate
        return (
            grad.bmm(weight.reshape(-1, units, inputs)).view(x.shape) if of_x else None,
            grad.transpose(1, 2).bmm(x.reshape(-1, ctx.size, inputs)).view(weight.shape) if of_weight else None,
            grad.sum(1).view(weight.shape[:-1]) if of_bias else None,
            *[None] * 3,
        )


def can_group(index: Tensor) -> bool:
    """Whether rows can be grouped without waiting for a device, and where code is not compiled or transformed."""
    return index.device.type == "cpu" and runs_eagerly()


def check_one_each(index: Tensor, x: Tensor) -> None:
    """Raise where there is another number of contexts than of rows."""
    if len(index) != len(x):
        raise ValueError(f"Expected one context for each of the {len(x)} rows, or one for all, but got {len(index)}.")


def _whole_is_cheaper(shape: torch.Size, units: Tensor | None, inputs: Tensor | None, groups: Groups) -> bool:
    count, rows = len(groups.groups), len(groups.index)
    part = (shape[1] if inputs is None else inputs.shape[1]) * (shape[0] if units is None else units.shape[1])
    return part * (GATHER * count + rows) >= shape.numel() * rows or part * count >= 2 * shape.numel()
