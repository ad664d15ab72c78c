"""What was read out of files, kept beside the Hub's cache, so that it is decoded once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dendrite_zoo._core.files import write_atomically

Arrays = dict[str, Tensor]


def cached(files: Iterable[Path], options: str, read: Callable[[], Arrays]) -> Arrays:
    """What ``read`` gives, or what it gave before for the same files and options.

    Args:
        files: what is read.
        options: whatever else decides what comes of them.
        read: reads and decodes them.
    """
    from huggingface_hub.constants import HF_HOME

    identity = hashlib.sha256(options.encode())
    for path in files:
        stat = path.resolve().stat()
        identity.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    file = Path(HF_HOME) / "dendrite-zoo" / f"source-{identity.hexdigest()[:16]}.safetensors"
    if file.is_file():
        with suppress(SafetensorError, OSError):
            return load_file(file)
    arrays = read()
    with suppress(OSError):  # without a cache they are decoded again, which takes seconds
        write_atomically(file, lambda part: save_file(arrays, part))
    return arrays


@contextmanager
def extra(what: str) -> Iterator[None]:
    """Say which extra to install where a library is missing."""
    try:
        yield
    except ImportError as error:
        needed = f"Reading {what} needs {error.name}, of the [mnist] extra: pip install 'dendrite-zoo[mnist]'"
        raise ImportError(needed) from error
