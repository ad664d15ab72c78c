"""The artifact on disk: ``config.json`` and ``model.safetensors`` in one folder, nothing pickled."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dendrite_zoo._core.files import Content, to_json, write_together
from dendrite_zoo.hub import config as configs

CONFIG, WEIGHTS, RESULTS, CARD, PICTURE = "config.json model.safetensors results.json README.md matrix.png".split()
SKILLS = "skills.gif"
"""A policy at work, by ``dendrite-zoo evaluate NAME --gif``; where it lies beside a model, the card shows it."""
PAGE = "report.html"
"""The figures of a model's records as a page, see `dendrite_zoo.report.page_html`; the card links to it."""
MAX_CARD = 1 << 22  # bytes of a README.md
ALTERED = "is truncated or altered: restore it, or download or train the model again."


def sha256(path: Path) -> str:
    """Give the sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def git_hash(content: bytes) -> str:
    """Give git's hash of a file, by which the Hub knows small ones."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def has_hash(path: Path, known: str) -> bool:
    """Say whether a file has the hash by which the Hub knows it: its sha256, or git's hash of a small file."""
    return (sha256(path) if len(known) == 64 else git_hash(path.read_bytes())) == known


def fingerprint(state: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str:
    """Give the sha256 of a model: of its type and arguments, and of names, types, shapes and bytes of its tensors.

    It stands in the file's header, so that altered weights or arguments are seen without a registry, and it tells
    whether a model still is the one whose results it carries.

    Args:
        state: the tensors, in any order; and what else a state has, such as of quantised layers.
        config: the whole config.json; None for the tensors alone, as in format 1.

    Example:
        >>> fingerprint({"weight": torch.zeros(2)}) == fingerprint({"weight": torch.zeros(3)})
        False
    """
    digest = hashlib.sha256()
    if config is not None:
        described = [config["model_type"], configs.arguments_of(config)]
        digest.update(json.dumps(described, sort_keys=True).encode())
    for name in sorted(state):
        for tensor in _tensors(state[name]):
            tensor = tensor.detach().cpu().contiguous()
            digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(part: Any) -> Iterator[Tensor]:
    """What a part of a state is made of: tensors, those within a quantised one, in lists, dictionaries; numbers."""
    if isinstance(part, Tensor) and part.is_quantized:
        by_channel = part.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric)
        yield part.int_repr()
        yield part.q_per_channel_scales() if by_channel else torch.tensor(part.q_scale())
        yield part.q_per_channel_zero_points() if by_channel else torch.tensor(part.q_zero_point())
    elif isinstance(part, Tensor) and hasattr(part, "__tensor_flatten__"):  # a class of tensors, such as torchao's
        for name in part.__tensor_flatten__()[0]:
            yield from _tensors(getattr(part, name))
    elif isinstance(part, Tensor):
        yield part
    elif isinstance(part, (Mapping, tuple, list)):
        for one in part.values() if isinstance(part, Mapping) else part:
            yield from _tensors(one)
    else:
        text = repr(part) if isinstance(part, (str, bytes, int, float, torch.dtype)) else type(part).__name__
        yield torch.tensor(list(text.encode()), dtype=torch.uint8)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file, all of it or an error.

    Returns:
        The tensors, and the marks in the file's header (``fingerprint``, ``base_model``), for `verify`.

    Raises:
        ValueError: the file is truncated or altered.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(configs.LIBRARY_NAME, "{}")
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        said = " ".join(str(error)[:200].split())  # it may quote the header, which may have any length
        raise ValueError(f"{path}: expected a whole safetensors file ({said}). It {ALTERED}") from None
    return state, configs.parse(text, f"{path}: the header")


def verify(place: object, config: Mapping[str, Any], state: Mapping[str, Tensor], marks: Mapping[str, Any]) -> None:
    """Compare config and tensors, as they were read, with the fingerprint in the file's header.

    Raises:
        ValueError: one of them was changed after they were saved.
    """
    first_format = config["format_version"] == 1
    if first_format and "fingerprint" not in marks:
        return
    if marks.get("fingerprint") != fingerprint(state, None if first_format else config):
        together = "expected the config and weights that were saved together"
        raise ValueError(f"{place}: {together}, but {CONFIG} or {WEIGHTS} was edited, or {ALTERED}")


def write(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    results: list[Any] | None = None,
    marks: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact into ``folder``: whole, or not at all.

    An error on the way leaves an earlier artifact as it was. Results and picture of an earlier artifact are removed
    where there are none now: they are about other weights.

    Args:
        folder: made where missing.
        config: the whole config.json.
        state: the tensors.
        results: result records.
        marks: what is written into the header of the weights, such as ``base_model``, the ``org/name`` that they were
            trained from; what is None or "" is left out.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in storages else tensor  # tied tensors stand twice in a file
        storages.add(storage)
    marks = {key: mark for key, mark in (marks or {}).items() if mark not in (None, "")}
    said = {"fingerprint": fingerprint(tensors, config), **marks}
    # One key: several would be written in any order, and equal models must be equal files.
    metadata = {configs.LIBRARY_NAME: json.dumps(said)}
    files: dict[str, Content] = {WEIGHTS: lambda path: save_file(tensors, path, metadata)}
    files[CONFIG] = to_json(config) + "\n"
    if results is not None:
        files[RESULTS] = to_json(results) + "\n"
    fresh = not os.path.exists(folder)
    try:
        write_together(folder, files, stale=(RESULTS, PICTURE, SKILLS, PAGE))
    except (OSError, SafetensorError) as error:
        if fresh and os.path.isdir(folder) and not any(folder.iterdir()):
            folder.rmdir()
        remedy = "An earlier model there is untouched. Choose a folder that can be written, or make room."
        raise OSError(f"cannot save to {folder}: {error}. {remedy}") from None
