"""MNIST from the Hub's ``ylecun/mnist``: parquet files of PNG images, decoded once."""

import hashlib
import io
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dendrite_zoo.streams.cached import Arrays, cached, extra

REPO = "ylecun/mnist"
REVISION = "77f3279092a1c1579b2250db8eafed0ad422088c"
FILES = {split: f"mnist/{split}-00000-of-00001.parquet" for split in ("train", "test")}
MEAN, STD = 0.1307, 0.3081  # of the training pixels, from 0 to 1
CONTENT = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"  # sha256 of pixels and labels, as bytes


def download() -> dict[str, Path]:
    """Download the files of the pinned revision, or find them in the Hub's local cache.

    Raises:
        ConnectionError: the download failed.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RevisionNotFoundError

    get = partial(hf_hub_download, REPO, repo_type="dataset")

    def fetch(revision: str) -> dict[str, Path]:
        return {split: Path(get(file, revision=revision)) for split, file in FILES.items()}

    try:
        with suppress(RevisionNotFoundError):  # a mirror without the history has "main" alone
            return fetch(REVISION)
        return fetch("main")
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ConnectionError(
            f"'mnist', the Hub's data set {REPO}, could not be downloaded: {error}. Check the connection, or give a "
            f"folder that holds {FILES['train']} as the source."
        ) from error


def local_files(folder: Path) -> dict[str, Path] | None:
    """Find the files in a folder with the layout of the Hub's repository; None where it has another.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    files = {split: folder / file for split, file in FILES.items()}
    present = [path for path in files.values() if path.is_file()]
    if not present:
        return None
    for path in files.values():
        if path not in present:
            raise FileNotFoundError(
                f"Expected `source` to be a folder with {' and '.join(FILES.values())}, as the Hub's {REPO}, but there "
                f"is no {path.relative_to(folder)} in {os.fspath(folder)!r}. Check the path."
            )
    return files


def read(files: dict[str, Path]) -> dict[str, Tensor]:
    """Decode the images, or load them from a cache beside the Hub's, where they were decoded before.

    Returns:
        ``x_train (N, 784)``, ``x_test``, uint8, and their labels ``y_train (N,)``, ``y_test``.

    Raises:
        ImportError: without pyarrow and pillow.
    """

    def decode() -> Arrays:
        arrays = {}
        for split, path in files.items():
            arrays[f"x_{split}"], arrays[f"y_{split}"] = _decode(path)
        return arrays

    return cached(files.values(), "mnist", decode)


def is_mnist(arrays: dict[str, Tensor]) -> bool:
    """Whether what was read are the images and labels of MNIST, and not other data in files of the same form."""
    content = hashlib.sha256()
    for name in ("x_train", "y_train", "x_test", "y_test"):
        content.update(arrays[name].byte().numpy().tobytes())
    return content.hexdigest() == CONTENT


def _decode(path: Path) -> tuple[Tensor, Tensor]:
    with extra("MNIST"):
        import numpy as np
        import pyarrow as arrow
        import pyarrow.parquet as parquet
        from PIL import Image

    try:
        table = parquet.read_table(path, columns=["image", "label"]).combine_chunks()
        pngs = table["image"].combine_chunks().field("bytes").to_pylist()
    except (arrow.ArrowInvalid, KeyError) as error:
        raise ValueError(
            f"Expected {path} to be a parquet file with the columns image (PNG bytes) and label, but got: {error}. "
            "Download it again."
        ) from error
    images = np.stack([np.asarray(Image.open(io.BytesIO(png))).reshape(-1) for png in pngs])
    return torch.from_numpy(images), torch.from_numpy(table["label"].to_numpy().copy())
