"""A card that the library writes and a person edits: whose text is whose, and how a new version keeps both.

Generated parts stand between marks; whatever a person writes around them, and metadata of theirs, survives.
"""

import logging
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import check_bounds
from dendrite_zoo.hub.artifact import MAX_CARD

logger = logging.getLogger(__name__)

MARK = re.compile(r"<!-- dendrite-zoo:(?P<what>begin|end) (?P<name>\w+)")
FRONT = re.compile(r"\A---\n(?P<metadata>.*?\n)---\n", re.DOTALL)
GENERATED = {"library_name", "pipeline_tag", "base_model", "model-index"}  # metadata that only the library knows

MAX_METADATA = 1 << 15


def read_card(path: Path) -> str | None:
    """Read a README.md that a person may have written; None where there is none.

    One that is not UTF-8 is read as Latin-1, and one of more than 4 MB is left out; there is a warning of either.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(MAX_CARD + 1)
    if len(data) > MAX_CARD:
        logger.warning("Expected %s to have at most %d bytes, but it is larger. It is left out.", path, MAX_CARD)
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        logger.warning("Expected %s to be UTF-8, but got %s. It is read as Latin-1: check its letters.", path, error)
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n")


def pieces(text: str) -> list[tuple[str | None, str]]:
    """Split a card: the text of each generated part with its name, and what stands between with None.

    Example:
        >>> pieces("Mine. <!-- dendrite-zoo:begin use -->x<!-- dendrite-zoo:end use -->")
        [(None, 'Mine. '), ('use', '<!-- dendrite-zoo:begin use -->x<!-- dendrite-zoo:end use -->'), (None, '')]
    """
    marks, ends = list(MARK.finditer(text)), defaultdict[str, deque[int]](deque)
    for mark in marks:
        if mark["what"] == "end" and text.startswith(" -->", mark.end()):
            ends[mark["name"]].append(mark.end() + len(" -->"))
    found: list[tuple[str | None, str]] = []
    position = 0
    for mark in marks:
        after = ends[mark["name"]]
        while after and after[0] <= mark.end():
            after.popleft()
        if mark["what"] == "begin" and mark.start() >= position and after:
            found += [(None, text[position : mark.start()]), (mark["name"], text[mark.start() : after[0]])]
            position = after[0]
    return [*found, (None, text[position:])]


def merge(old: str | None, new: str) -> str:
    r"""Bring a generated card into one that exists: generated parts replaced, a person's text and metadata kept.

    A part that a person removed stays away; a card without any marks gets all parts at its end.

    Example:
        >>> part = "<!-- dendrite-zoo:begin use -->{}<!-- dendrite-zoo:end use -->"
        >>> merge("Mine.\n" + part.format(1), part.format(2)).replace(part.format(2), "NEW")
        'Mine.\nNEW'
    """
    if not old or not old.strip():
        return new
    parts = {name: text for name, text in pieces(new) if name is not None}
    body = FRONT.sub("", old, count=1)
    theirs = pieces(body)
    if len(theirs) == 1:
        theirs = [(None, "\n\n".join([body.strip(), *parts.values()]) + "\n")]
    merged = "".join(text if name is None else parts.get(name, "") for name, text in theirs)
    return front(_merged(_metadata(old), _metadata(new))) + merged


def own_text(card: str | None) -> str:
    """Give what a person wrote into a card: all that stands outside the generated parts."""
    body = FRONT.sub("", card or "", count=1)
    return " ".join("".join(text for name, text in pieces(body) if name is None).split())


def front(metadata: Mapping[str, Any]) -> str:
    """Give the YAML at the head of a card."""
    from huggingface_hub import CardData

    return f"---\n{CardData(**metadata).to_yaml()}\n---\n" if metadata else ""


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a person over those of the library, but for what only the library knows."""
    merged = {**new, **{key: value for key, value in old.items() if key not in GENERATED}}
    for key in {"tags", "datasets"} & set(merged):
        theirs = old.get(key) or []
        both = [*new.get(key, []), *(theirs if isinstance(theirs, list) else [theirs])]
        merged[key] = list(dict.fromkeys(map(str, both)))
    return merged


def _metadata(card: str) -> dict[str, Any]:
    from huggingface_hub import RepoCard

    found = FRONT.match(card)
    if found is None:
        return {}
    try:
        if len(found["metadata"]) > MAX_METADATA:
            raise ValueError(f"it has more than {MAX_METADATA} characters")
        short = re.sub(r"[\r\n]{3,}", "\n\n", found["metadata"])  # the client's time is quadratic in empty lines
        metadata = RepoCard(f"---\n{short}---\n", ignore_metadata_errors=True).data.to_dict()
        check_bounds(metadata, "it", max_items=MAX_METADATA)  # an alias costs nothing until it is written out
        return metadata
    except Exception as error:  # whatever a person typed there, and YAML's reader makes of it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning("The metadata at the head of README.md cannot be read, and are written anew: %s", reason)
        return {}
