"""The equations of active dendrites as pure tensor functions (Iyer et al. 2022, arXiv:2201.00042).

Symbols: ``B`` rows of a batch, ``U`` units of a layer, ``S`` segments of a unit, ``C`` numbers in a context, ``K``
distinct contexts.

A context comes in any of these forms (the type `Context`):

- ``(C,)`` floats: one context for the whole batch;
- ``(B, C)`` floats: one for each row;
- ``(codebook, index)`` with shapes ``(K, C)`` and ``(B,)``: few contexts, many rows;
- ``()`` or ``(B,)`` integers: ids of one-hot contexts.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrite_zoo.rows import RowParameter, dot_taken_rows

__all__ = ["Context", "Gate", "apply_gate", "distinct_contexts", "k_winners", "select_winners", "winning_activations"]

Gate: TypeAlias = Literal["abs_max", "max", "abs_max_unsigned", "bias"]
Context: TypeAlias = "Tensor | tuple[Tensor, Tensor]"
GATES: tuple[str, ...] = get_args(Gate)
CHUNK = 1 << 24
"""Activations that exist at once where each row of a batch has its own context."""


def select_winners(activations: Tensor, gate: Gate = "abs_max") -> tuple[Tensor, Tensor]:
    r"""The strongest segment of each unit, :math:`s^* = \arg\max_s |d_s|` (Iyer et al. 2022, eq. 3).

    ``abs_max`` keeps the winner's sign, ``abs_max_unsigned`` drops it; ``max`` and ``bias`` choose by
    :math:`\arg\max_s d_s`.

    Args:
        activations: segment activations :math:`d_s = u_s \cdot c`.
        gate: the rule by which a segment wins.

    Shape:
        activations ``(..., U, S)``; both results ``(..., U)``.

    Returns:
        The activation of each winner (only its segment receives gradient), and its index.

    Example:
        >>> d = torch.tensor([[0.5, -2.0, 1.0]])
        >>> select_winners(d, "abs_max")
        (tensor([-2.]), tensor([1]))
        >>> select_winners(d, "max")
        (tensor([1.]), tensor([2]))
    """
    check_gate(gate)
    winners = _choose(activations.detach(), gate)
    strength = activations.gather(-1, winners.unsqueeze(-1)).squeeze(-1)
    return (strength.abs() if gate == "abs_max_unsigned" else strength), winners


def apply_gate(drive: Tensor, strength: Tensor, gate: Gate = "abs_max") -> Tensor:
    r"""Modulate the feedforward drive by the winning dendrite.

    :math:`y = t \cdot \sigma(d_{s^*})` (Iyer et al. 2022, eq. 4); for ``gate="bias"``, :math:`y = t + d_{s^*}`.

    Args:
        drive: feedforward drive :math:`t = w \cdot x + b`.
        strength: activation of the winning segment.
        gate: which of the two.

    Shape:
        drive and strength broadcast against each other.

    Example:
        >>> apply_gate(torch.tensor([2.0]), torch.tensor([0.0]))
        tensor([1.])
    """
    strength = strength.to(drive.dtype)
    return drive + strength if gate == "bias" else drive * torch.sigmoid(strength)


def winning_activations(
    segments: Tensor, context: Context, gate: Gate = "abs_max", mask: Tensor | None = None
) -> Tensor:
    r"""The activation :math:`d_{s^*} = u_{s^*} \cdot c` of each unit's winning segment, for a context of any form.

    Segments meet each distinct context once, and one-hot contexts are looked up. Where there are no more contexts than
    segments a unit, winners are chosen without gradient, and gradient reaches their rows alone: nothing of size
    ``B × U × S`` exists, forward or backward. Many contexts, one a row, are gone through a few units at a time.

    Args:
        segments: the dendritic segments :math:`u` of a layer.
        context: see the module's description.
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
    contexts, index = distinct_contexts(context, segments.shape[-1])
    if contexts.is_floating_point():
        contexts = contexts.to(segments.dtype)
    with torch.autocast(segments.device.type, enabled=False):  # a rounded activation could choose another winner
        few = len(contexts) <= segments.shape[1]
        strength = (_from_winners if few else _from_all)(segments, contexts, gate, mask)
    if index is None:
        return strength
    return strength[0] if index.ndim == 0 else F.embedding(index, strength)


def distinct_contexts(context: Context, context_dim: int) -> tuple[Tensor, Tensor | None]:
    """Bring a context of any form to distinct ones, and which of them each row of the batch is in.

    Shape:
        the contexts ``(K, C)``, or ids ``(K,)`` of one-hot ones; the index ``()`` where the batch shares one,
        ``(B,)``, or None where each row has its own, ``K = B``.

    Raises:
        ValueError: the context is of another size than ``context_dim``, or an id lies outside ``[0, C)``.
        TypeError: the context is of none of the forms.

    Example:
        >>> distinct_contexts(torch.tensor([3, 1, 3]), context_dim=5)
        (tensor([1, 3]), tensor([1, 0, 1]))
    """
    contexts, index = context if isinstance(context, tuple) else (context, None)
    if not isinstance(contexts, Tensor) or contexts.dtype == torch.bool:
        got = type(contexts).__name__ if not isinstance(contexts, Tensor) else "a bool tensor"
        raise TypeError(
            f"A context came as {got}; expected floats of shape (C,) or (B, C), a tuple (codebook (K, C), index (B,)) "
            "or integer ids of shape () or (B,). A number is wrapped by torch.tensor(task)."
        )
    if not contexts.is_floating_point():
        if contexts.ndim > 1:
            raise ValueError(f"Context ids came with shape {tuple(contexts.shape)}; expected () or (batch,).")
        check_ids(contexts, context_dim, what="one-hot context")
        return _used(torch.arange(context_dim, device=contexts.device), contexts.long())
    if contexts.ndim not in (1, 2) or contexts.shape[-1] != context_dim:
        raise ValueError(
            f"A context of shape {tuple(contexts.shape)} came to segments that see {context_dim} numbers; expected "
            f"({context_dim},) or (batch, {context_dim}). Give the layer's context_dim the size of the context."
        )
    if index is not None:
        check_ids(index, len(contexts), what="codebook row")
        return _used(contexts, index.long())
    return (contexts, None) if contexts.ndim == 2 else (contexts.unsqueeze(0), torch.tensor(0))


