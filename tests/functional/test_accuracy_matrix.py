"""The matrix metrics against tables worked by hand and against the definitions written as loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dendrite_zoo.functional import accuracy_matrix as F
from dendrite_zoo.functional import summarize
from dendrite_zoo.report import forgetting_table, matrix_record, matrix_table, summary_table

NAN = math.nan
TABLE = [[0.90, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]]


def mean(values):
    values = [v for v in values if not math.isnan(v)]
    return sum(values) / len(values) if values else NAN


def naive(R, b):
    """The definitions, one number at a time."""
    T = len(R)
    lost = []
    for j in range(T - 1):
        before = [R[i][j] for i in range(j, T - 1) if not math.isnan(R[i][j])]
        lost.append(max(before) - R[T - 1][j] if before else NAN)
    return {
        "average_accuracy": mean(R[T - 1]),
        "forgetting": mean(lost),
        "backward_transfer": mean([R[T - 1][j] - R[j][j] for j in range(T - 1)]),
        "forward_transfer": mean([R[j - 1][j] - b[j] for j in range(1, T)]),
        "learning_accuracy": mean([R[j][j] for j in range(T)]),
        "forgetting_per_task": [*lost, NAN],
    }


def all_of(R, b):
    return {
        "average_accuracy": F.average_accuracy(R),
        "forgetting": F.forgetting(R),
        "backward_transfer": F.backward_transfer(R),
        "forward_transfer": F.forward_transfer(R, b),
        "learning_accuracy": F.learning_accuracy(R),
        "forgetting_per_task": F.forgetting_per_task(R),
    }


def assert_same(got, expected):
    for name, value in expected.items():
        value = torch.tensor(value, dtype=got[name].dtype)
        torch.testing.assert_close(
            got[name], value, equal_nan=True, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_hand_worked_table():
    got = all_of(TABLE, [0.10, 0.10, 0.10])
    assert_same(
        got,
        {
            "average_accuracy": (0.97 + 0.80 + 0.86) / 3,
            "forgetting": 0.030,  # task 0: .95 - .97 = -.02; task 1: .88 - .80 = .08
            "backward_transfer": -0.005,  # .97 - .90 = .07; .80 - .88 = -.08
            "forward_transfer": 0.015,  # .12 - .10; .11 - .10
            "learning_accuracy": 0.88,
            "forgetting_per_task": [-0.02, 0.08, NAN],
        },
    )
    for name, value in got.items():
        assert value.shape == ((3,) if name == "forgetting_per_task" else ())
        assert value.dtype == torch.float32


def test_what_was_not_yet_learned_cannot_be_forgotten():
    """Task 1 was at .92 before it was learned and at .88 after: it is .88 that was forgotten, down to .80."""
    R = torch.tensor(TABLE)
    R[0, 1] = 0.92
    torch.testing.assert_close(F.forgetting(R), torch.tensor(0.030))  # over all rows it would be .050
    torch.testing.assert_close(F.forgetting_per_task(R), torch.tensor([-0.02, 0.08, NAN]), equal_nan=True)


def test_perfect_memory_forgets_nothing():
    R = torch.eye(4).cumsum(0)  # 1 on every task learned, 0 on those to come
    assert F.forgetting(R) == 0
    assert F.backward_transfer(R) == 0
    assert F.average_accuracy(R) == F.learning_accuracy(R) == 1
    assert F.forward_transfer(R, torch.zeros(4)) == 0


def test_only_the_last_task_is_remembered():
    R = torch.eye(4)
    assert F.forgetting(R) == 1
    assert F.backward_transfer(R) == -1
    assert F.average_accuracy(R) == 0.25


entry = st.one_of(st.just(NAN), st.floats(0, 1, width=32))


@given(
    st.integers(1, 6).flatmap(
        lambda t: st.lists(st.lists(entry, min_size=t, max_size=t), min_size=t + 1, max_size=t + 1)
    )
)
def test_equals_the_loops_whatever_is_missing(rows):
    *R, b = rows
    assert_same(all_of(torch.tensor(R, dtype=torch.float64), b), naive(R, b))


def test_after_two_tasks_the_first_is_counted():
    """And after k tasks the mean is over k - 1, the last row left out of the best: by hand."""
    assert F.forgetting([[0.9, 0.1], [0.6, 0.9]]).item() == pytest.approx(0.3)
    R = [[0.9, 0.1, 0.1], [0.7, 0.8, 0.1], [0.5, 0.7, 0.9]]
    assert F.forgetting(R).item() == pytest.approx(((0.9 - 0.5) + (0.8 - 0.7)) / 2)


def test_none_is_what_was_not_measured_as_in_matrix_json():
    R, b = [[0.9, NAN, 0.1], [NAN, 0.8, 0.2], [0.7, 0.6, 0.9]], [NAN, 0.2, 0.1]
    held = matrix_record(R, b)
    assert None in held["baseline"] and None in held["matrix"][0]
    for name, metric in all_of(held["matrix"], held["baseline"]).items():
        torch.testing.assert_close(metric, all_of(R, b)[name], equal_nan=True)
    assert summarize(held["matrix"], held["baseline"])["forgetting"] == summarize(R, b)["forgetting"]
    assert matrix_record(held["matrix"], held["baseline"]) == held
    for table in (matrix_table, summary_table):
        assert table(held["matrix"], held["baseline"]).row_count == table(R, b).row_count
    assert forgetting_table(held["matrix"]).row_count == 4


def test_missing_rows_do_not_poison_what_is_defined():
    """Evaluated only after tasks 1 and 3 of four: each figure is the mean over the tasks that have both
    entries."""
    R = [[0.9, NAN, NAN, NAN], [0.8, 0.9, 0.2, NAN], [NAN] * 4, [0.6, 0.7, 0.5, 0.9]]
    assert_same(
        all_of(R, [0.1] * 4),
        {
            "average_accuracy": 0.675,
            "forgetting": ((0.9 - 0.6) + (0.9 - 0.7)) / 2,  # task 2 was measured before it was learned, not after
            "backward_transfer": ((0.6 - 0.9) + (0.7 - 0.9)) / 2,
            "forward_transfer": 0.2 - 0.1,
            "learning_accuracy": 0.9,
            "forgetting_per_task": [0.3, 0.2, NAN, NAN],
        },
    )


def test_training_started_at_a_later_task():
    """A model that knew tasks 0..2 learned task 3: row 2 is what was measured before, the rows above are
    empty."""
    R = torch.full((4, 4), NAN)
    R[2] = torch.tensor([0.9, 0.8, 0.7, 0.1])
    R[3] = torch.tensor([0.8, 0.8, 0.6, 0.9])
    untrained = torch.full((4,), NAN)
    assert_same(
        all_of(R, untrained),
        {
            "average_accuracy": 0.775,
            "forgetting": 0.2 / 3,
            "backward_transfer": -0.1,  # task 2 alone was measured right after it was learned
            "forward_transfer": NAN,  # the model was never measured untrained
            "learning_accuracy": (0.7 + 0.9) / 2,
            "forgetting_per_task": [0.1, 0.0, 0.1, NAN],
        },
    )
    R[1] = torch.tensor([1.0, 1.0, 1.0, 1.0])  # rows before that count for the tasks learned by then: 0 and 1
    torch.testing.assert_close(F.forgetting_per_task(R), torch.tensor([0.2, 0.2, 0.1, NAN]), equal_nan=True)
    R[1] = NAN
    before = R[:3, :3]
    assert F.average_accuracy(before).item() == pytest.approx(0.8)
    assert F.forgetting(before).isnan()


@pytest.mark.parametrize("size", [1, 3])
def test_undefined_is_nan_never_zero(size):
    got = all_of(torch.full((size, size), NAN), torch.full((size,), NAN))
    assert all(value.isnan().all() for value in got.values())


def test_one_task_has_nothing_to_forget():
    got = all_of([[0.9]], [0.1])
    assert_same(got, naive([[0.9]], [0.1]))
    assert got["forgetting"].isnan() and got["average_accuracy"] == pytest.approx(0.9)


def test_input_is_left_alone_and_dtype_kept():
    R = torch.tensor(TABLE, dtype=torch.float64)
    copy = R.clone()
    got = all_of(R, [0.1] * 3)
    assert torch.equal(R, copy)
    assert all(value.dtype == torch.float64 for value in got.values())
    assert F.average_accuracy([[1]]).dtype == torch.float32  # whole numbers become floats


@pytest.mark.parametrize("R", [[0.9, 0.8], torch.zeros(2, 3), torch.zeros(0, 0), torch.zeros(2, 2, 2)])
@pytest.mark.parametrize(
    "metric",
    [F.average_accuracy, F.forgetting, F.forgetting_per_task, F.backward_transfer, F.learning_accuracy],
)
def test_anything_but_a_square_is_refused(metric, R):
    with pytest.raises(ValueError, match=r"Expected an accuracy matrix of shape \(T, T\)"):
        metric(R)


@pytest.mark.parametrize("R", ["a", [[0.9, "b"], [0.8, 0.9]], [[0.9], [0.8, 0.9]], [[0.9, {}], [0.8, 0.9]]])
def test_what_are_no_numbers_is_refused(R):
    with pytest.raises(ValueError, match="Expected numbers, None where not measured, in rows of one length, but got"):
        F.forgetting(R)


def test_baseline_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"Expected `baseline` of shape \(3,\), .* but got \(2,\)"):
        F.forward_transfer(TABLE, [0.1, 0.1])


def test_learned_part_ends_with_the_last_row_measured():
    R = torch.full((5, 5), NAN)
    assert F.learned_part(R).shape == (1, 1)
    R[2, 0] = 0.5
    assert F.learned_part(R).shape == (3, 3)
    R[4, 4] = 0.5
    assert F.learned_part(R).shape == (5, 5)


def test_less_is_better_by_hand():
    """Losses: task 0 rose from 1 to 2 from its lowest, task 1 fell by .5; before it was learned, it had fallen by 1."""
    R = [[1.5, 3.0, 4.0], [1.0, 2.0, 4.0], [2.0, 1.5, 0.5]]
    assert F.forgetting_per_task(R, "min").tolist()[:2] == pytest.approx([1.0, -0.5])
    assert F.forgetting(R, "min").item() == pytest.approx(0.25)
    assert F.backward_transfer(R, "min").item() == pytest.approx((1.5 - 2.0 + 2.0 - 1.5) / 2)
    assert F.forward_transfer(R, [4.0, 4.0, 5.0], "min").item() == pytest.approx((4.0 - 3.0 + 5.0 - 4.0) / 2)
    with pytest.raises(ValueError, match="Expected `mode` to be one of 'max', 'min', but got 'less'"):
        F.forgetting(R, "less")


def test_less_is_better_is_more_of_the_negative():
    torch.manual_seed(0)
    R, b = torch.rand(5, 5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    R[torch.rand(5, 5) < 0.3] = NAN
    for metric, args in ((F.forgetting_per_task, ()), (F.backward_transfer, ()), (F.forward_transfer, (b,))):
        negative = [-x for x in args]
        torch.testing.assert_close(metric(R, *args, mode="min"), metric(-R, *negative), equal_nan=True)
