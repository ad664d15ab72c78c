"""Draw the picture at the top of README.md, for light pages and for dark ones: python tools/header.py."""

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap, to_rgb

import dendrite_zoo
from dendrite_zoo.report.figure import new_figure, save_figure

ROOT = Path(__file__).parents[1]
MODEL = "permuted-digits"
SIZE = (12.8, 2.9)  # inches, at 150 dots each
THEMES = {  # what lies behind, a unit at rest, words, and the colours from the first task to the last
    "light": ("#ffffff", "#eef1f4", "#57606a", ("#0b7285", "#3b5bdb", "#862e9c", "#c2255c", "#e8590c")),
    "dark": ("#0d1117", "#1b212a", "#9198a1", ("#3bc9db", "#748ffc", "#da77f2", "#f783ac", "#ffa94d")),
}


def active_units(model: str = MODEL) -> npt.NDArray[np.bool_]:
    """Which units of its last hidden layer a model gives to each task it has learned, ``(T, U)``.

    The units stand in the order of the first task that uses them, then of the second, and so on.
    """
    network = dendrite_zoo.load(model)
    units = int(network.config["hidden_features"][-1])
    active = np.zeros((network.num_tasks, units), dtype=bool)
    for task in range(network.num_tasks):
        active[task, network.active_units(task)[-1].numpy()] = True
    return active[:, np.lexsort(~active[::-1])]


def draw(theme: str, active: npt.NDArray[np.bool_], path: Path) -> None:
    """A row for each task, a column for each unit; a unit has the task's colour where it is active."""
    page, rest, words, gradient = THEMES[theme]
    tasks, units = active.shape
    colours = LinearSegmentedColormap.from_list("tasks", gradient)(np.linspace(0, 1, tasks))[:, :3]
    picture = np.where(active[..., None], colours[:, None], to_rgb(rest))
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 8}):
        figure = new_figure(*SIZE)
        figure.set_facecolor(page)
        axes = figure.subplots()
        axes.set_facecolor(page)
        axes.imshow(picture, aspect="auto", interpolation="nearest", extent=(0, units, tasks, 0))
        for edge in range(tasks + 1):
            axes.axhline(edge, color=page, linewidth=5)
        axes.set_yticks(np.arange(tasks) + 0.5, [f"task {task}" for task in range(tasks)], color=words)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        save_figure(figure, path)


def main() -> None:
    active = active_units()
    for theme in THEMES:
        draw(theme, active, ROOT / "docs" / "static" / f"header-{theme}.png")


if __name__ == "__main__":
    main()
