"""`public-names`: a table of a package's public names, and the docstring of each, in one directive.

A name is documented where it is defined; a package that shows it again, as `dendrite_zoo.metrics` shows functions of
`dendrite_zoo.functional`, has it in its table. A docstring that names something of this library which
does not exist is an error.
"""

import importlib
import inspect
import pkgutil
import types
import typing
from abc import ABC
from functools import cache
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

# A name that several of them show is documented in the first.
PACKAGES = (
    "layers", "functional", "contexts", "models", "streams", "rl", "lightning_modules", "callbacks", "metrics",
    "regularizers", "optim", "report", "records", "hub", "tasks",
)  # fmt: skip
log = logging.getLogger(__name__)


def public_names(module: types.ModuleType) -> list[str]:
    """What ``from module import *`` gives, modules left out."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return sorted(name for name in names if not isinstance(getattr(module, name), types.ModuleType))


@cache
def documented() -> dict[int, str]:
    """The full name, by the identity of what it names."""
    names: dict[int, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"dendrite_zoo.{package}")
        for name in public_names(module):
            names.setdefault(id(getattr(module, name)), f"{module.__name__}.{name}")
    return names


def directive(thing: Any) -> list[str]:
    if inspect.isclass(thing):
        kind = "autoexception" if issubclass(thing, BaseException) else "autoclass"
        return [kind, "   :members:", "   :show-inheritance:"]
    return ["autofunction" if inspect.isroutine(thing) else "autodata"]


def summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ") if callable(thing) else ""


class PublicNames(SphinxDirective):
    """The public names of a package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        things = {name: getattr(module, name) for name in public_names(module)}
        names = [documented()[id(thing)] for thing in things.values()]
        lines = [f".. automodule:: {module.__name__}", "   :no-members:", "", ".. py:currentmodule:: None", ""]
        lines += [".. list-table::", "   :class: names", ""]
        for thing, full in zip(things.values(), names, strict=True):
            lines += [f"   * - :py:obj:`~{full}`", f"     - {summary(thing)}"]
        for (name, thing), full in zip(things.items(), names, strict=True):
            if full == f"{module.__name__}.{name}":
                kind, *options = directive(thing)
                lines += ["", f".. {kind}:: {full}", *options]
        lines = ["```{eval-rst}", *lines, "```"]  # the pages are in Markdown, docstrings in reStructuredText
        return self.parse_text_to_nodes(StringList(lines, source=self.env.docname), allow_section_headings=True)


def public_bases(app: Sphinx, name: str, obj: type, options: Any, bases: list[type]) -> None:
    """For a base class that is not public, its own bases; none that say nothing to a user."""
    bases[:] = [typing.get_origin(base) or base for base in bases]
    for base in list(bases):
        if inspect.isclass(base) and base.__module__.startswith("dendrite_zoo.") and id(base) not in documented():
            place = bases.index(base)
            inner = list(base.__bases__)
            public_bases(app, name, base, options, inner)
            bases[place : place + 1] = [one for one in inner if one not in (*bases, object)]
    bases[:] = [base for base in bases if not any(base in one.__mro__[1:] for one in bases if inspect.isclass(one))]
    bases[:] = [base for base in bases if base not in (ABC, typing.Generic)] or [object]


def name_of_ours(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Lead a name of this library to where it is documented; one that does not exist is an error."""
    target = node.get("reftarget", "")
    if not target.startswith("dendrite_zoo."):
        return None
    try:
        thing = pkgutil.resolve_name(target)
    except (ImportError, AttributeError):
        log.warning("There is no %s.", target, location=node)
        return None
    full = documented().get(id(thing))
    if full in (None, target):
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Lead `ForgettingLogger` and `dendrite_zoo.load` in the text of a page to where they are documented."""
    full_names = {full: full for full in documented().values()} | {"dendrite_zoo.load": "dendrite_zoo.models.load"}
    for full in documented().values():
        if (name := full.rpartition(".")[2])[0].isupper():
            full_names.setdefault(name, full)  # of two, the callback rather than the regularizer
    for literal in list(doctree.findall(nodes.literal)):
        full = full_names.get(literal.astext())
        if full and isinstance(literal.parent, nodes.paragraph):
            target = {"refdomain": "py", "reftype": "obj", "reftarget": full, "refdoc": app.env.docname}
            literal.replace_self(addnodes.pending_xref("", literal.deepcopy(), **target))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("missing-reference", name_of_ours)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
