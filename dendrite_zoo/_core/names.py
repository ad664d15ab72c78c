"""Which known name was meant, and the names that changed before 0.1."""

import difflib
import functools
import inspect
import os
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

# fmt: off
RENAMED: dict[str, tuple[str, ...]] = {
    "anchor": ("kl_coef",), "anneal": ("lr_schedule",), "average": ("ema_decay",),
    "batch_per_task": ("batch_size_per_task",), "damping": ("eps",), "emphasis": ("task_weights",),
    "entropy_coefficient": ("init_alpha",), "evaluate_after": ("eval_at",), "false_alarm": ("significance",),
    "gated": ("gate_fraction",), "holdout": ("val_fraction",), "memory": ("buffer_size",),
    "modulated": ("dendrite_layers",), "row": ("method",), "rows_per_task": ("batch_size_per_task",),
    "strength": ("si_lambda", "ewc_lambda"), "told": ("task_source",), "unseen": ("test",), "validation": ("val",),
}
# fmt: on
"""The old name of an argument or split to its new ones, of which a class has one; the table goes with version 0.2."""

VERSION = re.compile(r"[-_]?v\d+$")


def renamed(name: str, known: Iterable[str]) -> str | None:
    """The new name of an argument that is in use under its old one; None where it has none among ``known``.

    Example:
        >>> renamed("strength", ["si_lambda", "eps"])
        'si_lambda'
    """
    return next((new for new in RENAMED.get(name, ()) if new in known), None)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Say which known name is meant, as the end of an error message; one of a likeness of ``cutoff`` or more.

    A version that all names share, such as ``-v3``, makes none like another.

    Example:
        >>> nearest("permuted-digit", ["permuted-digits", "split-mnist"])
        " Did you mean 'permuted-digits'?"
        >>> nearest("damping", ["si_lambda", "eps"])
        ' `damping` is now `eps`.'
        >>> nearest("open-v3", ["reach-v3", "push-v3"]), nearest("reech-v2", ["reach-v3", "push-v3"])
        ('', " Did you mean 'reach-v3'?")
    """
    known = list(known)
    if new := renamed(name, known):
        return f" `{name}` is now `{new}`."
    return f" Did you mean {close!r}?" if (close := _closest(name, known, cutoff)) else ""


def _closest(name: str, known: Collection[str], cutoff: float = 0.5) -> str | None:
    versions = {found[0] for one in known if (found := VERSION.search(one))}
    shared = VERSION if len(versions) == 1 else re.compile("$")
    folded = {shared.sub("", one).casefold(): one for one in known}
    close = difflib.get_close_matches(shared.sub("", name).casefold(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def nearest_path(path: str | os.PathLike[str], *others: str) -> str:
    """Say which path is meant of one that leads nowhere: what stands beside it, a run, or one of other names.

    Example:
        >>> nearest_path("permuted-digit", "permuted-digits")
        " Did you mean 'permuted-digits'?"
    """
    folder, name = os.path.split(os.fspath(path))
    places = {other: other for other in others}
    for beside in (folder,) if folder else (".", "runs"):
        with suppress(OSError, ValueError):
            places |= {one: os.path.normpath(os.path.join(beside, one)) for one in os.listdir(beside)}
    return f" Did you mean {places[close]!r}?" if (close := _closest(name, places)) else ""


def places_of(names: Iterable[str], known: Iterable[str]) -> list[int]:
    """Where each of some tasks stands among those that a policy knows.

    Raises:
        ValueError: it does not know one of them.

    Example:
        >>> places_of(["push-v3"], ["reach-v3", "push-v3"])
        [1]
    """
    known = list(known)
    for name in names:
        if name not in known:
            hint = nearest(name, known, cutoff=0.85) or f" Load the policy with tasks=[..., {name!r}] for one more."
            raise ValueError(f"Expected tasks of the policy, which are {', '.join(known)}, but got {name!r}.{hint}")
    return [known.index(name) for name in names]


def refuse_old_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raise an error for the first argument that is given under its old name.

    Args:
        given: the names of the arguments of a call.
        known: the names that the callee takes.

    Raises:
        TypeError: "`damping` is now `eps`."
    """
    for name in given:
        if name not in known and (new := renamed(name, known)):
            raise TypeError(f"`{name}` is now `{new}`.")


def refuse_unknown_names(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raise an error for the first argument that is misspelt, or given under its old name.

    Args:
        given: the names of the arguments of a call.
        known: the names that the callee takes.
        owner: the callee, for the message.

    Raises:
        TypeError: "`damping` is now `eps`.", or "KWinners has no argument `densty`. Did you mean 'density'?"
    """
    refuse_old_names(given, known)
    for name in given:
        if name not in known:
            hint = nearest(name, known) or f" It takes {', '.join(known)}."
            raise TypeError(f"{owner} has no argument `{name}`.{hint}")


def check_call(owner: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise an error for arguments that do not fit, which names the class that the user made.

    Args:
        owner: the name of that class; its constructor may be an inherited one, or have another behind it.
        signature: of the constructor, with ``self``.
        args: of the call, without ``self``.
        kwargs: of the call.

    Raises:
        TypeError: an argument is misspelt, missing, or one too many.
    """
    known = list(signature.parameters)[1:]
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):  # what they are for checks them
        refuse_old_names(kwargs, known)
    else:
        refuse_unknown_names(kwargs, known, owner)
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{owner}: {error}.") from None


def say_new_names(cls: T) -> T:
    """Let a class answer the old name of an argument, or a misspelt one, with the right one; its signature stays.

    Example:
        >>> @say_new_names
        ... class Penalty:
        ...     def __init__(self, eps: float = 1e-3): ...
        >>> Penalty(damping=0.1)
        Traceback (most recent call last):
        ...
        TypeError: `damping` is now `eps`.
    """
    init: Any = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        check_call(type(self).__name__, signature, args, kwargs)
        init(self, *args, **kwargs)

    cls.__init__ = checked  # type: ignore[misc]
    return cls
