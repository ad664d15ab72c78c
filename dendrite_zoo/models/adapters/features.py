"""Features from several stages of a network, as rows."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dendrite_zoo._core.batches import warn_of_pixels
from dendrite_zoo._core.torch import runs_eagerly

MOST_INPUTS, LARGEST_SIDE, LEAST_SIDE = 3072, 32, 8
"""Numbers of an input that are features, at most: those of 32 by 32 in three colours; sides of an image of patches."""

HELD, MOST_HASHED = 7, 8192  # each so many-th row is left out; of its numbers so many say whether it is
PRIME, FACTOR = 2**31 - 1, 1103515245
KEYS = ("last_hidden_state", "logits", "pooler_output", "feature_maps", "hidden_states", "out", "features")


class Stage(NamedTuple):
    """Where features are taken from.

    Attributes:
        features: how many.
        dim: the dimension of the output that counts them; others but the first are averaged over.
        spread: 1 where their standard deviation over these others is taken, too, as of images; else 0.
    """

    features: int
    dim: int
    spread: int = 0


class Tap:
    """A forward hook that keeps what a module gives, until it is taken."""

    def __init__(self) -> None:
        self.output: Any = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep the output."""
        self.output = output

    def take(self) -> Any:
        """What was kept; it is kept no longer."""
        output, self.output = self.output, None
        return output