def _used(codebook: Tensor, index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Leave out what no row is in, where that can be told without waiting for a device."""
    if index.ndim == 0:
        return codebook.index_select(0, index.reshape(1)), torch.tensor(0)
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        used, index = index.unique(return_inverse=True)
        return codebook[used], index
    return (codebook, index) if len(codebook) <= len(index) else (codebook[index], None)


def _from_winners(segments: Tensor, contexts: Tensor, gate: Gate, mask: Tensor | None) -> Tensor:
    num_units, num_segments, _ = segments.shape
    keeper = segments if isinstance(segments, RowParameter) and segments.keeps_activations else None
    known = None
    with torch.no_grad():
        if keeper is not None and len(contexts) == 1:
            known = keeper.kept.activations(keeper.as_rows(), contexts[0])
        activations = _activations(segments, contexts) if known is None else known
        winners = _choose(activations.reshape(-1, num_units, num_segments), gate)  # (K, U)
        ids = winners + num_segments * torch.arange(num_units, device=segments.device)
        if keeper is not None and known is not None:
            keeper.kept.watch(ids[0])
            known = known[ids]
    if not contexts.is_floating_point():
        contexts = F.one_hot(contexts, segments.shape[-1]).to(segments.dtype)
    strength = dot_taken_rows(segments, ids, contexts, row_dims=2, mask=mask, known=known)
    return strength.abs() if gate == "abs_max_unsigned" else strength


def _from_all(segments: Tensor, contexts: Tensor, gate: Gate, mask: Tensor | None) -> Tensor:
    if mask is not None:
        segments = segments * mask
    units = max(1, CHUNK // (len(contexts) * segments.shape[1]))
    return torch.cat([select_winners(_activations(part, contexts), gate)[0] for part in segments.split(units)], dim=-1)


def _activations(segments: Tensor, contexts: Tensor) -> Tensor:
    """All activations, ``(K, U, S)``."""
    if not contexts.is_floating_point():  # a one-hot context selects, nothing is multiplied
        return segments.index_select(-1, contexts).permute(2, 0, 1)
    return (contexts @ segments.reshape(-1, segments.shape[-1]).T).unflatten(-1, segments.shape[:2])


def _choose(activations: Tensor, gate: Gate) -> Tensor:
    signed = gate in ("abs_max", "abs_max_unsigned")
    return (activations.abs() if signed else activations).argmax(dim=-1)


def k_winners(x: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest of the last dimension, zero the rest (k-winner-take-all; Iyer et al. 2022, eq. 5).

    Exactly ``k`` pass, ties and negative values included; only they receive gradient.

    Shape:
        ``(..., U)`` to ``(..., U)``.

    Raises:
        ValueError: ``k`` is below 1 or larger than the layer.

    Example:
        >>> k_winners(torch.tensor([3.0, 1.0, 2.0, 3.0]), 2)
        tensor([3., 0., 0., 3.])
    """
    if not 1 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} winners were asked of a layer of {x.shape[-1]} units; choose 1 <= k <= {x.shape[-1]}.")
    values, index = _largest(x, k)
    return torch.zeros_like(x).scatter(-1, index, values)


def _largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest and where they are: in the ``k`` groups with the largest maxima, so few are looked through."""
    groups, rest = divmod(x.shape[-1], 4)
    if rest or 2 * k > groups or x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.topk(k, dim=-1, sorted=False)
    best = x.detach().unflatten(-1, (4, groups)).amax(-2).topk(k, dim=-1, sorted=False).indices
    candidates = (best.unsqueeze(-2) + groups * torch.arange(4).unsqueeze(-1)).flatten(-2)
    values, index = x.gather(-1, candidates).topk(k, dim=-1, sorted=False)
    return values, candidates.gather(-1, index)


def check_gate(gate: str) -> None:
    """Raise a ValueError that lists the gates where ``gate`` is none of them."""
    if gate not in GATES:
        raise ValueError(f"gate={gate!r} is unknown; choose one of {', '.join(GATES)}.")


def check_ids(ids: Tensor, count: int, what: str) -> None:
    """Raise where ids are not integers in ``[0, count)``; on a GPU the range is left to the kernel (no host sync)."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise TypeError(f"The index of a {what} came as {ids.dtype}; expected integers. Use index.long().")
    if torch.compiler.is_compiling() or ids.device.type != "cpu" or ids.numel() == 0:
        return
    low, high = ids.aminmax()
    if low < 0 or high >= count:
        raise ValueError(
            f"A {what} of index {int(low if low < 0 else high)} was asked for; there are {count}, 0 to {count - 1}. "
            "Give the layer or the context a larger capacity, or check the task numbers."
        )
