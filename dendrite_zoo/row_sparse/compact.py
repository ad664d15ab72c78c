"""Rows taken out of parameters as parameters of their own, which are trained in their place and put back."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.optim import Optimizer

from dendrite_zoo.row_sparse.optimizer import DendriteAdam
from dendrite_zoo.row_sparse.parameter import RowParameter, rows_of
from dendrite_zoo.row_sparse.taken_rows import Taken, factors


class CompactRows:
    """Rows of parameters as they are taken, in one parameter.

    A row that is taken more than once, as where subnetworks overlap, has copies, which stay equal: each has the
    gradient of all of them. So an optimizer moves them alike; but a norm of the gradient counts them all.

    Args:
        taken: which rows of which parameters.

    Attributes:
        parameters: those that the rows are of.
        value: the rows, shaped as `dendrite_zoo.row_sparse.taken_rows.take_together` gives them.

    Example:
        >>> from dendrite_zoo.row_sparse.taken_rows import Rows
        >>> weight = RowParameter(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        >>> rows = CompactRows(Taken([weight], [Rows(torch.tensor([[0, 2], [2, 2]]))], 1, [None]))
        >>> rows().sum().backward()
        >>> rows.value[:, :, 0].tolist(), rows.value.grad[:, :, 0].tolist()
        ([[1.0, 5.0], [5.0, 5.0]], [[1.0, 3.0], [3.0, 3.0]])
    """

    def __init__(self, taken: Taken) -> None:
        self.parameters, self._row_dims = list(taken.parameters), taken.row_dims
        self._ids = [rows.ids.reshape(-1) for rows in taken.rows]
        first, several = self.parameters[0], [len(self.parameters)] if len(self.parameters) > 1 else []
        lines = *several, *taken.rows[0].ids.shape
        self._shape, self._lines = (*lines, *first.shape[self._row_dims :]), len(lines)
        masks = [(m, rows.ids) for m, rows in zip(taken.masks, taken.rows, strict=True) if m is not None]
        parts = [factors(mask, ids, self._row_dims, first) for mask, ids in masks]
        self._mask = torch.stack(parts).view(self._shape) if parts else None
        self.value = RowParameter(self.of(self.parameters), first.requires_grad, self._lines)
        places, which = copies(self._ids, [len(rows_of(p, self._row_dims)) for p in self.parameters])
        if len(places) and first.requires_grad:
            self.value.register_hook(partial(_shared, self._lines, places, which, int(which.max()) + 1))

    def __call__(self) -> Tensor:
        """The rows as they were taken, see `dendrite_zoo.row_sparse.taken_rows.take_together`."""
        return self.value if self._mask is None else self.value * self._mask

    def are_alike(self, optimizer: Optimizer) -> bool:
        """Whether all of the parameters learn, or none, and an optimizer has made as many steps with each."""
        return len({(p.requires_grad, float(optimizer.state.get(p, {}).get("step", 0))) for p in self.parameters}) == 1

    def of(self, tensors: Iterable[Tensor]) -> Tensor:
        """The same rows of tensors that are shaped as the parameters."""
        pairs = zip(tensors, self._ids, strict=True)
        rows = [rows_of(tensor.detach(), self._row_dims).index_select(0, ids) for tensor, ids in pairs]
        return torch.cat(rows).view(self._shape)

    def write(self, value: Tensor, tensors: Iterable[Tensor]) -> None:
        """Write rows into tensors that are shaped as the parameters."""
        parts = rows_of(value.detach(), self._lines).split([len(ids) for ids in self._ids])
        for part, tensor, ids in zip(parts, tensors, self._ids, strict=True):
            rows_of(tensor.detach(), self._row_dims).index_copy_(0, ids, part)


def _shared(row_dims: int, places: Tensor, which: Tensor, count: int, grad: Tensor) -> Tensor:
    """A gradient with that of all copies of a row in each, by what `copies` gives."""
    rows = rows_of(grad.contiguous(), row_dims)
    some, sums = rows.index_select(0, places), rows.new_zeros(count, *rows.shape[1:])
    if rows.ndim == 1:  # which scatter does in half the time
        sums = sums.scatter_add_(0, which, some).index_select(0, which)
        return rows.scatter(0, places, sums).view_as(grad)
    sums = sums.index_add_(0, which, some).index_select(0, which)
    return rows.index_copy(0, places, sums).view_as(grad)


def copies(ids: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which of the rows that are taken have copies, and of what: equal numbers for copies of the same.

    Args:
        ids: of the rows taken out of each parameter, ``(N,)``.
        rows: how many each parameter has.

    Shape:
        ``(C,)`` both, counting over the rows taken out of all parameters, one after another.

    Example:
        >>> copies([torch.tensor([4, 0]), torch.tensor([4, 4, 1])], [5, 5])
        (tensor([2, 3]), tensor([0, 0]))
    """
    starts = list(accumulate(rows, initial=0))
    every = torch.cat([some + start for some, start in zip(ids, starts, strict=False)])
    named = torch.zeros(starts[-1], dtype=torch.bool, device=every.device).index_fill_(0, every, True)
    if int(named.count_nonzero()) == len(every):  # which is found faster than how often each is taken
        return every[:0], every[:0]
    repeated = every.bincount(minlength=starts[-1]) > 1
    places = repeated.index_select(0, every).nonzero().squeeze(1)
    return places, (repeated.cumsum(0) - 1).index_select(0, every.index_select(0, places))


class Compact:
    """Takes rows as `dendrite_zoo.row_sparse.taken_rows.take_together`, and again and again the same ones.

    Attributes:
        rows: that were taken.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], CompactRows] = {}

    @property
    def rows(self) -> list[CompactRows]:
        """What was taken."""
        return list(self._known.values())

    def __call__(self, wanted: Sequence[Taken]) -> list[Tensor]:
        """Take rows out of parameters; of the same parameters the same rows as the first time."""
        keys = [tuple(map(id, taken.parameters)) for taken in wanted]
        for key, taken in zip(keys, wanted, strict=True):
            if key not in self._known:
                self._known[key] = CompactRows(taken)
        return [self._known[key]() for key in keys]

    @torch.no_grad()
    def put_back(self) -> None:
        """Write all rows into the parameters that they were taken out of."""
        for rows in self.rows:
            rows.write(rows.value, rows.parameters)


class Exchange:
    """Has an optimizer train compact rows in the place of the parameters that they were taken out of.

    They have the moments of the same rows; `end` writes these back.

    Args:
        optimizer: of these parameters.
        rows: of parameters that are alike in it; those of others are let alone.
    """

    def __init__(self, optimizer: DendriteAdam, rows: Iterable[CompactRows]) -> None:
        self.optimizer = optimizer
        self._parameters = [group["params"] for group in optimizer.param_groups]
        taken = {id(parameter): each for each in rows for parameter in each.parameters}
        self._rows: list[CompactRows] = []
        for group, parameters in zip(optimizer.param_groups, self._parameters, strict=True):
            found = {id(each): each for p in parameters if (each := taken.get(id(p))) is not None}
            rest = [parameter for parameter in parameters if id(parameter) not in taken]
            group["params"] = [each.value for each in found.values()] + rest
            self._rows += found.values()
        for each in self._rows:
            states = [optimizer.state.get(parameter, {}) for parameter in each.parameters]
            optimizer.state[each.value] = {
                name: value.clone() if name == "step" else each.of(state[name] for state in states)
                for name, value in states[0].items()
            }

    @torch.no_grad()
    def end(self) -> None:
        """Have the optimizer train the parameters again, with the moments that the rows have by now."""
        for group, parameters in zip(self.optimizer.param_groups, self._parameters, strict=True):
            group["params"] = parameters
        for rows in self._rows:
            for name, value in self.optimizer.forget(rows.value).items():
                states = [self.optimizer.state[parameter] for parameter in rows.parameters]
                if name == "step":
                    for state in states:
                        state[name] = value.clone()
                else:
                    for state, parameter in zip(states, rows.parameters, strict=True):
                        if name not in state:
                            state[name] = torch.zeros_like(parameter)
                    rows.write(value, [state[name] for state in states])
