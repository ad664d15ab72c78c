"""Somebody else's network as a backbone: which of its layers to gate, what to run it on, and what its features are."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from dendrite_zoo._core.names import nearest
from dendrite_zoo.layers.gate import TRANSPOSED, channels_of
from dendrite_zoo.models.adapters.features import Stage, as_features, call, input_shape, map_tensors, num_rows

Layers: TypeAlias = str | type[nn.Module] | Sequence[str | type[nn.Module]]
"""Which layers: types, names, or globs such as ``"*.conv*"``; or a list of these."""

MOST_STAGES = 6
"""Stages that features are taken from, the output besides."""

ROWS = 2  # of an input that is made up
SEQUENTIAL = nn.MultiheadAttention, nn.RNNBase
SIDES = (224, 32, 28, 64, 96, 128, 160, 192, 256, 299, 384, 16, 8)


# ---- which layers


def find_layers(backbone: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The layers of a network that can be gated and are meant, by name.

    A name or glob stands for the linear layers, convolutions and attentions of that name and within modules of that
    name; for norms, where there are no others. A type stands for its layers.

    Raises:
        TypeError: ``layers`` is of another kind.
        ValueError: there are none; the message lists those there are.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
        >>> list(find_layers(network, nn.Linear)), list(find_layers(network, ["0", "1"]))
        (['0', '3'], ['0', '1'])
    """
    wanted = [layers] if isinstance(layers, (str, type)) or not isinstance(layers, Iterable) else list(layers)
    known = {name: layer for name, layer in _gateable(backbone) if name}
    found: set[str] = set()
    for one in wanted:
        named = _meant(one, known)
        if not named:
            raise _not_found(one, backbone, known)
        found |= set(named)
    if not found:
        raise _not_found(layers, backbone, known)
    return {name: layer for name, layer in known.items() if name in found}


def _meant(one: Any, known: Mapping[str, nn.Module]) -> list[str]:
    """The names of the layers that a type, a name or a glob stands for."""
    if isinstance(one, type):
        return [name for name, layer in known.items() if isinstance(layer, one)]
    if not isinstance(one, str):
        raise TypeError(f"Expected `layers` to be module types, names or globs, but got {one!r}.")
    named = [name for name in known if any(fnmatchcase(up, one) for up in _upwards(name))]
    main = [name for name in named if name == one or not channels_of(known[name]).is_norm]  # type: ignore[union-attr]
    return main or named


