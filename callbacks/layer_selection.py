"""The layers of a network that callbacks watch, by the names that users know them by."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from torchmetrics import Metric

from dendrite_zoo._core.names import nearest
from dendrite_zoo._core.torch import in_eval_mode
from dendrite_zoo.layers import KWinners

Layers = Sequence[str | type[nn.Module]]

NOT_UNITS = {"MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
ACTIVATIONS = (KWinners, *(getattr(activation, name) for name in activation.__all__ if name not in NOT_UNITS))
FUNCTIONS = {
    *("celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid"),
    *("mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign"),
    *("tanh", "tanhshrink", "threshold"),
}
"""What those modules call, by its name in `torch.nn.functional`, in `torch` or of a tensor's method."""
WEIGHTS = ("weight", "weight_ih", "weight_hh", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def named_layers(model: nn.Module, *, shared: bool = False) -> dict[str, nn.Module]:
    """Every module in a network by its name, without the ``_orig_mod`` that ``torch.compile`` puts into names.

    A torchmetrics metric, and the network that it may have within, are no layers of this one.

    Args:
        model: the network, whose own name is ``""``.
        shared: a module that stands at several places has a name for each.

    Example:
        >>> list(named_layers(nn.ModuleDict({"net": nn.ModuleDict({"_orig_mod": nn.ReLU()})})))
        ['', 'net']
    """
    parts = dict(model.named_modules(remove_duplicate=not shared))
    if any("_orig_mod" in name for name in parts):
        parts = {re.sub(r"(^|\.)_orig_mod(?=\.|$)", "", name).lstrip("."): part for name, part in parts.items()}
    metrics = {name for name, part in parts.items() if isinstance(part, Metric)}
    in_metrics = tuple(f"{name}." for name in metrics)
    return {name: p for name, p in parts.items() if name not in metrics and not name.startswith(in_metrics)}


def is_within(name: str, layers: Sequence[str]) -> bool:
    """Whether a module is one of these layers, or a part of one.

    Example:
        >>> is_within("net.10.relu", ["net.1"]), is_within("net.1.relu", ["net.1"])
        (False, True)
    """
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def layer_filter(model: nn.Module, layers: Layers | None) -> Callable[[str], bool]:
    """Which names of layers are watched: those of ``layers``, and what is in them; None stands for all.

    Args:
        model: the network.
        layers: names of modules, as in ``model.named_modules()``; patterns such as ``"encoder.*"``; classes; or names
            under which an activation function is logged, such as ``"encoder.relu"``.

    Raises:
        ValueError: one that the network does not have; names the nearest.

    Example:
        >>> watched = layer_filter(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), ["0", nn.ReLU])
        >>> watched("0"), watched("1"), watched("relu")
        (True, True, False)
    """
    if layers is None:
        return lambda name: True
    parts = named_layers(model)
    chosen: list[str] = []
    for layer in layers:
        if isinstance(layer, str):
            found = [layer.partition("#")[0]]
            owner, _, function = found[0].rpartition(".")
            known = any(_matches(name, layer) or (function in FUNCTIONS and _matches(name, owner)) for name in parts)
        else:
            known = bool(found := [name for name, part in parts.items() if isinstance(part, layer)])
        if not known:
            wanted = layer if isinstance(layer, str) else layer.__name__
            raise ValueError(
                "Expected `layers` to be names of `named_modules()`, patterns of names or classes of modules, but "
                f"{type(model).__name__} has no layer {wanted!r}.{nearest(wanted, parts)}"
            )
        chosen += found
    return cache(lambda name: any(_matches(name, layer) or _matches(name, f"{layer}.*") for layer in chosen))


def _matches(name: str, layer: str) -> bool:
    return name == layer or fnmatchcase(name, layer)


def watched_outputs(model: nn.Module, layers: Layers | None = None) -> dict[str, nn.Module]:
    """The modules whose output is watched: every activation module, our ``KWinners`` among them.

    Args:
        model: the network.
        layers: narrows it, as in `layer_filter`; a module that is named, or whose class is, is watched itself where it
            has neither an activation module nor a weight in it.

    Raises:
        ValueError: a layer that the network does not have.

    Example:
        >>> list(watched_outputs(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))))
        ['1']
    """
    watched, parts = layer_filter(model, layers), named_layers(model)
    found = {name: part for name, part in parts.items() if isinstance(part, ACTIVATIONS) and watched(name)}
    classes = tuple(layer for layer in layers or () if isinstance(layer, type))
    for name, part in parts.items():
        named = name in (layers or ()) or isinstance(part, classes)
        if named and not any(isinstance(inner, ACTIVATIONS) or weights_of(inner) for inner in part.modules()):
            found[name] = part
    return found


def weight_layers(model: nn.Module, layers: Layers | None = None) -> dict[str, list[Tensor]]:
    """The weights of every module that has some: linear layers, convolutions, attention, recurrent layers.

    Args:
        model: the network.
        layers: narrows it, as in `layer_filter`.

    Raises:
        ValueError: a layer that the network does not have.

    Example:
        >>> list(weight_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), layers=["0"]))
        ['0']
    """
    watched = layer_filter(model, layers)
    found = {name: weights_of(part) for name, part in named_layers(model).items() if watched(name)}
    return {name: weights for name, weights in found.items() if weights}


def weights_of(module: nn.Module) -> list[Tensor]:
    """A module's own weights of two dimensions or more, pruned and parametrized ones as they are used.

    Embeddings are tables, and the weights of norms are scales: none of theirs.

    Example:
        >>> [tuple(weight.shape) for weight in weights_of(nn.LSTM(2, 3))]
        [(12, 2), (12, 3)]
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or hasattr(module, "normalized_shape"):
        return []
    found: list[Any]
    with _undisturbed(module):
        if isinstance(module, nn.RNNBase):
            found = [weight for layer in module.all_weights for weight in layer]
        else:
            found = [getattr(module, name, None) for name in WEIGHTS]
        if type(module).__module__.startswith("torch.ao.") and callable(found[0]):
            found[0] = found[0]()  # of quantized layers it is a method
    tensors = [weight for weight in found if isinstance(weight, Tensor) and not is_lazy(weight)]
    return [weight.dequantize() if weight.is_quantized else weight for weight in tensors if weight.ndim > 1]


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Compute a parametrized weight without a trace: it may draw random numbers, or learn while in training mode."""
    with torch.no_grad():
        if not is_parametrized(module):
            yield
            return
        with (
            torch.random.fork_rng({weight.device for weight in module.parameters() if weight.is_cuda}),
            in_eval_mode(cast(nn.Module, module.parametrizations)),
        ):
            yield
