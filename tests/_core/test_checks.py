"""Checks name the one argument that is wrong, among several that are right."""

import math

import numpy as np
import pytest

from dendrite_zoo._core.checks import (
    check_choice,
    check_density,
    check_integers,
    check_positive,
    check_range,
    check_share,
    wrong_argument,
)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None, math.nan])
def test_what_is_no_integer_or_too_small_is_named_alone(value):
    with pytest.raises(ValueError) as error:
        check_integers(1, right=1, wrong=value, right_too=7)
    assert str(error.value) == f"Expected `wrong` to be an integer of at least 1, but got {value!r}."


def test_integers_of_numpy_are_integers():
    check_integers(0, zero=0, numpy=np.int64(3))


def test_integers_may_have_an_upper_bound():
    check_integers(1, 500, max_steps=500)
    with pytest.raises(ValueError, match="Expected `max_steps` to be an integer from 1 to 500, but got 501[.]"):
        check_integers(1, 500, max_steps=501)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_number_out_of_range_is_named_alone(value):
    with pytest.raises(ValueError) as error:
        check_range(0, 1, low=0, wrong=value, high=1)
    assert str(error.value) == f"Expected `wrong` to be a number from 0 to 1, but got {value!r}."


@pytest.mark.parametrize("check", [check_density, check_positive, check_share])
@pytest.mark.parametrize("value", ["0.5", None, [0.5], True, math.nan])
def test_what_is_no_number_is_named_too(check, value):
    check(numpy=np.float32(0.5))
    with pytest.raises(ValueError, match="Expected `wrong` to be a"):
        check(wrong=value)


def test_without_an_upper_bound_infinity_is_refused_too():
    check_range(0, math.inf, noise=1e300)
    with pytest.raises(ValueError, match="Expected `noise` to be a number of at least 0, but got inf"):
        check_range(0, math.inf, noise=math.inf)


def test_an_unknown_name_says_which_is_meant():
    check_choice(("train", "val", "test"), split="val")
    with pytest.raises(ValueError, match=r"`split` to be one of 'train', 'val', 'test', but got 'unseen'. `unseen` is"):
        check_choice(("train", "val", "test"), split="unseen")
    with pytest.raises(ValueError, match="but got 3.$"):
        check_choice(("train", "val"), split=3)
    with pytest.raises(ValueError, match="but got \\['val'\\]"):
        check_choice({"train", "val"}, split=["val"])


def test_a_wrong_argument_is_named_with_the_remedy():
    assert str(wrong_argument("k", "at most 64", 80)) == "Expected `k` to be at most 64, but got 80."
    assert str(wrong_argument("k", "at most 64", 80, "Lower `k`.")).endswith("but got 80. Lower `k`.")


@pytest.mark.parametrize("check, right, wrong", [(check_positive, 1e-9, 0.0), (check_share, 0.0, 1.0)])
def test_the_bound_that_is_left_out(check, right, wrong):
    for value in (wrong, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^Expected `wrong` to be a number .*, but got {value}[.]$"):
            check(right=right, wrong=value)
