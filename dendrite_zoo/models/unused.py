"""Weights that no context uses: where they are zero, a file leaves them out."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo.row_sparse.subnetworks import active_units

WEIGHT = re.compile(r"(.*hidden\.)([1-9][0-9]{0,3})\.weight")


def used_numbers(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Iterator[tuple[str, tuple[int, int], Tensor]]:
    """Of weights between layers whose units one-hot contexts choose, which numbers any of the contexts uses.

    Args:
        config: the arguments of the model.
        state: its segments and biases.

    Returns:
        Names, shapes and places in the flattened weights, in rising order.
    """
    if config.get("winners") != "context":
        return
    units: dict[str, Tensor] = {}
    for name, segments in state.items():
        bias = state.get(name.removesuffix("segments") + "bias")
        if name.endswith(".segments") and segments.ndim == 3 and bias is not None and len(bias) == len(segments):
            density, gate = config["activation_density"], config["gate"]
            mask = state.get(name.removesuffix("segments") + "segment_mask")
            units[name] = active_units(segments, torch.arange(segments.shape[-1]), density, gate, mask).units
    for name in state:
        if (match := WEIGHT.fullmatch(name)) is None:
            continue
        prefix, number = match[1], int(match[2])
        rows, columns = (units.get(f"{prefix}{n}.segments") for n in (number, number - 1))
        if rows is not None and columns is not None and len(rows) == len(columns):
            shape = len(state[f"{prefix}{number}.bias"]), len(state[f"{prefix}{number - 1}.bias"])
            yield name, shape, (rows.unsqueeze(2) * shape[1] + columns.unsqueeze(1)).unique()


def used_alone(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state, but of weights of which contexts use a part the numbers that are used, ``(N,)``, whatever the others.

    `put_used` puts it into a state of the same form, whose other numbers stay.
    """
    packed = dict(state)
    for name, shape, used in used_numbers(config, state):
        if len(used) < shape[0] * shape[1]:
            packed[name] = state[name].detach().flatten()[used]
    return packed


def put_used(config: Mapping[str, Any], packed: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Write what `used_alone` gave into the tensors of a state."""
    places = {name: used for name, _, used in used_numbers(config, packed)}
    for name, tensor in packed.items():
        if tensor.shape == state[name].shape:
            state[name].copy_(tensor)
        else:
            state[name].view(-1).index_copy_(0, places[name], tensor)


def without_unused(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state, but of weights whose other numbers are all zero the numbers that are used, ``(N,)``."""
    packed = dict(state)
    for name, shape, used in used_numbers(config, state):
        weight = state[name].detach()
        if weight.shape == shape and weight.device.type == "cpu":
            numbers = weight.flatten()
            if len(used) < len(numbers) and _is_rest_zero(numbers, used):
                packed[name] = numbers[used]
    return packed


def _is_rest_zero(numbers: Tensor, used: Tensor) -> bool:
    rest = numbers.clone()
    rest[used] = 0
    return not bool(rest.view(torch.uint8).any())


def is_clear(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Whether there are weights that no context uses, and all of them are zero."""
    parts = [(state[name].detach().flatten(), used) for name, _, used in used_numbers(config, state)]
    parts = [(numbers, used) for numbers, used in parts if len(used) < len(numbers)]
    return bool(parts) and all(_is_rest_zero(numbers, used) for numbers, used in parts)


def cleared(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state, with zeros where no context uses a weight."""
    whole = dict(state)
    for name, shape, used in used_numbers(config, state):
        numbers = state[name].detach().flatten()
        whole[name] = torch.zeros_like(numbers).index_copy_(0, used, numbers[used]).view(shape)
    return whole


def with_unused(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of what `without_unused` gave; what does not fit is left as it is, for whoever compares shapes."""
    whole = dict(state)
    if not any(WEIGHT.fullmatch(name) and tensor.ndim == 1 for name, tensor in state.items()):
        return whole
    with suppress(RuntimeError, ValueError, TypeError, IndexError):  # segments or masks of other shapes or types
        for name, shape, used in used_numbers(config, state):
            if state[name].shape == used.shape:
                numbers = state[name].new_zeros(shape[0] * shape[1])
                whole[name] = numbers.index_copy_(0, used, state[name]).view(shape)
    return whole
