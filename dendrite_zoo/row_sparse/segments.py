"""The winning segments of a layer, at the cost of the winners alone.

Equal to `dendrite_zoo.functional.winning_activations`, which is the equation; here is what makes it fast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo._core.torch import full_precision, runs_eagerly
from dendrite_zoo.functional.context import Context, distinct_contexts
from dendrite_zoo.functional.dendrites import Gate, segment_activations, select_winners, winning_segments
from dendrite_zoo.row_sparse.parameter import RowParameter, rows_of
from dendrite_zoo.row_sparse.taken_rows import dot_taken_rows, wants_sparse

FEW = 3
"""Contexts are few where each has so many segments of a unit or more: then most segments win in none of them."""

CHUNK = 1 << 24
"""Activations that exist at once where each row of a batch has its own context."""


def winning_activations(
    segments: Tensor, context: Context, gate: Gate = "abs_max", mask: Tensor | None = None
) -> Tensor:
    r"""The activation :math:`d_{s^*} = u_{s^*} \cdot c` of each unit's winning segment, for a context of any form.

    Segments meet each distinct context once, and one-hot contexts are looked up. Where contexts are few beside the
    segments of a unit, winners are chosen without gradient, and gradient reaches their rows alone: nothing of size
    ``B × U × S`` exists, forward or backward. Many contexts, one a row, are gone through a few units at a time.

    Args:
        segments: the dendritic segments :math:`u` of a layer.
        context: in any form of `dendrite_zoo.functional.context`.
        gate: the rule by which a segment wins.
        mask: which entries of the segments may be other than zero; the others get no gradient.

    Shape:
        segments and mask ``(U, S, C)``; result ``(U,)`` where the batch shares one context, else ``(B, U)``.

    Raises:
        ValueError: the context has another size than the segments, or an id outside ``[0, C)``.
        TypeError: the context is of none of the forms.

    Example:
        >>> segments = torch.tensor([[[1.0, 0.0], [0.0, -3.0]]])
        >>> winning_activations(segments, torch.tensor([1.0, 1.0]))
        tensor([-3.])
        >>> winning_activations(segments, torch.tensor([0, 1]))  # ids of one-hot contexts
        tensor([[ 1.],
                [-3.]])
    """
    contexts, index = used_contexts(*distinct_contexts(context, segments.shape[-1], segments.device))
    if contexts.is_floating_point():
        contexts = contexts.to(segments.dtype)
    with full_precision(segments.device):  # a rounded activation could choose another winner
        few = len(contexts) == 1 or FEW * len(contexts) <= segments.shape[1]
        small = wants_sparse(segments) and len(contexts) * segments.shape[0] * segments.shape[1] <= CHUNK
        strength = (_from_winners if few or small else _from_all)(segments, contexts, gate, mask)
    if index is None:
        return strength
    return strength[0] if index.ndim == 0 else F.embedding(index, strength)


def used_contexts(codebook: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Leave out of a codebook what no row is in, where that is known without waiting for a device.

    Example:
        >>> used_contexts(torch.tensor([0.0, 10.0, 20.0, 30.0]), torch.tensor([3, 1, 3]))
        (tensor([10., 30.]), tensor([1, 0, 1]))
    """
    if index is None or index.ndim == 0:
        return codebook, index
    if index.device.type == "cpu" and runs_eagerly():
        used, index = index.unique(return_inverse=True)
        return codebook[used], index
    return (codebook, index) if len(codebook) <= len(index) else (codebook[index], None)


def _from_winners(segments: Tensor, contexts: Tensor, gate: Gate, mask: Tensor | None) -> Tensor:
    num_units, num_segments, _ = segments.shape
    cache = segments.usable_cache if isinstance(segments, RowParameter) and len(contexts) == 1 else None
    with torch.no_grad():
        known = None if cache is None else cache.activations(rows_of(segments, row_dims=2), contexts[0])
        activations = segment_activations(segments, contexts) if known is None else known
        winners = winning_segments(activations.reshape(-1, num_units, num_segments), gate)  # (K, U)
        ids = winners + num_segments * torch.arange(num_units, device=segments.device)
        if cache is not None and known is not None:
            cache.watch(ids[0])
            known = known[ids]
        elif len(contexts) > 1 and mask is None:
            known = activations.reshape(len(contexts), -1).gather(1, ids)
    if not contexts.is_floating_point():
        ids_of_all = torch.arange(segments.shape[-1], device=segments.device)
        contexts = (contexts.unsqueeze(-1) == ids_of_all).to(segments.dtype)  # `F.one_hot` looks at the ids
    strength = dot_taken_rows(segments, ids, contexts, row_dims=2, mask=mask, known=known)
    return strength.abs() if gate == "abs_max_unsigned" else strength


def _from_all(segments: Tensor, contexts: Tensor, gate: Gate, mask: Tensor | None) -> Tensor:
    if mask is not None:
        segments = segments * mask.to(segments.dtype)  # bools multiply several times as slowly
    units = max(1, CHUNK // (len(contexts) * segments.shape[1]))
    splits = segments.split(units) if units < len(segments) else [segments]
    parts = [select_winners(segment_activations(part, contexts), gate)[0] for part in splits]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
