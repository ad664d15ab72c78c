"""Figures that need neither a display nor pyplot, and are there only where matplotlib is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dendrite_zoo._core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, made without pyplot.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The figures need the [report] extra: pip install 'dendrite-zoo[report]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def heat_map(axes: Axes, values: Tensor, bar: dict[str, Any], **style: Any) -> None:
    """Draw a matrix in colours, as ``imshow`` takes its style, with a ``colorbar`` that says what they mean."""
    image = axes.imshow(values.numpy(), interpolation="nearest", **style)
    axes.figure.colorbar(image, ax=axes, **bar)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def read_picture(path: str | Path) -> Any:
    """The pixels of a PNG, an array ``(H, W, 3)`` from 0 to 1."""
    from matplotlib.image import imread

    return imread(path)[..., :3]


def save_figure(figure: Figure, path: str | Path | None) -> Figure:
    """Write a figure to a PNG, or what the suffix says, whole or not at all; None writes nothing."""
    if path is not None:
        write_atomically(path, lambda part: figure.savefig(part, dpi=150))
    return figure
