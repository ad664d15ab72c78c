"""Subnetworks of new tasks: units where too few are free, and weights that are drawn, or copies of another task's."""

import copy
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dendrite_zoo.functional.dendrites import winning_activations
from dendrite_zoo.hub import HubModel
from dendrite_zoo.layers import ActiveDendriteConv2d, ActiveDendriteLinear
from dendrite_zoo.layers.sparse import random_mask
from dendrite_zoo.models.additive import AdditiveSegments
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.overlap import units_needed
from dendrite_zoo.row_sparse.subnetworks import active_units, num_active

__all__ = ["copy_columns", "copy_subnetwork", "start_as", "widen", "with_subnetworks"]

logger = logging.getLogger(__name__)

PART = re.compile(r"(.*?)(hidden\.([0-9]{1,4})|output)\.(weight|bias|mask|segments|segment_mask)")


def widen(
    config: Mapping[str, Any], state: dict[str, Tensor], kept: Sequence[int], new: int, overlap: float
) -> dict[str, Any]:
    """Give the hidden layers of a state more units where too few are free for the subnetworks of new tasks.

    The subnetworks of known tasks keep their units and their size, and are computed as before, to the bit; all weights
    of new units are 0.

    Args:
        config: the arguments of the model, whose winners are chosen by one-hot contexts.
        state: of the model, in which the tensors are replaced.
        kept: the tasks that stay, as they are numbered in the state.
        new: how many come to them.
        overlap: the share of a new task's units that may be in use.

    Returns:
        The arguments: with more ``hidden_features``, of which a lower ``activation_density`` is as many as before.
    """
    units, layers = list(config["hidden_features"]), _needs(config, state, kept, new, overlap)
    if all(need.units <= units[number] for number, need in layers.items()):
        return dict(config)
    share = min(need.active / need.units for need in layers.values())
    wider = [round(layers[n].active / share) if n in layers else count for n, count in enumerate(units)]
    logger.warning(
        "Hidden layers are widened from %s to %s units: the subnetworks of %d tasks have no more free.",
        *(units, wider, len(kept)),
    )
    for name in list(state):
        if (match := PART.fullmatch(name)) is not None:
            number = len(units) if match[3] is None else int(match[3])
            rows = None if match[3] is None else wider[number]
            columns = wider[number - 1] if number and match[4] in ("weight", "mask") else None
            state[name] = _enlarged(state, name, rows, columns, config)
    return {**config, "hidden_features": wider, "activation_density": share}


class _Need(NamedTuple):
    """Of a hidden layer, how many units a task has, and how many the layer needs, but no fewer than it has."""

    active: int
    units: int


def _needs(
    config: Mapping[str, Any], state: Mapping[str, Tensor], kept: Sequence[int], new: int, overlap: float
) -> dict[int, _Need]:
    """What the hidden layers with dendrites need, by number; with several networks the most that one of them needs."""
    needs: dict[int, _Need] = {}
    density = config["activation_density"]
    for name, segments in state.items():
        match = PART.fullmatch(name)
        if match is None or match[4] != "segments":
            continue
        number, mask = int(match[3]), state.get(name.removesuffix("segments") + "segment_mask")
        active = num_active(density, len(segments))
        used, others = active, new - 1  # the first of all shares no units
        if kept:
            used = len(active_units(segments, torch.tensor(kept), density, config["gate"], mask).units.unique())
            others = new
        least = max(len(segments), used + others * (active - round(overlap * active)))
        if config["overlap"] is not None:
            least = max(least, units_needed(active, len(kept) + new, config["overlap"]))
        needs[number] = _Need(active, max(least, needs[number].units if number in needs else 0))
    return needs


def _enlarged(
    state: Mapping[str, Tensor], name: str, rows: int | None, columns: int | None, config: Mapping[str, Any]
) -> Tensor:
    """A tensor of so many rows and columns: of zeros; masks as they are drawn; segments that never win."""
    tensor = state[name]
    rows, kind = len(tensor) if rows is None else rows, name.rpartition(".")[2]
    added = rows - len(tensor)
    if kind.startswith("segment"):
        layer = name.rpartition(".")[0]
        segments, tasks = state[f"{layer}.segments"], torch.arange(tensor.shape[-1])
        known = len(segments) - (added if len(segments) == rows else 0)  # its mask may have been enlarged before
        mask = state.get(f"{layer}.segment_mask")
        mask = None if mask is None else mask[:known]
        last = winning_activations(segments[:known], tasks, config["gate"], mask).argmin(-1)
        return torch.cat([tensor, tensor[last, :, tasks].T.expand(added, -1, -1)])
    columns = tensor.shape[-1] if columns is None or tensor.ndim == 1 else columns
    shape = (rows,) if tensor.ndim == 1 else (rows, columns)
    larger = tensor.new_zeros(shape)
    if kind == "mask":
        larger = cast(Tensor, random_mask(shape, config["weight_density"])).to(tensor.device)
    larger[tuple(map(slice, tensor.shape))] = tensor
    return larger


