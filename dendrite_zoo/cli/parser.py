"""An argument parser whose errors are one line wherever an option is misspelt."""

import inspect
import pydoc
import re
from collections.abc import Iterable
from typing import NoReturn, cast

from jsonargparse import ArgumentParser

from dendrite_zoo._core.names import nearest


class Parser(ArgumentParser):
    """jsonargparse's parser; of an option that does not exist it names the nearest one, or its new name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with exit status 2."""
        if self.exit_on_error and (hint := self._hint(message)):
            self.exit(2, f"dendrite-zoo: {hint}\n")
        super().error(message, ex)

    def _hint(self, message: str) -> str | None:
        """What to type instead, where the message is about a name that does not exist."""
        if found := re.search(r"given class_path '(\S+)':\s+Option '([\w.]+)' is not accepted", message):
            owner = cast(type, pydoc.locate(found[1]))
            return _unknown(f"`{owner.__name__}` has no argument", found[2], inspect.signature(owner).parameters)
        if found := re.search(r"Expected a dot import path string: (\w+)$", message, re.MULTILINE):
            return _unknown("There is no class", found[1], _classes())
        if found := re.search(r"(?:Group '(\S+)' does not accept option|^Option|accept option) '(\S+?)'", message):
            return _unknown("There is no option", ".".join(filter(None, found.groups())), self._options())
        if found := re.match(r"unrecognized arguments: --([^\s=]+)", message):
            return _unknown("There is no option", f"--{found[1]}", self._options("--"))
        if "required: fit.data" in message or "required: fit.model" in message:
            return "Expected a recipe or a run, but got neither. Give fit --config NAME, or fit --resume runs/NAME."
        if found := re.search(r"invalid choice: '(\S+)' \(choose from (.*)\)", message):
            return _unknown("There is no command", found[1], re.findall(r"[\w-]+", found[2]))
        return None

    def _options(self, prefix: str = "") -> set[str]:
        """The names of all options, those of the commands included."""
        choices = [action.choices for action in self._actions if isinstance(action.choices, dict)]
        parsers = [self, *(parser for commands in choices for parser in commands.values())]
        return {prefix + name for parser in parsers for name in re.findall(r"--([\w.-]+)", parser.format_usage())}


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = sorted(set(known) - {"self"})
    return f"{what} `{name}`.{nearest(name, known) or ' Expected one of ' + ', '.join(known)}"


def _classes() -> list[str]:
    from dendrite_zoo import callbacks, lightning_modules, models, streams

    modules = (callbacks, lightning_modules, models, streams)
    return [name for module in modules for name in dir(module) if name[0].isupper()]
