"""The picture at the top of README.md shows what the model holds."""

import numpy as np

import dendrite_zoo
from dendrite_zoo.report.figure import read_picture
from tools.header import ROOT, THEMES, active_units


def test_the_units_that_are_drawn_are_those_that_change_a_tasks_answers():
    """By taking units out: without those that are drawn as at rest a task answers as before, bit for bit."""
    import torch

    active = active_units("permuted-digits")
    network = dendrite_zoo.load("permuted-digits")
    x, output = torch.rand(20, 64), network.mlp.output
    assert (active.sum(1) == round(0.2 * active.shape[1])).all()
    with torch.no_grad():
        before = network(x, task=3)
        chosen = network.active_units(3)[-1]
        others = np.setdiff1d(np.arange(active.shape[1]), chosen.numpy())
        output.weight[:, others] = 0
        assert torch.equal(network(x, task=3), before)
        output.weight[:, chosen[:5]] = 0
        assert not torch.equal(network(x, task=3), before)
    first = active.argmax(0)[active.any(0)]
    assert (np.diff(first) >= 0).all()  # in the order of the first task that uses them


def test_both_pictures_are_of_this_model():
    """As many coloured dots in each row as units are active, up to the width of a unit's edge."""
    active = active_units()
    for theme, (_, _, _, gradient) in THEMES.items():
        picture = read_picture(ROOT / "docs" / "static" / f"header-{theme}.png")
        colourful = (picture.max(2) - picture.min(2)) > 0.25  # neither page nor unit at rest nor words
        rows = colourful.any(1)
        bands = np.flatnonzero(np.diff(rows.astype(int)) == 1) + 5
        assert len(bands) == len(active) and gradient
        shares = colourful[bands].mean(1)
        assert np.ptp(shares) < 0.02 and abs(shares.mean() - active.mean() * 0.96) < 0.02
