"""MNIST as the Hub's ``ylecun/mnist`` holds it: parquet files of PNG images, decoded once."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["download", "local_files", "read"]

REPO = "ylecun/mnist"
REVISION = "77f3279092a1c1579b2250db8eafed0ad422088c"
FILES = {split: f"mnist/{split}-00000-of-00001.parquet" for split in ("train", "test")}
MEAN, STD = 0.1307, 0.3081  # of the training pixels, from 0 to 1


def download() -> dict[str, Path]:
    """Fetch the files of the pinned revision, from the local cache where they are there already.

    Raises:
        ConnectionError: the Hub did not give them.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RevisionNotFoundError

    def fetch(revision: str) -> dict[str, Path]:
        return {
            split: Path(hf_hub_download(REPO, file, repo_type="dataset", revision=revision))
            for split, file in FILES.items()
        }

    try:
        try:
            return fetch(REVISION)
        except RevisionNotFoundError:  # a mirror without the history
            return fetch("main")
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ConnectionError(
            f"'mnist' could not be downloaded: {error}; expected the Hub's data set {REPO}. Check the "
            f"connection, or give as the source a folder that holds {FILES['train']}."
        ) from error


def local_files(folder: Path) -> dict[str, Path]:
    """Find the files in a folder laid out as the Hub's repository.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    files = {split: folder / file for split, file in FILES.items()}
    for path in files.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"source={os.fspath(folder)!r} has no {path.relative_to(folder)}; expected a folder laid "
                f"out as the Hub's {REPO}, with {' and '.join(FILES.values())}. Check the path."
            )
    return files


def read(files: dict[str, Path]) -> dict[str, Tensor]:
    """Decode the images, or read back what was decoded; it is kept beside the Hub's cache, for these files.

    Returns:
        ``x_train (N, 784)``, ``x_test``, uint8, and their labels ``y_train (N,)``, ``y_test``.

    Raises:
        ImportError: without pyarrow and pillow.
    """
    cache = _cache_file(files)
    if cache.is_file():
        with suppress(SafetensorError, OSError):
            return load_file(cache)
    arrays = {}
    for split, path in files.items():
        arrays[f"x_{split}"], arrays[f"y_{split}"] = _decode(path)
    with suppress(OSError):  # a cache that cannot be written costs seconds, no more
        _write(arrays, cache)
    return arrays


def _cache_file(files: dict[str, Path]) -> Path:
    from huggingface_hub.constants import HF_HOME

    identity = hashlib.sha256()
    for path in files.values():
        stat = path.resolve().stat()
        identity.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return Path(HF_HOME) / "dendrite-zoo" / f"mnist-{identity.hexdigest()[:16]}.safetensors"


def _decode(path: Path) -> tuple[Tensor, Tensor]:
    try:
        import numpy as np
        import pyarrow as arrow
        import pyarrow.parquet as parquet
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"Reading MNIST needs {error.name}, of the [mnist] extra: pip install 'dendrite-zoo[mnist]'"
        ) from error

    try:
        table = parquet.read_table(path, columns=["image", "label"]).combine_chunks()
        pngs = table["image"].combine_chunks().field("bytes").to_pylist()
    except (arrow.ArrowInvalid, KeyError) as error:
        raise ValueError(
            f"{path} could not be read: {error}; expected a parquet file with the columns image (PNG bytes) "
            "and label. Fetch it again."
        ) from error
    images = np.stack([np.asarray(Image.open(io.BytesIO(png))).reshape(-1) for png in pngs])
    return torch.from_numpy(images), torch.from_numpy(table["label"].to_numpy().copy())


def _write(arrays: dict[str, Tensor], path: Path) -> None:
    """Write all of it, or nothing: another process may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        save_file(arrays, temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
