"""Networks of which each context uses a part: its units, the products of that part alone, and rows by context."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo.functional.dendrites import Gate
from dendrite_zoo.row_sparse.activation_cache import stamp
from dendrite_zoo.row_sparse.parameter import take_rows
from dendrite_zoo.row_sparse.segments import winning_activations

T = TypeVar("T")


class ActiveUnits(NamedTuple):
    """The units of a layer that are active in a context.

    Attributes:
        units: their indices in rising order, ``(k,)``.
        strength: the activations of their winning segments, ``(k,)``; None in a layer without dendrites.
    """

    units: Tensor
    strength: Tensor | None


@torch.no_grad()
def active_units(
    segments: Tensor, context: Tensor, density: float, gate: Gate = "abs_max", mask: Tensor | None = None
) -> ActiveUnits:
    """The units whose dendrites respond most to a context, the share ``density`` of them.

    A unit's response is the activation of its winning segment (`dendrite_zoo.functional.winning_activations`): the
    units whose gates are most open win.

    Shape:
        segments and mask ``(U, S, C)``; context ``(C,)``, or the id ``()`` of a one-hot one.

    Example:
        >>> segments = torch.tensor([[[3.0]], [[1.0]], [[2.0]]])
        >>> active_units(segments, torch.tensor([1.0]), density=0.67)
        ActiveUnits(units=tensor([0, 2]), strength=tensor([3., 2.]))
    """
    strength = winning_activations(segments, context, gate, mask)
    units = strength.topk(max(1, round(density * len(strength)))).indices.sort().values
    return ActiveUnits(units, strength[units])


def linear_part(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor | None, columns: Tensor | None, mask: Tensor | None
) -> Tensor:
    """A linear layer of which only some units and inputs are there; None for all of them.

    Cost follows the size of the part, as do sparse gradients where an optimizer owns ``weight`` and ``bias``
    (`dendrite_zoo.row_sparse.parameter`).

    Shape:
        x ``(..., columns)`` to ``(..., rows)``; weight and mask ``(U, I)``, bias ``(U,)``.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> linear_part(torch.ones(1), weight, None, torch.tensor([0, 1]), torch.tensor([1]), None)
        tensor([2., 4.])
    """
    if rows is None and columns is None:
        return F.linear(x, weight if mask is None else weight * mask, bias)
    if rows is None:
        rows = torch.arange(len(weight), device=weight.device)
    ids, row_dims = (rows, 1) if columns is None else (rows.unsqueeze(-1) * weight.shape[1] + columns, 2)
    part = take_rows(weight, ids, row_dims)
    if mask is not None:
        part = part * (mask.index_select(0, rows) if columns is None else mask.view(-1)[ids])
    return F.linear(x, part, None if bias is None else take_rows(bias, rows, 1))


class ContextCache(Generic[T]):
    """What follows from a context, computed once, as long as the tensors that it depends on stay what they are.

    For contexts on a CPU only: elsewhere looking one up costs more than computing its value again.

    Example:
        >>> cache, weight = ContextCache(), torch.ones(3)
        >>> for scale in (1.0, 2.0):  # the second time nothing is computed
        ...     print(cache(torch.tensor([1.0, 2.0, 3.0]), [weight], lambda c, scale=scale: scale * (weight * c).sum()))
        tensor(6.)
        tensor(6.)
    """

    CAPACITY = 4096
    """Contexts remembered; with one more, all are forgotten."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._known: dict[Any, T] = {}
        self._marks: list[Any] = []

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, context: Tensor, sources: Iterable[Tensor], compute: Callable[[Tensor], T]) -> T:
        """The value of ``compute`` in a context ``(C,)``, or in a one-hot one by its id ``()``.

        Args:
            context: one context.
            sources: the tensors besides the context that the value depends on.
            compute: called where the value is not known.
        """
        context = context.detach()
        if context.device.type != "cpu" or torch.compiler.is_compiling():
            return compute(context)
        marks = [(stamp(tensor), _sample(tensor)) for tensor in sources]
        if marks != self._marks:
            self._known, self._marks = {}, marks
        number = context.contiguous().view(torch.uint8).numpy().tobytes() if context.ndim else context.item()
        key = context.dtype, number
        if key not in self._known:
            if len(self._known) >= self.CAPACITY:
                self._known.clear()
            with torch.inference_mode(False):  # a value outlives the pass in which it is computed
                self._known[key] = compute(context.clone())
        return self._known[key]


def _sample(tensor: Tensor) -> Any:
    """Some numbers of a tensor: a fused optimizer, and who writes through ``.data``, leave no other trace."""
    return tensor.detach().view(-1)[:: max(1, tensor.numel() // 16)].tolist()


def in_groups(x: Tensor, index: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a function to the rows of each group together, and put the results back in order.

    Args:
        x: the rows.
        index: which group each row belongs to.
        function: takes the rows of a group and its number.

    Shape:
        x ``(B, ...)``, index ``(B,)``; result ``(B, ...)``.

    Raises:
        ValueError: another number of rows than of groups.

    Example:
        >>> in_groups(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 0]), lambda x, group: x + 10 * group)
        tensor([ 1., 12.,  3.])
    """
    if len(index) != len(x):
        raise ValueError(f"Expected one context for each of the {len(x)} rows, or one for all, but got {len(index)}.")
    if len(x) == 0:
        return function(x, 0)
    order = index.argsort(stable=True)
    groups, counts = index.unique(return_counts=True)
    parts = x.index_select(0, order).split(counts.tolist())
    results = [function(part, group) for part, group in zip(parts, groups.tolist(), strict=True)]
    return torch.cat(results).index_select(0, order.argsort())
