"""An argument parser whose errors are one line: what was expected, what it got, what to type instead."""

import inspect
import pydoc
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, cast

from jsonargparse import ArgumentParser

from dendrite_zoo._core.names import nearest
from dendrite_zoo.cli.import_paths import ADVICE

JSONARGPARSE = re.compile(
    r"^[ -]*(Parser key|Does not validate|Subtypes:|Errors:|Given value|Not a valid subclass|Subclass types expect"
    r"|a class path|a dict with|Import path|Expected an? (<class|path but|typing\.|dot import|.*Got value))",
    re.MULTILINE,
)
"""Lines that jsonargparse writes around a reason."""


class UsageError(Exception):
    """What was typed is wrong; the message is one line."""


class Parser(ArgumentParser):
    """jsonargparse's parser, whose errors take one line and name the nearest option, class or value."""

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """As jsonargparse does, where ``None`` is another word for ``null``.

        The parser of a class in a class is given ``--option=None`` for a ``null`` that was typed.
        """
        words = sys.argv[1:] if args is None else args
        return super().parse_args(
            [re.sub(r"^(--[\w.]+=)?None$", r"\1null", word) for word in words], *others, **options
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UsageError`; within the parser of a class, what jsonargparse raises itself."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise UsageError(self._option(message) or explain(message)) from ex

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help, without ``null`` where there is no default, and with types as one says them."""
        text = re.sub(r"\s+\(default:\s+null\)|,\s+default:\s+null(?=\))", "", super().format_help(*args, **kwargs))
        return re.sub(r"<class\s+'(\w+)'>", lambda found: found[1].lower(), text)

    def _option(self, message: str) -> str | None:
        """What a message says of options and commands; None where it is about a value."""
        if "required: fit.data" in message or "required: fit.model" in message:
            return "Expected a recipe or a run, but got neither. Give fit --config NAME, or fit --resume runs/NAME."
        if found := re.match(r"(?:the following arguments are )?required: (.*)", message):
            return f"Expected {', '.join(map(self._as_typed, found[1].split(', ')))}, but got none."
        if found := re.search(r"(?:Group '(\S+)' does not accept option|^Option|accept option) '(\S+?)'", message):
            return _unknown("There is no option", ".".join(filter(None, found.groups())), self.options())
        if found := re.match(r"unrecognized arguments: --([^\s=]+)", message):
            if within := [name for name in self.options() if name.endswith(f".{found[1]}")]:
                return f"There is no option `--{found[1]}`. Did you mean '--{min(within)}'?"
            return _unknown("There is no option", found[1], self.options(), "--")
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            options = self.options() & {"resume", "config"}
            meant = "--resume" if Path(found[1]).is_dir() else "--config"
            remedy = f"Did you mean {meant} {found[1]}?" if options else "Leave it out."
            return f"Expected an option, but got `{found[1]}`. {remedy}"
        if found := re.search(r"invalid choice: '(\S+)' \(choose from (.*)\)", message):
            return _unknown("There is no command", found[1], re.findall(r"[\w-]+", found[2]))
        if found := re.search(r"set_by_data.*> (\S+): invalid", message):
            return set_by_data(found[1])
        return None

    def options(self) -> set[str]:
        """The names of all options, those of the commands included."""
        commands = [action.choices.values() for action in self._actions if isinstance(action.choices, dict)]
        actions = [action for parser in (self, *(p for ps in commands for p in ps)) for action in parser._actions]
        return {name[2:] for action in actions for name in action.option_strings if re.match(r"--[\w.-]+$", name)}

    def _as_typed(self, argument: str) -> str:
        """A required argument as one types it, such as ``--repo`` or ``SOURCE``."""
        name = argument.rpartition(".")[2]
        return f"`--{name}`" if name in self.options() else name.upper()


def set_by_data(option: str) -> str:
    """Why an option is refused that follows from the data."""
    return f"Expected no `{option}`, because `data` sets it. Change the epochs of `data`."


def explain(message: str) -> str:
    r"""Why a value was refused, in one line; what is no message of jsonargparse stays as it is.

    Example:
        >>> explain("Parser key 'data':\n  Parser key 'seed':\n    Expected a <class 'int'>. Got value: ten")
        'Expected `data.seed` to be int, but got ten.'
    """
    text = _explained(message)
    if "No module named '" in text:
        text = text.rstrip(".") + ". A module of this folder is found with PYTHONPATH=. before the command."
    return text


def _explained(message: str) -> str:
    if denied := re.search(r"Importing '(\S+)' is not allowed", message):
        return f"A recipe may not name {denied[1]}, which could run any command. {ADVICE}"
    if not JSONARGPARSE.search(message):
        return message
    key, owner, lines = _deepest(message)
    text = "\n".join(lines)
    if owner and (of_class := _of_class(owner, text)):
        return of_class
    if reasons := [line for line in lines if not JSONARGPARSE.match(line)]:
        reason = re.sub(r"^Type .* expects a function or a callable class: ", "", reasons[0])
        return f"{owner}: {reason}" if owner else reason
    types = re.search(r"Subtypes: \[(.*)\]|Expected an? (.*?)\. Got value", text)
    imported = re.search(r"dot import path string: (\S+)", text)
    got = imported[1] if imported else textwrap.shorten(re.split("(?:Given|Got) value: ", text)[-1], 80)
    expected, choices = _types(types[1] or types[2]) if types else ("something else", [])
    return f"Expected `{key}` to be {expected}, but got {got}.{nearest(got, choices)}"


def _of_class(owner: str, text: str) -> str | None:
    """What is wrong with the path of a class or with the names of its arguments."""
    name = owner.rpartition(".")[2]
    if found := re.match(r"Option '([\w.]+)' is not accepted", text):
        known = inspect.signature(cast(type, pydoc.locate(owner))).parameters
        return _unknown(f"`{name}` has no argument", found[1], known)
    if found := re.match(r"the following arguments are required: (.*)", text):
        return f"Expected {found[1]} of `{name}`, but got none. Add it to its `init_args`."
    if found := re.search(r"module '(\S+)' has no attribute '(\w+)'", text):
        is_class, module = found[2][0].isupper(), sys.modules[found[1]]
        names = [one for one in dir(module) if one[0].isupper() == is_class and callable(getattr(module, one))]
        return _unknown(f"`{found[1]}` has no {'class' if is_class else 'function'}", found[2], names)
    return None


def _deepest(message: str) -> tuple[str, str, list[str]]:
    """The innermost part of a message: the key, the class whose arguments it is about, if any, and the lines."""
    path: list[tuple[int, str, str]] = []
    parts: dict[tuple[tuple[int, str, str], ...], list[str]] = {}
    for line in filter(lambda line: line.strip(" -"), message.splitlines()):
        indent = len(line) - len(line.lstrip(" -"))
        path = [part for part in path if part[0] < indent]
        if found := re.search(r"Parser key [\"'](.*)[\"']:|given class_path '(.*)':", line):
            path.append((indent, found[1] or "", found[2] or ""))
        else:
            parts.setdefault(tuple(path), []).append(line.strip(" -"))
    deepest = max(parts, key=len)
    return ".".join(key for _, key, _ in deepest if key), deepest[-1][2] if deepest else "", parts[deepest]


def _types(text: str) -> tuple[str, list[str]]:
    """Types as one reads them, and the names that fit: of classes, and of literals."""
    paths = (path.rpartition(".") for path in re.findall(r"(?:torch|lightning|dendrite_zoo)(?:\.\w+)+", text))
    classes = [getattr(sys.modules.get(module), name, None) for module, _, name in paths]
    names = [name for cls in classes if isinstance(cls, type) for name in _subclasses(cls)]
    plain = re.sub(r"<class '(.*?)'>|typing\.Literal\[(.*?)\]", r"\1\2", text).replace("NoneType", "null")
    *others, last = re.sub(r"(?:\w+\.)+", "", plain).split(", ")
    return " or ".join(filter(None, (", ".join(others), last))), names + re.findall(r"'([\w-]+)'", plain)


def _subclasses(cls: type) -> list[str]:
    below: list[type] = type.__subclasses__(cls)
    return [cls.__name__, *(name for subclass in below for name in _subclasses(subclass))]


def _unknown(what: str, name: str, known: Iterable[str], dashes: str = "") -> str:
    known = sorted(known)
    near = re.sub(r"(['`])(?=[\w.-]+['`])", rf"\1{dashes}", nearest(name, known))
    return f"{what} `{dashes}{name}`.{near or ' Expected one of ' + ', '.join(known) + '.'}"