def _gateable(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All layers with channels, once each; of an attention the whole for its last layer, which it never calls."""
    seen: set[int] = set()
    inside: list[str] = []
    for name, module in backbone.named_modules():
        if channels_of(module) is None or any(name.startswith(f"{outer}.") for outer in inside) or id(module) in seen:
            continue
        seen.add(id(module))
        if isinstance(module, nn.MultiheadAttention):
            inside.append(name)
        yield name, module


def _upwards(name: str) -> Iterator[str]:
    """A name, and those of the modules that it is in."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _not_found(wanted: Any, backbone: nn.Module, known: Mapping[str, nn.Module]) -> ValueError:
    kinds: dict[str, list[str]] = {}
    for name, layer in known.items():
        kinds.setdefault(type(layer).__name__, []).append(name)
    listed = "; ".join(
        f"{kind} {', '.join(names[:3])}{f', ... ({len(names)} in all)' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
    )
    got = wanted.__name__ if isinstance(wanted, type) else repr(wanted)
    hint = nearest(wanted, known) if isinstance(wanted, str) else ""
    remedy = hint or " Name some of them, such as layers='*'." if known else " It has no layer that can be gated."
    expected = f"Expected `layers` to name layers of {type(backbone).__name__}"
    return ValueError(f"{expected}, but got {got}, which none is. It has: {listed or 'none'}.{remedy}")


# ---- what to run it on


def example_of(backbone: nn.Module) -> Iterator[Any]:
    """Inputs that a network may take, made up: what it says itself, else by its first layer."""
    config = getattr(backbone, "config", None)
    if hasattr(backbone, "main_input_name") and config is not None:  # of transformers
        yield from _of_transformers(backbone, config)
    said = getattr(backbone, "pretrained_cfg", None) or getattr(backbone, "default_cfg", None) or {}
    if isinstance(said, Mapping) and "input_size" in said:  # of timm
        yield torch.rand(ROWS, *said["input_size"])
    sequential = any(isinstance(module, SEQUENTIAL) for module in backbone.modules())
    for module in backbone.modules():
        if made_up := list(_inputs_of(module)):  # a sequence first, for attention takes a row for one
            yield from sorted(made_up, key=lambda x: x.ndim != 3) if sequential else made_up
            return


def _inputs_of(module: nn.Module) -> Iterator[Tensor]:
    """Inputs that a network may take whose first layer this is; none for modules without a size."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        yield torch.zeros(ROWS, 7, dtype=torch.long)
    elif isinstance(module, nn.Linear):
        size = module.in_features
        yield from (torch.rand(ROWS, size), torch.rand(ROWS, 7, size), *_squares(size))
    elif isinstance(module, nn.Conv1d):
        yield from (torch.rand(ROWS, module.in_channels, size) for size in (64, 256, 1024, 16000))
    elif isinstance(module, nn.Conv2d):
        yield from (torch.rand(ROWS, module.in_channels, side, side) for side in SIDES)
    elif isinstance(module, nn.Conv3d):
        yield from (torch.rand(ROWS, module.in_channels, 8, side, side) for side in (32, 64, 112))
    elif isinstance(module, TRANSPOSED):  # which make larger maps of small ones
        yield from (torch.rand(ROWS, module.in_channels, *[side] * len(module.kernel_size)) for side in (8, 4, 1))
    elif isinstance(module, nn.RNNBase):
        yield torch.rand(ROWS, 7, module.input_size)
    elif isinstance(module, nn.Unflatten):  # of flat rows
        yield torch.rand(ROWS, math.prod(module.unflattened_size))
    elif isinstance(module, (nn.TransformerEncoderLayer, nn.MultiheadAttention)):
        yield torch.rand(ROWS, 7, getattr(module, "self_attn", module).embed_dim)  # type: ignore[arg-type]
    elif isinstance(module, nn.LayerNorm):
        yield torch.rand(ROWS, 7, *module.normalized_shape)


def _squares(size: int) -> Iterator[Tensor]:
    """Images that flatten to so many numbers."""
    for channels, side in ((channels, math.isqrt(size // channels)) for channels in (1, 3)):
        if channels * side * side == size:
            yield torch.rand(ROWS, channels, side, side)


def _of_transformers(backbone: nn.Module, config: Any) -> Iterator[Any]:
    if backbone.main_input_name == "pixel_values":
        side = getattr(config, "image_size", 224)
        sides = side if isinstance(side, (list, tuple)) else (side, side)
        yield torch.rand(ROWS, getattr(config, "num_channels", 3), *sides)
    elif backbone.main_input_name == "input_ids":
        yield torch.ones(ROWS, 7, dtype=torch.long)
    else:
        yield torch.rand(ROWS, 16000)


# ---- what its features are


class Probe(NamedTuple):
    """What a run of a network on an example showed.

    Attributes:
        called: the names of modules that were called, in the order in which they ended.
        stages: by name of a module, features from its output; last that of the network itself, ``""``.
        input_features: numbers of an input that can be features, too, or the shape of an image.
    """

    called: list[str]
    stages: dict[str, Stage]
    input_features: int | list[int]


@torch.no_grad()
def probe(backbone: nn.Module, example: Any = None) -> Probe:
    """Run a network, in eval mode, and see what its stages are: the last output of each size, and its own.

    Raises:
        ValueError: it does not run on the example, or on none that was made up.
    """
    outputs: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    names = {module: name for name, module in backbone.named_modules()}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        try:
            shape = tuple(as_features(output).shape)
        except TypeError:
            shape = ()
        outputs.append((names[module], module, shape))

    handles = [module.register_forward_hook(note) for module in backbone.modules()]
    try:
        with torch.random.fork_rng(devices=[]):
            x = _run(backbone, example, outputs)
    finally:
        for handle in handles:
            handle.remove()
    rows, final = num_rows(x), outputs[-1][2]
    if not _has_rows(final, rows):
        got = f"of shape {final}" if final else "without one"
        raise ValueError(
            f"Expected {type(backbone).__name__} to map a batch of {rows} inputs to features of shape ({rows}, ...), "
            f"but got an output {got}. Give its inputs as `example=`, or wrap it in a module of one row an input."
        )
    return Probe([name for name, *_ in outputs], _stages(outputs, rows), input_shape(x))


def _run(backbone: nn.Module, example: Any, outputs: list[Any]) -> Any:
    """Run a network on the example, or the first made-up input of which it makes rows, else takes; return it."""
    weight = next((p for p in backbone.parameters() if p.is_floating_point()), torch.zeros(0))
    errors, taken = [], list[Any]()
    for x in [example] if example is not None else example_of(backbone):
        del outputs[:]
        x = map_tensors(lambda t: t.to(weight.device, weight.dtype if t.is_floating_point() else None), x)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(backbone, x)
            if _has_rows(outputs[-1][2], num_rows(x)):
                return x
            taken = taken or [x, list(outputs)]
        except Exception as error:  # whatever a stranger's network raises on an input that it does not take
            errors.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")
    if taken:
        outputs[:] = taken[1]
        return taken[0]
    got = errors[0] if errors else "no layer by which an input could be made up"
    what = "`example`" if example is not None else "an input that was made up by the kind of its first layer"
    raise ValueError(
        f"Expected {type(backbone).__name__} to run on {what}, but got {got}. Give a batch of its inputs, a tensor or "
        "a dictionary of keyword arguments: add_dendrites(..., example=x)."
    )


def _has_rows(shape: tuple[int, ...], rows: int) -> bool:
    return len(shape) >= 2 and shape[0] == rows and shape[-1] > 0


def _stages(outputs: list[tuple[str, nn.Module, tuple[int, ...]]], rows: int) -> dict[str, Stage]:
    """Of what was seen: for images the last output of each resolution, for sequences some blocks, and the last."""
    own = _stage(outputs, len(outputs) - 1)
    found: dict[tuple[int, ...], int] = {}
    for number, (_, _, shape) in enumerate(outputs[:-1]):
        if len(shape) in (4, 5) and shape[0] == rows:
            stage = _stage(outputs, number)
            size = tuple(n for dim, n in enumerate(shape[1:], 1) if dim != stage.dim)
            if max(size) > 1:
                found[size] = number
    chosen = sorted(found.values())[-MOST_STAGES:] if found else _blocks(outputs, rows)
    stages = {outputs[number][0]: _stage(outputs, number) for number in chosen if outputs[number][0]}
    last = outputs[-1][2]
    if stages and (len(last) == 2 or last == outputs[chosen[-1]][2]) and _is_mean(outputs, chosen[-1], own):
        return stages  # the output is the last stage or its mean, or of what follows it
    return {**stages, "": own}


def _is_mean(outputs: list[Any], number: int, own: Stage) -> bool:
    """Whether nothing with weights follows a stage, so that the output of the network is made of its features."""
    after = outputs[number + 1 : -1]
    has_weights = any(True for _, module, _ in after if any(True for _ in module.parameters(recurse=False)))
    return not has_weights and own.features == _stage(outputs, number).features


def _blocks(outputs: list[Any], rows: int) -> list[int]:
    """Of the longest list of blocks that ran, those at one and at two thirds, where their outputs are sequences."""
    lists: dict[tuple[str, type], list[int]] = {}
    for number, (name, module, shape) in enumerate(outputs):
        parent, _, last = name.rpartition(".")
        if last.isdecimal() and len(shape) == 3 and shape[0] == rows:
            lists.setdefault((parent, type(module)), []).append(number)
    longest = max(lists.values(), key=len, default=[])
    longest = list({outputs[number][0]: number for number in longest}.values())
    return [longest[len(longest) // 3 - 1], longest[2 * len(longest) // 3 - 1]] if len(longest) >= 3 else []


def _stage(outputs: list[tuple[str, nn.Module, tuple[int, ...]]], number: int) -> Stage:
    """The features of an output: which of its dimensions counts them."""
    shape = outputs[number][2]
    if len(shape) == 2:
        return Stage(shape[1], 1)
    first_last = shape[1], shape[-1]
    if len(shape) == 4 and shape[2] == shape[3] != shape[1]:
        dim = 1
    elif len(shape) == 4 and shape[1] == shape[2] != shape[3]:
        dim = 3
    else:  # as the last layer with channels that ran before it has them
        layers = (channels_of(module) for _, module, _ in reversed(outputs[: number + 1]))
        channels = next((c for c in layers if c is not None and c.number in first_last), None)
        default = -1 if len(shape) == 3 else 1
        dim = default if channels is None else channels.dim
        dim = len(shape) - 1 if dim == -1 else 1
    return Stage(shape[dim], dim, int(len(shape) > 3))
