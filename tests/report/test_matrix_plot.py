"""The picture: what stands in it, and that it needs neither display nor pyplot."""

import builtins
import math

import pytest
import torch
from PIL import Image

from dendrite_zoo.report import plot_matrix

NAN = math.nan
TABLE = torch.tensor([[0.90, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_cells_title_and_ticks():
    figure = plot_matrix(TABLE, baseline=[0.1, 0.1, 0.1], metric="val/acc")
    axes = figure.axes[0]
    assert axes.get_title(loc="left").splitlines() == [
        "val/acc on 3 tasks",
        "average accuracy .877   ·   forgetting .030",
    ]
    assert [t.get_text() for t in axes.texts] == [f".{n}" for n in "10 10 10 90 12 10 95 88 11 97 80 86".split()]
    assert labels(axes.get_yticklabels()) == ["untrained", "0", "1", "2"]
    assert labels(axes.get_xticklabels()) == ["0", "1", "2"]
    torch.testing.assert_close(torch.tensor(axes.images[0].get_array().data[1:]), TABLE)
    assert figure.axes[1].get_ylabel() == "val/acc"  # the colour bar


def test_the_line_keeps_learned_tasks_to_its_left():
    line = plot_matrix(TABLE).axes[0].lines[0].get_xydata().tolist()
    assert line == [[0.5, -0.5], [0.5, 0.5], [1.5, 0.5], [1.5, 1.5], [2.5, 1.5], [2.5, 2.5]]


def test_before_and_missing():
    R = torch.full((4, 4), NAN)
    R[1] = 0.5
    R[3] = torch.tensor([0.5, NAN, 0.5, 0.9])
    axes = plot_matrix(R, first_task=2).axes[0]
    assert labels(axes.get_yticklabels()) == ["before", "3"]
    assert [t.get_text() for t in axes.texts][4:] == [".50", "·", ".50", ".90"]


@pytest.mark.parametrize("T", [1, 5, 12, 100])
def test_a_png_at_every_size(T, tmp_path):
    path = tmp_path / "new folder" / "matrix.png"
    figure = plot_matrix(torch.rand(T, T), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 600 <= image.width <= 2000 and 250 <= image.height <= 2000
    assert [p.name for p in path.parent.iterdir()] == ["matrix.png"]
    assert bool(figure.axes[0].texts) == (T <= 16)


def test_a_long_stream_with_milestones():
    R = torch.full((100, 100), NAN).diagonal_scatter(torch.full((100,), 0.9))
    R[[0, 49, 99]] = 0.5
    heat, fates, *_ = plot_matrix(R).axes
    assert labels(heat.get_yticklabels()) == ["0", "49", "99"]
    when_learned, now = fates.lines
    assert when_learned.get_ydata()[1] == pytest.approx(0.9)
    assert now.get_ydata().tolist() == [0.5] * 100


@pytest.mark.parametrize("R", [torch.full((3, 3), NAN), 3 + torch.rand(3, 3), torch.zeros(2, 2)])
def test_odd_matrices(R, tmp_path):
    plot_matrix(R, tmp_path / "matrix.png")


def test_less_is_better():
    """Bright is low, numbers on it are black, and a mean of losses is called no accuracy."""
    figure = plot_matrix([[0.1, 0.9], [0.5, 0.2]], metric="val/loss", mode="min")
    axes, bar = figure.axes
    assert axes.get_title(loc="left").splitlines()[1] == "average .350   ·   forgetting .400"
    assert bar.get_ylabel() == "val/loss (less is better)"
    image = axes.images[0]
    low, high = (sum(image.cmap(image.norm(x))[:3]) for x in (0.1, 0.9))
    assert low > high
    assert [text.get_color() for text in axes.texts] == ["black", "white", "white", "black"]


def test_missing_matplotlib_names_the_extra(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'dendrite-zoo\[report\]'"):
        plot_matrix(TABLE, tmp_path / "matrix.png")
    assert not list(tmp_path.iterdir())


def test_pyplot_knows_nothing_of_it():
    from matplotlib import pyplot

    plot_matrix(TABLE)
    assert pyplot.get_fignums() == []
