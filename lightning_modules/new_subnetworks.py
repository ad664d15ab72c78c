"""The subnetwork of one task made of the numbers that it learns, without a copy of the whole network's weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dendrite_zoo.models import ActiveDendriteMLP, ActiveDendritePolicy
from dendrite_zoo.models.control import TaskParts
from dendrite_zoo.row_sparse.groups import PartialLinear
from dendrite_zoo.row_sparse.subnetworks import Subnetworks


def with_subnetwork(
    policy: nn.Module, tasks: Sequence[int], arguments: tuple[Any, ...], values: Mapping[str, Tensor]
) -> tuple[Tensor, TaskParts] | None:
    """The arguments of a policy's call, with its subnetwork in the place of the task.

    Args:
        policy: any network.
        tasks: those whose numbers are given.
        arguments: of the call: observations, and the task of all of them.
        values: by name of a parameter, the numbers of it that the tasks use, in the order of their places.

    Returns:
        None where the network is no policy whose winners are chosen by the context, or the rows are not all in the one
        task: there the whole parameters are needed.
    """
    if not isinstance(policy, ActiveDendritePolicy) or len(tasks) != 1 or len(arguments) != 2:
        return None
    x, task = arguments
    if not isinstance(task, Tensor) or task.ndim or task.device.type != "cpu" or int(task) != tasks[0]:
        return None
    found = _subnetwork(policy.mlp, task, {name.removeprefix("mlp."): value for name, value in values.items()})
    return None if found is None else (x, TaskParts(task, [found]))


def _subnetwork(network: ActiveDendriteMLP, task: Tensor, values: Mapping[str, Tensor]) -> Subnetworks | None:
    chosen = network.chosen_parts(task)
    if chosen is None or chosen.groups is not None or chosen.index.ndim or any(part.whole for part in chosen.parts):
        return None
    names = [*(f"hidden.{number}" for number in range(len(network.hidden))), "output"]
    layers = []
    for name, part, (weight, bias, mask) in zip(names, chosen.parts, network.parameters_by_layer, strict=True):
        if mask is not None or f"{name}.weight" not in values:
            return None
        rows = len(weight) if part.units is None else part.units.numel()
        own_bias = values.get(f"{name}.bias", None if bias is None else bias.detach())
        layers.append(PartialLinear(part, values[f"{name}.weight"].view(rows, -1), own_bias, part.strength))
    return Subnetworks(layers, network.nonlinearities, chosen.index, None)
