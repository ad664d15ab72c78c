"""Every undefined figure says why, every defined one says over how many tasks."""

import math

import pytest
import torch

from dendrite_zoo.functional import accuracy_matrix as F
from dendrite_zoo.functional import summarize

NAN = math.nan
TABLE = torch.tensor([[0.90, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])


def test_figures_are_the_functions():
    figures = summarize(TABLE, [0.1, 0.1, 0.1])
    assert list(figures) == [
        "average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "learning_accuracy",
    ]  # fmt: skip
    for name, figure in figures.items():
        args = (TABLE, torch.full((3,), 0.1)) if name == "forward_transfer" else (TABLE,)
        assert figure.value == getattr(F, name)(*args).item()
        assert figure.reason is None
    assert [figure.tasks for figure in figures.values()] == [3, 2, 2, 2, 3]


def test_rows_still_to_come_do_not_count():
    R = torch.full((5, 5), NAN)
    R[:3, :3] = TABLE
    R[2, 3:] = 0.1  # measured, but of tasks not yet learned
    figures, expected = summarize(R), summarize(TABLE)
    assert {n: f for n, f in figures.items() if n != "forward_transfer"} == {
        n: f for n, f in expected.items() if n != "forward_transfer"
    }


@pytest.mark.parametrize(
    ("R", "baseline", "reasons"),
    [
        ([[NAN, NAN], [NAN, NAN]], None, {n: "nothing was measured yet" for n in (
            "average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "learning_accuracy")}),
        ([[0.9]], None, {"forgetting": "second task", "backward_transfer": "second task",
                         "forward_transfer": "second task"}),
        (TABLE, None, {"forward_transfer": "untrained model was not measured"}),
        ([[0.9, NAN], [0.8, 0.9]], [0.1, 0.1], {"forward_transfer": "right before it was learned"}),
        ([[NAN, NAN], [0.8, 0.9]], None, {"forgetting": "no earlier task was measured after task 1",
                                          "backward_transfer": "right after it was learned and after task 1",
                                          "forward_transfer": "untrained model"}),
        ([[NAN, NAN], [0.8, NAN]], None, {"forgetting": "no earlier task", "backward_transfer": "right after",
                                          "forward_transfer": "untrained model",
                                          "learning_accuracy": "right after it was learned"}),
    ],
)  # fmt: skip
def test_reasons(R, baseline, reasons):
    figures = summarize(R, baseline)
    assert {name for name, figure in figures.items() if figure.reason} == set(reasons)
    for name, figure in figures.items():
        assert math.isnan(figure.value) == (name in reasons)
        assert (figure.tasks == 0) == (name in reasons)
        if name in reasons:
            assert reasons[name] in figure.reason
