"""Images out of encoded files, brought to one size and one number of channels."""

import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo.streams.cached import cached, extra

__all__ = ["ImageFolder"]

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
EXPECTED = "folders with images, one for each class"
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "validation", "valid", "val")}
GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")
BILINEAR: Any = 2  # as pillow calls it; it averages where it makes smaller
MAX_NUMBERS = 2**33  # of all pixels together, which are kept in memory

Arrays = dict[str, Tensor]


def decode(images: Iterable[tuple[str, bytes | Path]], size: int | tuple[int, int] | None = None) -> Tensor:
    """Decode images, all in grey where none has colours, else all in RGB.

    Args:
        images: of each where it is from, for the messages, and the encoded bytes or the path.
        size: height and width to bring them to, an int for both; None where they are of one size.

    Returns:
        ``(N, H, W)`` or ``(N, 3, H, W)``, uint8.

    Raises:
        ImportError: without pillow.
        ValueError: one is no image, or of another size than the first; there are none; or too many for the memory.
    """
    with extra("images"):
        import numpy as np

    wanted = check_size(size)
    decoded: list[Any] = []
    for name, content in images:
        image = _opened(name, content)
        if wanted is not None and image.size != wanted:
            image = image.resize(wanted, BILINEAR)
        if decoded and decoded[0].size != image.size:
            first, this = (f"{one.size[1]} x {one.size[0]}" for one in (decoded[0], image))
            remedy = "Bring all to one, such as ImageFolder(folder, size=32) or HubSource(repo, size=32)."
            raise ValueError(f"Expected images of one size, {first} as the first, but got {this} in {name}. {remedy}")
        decoded.append(image)
        if len(decoded) * image.size[0] * image.size[1] > MAX_NUMBERS:
            raise ValueError(f"Expected images of {MAX_NUMBERS:.0e} pixels in all at most. Give a smaller `size`.")
    if not decoded:
        raise ValueError("Expected images, but got none. Check the path.")
    mode = "RGB" if any(image.mode == "RGB" for image in decoded) else "L"
    pixels = np.stack([np.asarray(image.convert(mode)) for image in decoded])
    return torch.from_numpy(pixels if mode == "L" else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _opened(name: str, content: bytes | Path) -> Any:
    """An image of pillow, in grey or RGB."""
    with extra("images"):
        from PIL import Image

    bomb = Image.DecompressionBombError, Image.DecompressionBombWarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
            if image.mode not in GREY + COLOUR:
                raise ValueError(f"numbers of another form than 8 bits ({image.mode})")
            return image.convert("L" if image.mode in GREY else "RGB")
    except (OSError, ValueError, SyntaxError, *bomb) as error:
        raise ValueError(f"Expected an image in {name}, but got: {error}. Leave it out, or mend it.") from None


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height, as pillow has them, of a size; None stays None."""
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    check_integers(1, 4096, size=height)
    check_integers(1, 4096, size=width)
    return width, height


def same_channels(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Images of two splits, both in RGB where one has colours."""
    rows = [x if x.ndim == max(train.ndim, test.ndim) else x[:, None].expand(-1, 3, -1, -1) for x in (train, test)]
    return rows[0].contiguous(), rows[1].contiguous()


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images with a folder for each class, as torchvision's ``ImageFolder`` has it, as a source of tasks.

    Either ``folder/<class>/*.png``, of which a fifth is held out for testing, or both splits: ``folder/train/<class>/``
    and ``folder/test/<class>/`` (or ``val``). Classes are numbered in the order of their names.

    Args:
        folder: its path.
        size: height and width that images are brought to, an int for both; None where they are of one size.

    Example:
        >>> ImageFolder("flowers", size=32).splits()
        Traceback (most recent call last):
        FileNotFoundError: Expected a folder of images, but there is no 'flowers'. Check the path.
    """

    folder: str | os.PathLike[str]
    size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_size(self.size)

    def splits(self) -> dict[str, Path]:
        """The folders of the splits ``"train"`` and, where there is one, ``"test"``.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        root = Path(self.folder).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"Expected a folder of images, but there is no {str(root)!r}. Check the path.")
        present = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
        found = {
            split: next(present[name] for name in names if name in present)
            for split, names in SPLITS.items()
            if any(name in present for name in names)
        }
        return found if "train" in found else {"train": root}

    @property
    def classes(self) -> list[str]:
        """What each label is called: the names of the classes' folders, in their order."""
        return list(class_files(self.splits()["train"]))

    def read(self) -> Arrays:
        """The images and labels of each split: ``x_train (N, ...)`` uint8, ``y_train (N,)``, and of the test split.

        Raises:
            FileNotFoundError: there is no such folder, or no images in it.
            ImportError: without pillow.
            ValueError: they are of several sizes, or classes of the test split are not in the
                train split.
        """
        files = {split: class_files(folder) for split, folder in self.splits().items()}
        numbers = {name: label for label, name in enumerate(files["train"])}
        if unknown := [name for name in files.get("test", {}) if name not in numbers]:
            raise ValueError(
                f"Expected the classes of the test split in the train split, too, but got {unknown[0]!r} in "
                f"{os.fspath(self.folder)!r}. Rename the folder, or leave it out."
            )

        def arrays() -> Arrays:
            read = {}
            for split, classes in files.items():
                paths = [(numbers[name], path) for name, of_class in classes.items() for path in of_class]
                read[f"x_{split}"] = decode(((str(path), path) for _, path in paths), self.size)
                read[f"y_{split}"] = torch.tensor([label for label, _ in paths])
            if "test" in files:
                read["x_train"], read["x_test"] = same_channels(read["x_train"], read["x_test"])
            return read

        every = [path for classes in files.values() for of_class in classes.values() for path in of_class]
        return cached(every, repr(("folder", self.size)), arrays)


def class_files(folder: Path) -> dict[str, list[Path]]:
    """The images in each folder of a folder, by the name of the class; folders without any are left out.

    Raises:
        FileNotFoundError: there are none.
        ValueError: there is one class alone, whose images are all in further folders.
    """
    classes = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = sorted(
            path
            for path in part.rglob("*")
            if path.suffix.lower() in EXTENSIONS and path.is_file() and not path.name.startswith(".")
        )
        if images:
            classes[part.name] = images
    if not classes:
        raise FileNotFoundError(f"Expected {EXPECTED}, but found none in {str(folder)!r}. Check the path.")
    if len(classes) == 1:
        _check_depth(folder / next(iter(classes)), *classes.values())
    return classes


def _check_depth(folder: Path, images: list[Path]) -> None:
    """Refuse the only class where its images are in several folders, and those the classes."""
    inner = sorted({path.relative_to(folder).parts[0] for path in images if path.parent != folder})
    if len(inner) > 1 and all(path.parent != folder for path in images):
        got = f"one, with folders {', '.join(inner[:3])}"
        raise ValueError(f"Expected {EXPECTED}, but found {got}. Give {str(folder)!r}.")
