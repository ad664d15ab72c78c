"""What a config leads to, known before memory is taken, and compared with what a file holds."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo.hub.arguments import check_arguments

MAX_NUMBERS = 2**32  # of a model that is built from a config alone, or of the part of it that no file holds


def skeleton(model_class: Any, arguments: Mapping[str, Any], where: str = "config.json") -> dict[str, Tensor]:
    """Check the arguments of a `HubModel`; give the state dict they lead to, on the meta device: shapes, no memory."""
    check_arguments(model_class.__init__, arguments, model_class.__name__, where)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return dict(model_class(**arguments).state_dict())
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    except (RuntimeError, ArithmeticError, MemoryError) as error:
        remedy = f"({str(error).splitlines()[0]}): no machine holds its sizes, or they do not agree. Correct the file."
        raise ValueError(f"{where} makes no {model_class.__name__} {remedy}") from error


def check_numbers(model_class: type, tensors: Mapping[str, Tensor], where: str = "config.json") -> None:
    """Refuse a config that would take much memory without a file that is as large."""
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if numbers > MAX_NUMBERS:
        remedy = f"expected at most {MAX_NUMBERS:.1e}. Correct the file, or call the class itself if that is meant."
        raise ValueError(f"{where} describes {numbers:.1e} numbers of {model_class.__name__}; {remedy}")


def compare(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], place: object, absent: Collection[str] = ()
) -> None:
    """Compare the tensors of a file with those that the config leads to: names, shapes, kinds.

    Args:
        expected: the `skeleton`.
        state: from the file.
        place: where the file is, for the message.
        absent: names that may be missing.

    Raises:
        ValueError: naming what differs.
    """
    remedy = "The two files do not belong together: fetch or save both again."
    missing, unknown = sorted(set(expected) - set(state) - set(absent)), sorted(set(state) - set(expected))
    if missing or unknown:
        tensors = f"expected the {len(expected)} tensors that config.json describes"
        raise ValueError(f"{place}: the weights lack {missing[:5]} and have {unknown[:5]} besides; {tensors}. {remedy}")
    for name, tensor in state.items():
        wanted = expected[name]
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{place}: {name} is no tensor, but {type(tensor).__name__}. {remedy}")
        floats = tensor.is_floating_point() and wanted.is_floating_point()
        if tensor.shape != wanted.shape or not (floats or tensor.dtype == wanted.dtype):
            raise ValueError(
                f"{place}: {name} is {list(tensor.shape)} {tensor.dtype}; config.json leads to {list(wanted.shape)} "
                f"{wanted.dtype}. {remedy} For another head or capacity give num_classes= or max_tasks= at loading."
            )


def fill(model: nn.Module, state: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Load a state into a model, each tensor in the precision it was stored in, also those that start anew."""
    types = {name: tensor.dtype for name, tensor in {**state, **stored}.items()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.dtype != types.get(name, tensor.dtype):
            tensor.data = tensor.data.to(types[name])
    present = {**model.state_dict(), **state}  # what starts anew stays as it is
    model.load_state_dict(present, strict=True)
