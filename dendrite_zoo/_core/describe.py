"""What an object was made with, read off the object itself; numbers in words."""

import inspect
import os
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

HEAP_TYPE = 1 << 9  # the flag of a class that Python made; of tensors, functions and the like it is not set


def describe(value: Any, leave_out: Collection[str] = ()) -> Any:
    """An object as JSON values: its class, and the arguments of its constructor.

    An argument is looked up in the object's ``hparams`` (as Lightning's ``save_hyperparameters`` writes them), else it
    is the attribute of the same name.

    Args:
        value: of any type; JSON's own are given as they are.
        leave_out: arguments that do not matter.

    Raises:
        TypeError: an argument cannot be found, or is neither of JSON's types nor an object of a Python class.

    Example:
        >>> class Schedule:
        ...     def __init__(self, lr: float, steps: tuple[int, ...], folder: str):
        ...         self.lr, self.steps, self.folder = lr, steps, folder
        >>> describe(Schedule(0.1, (3, 6), "runs"), leave_out=["folder"])
        {'class': 'Schedule', 'lr': 0.1, 'steps': [3, 6]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item, leave_out) for key, item in value.items() if key not in leave_out}
    if isinstance(value, list | tuple):
        return [describe(item, leave_out) for item in value]
    return {"class": type(value).__name__, **describe(_arguments(value, leave_out), leave_out)}


def _arguments(value: Any, leave_out: Collection[str]) -> dict[str, Any]:
    hparams = getattr(value, "hparams", {})
    names = dict.fromkeys([*(name for name in hparams if name[0] != "_"), *_parameters(type(value))])
    try:
        return {n: hparams[n] if n in hparams else getattr(value, n) for n in names if n not in leave_out}
    except AttributeError as error:
        raise TypeError(f"It is not known with which `{error.name}` the {type(value).__name__} was made.") from None


def _parameters(kind: type) -> Iterator[str]:
    """Of the constructor, and of the one below it where further arguments are passed on."""
    if kind is partial or any(not cls.__flags__ & HEAP_TYPE for cls in kind.__mro__[:-1]):
        raise TypeError(f"It is not known with which arguments {kind.__name__} was made.")
    for cls in kind.__mro__[:-1]:
        if cls is not kind and cls.__module__.partition(".")[0] in ("lightning", "torch"):
            return
        parameters = [*inspect.signature(vars(cls)["__init__"]).parameters.values()] if "__init__" in vars(cls) else []
        yield from (one.name for one in parameters[1:] if one.kind is not one.VAR_KEYWORD)
        if parameters and parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
            return


def ranges(numbers: list[int]) -> str:
    """Ascending integers in words.

    Example:
        >>> ranges([0, 1, 2, 5])
        '0 to 2, 5'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join(" to ".join(map(str, part)) for part in parts)
