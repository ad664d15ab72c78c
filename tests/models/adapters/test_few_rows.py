"""A ridge head of few rows is solved in so many numbers as there are rows."""

import pytest
import torch

from dendrite_zoo.layers import RidgeHead
from dendrite_zoo.models.adapters.head import FewRows, TaskHeads


def rows(count, *, features=400, classes=4):
    draw = torch.Generator().manual_seed(count)
    y = torch.arange(count) % classes
    of_class = torch.randn(classes, features, generator=draw) * 0.3
    return torch.relu(torch.randn(count, features, generator=draw) + of_class[y]), y


@pytest.mark.parametrize(
    ("count", "equal", "penalty"), [(40, 0, None), (150, 0, 1.0), (150, 70, None), (150, 70, 0.1), (9, 4, 1.0)]
)
def test_the_solution_is_that_of_all_features(count, equal, penalty):
    h, y = rows(count)
    h[count - equal :] = h[:equal]  # of other classes, too
    whole = RidgeHead(400, 4, penalty=penalty)
    whole.learn([(h, y)])
    few = FewRows([([part], of_part, of_part > 1) for part, of_part in zip(h.split(32), y.split(32), strict=True)], 200)
    head = RidgeHead(few.size, 4, penalty=penalty)
    head.learn((part[0], of_part) for part, of_part, _ in few.batches)
    x, _ = rows(50)
    logits, expected = x @ few.back(head.weight, 0).float().T + head.bias, whole(x)
    assert few.size == count
    torch.testing.assert_close(logits, expected, atol=2e-3 * float(expected.std()), rtol=0)


@pytest.mark.parametrize(("value", "most"), [(0.0, 29), (torch.nan, 100), (-torch.inf, 100), (1e30, 100)])
def test_many_rows_and_such_as_are_not_usable_stay_as_they_are(value, most):
    h, y = rows(30)
    h[3, 5] = value
    few = FewRows([([h], y, y > 1)], most)
    assert few.batches[0][0][0] is h and few.size == 0 and few.back(h, 0) is h


def test_no_rows_and_rows_without_anything_are_no_error():
    assert FewRows([], 100).size == 0 and FewRows([([torch.zeros(0, 8)], torch.arange(0), torch.zeros(0))], 9).size == 0
    few = FewRows([([torch.zeros(6, 8)], torch.arange(6), torch.zeros(6))], 9)
    assert not few.back(torch.ones(2, few.size), 0).any()
    assert FewRows([([torch.ones(6, 8)], torch.arange(5), torch.zeros(6))], 9).size == 0  # a label is missing


def test_a_head_of_few_rows_is_right_for_others_and_names_a_row_that_is_not_finite():
    heads = TaskHeads("ridge", [20], [], 0, [3], 3)
    h, y = rows(240, features=20, classes=3)
    heads.normalise(0, [h])
    heads.fit(0, [([h[:90]], y[:90], y[:90] > 3), ([h[90:180]], y[90:180], y[90:180] > 3)])
    solved = heads.ridge_weight.clone()
    none = torch.zeros(3, 20), torch.zeros(3)
    assert (heads(h[180:], 0, none).argmax(1) == y[180:]).float().mean() > 0.5
    h[95, 4] = torch.inf
    with pytest.raises(ValueError, match=r"NaN, infinity or larger numbers in batch 1 \(from 0\), row 5"):
        heads.fit(0, [([h[:90]], y[:90], y[:90] > 3), ([h[90:180]], y[90:180], y[90:180] > 3)])
    assert torch.equal(heads.ridge_weight, solved)
