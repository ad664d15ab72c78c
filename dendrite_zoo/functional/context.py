"""The forms that a context may have, and the distinct contexts of a batch.

Symbols: ``B`` rows of a batch, ``C`` numbers in a context, ``K`` distinct contexts.

A context has any of these forms (the type `Context`):

- ``(C,)`` floats: one context for the whole batch;
- ``(B, C)`` floats: one for each row;
- ``(codebook, index)`` with shapes ``(K, C)`` and ``(B,)``: few contexts, many rows;
- an int, or ``()`` or ``(B,)`` integers: ids of one-hot contexts.
"""

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dendrite_zoo._core.torch import runs_eagerly

__all__ = ["Context", "distinct_contexts"]

Context: TypeAlias = Tensor | tuple[Tensor, Tensor] | int


def distinct_contexts(
    context: Context, context_dim: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor | None]:
    """Bring a context of any form to distinct ones, and which of them each row of the batch is in.

    Args:
        context: in any form.
        context_dim: its size, ``C``.
        device: of the ids, where the context is an int.

    Shape:
        the contexts ``(K, C)``, or all ids ``(C,)`` of one-hot ones; the index ``()`` where the batch shares one,
        ``(B,)``, or None where each row has its own, ``K = B``.

    Raises:
        ValueError: the context is of another size than ``context_dim``, or an id lies outside ``[0, C)``.
        TypeError: the context is of none of the forms.

    Example:
        >>> distinct_contexts(torch.tensor([3, 1, 3]), context_dim=5)
        (tensor([0, 1, 2, 3, 4]), tensor([3, 1, 3]))
    """
    contexts, index = _parts(context, device)
    if not contexts.is_floating_point():
        if contexts.ndim > 1:
            raise ValueError(f"Expected context ids of shape () or (batch,), but got {tuple(contexts.shape)}.")
        check_ids(contexts, context_dim, what="one-hot context")
        contexts, index = torch.arange(context_dim, device=contexts.device), contexts
    elif contexts.ndim not in (1, 2) or contexts.shape[-1] != context_dim:
        shapes = f"({context_dim},) or (batch, {context_dim}), as the segments have it"
        remedy = "Give the layer's `context_dim` the size of the context."
        if contexts.ndim > 2 and contexts.shape[-1] == context_dim:
            remedy = "Give each position a row: layer(x.flatten(0, -2), context.flatten(0, -2))."
        raise ValueError(f"Expected a context of shape {shapes}, but got {tuple(contexts.shape)}. {remedy}")
    elif index is None:
        return (contexts, None) if contexts.ndim == 2 else (contexts.unsqueeze(0), torch.tensor(0))
    else:
        index = torch.as_tensor(index, device=contexts.device)
        check_ids(index, len(contexts), what="codebook row")
    index = index.long()
    return (contexts, index) if index.ndim else (contexts.index_select(0, index.reshape(1)), torch.tensor(0))


def _parts(context: Context, device: torch.device | None) -> tuple[Tensor, Tensor | None]:
    """Contexts or ids, and the index of a codebook's rows."""
    contexts, index = context if isinstance(context, tuple) and len(context) == 2 else (context, None)
    if isinstance(contexts, int | np.integer) and index is None:
        contexts = torch.tensor(contexts, device=device)
    is_codebook = isinstance(contexts, Tensor) and contexts.is_floating_point() and contexts.ndim == 2
    if not isinstance(contexts, Tensor) or contexts.dtype == torch.bool or (index is not None and not is_codebook):
        got = f"{contexts.dtype} {tuple(contexts.shape)}" if isinstance(contexts, Tensor) else type(contexts).__name__
        got += " as a codebook" * (index is not None)
        forms = "floats (C,) or (B, C), a tuple (codebook (K, C), index (B,)), an int, or integer ids () or (B,)"
        raise TypeError(f"Expected a context to be {forms}, but got {got}.")
    return contexts, index


def check_ids(ids: Tensor, count: int, what: str) -> None:
    """Raise where ids are not integers in ``[0, count)``; on a GPU the range is left to the kernel (no host sync)."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise TypeError(f"Expected the id of a {what} to be an integer, but got {ids.dtype}. Use index.long().")
    if not runs_eagerly() or ids.device.type != "cpu" or ids.numel() == 0:
        return
    low, high = (int(end) for end in ids.long().aminmax())
    if low < 0 or high >= count:
        remedy = "Build the layer with a larger `context_dim`, the model or its context with a larger `max_tasks`."
        raise ValueError(f"Expected a {what} to be from 0 to {count - 1}, but got {low if low < 0 else high}. {remedy}")
