"""The equations of active dendrites as pure tensor functions (Iyer et al. 2022, arXiv:2201.00042).

Symbols: ``B`` rows of a batch, ``U`` units of a layer, ``S`` segments of a unit, ``C`` numbers in a context, ``K``
distinct contexts. The forms of a context are described in `dendrite_zoo.functional.context`.
"""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_choice
from dendrite_zoo.functional.context import Context, distinct_contexts

__all__ = [
    "GATES",
    "Gate",
    "apply_gate",
    "k_winners",
    "segment_activations",
    "select_winners",
    "winning_activations",
    "winning_segments",
]

Gate: TypeAlias = Literal["abs_max", "max", "abs_max_unsigned", "bias"]
GATES: tuple[str, ...] = get_args(Gate)


def segment_activations(segments: Tensor, contexts: Tensor) -> Tensor:
    r"""The activation of each segment in each context, :math:`d_s = u_s \cdot c` (Iyer et al. 2022, eq. 2).

    Args:
        segments: the dendritic segments :math:`u` of a layer.
        contexts: distinct contexts, or ids of one-hot ones, which are looked up.

    Shape:
        segments ``(U, S, C)``; contexts ``(K, C)`` floats or ``(K,)`` integers; result ``(K, U, S)``.

    Example:
        >>> segment_activations(torch.tensor([[[1.0, 0.0], [0.0, -3.0]]]), torch.tensor([[1.0, 1.0]]))
        tensor([[[ 1., -3.]]])
    """
    if not contexts.is_floating_point():
        return segments.index_select(-1, contexts).permute(2, 0, 1)
    return (contexts @ segments.reshape(-1, segments.shape[-1]).T).unflatten(-1, segments.shape[:2])


def winning_segments(activations: Tensor, gate: Gate = "abs_max") -> Tensor:
    """The index of the strongest segment of each unit: the ``argmax`` of ``select_winners``.

    Shape:
        activations ``(..., U, S)``; result ``(..., U)``.

    Example:
        >>> winning_segments(torch.tensor([[0.5, -2.0, 1.0]]))
        tensor([1])
    """
    signed = gate in ("abs_max", "abs_max_unsigned")
    return (activations.abs() if signed else activations).max(dim=-1).indices


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
    check_choice(GATES, gate=gate)
    winners = winning_segments(activations.detach(), gate)
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

    Layers call the equal function of `dendrite_zoo.row_sparse`, whose cost does not grow with the segments.

    Args:
        segments: the dendritic segments :math:`u` of a layer.
        context: in any form.
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
    contexts, index = distinct_contexts(context, segments.shape[-1], segments.device)
    if contexts.is_floating_point():
        contexts = contexts.to(segments.dtype)
    strength, _ = select_winners(segment_activations(segments if mask is None else segments * mask, contexts), gate)
    return strength if index is None else strength[index]


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
        raise ValueError(f"Expected `k` to be from 1 to {x.shape[-1]}, but got {k}. Change `k`, or widen the layer.")
    values, winners = x.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(x).scatter(-1, winners, values)
