"""What an object was made with, or an error: never half of it."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dendrite_zoo._core.describe import describe, ranges


class Base:
    def __init__(self, seed=0, *, rate=0.5):
        self.seed, self.rate = seed, rate


class Derived(Base):
    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width


class Hidden:
    def __init__(self, width):
        self._width = width


class Several:
    def __init__(self, *parts):
        self.parts = parts


def test_arguments_that_are_passed_on_are_found():
    assert describe(Derived(3, rate=0.1)) == {"class": "Derived", "width": 3, "seed": 0, "rate": 0.1}
    assert describe(Derived(Base(), rate=[1, (2, None)]), ["seed"]) == {
        "class": "Derived",
        "width": {"class": "Base", "rate": 0.5},
        "rate": [1, [2, None]],
    }
    assert describe({"path": Path("a"), "seed": 3}, ["seed"]) == {"path": "a"}
    assert describe(nn.ReLU()) == {"class": "ReLU", "inplace": False}


@pytest.mark.parametrize(
    "value",
    [
        Hidden(3),
        nn.Sequential(nn.ReLU()),
        torch.zeros(2),
        np.zeros(2),
        torch.float32,
        torch.Generator(),
        len,
        lambda x: x,
        functools.partial(int, base=2),
        {1, 2},
        b"",
        int,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_known_is_an_error(value):
    for held in (value, [value], {"a": value}):
        with pytest.raises(TypeError, match="It is not known with which"):
            describe(held)


def test_arguments_that_have_no_name():
    assert describe(Several(1, 2)) == {"class": "Several", "parts": [1, 2]}, "an attribute of their name tells them"


def test_ranges_in_words():
    assert [ranges(x) for x in ([3], [0, 1, 2, 5], [1, 3, 4])] == ["3", "0 to 2, 5", "1, 3 to 4"]
