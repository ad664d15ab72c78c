"""Forward transfer by the areas under curves, against areas that are known in closed form."""

from __future__ import annotations

import pytest
import torch

from dendrite_zoo.metrics import curve_transfer


def test_curves_of_which_the_areas_are_known():
    """Success that grows as t^n has the area 1 / (n + 1), so t after t^3 is (1/2 - 1/4) / (1 - 1/4) = 1/3."""
    t = (torch.arange(1000) + 0.5) / 1000
    assert float(curve_transfer(t, t**3)) == pytest.approx(1 / 3, abs=1e-5)
    assert float(curve_transfer(t**3, t)) == pytest.approx((1 / 4 - 1 / 2) / (1 / 2), abs=1e-5)
    assert float(curve_transfer(t, t[2::5])) == pytest.approx(0, abs=1e-5), "however often it was measured"


def test_the_bounds():
    assert float(curve_transfer([1.0, 1.0], [0.0, 0.5])) == 1.0
    assert float(curve_transfer([0.0], [0.5])) == -1.0
    assert curve_transfer([1.0], [1.0]).isnan(), "who succeeds at once alone has nothing to gain"


@pytest.mark.parametrize("wrong", [[], [0.5, 1.5], [[0.5]], [float("nan")]])
def test_what_is_no_curve_is_refused(wrong):
    with pytest.raises(ValueError, match="Expected `alone` to be one or more shares from 0 to 1"):
        curve_transfer([0.5], wrong)
