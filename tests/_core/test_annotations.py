"""Which values of JSON an annotation admits."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from dendrite_zoo._core.annotations import fits


@pytest.mark.parametrize(
    ("value", "hint", "answer"),
    [
        (1, float, True),
        (10**400, float, True),
        (float("inf"), float, False),
        (float("nan"), float | None, False),
        (1.0, int, False),
        (True, bool, True),
        (1, bool, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (True, Literal[1], False),
        ([1, 2], Sequence[int], True),
        (["a"], Sequence[int], False),
        ("ab", Sequence[str], False),
        ([1, "a"], tuple[int, str], True),
        ([1], tuple[int, str], False),
        ({"a": 1}, dict[str, int], True),
        ({"a": "b"}, dict[str, int], False),
        ([1], dict[str, int], False),
        (None, int | None, True),
        ([1], int | Sequence[int], True),
        ({"a": 1}, Any, True),
    ],
)
def test_a_value_has_its_annotated_type_or_not(value, hint, answer):
    assert fits(value, hint) is answer
