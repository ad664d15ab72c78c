"""The slow, obvious versions: loops over rows, units and segments, straight from the paper's equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def one_hot(task: int, size: int, like: Tensor) -> Tensor:
    """A one-hot vector."""
    vector = like.new_zeros(size)
    vector[task] = 1
    return vector


def context_rows(context, batch: int, segments: Tensor) -> list[Tensor]:
    """Any form of context as a list of one vector a row."""
    size = segments.shape[-1]
    if isinstance(context, tuple):
        codebook, index = context
        return [codebook[i] for i in index.tolist()]
    if not context.is_floating_point():
        ids = context.tolist() if context.ndim else [int(context)] * batch
        return [one_hot(i, size, segments) for i in ids]
    return [context] * batch if context.ndim == 1 else list(context)


def gate_unit(drive: Tensor, segments: Tensor, context: Tensor, gate: str) -> tuple[Tensor, int]:
    """One unit's output, and which of its segments won: t times sigmoid of the strongest u_s · c."""
    activations = [(u * context).sum() for u in segments]
    signed = gate in ("abs_max", "abs_max_unsigned")
    winner = max(range(len(activations)), key=lambda s: abs(activations[s]) if signed else activations[s])
    d = activations[winner]
    if gate == "bias":
        return drive + d, winner
    return drive * torch.sigmoid(d.abs() if gate == "abs_max_unsigned" else d), winner


def strength(segments: Tensor, context: Tensor, gate: str) -> Tensor:
    """The activation of one unit's winning segment."""
    d = (segments[gate_unit(torch.zeros(()), segments, context, gate)[1]] * context).sum()
    return d.abs() if gate == "abs_max_unsigned" else d


def active_dendrite_linear(x: Tensor, weight: Tensor, bias: Tensor, segments: Tensor, context, gate: str) -> Tensor:
    """A layer as three nested loops."""
    rows = []
    for row, c in zip(x, context_rows(context, len(x), segments), strict=True):
        units = [gate_unit((weight[u] * row).sum() + bias[u], segments[u], c, gate)[0] for u in range(len(weight))]
        rows.append(torch.stack(units))
    return torch.stack(rows)


def naive_layer(x: Tensor, weight: Tensor, bias: Tensor, segments: Tensor, context: Tensor) -> Tensor:
    """How the field computes it: every segment for every row, `(B, U, S)`, context `(B, C)`. A speed baseline."""
    activations = torch.einsum("usc,bc->bus", segments, context)
    winners = activations.abs().argmax(-1, keepdim=True)
    return (x @ weight.T + bias) * torch.sigmoid(activations.gather(-1, winners).squeeze(-1))


def k_winners(x: Tensor, k: int) -> Tensor:
    """Keep the k largest of each row, by sorting; among equals the kept ones are not specified."""
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for u in sorted(range(x.shape[1]), key=lambda u: -float(x[b, u]))[:k]:
            out[b, u] = x[b, u]
    return out


def nearest_prototype(x: Tensor, prototypes: Tensor) -> list[int]:
    """The nearest prototype of each row by the Euclidean distance."""
    return (
        [min(range(len(prototypes)), key=lambda k: math.dist(row, prototypes[k])) for row in x.tolist()]
        if (prototypes := prototypes.tolist())
        else []
    )