@torch.no_grad()
def with_subnetworks(
    cls: type[HubModel], config: Mapping[str, Any], state: Mapping[str, Tensor], starts: Mapping[int, int | None]
) -> dict[str, Tensor]:
    """The state of a model whose new tasks have their columns of segments, with the weights of their subnetworks.

    Args:
        cls: of the model.
        config: its arguments.
        state: its state.
        starts: by new task, the one that it starts as a copy of; None for weights as a new model has them.
    """
    model = cast(nn.Module, cls.blank(config))
    networks = [part for part in model.modules() if isinstance(part, ActiveDendriteMLP)]
    drawn = copy.deepcopy(networks)
    model.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=False, assign=True)
    for network, fresh in zip(networks, drawn, strict=True):
        kept = [task for task in range(network.config["context_dim"]) if task not in starts]
        for task, start in starts.items():
            draw_subnetwork(network, fresh, task, kept)
            if start is not None:
                copy_subnetwork(network, start, task)
    held = model.state_dict()
    return {name: held[name] for name in state}


@torch.no_grad()
def draw_subnetwork(network: ActiveDendriteMLP, drawn: ActiveDendriteMLP, task: int, kept: Iterable[int]) -> None:
    """Give a task the initial weights of a new network where it alone uses a weight that is 0.

    Such a weight is of a new unit, or between units that no other context activates together, where a file may have
    left it out.

    Args:
        network: the network.
        drawn: one of its form, as it was made.
        task: the task.
        kept: the tasks that keep all that they use.
    """
    used = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in network.named_parameters()}
    for other in kept:
        for name, index in network.active_parameters(other).items():
            used[name][index] = True
    for name, index in network.active_parameters(task).items():
        numbers, fresh = network.get_parameter(name), drawn.get_parameter(name)
        own = (numbers[index] == 0) & ~used[name][index]
        numbers[index] = torch.where(own, fresh[index].to(numbers), numbers[index])


@torch.no_grad()
def copy_subnetwork(network: ActiveDendriteMLP, start: Tensor | int, task: Tensor | int) -> None:
    """Let a context's subnetwork compute what another's does, up to rounding: its units take the weights of the others.

    Its gates differ, for its segments stay as they are; the weights make up for it. Nothing that the other context uses
    changes where the two have no units in common.

    Args:
        network: whose winners are chosen by the context.
        start: the context whose subnetwork is copied: floats ``(C,)``, or the id of a one-hot one.
        task: the context whose subnetwork it becomes.

    Example:
        >>> options = {"context_dim": 2, "num_segments": 1, "winners": "context", "weight_density": 1.0}
        >>> model = ActiveDendriteMLP(8, [20, 20], 2, **options, activation_density=0.5, overlap=0.0)
        >>> copy_subnetwork(model, start=0, task=1)
        >>> x = torch.randn(3, 8)
        >>> torch.allclose(model(x, torch.tensor(1)), model(x, torch.tensor(0)), atol=1e-6)
        True
    """
    device = network.output.weight.device
    contexts = torch.stack([torch.as_tensor(context, device=device) for context in (start, task)])
    inputs: list[Tensor] | None = None
    for layer, (units, strength) in zip(network.layers, network.active(contexts), strict=True):
        rows = None if strength is None else list(units)
        weight, bias, factor = layer.weight, cast(Tensor, layer.bias), layer.weight.new_ones(1)
        if strength is not None:
            old, new = strength.to(weight.dtype)
            if layer.gate == "bias":
                bias[units[1]] = bias[units[0]] + old - new
            else:
                factor = torch.sigmoid(old) / torch.sigmoid(new)
                bias[units[1]] = bias[units[0]] * factor
        if rows is not None or inputs is not None:
            source, target = (_block(rows, inputs, which) for which in (0, 1))
            weight[target] = weight[source] * factor.unsqueeze(1)
            if layer.mask is not None:
                layer.mask[target] = layer.mask[source]
        inputs = rows
    if inputs is not None:
        network.output.weight[:, inputs[1]] = network.output.weight[:, inputs[0]]


@torch.no_grad()
def start_as(network: ActiveDendriteMLP, start: int, task: int) -> None:
    """Let a one-hot context compute what another does: by a copy of its subnetwork, or of its columns of segments."""
    if network.config["winners"] == "context":
        copy_subnetwork(network, start, task)
    else:
        copy_columns(network, start, task)


@torch.no_grad()
def copy_columns(model: nn.Module, start: int | None, task: int) -> None:
    """Let the columns of segments of a one-hot context be copies of another's, where its mask has them; zeros for None.

    So do its additive segments.

    Args:
        model: any network with layers of ours.
        start: the context that is copied.
        task: the context whose columns are written.

    Example:
        >>> model = ActiveDendriteMLP(8, [20], 2, context_dim=2, num_segments=5)
        >>> copy_columns(model, start=0, task=1)
        >>> x = torch.randn(3, 8)
        >>> bool((model(x, 1) == model(x, 0)).all())
        True
    """
    for layer in model.modules():
        if isinstance(layer, ActiveDendriteLinear | ActiveDendriteConv2d) and layer.segments is not None:
            column = 0.0 if start is None else layer.segments[..., start]
            if layer.segment_mask is not None:
                column = column * layer.segment_mask[..., task]
            layer.segments[..., task] = column
        for added in layer.parameters() if isinstance(layer, AdditiveSegments) else ():
            added[..., task] = 0.0 if start is None else added[..., start]


def _block(rows: list[Tensor] | None, columns: list[Tensor] | None, which: int) -> Any:
    """The index of the weights between some units, of all where None."""
    if rows is None:
        return slice(None), cast("list[Tensor]", columns)[which]
    return (rows[which],) if columns is None else (rows[which].unsqueeze(1), columns[which])