class FeatureExtractor(nn.Module):
    """A network and the features of its stages, in one row an input.

    Args:
        backbone: the network.
        stages: by name of a module, what its output has; ``""`` is the network itself.
        input_features: how many numbers of the input can follow the features.

    Shape:
        a tensor ``(B, ...)``, or a dictionary of keyword arguments, to ``(B, features)`` float32: the means of all
        stages, then deviations.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> FeatureExtractor(network, {"1": Stage(8, 1), "": Stage(2, 1)})(torch.rand(3, 4)).shape
        torch.Size([3, 10])
    """

    def __init__(self, backbone: nn.Module, stages: Mapping[str, Stage], input_features: int = 0) -> None:
        super().__init__()
        self.backbone, self.stages, self.input_features = backbone, dict(stages), input_features
        self._has_looked = False  # at the scale of an input
        self._taps = {name: Tap() for name in stages if name}
        for name, tap in self._taps.items():
            backbone.get_submodule(name).register_forward_hook(tap)

    def of(self, backbone: nn.Module) -> "FeatureExtractor":
        """The same of another network."""
        return FeatureExtractor(backbone, self.stages, self.input_features)

    def forward(self, x: Any, *, means: bool = False, inputs: bool = False) -> Tensor:
        """The features of a batch, of which ``means`` are the first; with ``inputs`` numbers of the input follow."""
        rows = num_rows(x)
        self._look_at(x)
        output = call(self.backbone, in_precision_of(self.backbone, x))
        mask = x.get("attention_mask") if isinstance(x, Mapping) else None
        outputs = {name: tap.take() for name, tap in self._taps.items()} | {"": output}
        found = {name: as_features(outputs[name]) for name in self.stages}
        parts = [pooled(found[name], stage, mask) for name, stage in self.stages.items()]
        if not means:
            parts += [spread(found[name], stage) for name, stage in self.stages.items() if stage.spread]
        if any(part.shape[0] != rows for part in parts):
            got = [tuple(part.shape) for part in parts]
            raise ValueError(
                f"Expected features of {rows} inputs, one row an input, but the backbone gives {got}. Wrap it in a "
                "module that returns (batch, features)."
            )
        if inputs and self.input_features:
            parts.append(numbers_of(x, self.input_features))
        return torch.cat(parts, 1)

    def _look_at(self, x: Any) -> None:
        """Judge the scale of the first input."""
        if not self._has_looked and runs_eagerly():
            warn_of_pixels(x)
            self._has_looked = True

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Leave the network in eval mode: its dropout is off, and the statistics of its norms stay."""
        return super().train(False)


def call(backbone: nn.Module, x: Any) -> Any:
    """What a network gives for its input: a tensor, or a dictionary of keyword arguments.

    Raises:
        ValueError: the network does not take images of whole numbers.
    """
    try:
        return backbone(**x) if isinstance(x, Mapping) else backbone(x)
    except RuntimeError as error:
        if isinstance(x, Tensor) and x.dtype == torch.uint8:
            raise not_taken(backbone, x, error) from error
        raise


def not_taken(backbone: nn.Module, x: Any, error: Exception) -> ValueError:
    """What to say where a network does not take an input."""
    shown = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"keywords {', '.join(x)}"
    remedy = "Give inputs as it was trained on, images as normalised floats (batch, channels, height, width)."
    if isinstance(x, Tensor) and x.ndim == 2:
        remedy += " Rows of a stream are flat without flatten=False; of other inputs begin with nn.Unflatten(1, shape)."
    elif isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == 1:
        remedy += " A network of colours takes gray ones as x.expand(-1, 3, -1, -1), one of series takes x.squeeze(1)."
    said = str(error).partition("\n")[0]
    return ValueError(f"Expected inputs that {type(backbone).__name__} takes, but got {shown}: {said}. {remedy}")


def in_precision_of(backbone: nn.Module, x: Any) -> Any:
    """An input whose floats are of a kind that the network has, such as bfloat16; as they are within autocast.

    Example:
        >>> in_precision_of(nn.Linear(4, 2, dtype=torch.bfloat16), torch.rand(3, 4)).dtype
        torch.bfloat16
    """
    kind = next((p.dtype for p in backbone.parameters() if p.is_floating_point()), None)

    def convert(t: Tensor) -> Tensor:
        if kind in (None, t.dtype) or not t.is_floating_point() or torch.is_autocast_enabled(t.device.type):
            return t
        return t if any(p.dtype == t.dtype for p in backbone.parameters()) else t.to(kind)

    return map_tensors(convert, x)


def as_features(output: Any) -> Tensor:
    """The tensor in what a network returns: itself, one named as in `KEYS`, or the first; a TypeError without one."""
    if isinstance(output, Tensor):
        return output
    said = output if isinstance(output, Mapping) else {key: getattr(output, key, None) for key in KEYS}
    parts = [said.get(key) for key in KEYS] + _parts(output)
    for part in parts:  # a loss may stand first, or None
        if part is not None and not (isinstance(part, Tensor) and part.ndim == 0):
            return as_features(part)
    raise TypeError(f"Expected a backbone that returns a tensor of features, but got {type(output).__name__}.")


def _parts(output: Any) -> list[Any]:
    if is_dataclass(output):
        return [getattr(output, field.name) for field in fields(output)]
    return list(output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ())


def pooled(output: Tensor, stage: Stage, mask: Tensor | None = None) -> Tensor:
    """Features ``(B, features)``: the mean over all other dimensions; over the tokens of a mask alone, if there is one.

    Raises:
        ValueError: the output has another number of features.
    """
    if output.ndim <= stage.dim or output.shape[stage.dim] != stage.features:
        expected = f"{stage.features} features in dimension {stage.dim}"
        raise ValueError(
            f"Expected {expected} of what the backbone gives, as when the dendrites were added, but got "
            f"{tuple(output.shape)}. Give inputs of the kind that it had then, or add_dendrites(..., example=x)."
        )
    others = [dim for dim in range(1, output.ndim) if dim != stage.dim]
    if not others:
        return output.float()
    if mask is not None and output.ndim == 3 and stage.dim == 2 and mask.shape == output.shape[:2]:
        share = mask.to(torch.float32) / mask.sum(1, keepdim=True, dtype=torch.float32).clamp(min=1)
        return torch.einsum("bt,btf->bf", share, output.float())
    return output.float().mean(others)


def spread(output: Tensor, stage: Stage) -> Tensor:
    """Standard deviations ``(B, features)`` over all other dimensions.

    Example:
        >>> spread(torch.tensor([[[1.0, 3.0, 1.0, 3.0]]]), Stage(1, 1))
        tensor([[1.]])
    """
    x = output.float().movedim(stage.dim, 1).flatten(2)
    return torch.linalg.vector_norm(x - x.mean(2, keepdim=True), dim=2) / x.shape[2] ** 0.5


def num_rows(x: Any) -> int:
    """How many inputs there are in a batch: a tensor ``(B, ...)``, or a dictionary of such.

    Raises:
        TypeError: it is something else.
    """
    tensors = list(x.values()) if isinstance(x, Mapping) else [x]
    first = next((t for t in tensors if isinstance(t, Tensor)), None)
    if first is None or first.ndim == 0:
        raise TypeError(
            f"Expected inputs as a tensor (batch, ...) or a dictionary of such, but got {type(x).__name__}."
        )
    return first.shape[0]  # not len(), by which torch.export fixes the number of rows


def rows_of(x: Any, index: Tensor) -> Any:
    """Some rows of a batch."""
    count = num_rows(x)
    return map_tensors(lambda t: t[index.to(t.device)] if t.ndim and len(t) == count else t, x)


def left_out(x: Any) -> Tensor:
    """Rows that are left out of the training of gates, so that it can be chosen by them: ``(B,)``, one of seven.

    Which they are depends on what is in a row alone, so that it is the same in each epoch, whatever the order of rows.
    Where more than half of a batch would be left out, nothing is.

    Example:
        >>> x = torch.rand(700, 12)
        >>> out = left_out(x)
        >>> 40 < int(out.sum()) < 180, torch.equal(left_out(x.flip(0)), out.flip(0))
        (True, True)
    """
    rows, mask = num_rows(x), x.get("attention_mask") if isinstance(x, Mapping) else None
    total: Any = 0
    for tensor in x.values() if isinstance(x, Mapping) else [x]:
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != rows:
            continue
        if mask is not None and tensor.shape == mask.shape:
            tensor = tensor * mask  # what is padding differs from batch to batch
        if tensor.is_floating_point():  # as it is in half precision, too
            tensor = tensor.detach().to(torch.bfloat16).view(torch.int16)
        numbers = tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]
        numbers = numbers[:, :: -(-numbers.shape[1] // MOST_HASHED) or 1].long()
        total = total + (numbers * torch.arange(1, numbers.shape[1] + 1, device=numbers.device)).sum(1)
    mixed = total % PRIME * FACTOR % PRIME
    mixed = (mixed ^ mixed >> 15) * FACTOR % PRIME  # else of rows that count up, such as 7, 8, 9, all or none
    out: Tensor = (mixed ^ mixed >> 15) % HELD == 0
    return out & (2 * out.sum() <= rows)


def input_shape(x: Any) -> int | list[int]:
    """What of an input can be features: the numbers of a row, or an image ``(C, H, W)`` made smaller; 0 if nothing.

    Of images so small that they have no patches, or of so many channels, the numbers are taken.

    Example:
        >>> input_shape(torch.rand(2, 3, 224, 224)), input_shape(torch.rand(2, 12)), input_shape("text")
        ([3, 32, 32], 12, 0)
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim not in (2, 4) or x.shape[1] > MOST_INPUTS:
        return 0
    if x.ndim == 2:
        return x.shape[1]
    side = min(int((MOST_INPUTS / x.shape[1]) ** 0.5), LARGEST_SIDE, *x.shape[2:])
    return [x.shape[1], side, side] if side >= LEAST_SIDE else x.shape[1] * side**2


def numbers_of(x: Any, count: int) -> Tensor:
    """So many numbers of inputs, ``(B, count)``: rows as they are, images brought to one size, whatever theirs is.

    Raises:
        ValueError: the inputs are of another kind.

    Example:
        >>> numbers_of(torch.rand(2, 3, 224, 160), count=3072).shape
        torch.Size([2, 3072])
    """
    if isinstance(x, Tensor) and x.ndim == 4:
        side = round((count / int(x.shape[1])) ** 0.5)
        x = nn.functional.adaptive_avg_pool2d(x.float(), (side, side)).flatten(1)
    if not isinstance(x, Tensor) or x.shape[1:] != (count,):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"Expected inputs of {count} numbers, as when the dendrites were added, but got {got}. Give "
            "add_dendrites(..., example=x) inputs of the kind to come."
        )
    return x.float()


def map_tensors(fn: Any, x: Any) -> Any:
    """A batch of which each tensor is changed by a function."""
    if isinstance(x, Mapping):
        return {key: fn(value) if isinstance(value, Tensor) else value for key, value in x.items()}
    return fn(x) if isinstance(x, Tensor) else x
