"""Rows of a batch sorted by the part of a network that they use, and the products of those parts."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo._core.torch import runs_eagerly
from dendrite_zoo.row_sparse.parameter import take_rows

GATHER = 8.0
"""What it costs to gather a weight for a group and scatter its gradient, in multiplications of a row by a weight."""


class Bucket(NamedTuple):
    """Groups of like size, padded to the largest.

    Attributes:
        groups: which groups.
        rows: which rows of the sorted batch.
        size: rows of the largest group.
        places: where each row stands among ``len(groups) * size`` padded ones, ``(rows,)``; None without padding.
    """

    groups: slice
    rows: slice
    size: int
    places: Tensor | None


class Groups:
    """The rows of a batch, sorted into groups; groups of like size stand together.

    Args:
        index: which group each row belongs to, ``(B,)``.
        count: the number of groups, ``K``; each has one row or more.

    Attributes:
        order: the sorted batch is ``x[order]``, ``(B,)``.
        back: and ``sorted[back]`` the batch again.
        groups: the groups in the order of the sorted batch, ``(K,)``.
        index: which of these each sorted row belongs to, ``(B,)``.
        contexts: the same by the groups' own numbers, ``groups[index]``.
        buckets: groups that are multiplied in one product.

    Example:
        >>> groups = Groups(torch.tensor([1, 0, 1]), 2)
        >>> groups.order, groups.groups, groups.index
        (tensor([0, 2, 1]), tensor([1, 0]), tensor([0, 0, 1]))
    """

    def __init__(self, index: Tensor, count: int) -> None:
        sizes, self.groups = index.bincount(minlength=count).sort(descending=True, stable=True)
        rank = torch.empty_like(self.groups).index_copy_(0, self.groups, torch.arange(count))
        self.index, self.order = rank[index].sort(stable=True)
        self.back, self.contexts = self.order.argsort(), self.groups[self.index]
        starts = sizes.cumsum(0) - sizes
        within = torch.arange(len(index)) - starts[self.index]
        self.buckets: list[Bucket] = []
        first, lengths, begins = 0, sizes.tolist(), [*starts.tolist(), len(index)]
        while first < count:
            size = lengths[first]
            last = next((g for g in range(first, count) if 2 * lengths[g] < size), count)
            rows = slice(begins[first], begins[last])
            full = begins[last] - begins[first] == (last - first) * size
            places = None if full else (self.index[rows] - first) * size + within[rows]
            self.buckets.append(Bucket(slice(first, last), rows, size, places))
            first = last


def grouped_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    units: Tensor | None,
    inputs: Tensor | None,
    mask: Tensor | None,
    groups: Groups,
) -> Tensor:
    """A linear layer of which each group of rows uses some units and inputs; None for all of them.

    Where the parts of all groups together come near the whole layer, the whole is computed, and the parts are taken
    out of the result; both are equal up to rounding, gradients included.

    Args:
        x: the sorted rows.
        weight: of the layer.
        bias: of the layer.
        units: of each group in sorted order.
        inputs: of each group in sorted order.
        mask: multiplies the weight.
        groups: the rows' groups.

    Shape:
        x ``(B, i)`` to ``(B, u)``; weight and mask ``(U, I)``, bias ``(U,)``, units ``(K, u)``, inputs ``(K, i)``.

    Example:
        >>> weight, groups = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Groups(torch.tensor([0, 1]), 2)
        >>> units, inputs = torch.tensor([[0], [1]]), torch.tensor([[1], [0]])
        >>> grouped_linear(torch.ones(2, 1), weight, None, units, inputs, None, groups)
        tensor([[2.],
                [3.]])
    """
    count, (all_units, all_inputs) = len(groups.groups), weight.shape
    if _whole_is_cheaper(len(x), count, x.shape[1], units, weight):
        if inputs is not None:
            x = x.new_zeros(len(x), all_inputs).scatter(1, inputs[groups.index], x)
        y = F.linear(x, weight if mask is None else weight * mask, bias)
        return y if units is None else y.gather(1, units[groups.index])
    if units is None:
        units = torch.arange(all_units, device=x.device).expand(count, -1)
    ids, row_dims = (units, 1) if inputs is None else (units.unsqueeze(2) * all_inputs + inputs.unsqueeze(1), 2)
    part = take_rows(weight, ids, row_dims, mask)
    shift = part.new_zeros(count, 1, 1) if bias is None else take_rows(bias, units, 1).unsqueeze(1)
    parts = [_product(x[b.rows], part[b.groups], shift[b.groups], b) for b in groups.buckets]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def can_group(index: Tensor) -> bool:
    """Whether rows can be grouped without waiting for a device, and where code is not compiled or transformed."""
    return index.device.type == "cpu" and runs_eagerly()


def check_one_each(index: Tensor, x: Tensor) -> None:
    """Raise where there is another number of contexts than of rows."""
    if len(index) != len(x):
        raise ValueError(f"Expected one context for each of the {len(x)} rows, or one for all, but got {len(index)}.")


def _product(x: Tensor, part: Tensor, shift: Tensor, bucket: Bucket) -> Tensor:
    count, units, inputs = part.shape
    if bucket.places is not None:
        x = x.new_zeros(count * bucket.size, inputs).index_copy(0, bucket.places, x)
    y = torch.baddbmm(shift, x.view(count, bucket.size, inputs), part.transpose(1, 2)).flatten(0, 1)
    return y if bucket.places is None else y.index_select(0, bucket.places)


def _whole_is_cheaper(rows: int, count: int, inputs: int, units: Tensor | None, weight: Tensor) -> bool:
    part = inputs * (len(weight) if units is None else units.shape[1])
    return part * (GATHER * count + rows) >= weight.numel() * rows or part * count >= 2 * weight.numel()
