"""The artifact on disk: ``config.json`` and ``model.safetensors`` in one folder, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dendrite_zoo.hub import config as configs

CONFIG, WEIGHTS, RESULTS, CARD, PICTURE = (
    "config.json",
    "model.safetensors",
    "results.json",
    "README.md",
    "matrix.png",
)


def sha256(path: Path) -> str:
    """Give the sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Give the sha256 of all names, types, shapes and bytes of a state dict, in the order of names.

    It stands in the file's header, so that altered weights are seen without a registry, and it tells whether
    a model still is the one whose results it carries.

    Example:
        >>> fingerprint({"weight": torch.zeros(2)}) == fingerprint({"weight": torch.zeros(3)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file, all of it or an error.

    Returns:
        The state dict, and the marks in the file's header (``fingerprint``, ``base_model``).

    Raises:
        ValueError: the file is truncated or altered.
    """
    remedy = "The file is truncated or altered: restore it, or download or train the model again."
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(configs.LIBRARY_NAME, "{}")
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}); expected a whole safetensors file. {remedy}") from None
    marks, found = configs.parse(text, f"{path}: the header"), fingerprint(state)
    if marks.setdefault("fingerprint", found) != found:
        raise ValueError(f"{path} does not hold the tensors that its header vouches for. {remedy}")
    return state, marks


def write(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    results: Any = None,
    base_model: str | None = None,
    describe: Callable[[Path], None] = lambda waiting: None,
) -> None:
    """Write an artifact into ``folder``: whole, or not at all.

    Everything is written and flushed beside its place first, then moved there; an error on the way leaves an
    earlier artifact as it was. Results and picture of an earlier artifact go where there are none now: they
    spoke of other weights.

    Args:
        folder: made where missing.
        config: the whole config.json.
        state: the state dict.
        results: result records.
        base_model: ``org/name`` these weights were trained from; kept in their header.
        describe: adds the card and its picture to the folder it is given.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    fresh = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    except OSError as error:
        raise OSError(f"cannot save to {folder}: {error}. Choose a folder that can be written.") from None
    try:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        marks = {"fingerprint": fingerprint(tensors)} | ({"base_model": base_model} if base_model else {})
        # One key: several would be written in any order, and equal models must be equal files.
        save_file(tensors, waiting / WEIGHTS, {configs.LIBRARY_NAME: json.dumps(marks)})
        if results is not None:
            (waiting / RESULTS).write_text(to_json(results), encoding="utf-8")
        describe(waiting)
        (waiting / CONFIG).write_text(to_json(config), encoding="utf-8")
        for path in waiting.iterdir():
            os.chmod(path, 0o666 & ~_umask())
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for name in (WEIGHTS, RESULTS, PICTURE, CARD, CONFIG):
            if (waiting / name).exists():
                os.replace(waiting / name, folder / name)
            elif name != CARD:
                (folder / name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot save to {folder}: {error}. What stood there before is untouched; make room and save again."
        ) from None
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
        if fresh and not any(folder.iterdir()):
            folder.rmdir()


def to_json(value: Any) -> str:
    """Write a JSON document as a person would like to read it; what is not a finite number becomes null.

    Example:
        >>> print(to_json({"forgetting": float("nan")}), end="")
        {
          "forgetting": null
        }
    """
    return json.dumps(_finite(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
