"""A card that the library writes and a person edits: whose text is whose, and how a new version keeps both.

Generated parts stand between marks; whatever a person writes around them, and metadata of theirs, survives.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

PART = re.compile(r"<!-- dendrite-zoo:begin (?P<name>\w+).*?<!-- dendrite-zoo:end (?P=name) -->", re.DOTALL)
FRONT = re.compile(r"\A---\n(?P<metadata>.*?\n)---\n", re.DOTALL)
GENERATED = {"library_name", "pipeline_tag", "base_model", "model-index"}  # metadata that only the library knows


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
    parts = {match["name"]: match[0] for match in PART.finditer(new)}
    body = FRONT.sub("", old, count=1)
    if not PART.search(body):
        body = "\n\n".join([body.strip(), *parts.values()]) + "\n"
    return front(_merged(_metadata(old), _metadata(new))) + PART.sub(lambda match: parts.get(match["name"], ""), body)


def own_text(card: str | None) -> str:
    """Give what a person wrote into a card: all that stands outside the generated parts."""
    return " ".join(PART.sub("", FRONT.sub("", card or "", count=1)).split())


def front(metadata: Mapping[str, Any]) -> str:
    """Give the YAML at the head of a card."""
    from huggingface_hub import CardData

    return f"---\n{CardData(**metadata).to_yaml()}\n---\n" if metadata else ""


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a person over those of the library, but for what only the library knows."""
    merged = {**new, **{key: value for key, value in old.items() if key not in GENERATED}}
    for key in {"tags", "datasets"} & set(merged):
        theirs = old.get(key) or []
        merged[key] = list(dict.fromkeys([*new.get(key, []), *(theirs if isinstance(theirs, list) else [theirs])]))
    return merged


def _metadata(card: str) -> dict[str, Any]:
    from huggingface_hub import RepoCard

    if not FRONT.match(card):
        return {}
    try:
        return dict(RepoCard(card, ignore_metadata_errors=True).data.to_dict())
    except Exception as error:  # whatever a person typed there
        logger.warning("the metadata of the card cannot be read and is written anew: %s", error)
        return {}
