"""A checkpoint that was cut or altered is found before anything is read from it."""

import warnings
import zlib
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile, ZipFile

import torch

PREVIOUS = "previous.ckpt"
"""The checkpoint before the last one, in the same folder."""
FOLDER = 0x10  # torch reads zeros from what has this attribute


def damage(path: str | Path) -> str | None:
    """What is wrong with the file of a checkpoint.

    Every member of the zip file that ``torch.save`` writes is compared with its CRC-32, which `torch.load` does not do,
    and `torch.load` goes through the directory without reading a tensor. A flipped bit is found wherever it would
    change what is loaded.

    Args:
        path: of the file.

    Returns:
        The reason, or None where the file is whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(3)}, f"{folder}/whole.ckpt")
        ...     content = Path(folder, "whole.ckpt").read_bytes()
        ...     _ = Path(folder, "cut.ckpt").write_bytes(content[:200])
        ...     damage(f"{folder}/whole.ckpt"), damage(f"{folder}/cut.ckpt")
        (None, 'File is not a zip file')
    """
    try:
        with ZipFile(path) as file:
            for member in file.infolist():  # by name, as `testzip` goes, one of two of the same name would be left out
                if member.external_attr & FOLDER:
                    return f"{member.filename} is marked as a folder"
                with file.open(member) as content:
                    while content.read(1 << 20):
                        pass
        torch.load(path, map_location="meta", weights_only=True)
    except UnpicklingError:
        return None  # it is whole, and has more than tensors and plain values
    except (BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        return str(error).partition(". ")[0]
    return None


def whole_checkpoint(path: str | Path) -> Path:
    """The checkpoint, or the one before it where it is damaged or missing, with a warning.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is damaged, and there is none before it that is whole.
    """
    path, previous = Path(path), Path(path).with_name(PREVIOUS)
    reason = damage(path) if path.is_file() else "there is no such file"
    if reason is None:
        return path
    if previous != path and previous.is_file() and damage(previous) is None:
        warnings.warn(f"{path} is damaged ({reason}), so {previous}, the one before it, is read instead.", stacklevel=2)
        return previous
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint, but there is no file {path}.")
    others = [other for other in sorted(path.parent.glob("*.ckpt")) if other != path and damage(other) is None]
    remedy = f"Read another one: {', '.join(map(str, others))}" if others else "Start again, or take a copy of it."
    raise ValueError(f"{path} is damaged, or no checkpoint ({reason}). {remedy}")
