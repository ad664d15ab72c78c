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
from torch import Tensor

__all__ = ["Context", "Gate", "apply_gate", "k_winners", "select_winners", "winning_activations"]

Gate: TypeAlias = Literal["abs_max", "max", "abs_max_unsigned", "bias"]
Context: TypeAlias = "Tensor | tuple[Tensor, Tensor]"
GATES: tuple[str, ...] = get_args(Gate)


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
    signed = gate in ("abs_max", "abs_max_unsigned")
    winners = (activations.abs() if signed else activations).argmax(dim=-1)
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
    return drive + strength if gate == "bias" else drive * torch.sigmoid(strength)


def winning_activations(segments: Tensor, context: Context, gate: Gate = "abs_max") -> Tensor:
    r"""The activation :math:`d_{s^*} = u_{s^*} \cdot c` of each unit's winning segment, for a context of any form.

    Segments meet each distinct context once: with one context for the batch, or a codebook, nothing of size
    ``B × U × S`` exists.

    Args:
        segments: the dendritic segments :math:`u` of a layer.
        context: see the module's description.
        gate: the rule by which a segment wins.

    Shape:
        segments ``(U, S, C)``; result ``(U,)`` where the batch shares one context, else ``(B, U)``.

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
    if isinstance(context, tuple):
        codebook, index = context
        check_ids(index, len(codebook), what="codebook row")
        return winning_activations(segments, codebook, gate)[index.long()]
    if not isinstance(context, Tensor) or context.dtype == torch.bool:
        got = type(context).__name__ if not isinstance(context, Tensor) else "a bool tensor"
        raise TypeError(
            f"A context came as {got}; expected floats of shape (C,) or (B, C), a tuple (codebook (K, C), index (B,)) "
            "or integer ids of shape () or (B,). A number is wrapped by torch.tensor(task)."
        )
    if context.is_floating_point():
        return _from_vectors(segments, context, gate)
    return _from_ids(segments, context, gate)


def _from_vectors(segments: Tensor, context: Tensor, gate: Gate) -> Tensor:
    num_units, num_segments, context_dim = segments.shape
    if context.ndim not in (1, 2) or context.shape[-1] != context_dim:
        raise ValueError(
            f"A context of shape {tuple(context.shape)} came to segments that see {context_dim} numbers; expected "
            f"({context_dim},) or (batch, {context_dim}). Give the layer's context_dim the size of the context."
        )
    activations = context.to(segments.dtype) @ segments.reshape(-1, context_dim).T
    return select_winners(activations.unflatten(-1, (num_units, num_segments)), gate)[0]


def _from_ids(segments: Tensor, ids: Tensor, gate: Gate) -> Tensor:
    num_contexts = segments.shape[-1]
    if ids.ndim > 1:
        raise ValueError(f"Context ids came with shape {tuple(ids.shape)}; expected () or (batch,).")
    check_ids(ids, num_contexts, what="one-hot context")
    ids = ids.long()
    if ids.ndim == 0:
        return select_winners(segments.index_select(-1, ids.reshape(1)).squeeze(-1), gate)[0]
    table = segments.permute(2, 0, 1)  # (C, U, S): a one-hot context selects, nothing is multiplied
    if num_contexts > len(ids):
        return select_winners(table[ids], gate)[0]
    return select_winners(table, gate)[0][ids]


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
    values, index = x.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(x).scatter(-1, index, values)


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
