"""What follows from a context, looked up for the contexts of a batch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from dendrite_zoo._core.torch import runs_eagerly
from dendrite_zoo.functional.context import Context
from dendrite_zoo.row_sparse.activation_cache import mark, stamp

T = TypeVar("T")


class ContextCache:
    """Tensors that follow from a context, computed once, as long as those that they depend on stay what they are.

    Contexts that are not known are computed together. On a CPU only: elsewhere looking a context up costs more than
    computing its value again.

    Example:
        >>> cache, weight = ContextCache(), torch.ones(2)
        >>> contexts = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> for scale in (1.0, 2.0):  # the second time nothing is computed
        ...     print(cache(contexts, [weight], lambda c, scale=scale: [scale * c @ weight]))
        [tensor([3., 7.])]
        [tensor([3., 7.])]
    """

    CAPACITY = 4096
    """Contexts remembered; with more, all are forgotten."""

    def __init__(self) -> None:
        self._marks: list[Any] = []
        self.forget()

    def __len__(self) -> int:
        return len(self._places)

    def forget(self) -> None:
        """Forget everything."""
        self._places: dict[Any, int] = {}  # of each context, in the tables
        self._tables: list[Tensor] = []
        self._open(torch.empty(0))

    def __call__(
        self,
        contexts: Tensor,
        sources: Iterable[Tensor],
        compute: Callable[[Tensor], list[Tensor]],
        used: Tensor | None = None,
    ) -> list[Tensor]:
        """The values of ``compute`` in contexts ``(K, C)``, or in one-hot ones by their ids ``(K,)``.

        Args:
            contexts: the contexts.
            sources: the tensors besides the contexts that the values depend on.
            compute: from some contexts to their values, each of as many rows; called for those that are not known.
            used: which of the contexts are asked for, ``(N,)``; by default all.
        """
        contexts = contexts.detach()
        if contexts.device.type != "cpu" or not runs_eagerly():
            return compute(contexts if used is None else contexts.index_select(0, used))
        if (marks := [mark(tensor) for tensor in sources]) != self._marks:
            self.forget()
            self._marks = marks
        with torch.inference_mode(False):  # a value outlives the pass in which it is computed
            places = self._look_up(contexts.clone() if contexts.is_inference() else contexts, used, compute)
            return [table.index_select(0, places) for table in self._tables]

    def _look_up(self, contexts: Tensor, used: Tensor | None, compute: Callable[[Tensor], list[Tensor]]) -> Tensor:
        """Where the values of the contexts stand in the tables, which are filled up."""
        used = torch.arange(len(contexts)) if used is None else used
        if stamp(contexts) != self._book_stamp:
            self._open(contexts)
        if (self._known[used] < 0).any() and not self._add(used[self._known[used] < 0], compute):
            self.forget()
            self._open(contexts)
            self._add(used, compute)
        return self._known[used]

    def _add(self, asked: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> bool:
        """Find contexts of the book, or compute what follows from them; False where there is no room for them."""
        rows = self._book.index_select(0, asked)
        lines = rows.reshape(len(rows), -1).view(torch.uint8).numpy()
        keys = [(rows.dtype, line.tobytes()) for line in lines]
        unknown = {key: row for row, key in enumerate(keys) if key not in self._places}
        if len(self) and len(self) + len(unknown) > self.CAPACITY:
            return False
        if unknown:
            values = compute(rows[list(unknown.values())])
            old = self._tables or [value[:0] for value in values]
            self._tables = [torch.cat(pair) for pair in zip(old, values, strict=True)]
            self._places.update({key: len(self) + number for number, key in enumerate(unknown)})
        self._known[asked] = torch.tensor([self._places[key] for key in keys])
        return True

    def _open(self, contexts: Tensor) -> None:
        """Remember of these contexts where they stand; the tensor is held, so that no other takes its memory."""
        self._book, self._book_stamp = contexts, stamp(contexts)
        self._known = torch.full((len(contexts),), -1)


class LastBatch:
    """What followed from the contexts of a batch, for the next batch where its rows are in the same ones.

    On a CPU only, as `ContextCache`.
    """

    def __init__(self) -> None:
        self._marks: list[Any] = []
        self._parts: list[Any] = []
        self._value: Any = None

    def __call__(self, context: Context, sources: Sequence[Tensor], compute: Callable[[Context], T]) -> T:
        """The value of ``compute`` in a context of any form, which depends on the sources, too."""
        parts = list(context) if isinstance(context, tuple) else [context]
        tensors = [part for part in parts if isinstance(part, Tensor)]
        on_cpu = all(tensor.device.type == "cpu" for tensor in (*tensors, *sources))
        if not on_cpu or not runs_eagerly() or any(tensor.is_inference() for tensor in tensors):
            return compute(context)
        marks = [mark(tensor) for tensor in sources]
        if marks != self._marks or len(parts) != len(self._parts) or not all(map(_is_same, self._parts, parts)):
            with torch.inference_mode(False):
                self._value = compute(context)
            self._marks, self._parts = marks, [_remembered(part) for part in parts]
        return cast(T, self._value)


def _remembered(part: Any) -> Any:
    """A number; integers as they are now; floats by what says whether they are the same, and stay where they are."""
    if not isinstance(part, Tensor):
        return part
    return (stamp(part), part.detach()) if part.is_floating_point() else part.clone()


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return isinstance(new, Tensor) and old.dtype == new.dtype and torch.equal(old, new)
    if isinstance(old, tuple):
        return isinstance(new, Tensor) and old[0] == stamp(new)
    return type(old) is type(new) and bool(old == new)
