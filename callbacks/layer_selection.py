"""The layers of a network that callbacks watch, by the names that users know them by."""

import re
from collections.abc import Sequence

from torch import nn
from torch.nn.modules import activation

from dendrite_zoo._core.names import nearest
from dendrite_zoo.layers import KWinners, SparseLinear

NOT_UNITS = {"MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
ACTIVATIONS = (KWinners, *(getattr(activation, name) for name in activation.__all__ if name not in NOT_UNITS))
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTS = (SparseLinear, nn.Linear, *CONVOLUTIONS)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module in a network by its name, without the ``_orig_mod`` that ``torch.compile`` puts into names.

    Args:
        model: the network, whose own name is ``""``.

    Example:
        >>> list(named_layers(nn.ModuleDict({"net": nn.ModuleDict({"_orig_mod": nn.ReLU()})})))
        ['', 'net']
    """
    return {re.sub(r"(^|\.)_orig_mod(?=\.|$)", "", name).lstrip("."): part for name, part in model.named_modules()}


def is_within(name: str, layers: Sequence[str] | None) -> bool:
    """Whether a module is one of these layers, or a part of one; None stands for all layers.

    Example:
        >>> is_within("net.10.relu", ["net.1"]), is_within("net.1.relu", ["net.1"])
        (False, True)
    """
    return layers is None or any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def activation_layers(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The modules whose output is watched: every activation module, our ``KWinners`` among them.

    Args:
        model: the network.
        layers: narrows it to these modules and what is in them; one without an activation or a weight in it is
            watched itself.

    Raises:
        ValueError: a name that the network does not have.

    Example:
        >>> list(activation_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))))
        ['1']
    """
    found, weights = _select(model, ACTIVATIONS, layers), _select(model, WEIGHTS, layers)
    modules = named_layers(model)
    for layer in layers or ():
        if not any(is_within(name, [layer]) for name in (*found, *weights)):
            found[layer] = modules[layer]
    return found


def weight_layers(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The modules whose weight is watched: every linear layer and convolution.

    Args:
        model: the network.
        layers: narrows it to these modules and what is in them.

    Raises:
        ValueError: a name that the network does not have.

    Example:
        >>> list(weight_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), layers=["0"]))
        ['0']
    """
    return _select(model, WEIGHTS, layers)


def _select(model: nn.Module, kinds: tuple[type[nn.Module], ...], layers: Sequence[str] | None) -> dict[str, nn.Module]:
    modules = named_layers(model)
    del modules[""]
    for layer in layers or ():
        if layer not in modules:
            raise ValueError(
                f"Expected `layers` to be names of `named_modules()`, but {type(model).__name__} has no layer "
                f"{layer!r}.{nearest(layer, modules)}"
            )
    return {name: part for name, part in modules.items() if is_within(name, layers) and isinstance(part, kinds)}
