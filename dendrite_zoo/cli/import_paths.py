"""What the import paths in a recipe may lead to."""

import inspect
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonargparse
from torch import nn
from torch.optim import Optimizer

ADVICE = "Name a class, or remove it: whoever runs a recipe runs what it names."


def refuse_dangerous_imports() -> None:
    """Have jsonargparse refuse paths such as ``os.system``, and make nothing where any value may stand.

    It can since 4.53; what `check_import_paths` refuses rests on no version.
    """
    setter = getattr(jsonargparse, "set_parsing_settings", None)
    wanted: dict[str, Any] = {"instantiate_subclass_spec_in_any": False, "import_path_denylist": []}
    known = inspect.signature(setter).parameters if setter else {}
    if setter and (settings := {name: value for name, value in wanted.items() if name in known}):
        setter(**settings)


def check_import_paths(config: Any) -> None:
    """Check what is called to make the objects of a recipe, before any is made.

    jsonargparse checks a class by the type of its argument. Where the type is that of a function it calls whatever a
    ``class_path`` names, with the arguments that stand there.

    Args:
        config: as parsed, so that the modules that it names are imported.

    Raises:
        ValueError: a ``class_path`` leads to a function that is not annotated to return a module, or that of an
            ``optimizer`` to no class of `torch.optim.Optimizer`.
    """
    for key, path in _class_paths(config):
        made = named = _named(path)
        if callable(named) and not isinstance(named, type):
            made = _returned(named)
        if key.rpartition(".")[2] == "optimizer":
            if made is None or made is not named or not issubclass(made, Optimizer):
                raise ValueError(f"Expected `{key}` to be a class of torch.optim.Optimizer, but got {path}. {ADVICE}")
        elif named is not None and not (isinstance(made, type) and (made is named or issubclass(made, nn.Module))):
            raise ValueError(f"Expected `{key}` to be a class, but got {path}, which is none. {ADVICE}")


def made_by(path: str, option: str) -> nn.Module:
    """The network that a function gives, which somebody names on a command line; its module may lie where that runs.

    Args:
        path: of the function, such as ``my_networks.resnet``.
        option: that names it, for the error.

    Raises:
        ValueError: there is no such function, or it gives no network.
    """
    module, _, name = path.replace(":", ".").rpartition(".")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        function = getattr(import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Expected `{option}` to name a function, such as my_networks.resnet, but got {error}."
        ) from None
    finally:
        sys.path.remove(folder)
    made = function() if callable(function) else function
    if not isinstance(made, nn.Module):
        got = f"{path}, which gives {type(made).__name__}"
        raise ValueError(f"Expected `{option}` to name a function that returns a torch.nn.Module, but got {got}.")
    return made


def _class_paths(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each import path in a recipe, with the argument that it stands for."""
    items: dict[Any, Any] = dict(enumerate(config)) if isinstance(config, list | tuple) else config
    for name, value in items.items() if isinstance(items, dict) else ():
        inner = f"{key}.{name}".lstrip(".")
        if isinstance(value, dict) and isinstance(path := value.get("class_path"), str):
            yield inner, path
        yield from _class_paths(value, inner)


def _named(path: str) -> Any:
    """What stands at an import path; None where nothing does, or its module is not imported."""
    module, names = path, list[str]()
    while module and module not in sys.modules:
        module, _, name = module.rpartition(".")
        names.insert(0, name)
    found: Any = sys.modules.get(module)
    for name in names:
        found = getattr(found, name, None)
    return found


def _returned(function: Any) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except (TypeError, NameError, AttributeError):
        return None
