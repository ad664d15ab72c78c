"""Pictures of several tasks side by side, moving."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.files import write_atomically

__all__ = ["save_gif"]


def save_gif(
    pictures: Mapping[str, Sequence[NDArray[np.uint8]]],
    path: str | Path,
    *,
    columns: int = 5,
    milliseconds: int = 120,
    colors: int = 128,
) -> None:
    """Write the pictures of several tasks into one GIF, side by side and each under its name.

    Args:
        pictures: of each task by its name, as many for each, ``(H, W, 3)``; those of another size than the first are
            scaled to it.
        path: of the file, which appears whole or not at all.
        columns: pictures side by side.
        milliseconds: from one to the next; the last one stays for a second.
        colors: of the file, up to 256: fewer make it smaller.

    Raises:
        ImportError: Pillow is missing.
        ValueError: there are no pictures, or of one task more than of another.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError("A GIF needs Pillow, of the [report] extra: pip install 'dendrite-zoo[report]'") from error
    if len(counts := {len(own) for own in pictures.values()}) != 1 or 0 in counts:
        got = {name: len(own) for name, own in pictures.items()}
        raise ValueError(f"Expected as many pictures of each task, one or more, but got {got}.")
    height, width, _ = next(iter(pictures.values()))[0].shape
    across = min(columns, len(pictures))
    frames: list[Any] = []
    for at_once in zip(*pictures.values(), strict=True):
        frame = Image.new("RGB", (across * width, -(-len(pictures) // across) * height))
        draw = ImageDraw.Draw(frame)
        for number, (name, picture) in enumerate(zip(pictures, at_once, strict=True)):
            corner = number % across * width, number // across * height
            frame.paste(Image.fromarray(picture).resize((width, height)), corner)
            draw.text((corner[0] + 3, corner[1] + 1), name, fill="white", stroke_width=1, stroke_fill="black")
        frames.append(frame)
    palette = frames[len(frames) // 2].quantize(colors)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [milliseconds] * (len(frames) - 1) + [1000]
    options = {"format": "GIF", "save_all": True, "append_images": others, "loop": 0, "duration": durations}
    write_atomically(Path(path), lambda part: first.save(part, **options))
