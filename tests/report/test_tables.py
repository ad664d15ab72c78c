"""Tables say what the matrix says, in 80 columns, whatever is missing."""

import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from dendrite_zoo.records import ResultRecord
from dendrite_zoo.report import forgetting_table, matrix_table, results_table, sparsity_table, summary_table
from dendrite_zoo.report.tables import decimal

NAN = math.nan
TABLE = torch.tensor([[0.90, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])


def text(table, width=80):
    console = Console(width=width, file=open("/dev/null", "w"), record=True, color_system=None)
    with console.file:
        console.print(table)
    return console.export_text()


def lines(table):
    return [line.split() for line in text(table).splitlines()]


def test_matrix_row_by_row():
    rows = lines(matrix_table(TABLE, [0.1, 0.1, 0.1], metric="val/acc"))
    assert rows[0] == ["val/acc", "on", "each", "task"]
    assert ["0", "1", "2", "mean"] in rows
    assert ["untrained", ".10", ".10", ".10", ".10"] in rows
    assert ["after", "0", ".90", ".12", ".10", ".90"] in rows  # the mean is over the tasks learned so far
    assert ["after", "1", ".95", ".88", ".11", ".91"] in rows
    assert ["after", "2", ".97", ".80", ".86", ".88"] in rows
    assert ["forgotten", "-.02", ".08", "·", ".03"] in rows


def test_what_was_measured_before_and_what_was_not():
    R = torch.full((4, 4), NAN)
    R[1] = torch.tensor([0.9, 0.8, 0.1, 0.1])
    R[2, :3] = torch.tensor([0.8, 0.8, 0.9])
    rows = lines(matrix_table(R, torch.full((4,), NAN), first_task=2))
    assert ["before", ".90", ".80", ".10", ".10", ".85"] in rows
    assert ["after", "2", ".80", ".80", ".90", "·", ".83"] in rows
    assert ["forgotten", ".10", ".00", "·", ".05"] in rows
    assert not any("untrained" in row for row in rows)


def test_a_row_with_gaps_has_no_mean():
    R = torch.tensor([[0.9, NAN, NAN], [NAN, 0.8, NAN], [0.3, 0.4, 0.95]])
    rows = lines(matrix_table(R))
    assert ["after", "0", ".90", "·", "·", ".90"] in rows and ["after", "2", ".30", ".40", ".95", ".55"] in rows
    assert not any(row[:2] == ["after", "1"] and row[-1] != "·" for row in rows)


def test_nothing_measured_is_a_table_too():
    for size in (1, 3):
        assert "mean" in text(matrix_table(torch.full((size, size), NAN)))
        assert "·" in text(forgetting_table(torch.full((size, size), NAN)))


def stream(T):
    R = 0.9 - 0.005 * (torch.arange(T)[:, None] - torch.arange(T)).clamp(min=0)
    return R.masked_fill(torch.ones(T, T).triu(1).bool(), 0.1)


@pytest.mark.parametrize("T", [5, 12, 100])
def test_fits_into_a_terminal(T):
    out = text(matrix_table(stream(T), torch.full((T,), 0.1)))
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= 22


def test_twelve_values_with_a_sign_fit_into_a_terminal():
    """Where all tasks became better, as in a fine-tuning that forgets nothing."""
    R = stream(12)
    R[-1, :-1] = 0.97
    out = text(matrix_table(R))
    assert "…" not in out and max(map(len, out.splitlines())) <= 80
    assert ["forgotten", *["-.07"] * 11, "·", "-.07"] in [line.split() for line in out.splitlines()]


def test_a_long_stream_is_abridged():
    rows = lines(matrix_table(stream(100)))
    assert rows[0][-4:] == ["12", "of", "100", "tasks"]
    head = next(row for row in rows if row and row[-1] == "mean")
    assert head[0] == "0" and head[-2] == "99" and len(head) == 13
    last = next(row for row in rows if row[:2] == ["after", "99"])
    assert last[-1] == decimal(stream(100)[-1].mean())  # of all tasks, not of those shown


def test_a_long_stream_shows_its_milestones():
    R, milestones = stream(100), [0, 9, 99]
    full = torch.full_like(R, NAN).diagonal_scatter(R.diagonal())
    full[milestones] = R[milestones]
    rows = [row[1] for row in lines(matrix_table(full)) if row[:1] == ["after"]]
    assert rows == ["0", "9", "99"]


def test_summary_gives_reasons():
    out = text(summary_table(TABLE))
    assert "forgetting         .030   over 2 tasks" in out
    assert "backward transfer  -.005  over 2 tasks" in out
    assert "forward transfer   ·      the untrained model was not measured" in out


def test_forgetting_of_each_task():
    rows = lines(forgetting_table(TABLE))
    assert ["0", ".90", ".95", ".97", "-.02"] in rows
    assert ["1", ".88", ".88", ".80", ".08"] in rows
    assert ["2", ".86", "·", ".86", "·"] in rows
    shown = [row[0] for row in lines(forgetting_table(stream(30), max_tasks=3)) if row and row[0].isdigit()]
    assert shown == ["0", "1", "2"]  # the oldest lost most


def test_less_is_better():
    """The loss of task 0 was lowest at .40, and rose to .90; the mean of a row is no accuracy."""
    R = [[0.5, 2.0, 3.0], [0.4, 0.3, 3.0], [0.9, 0.2, 0.1]]
    rows = lines(forgetting_table(R, mode="min"))
    assert ["0", ".50", ".40", ".90", ".50"] in rows
    assert ["1", ".30", ".30", ".20", "-.10"] in rows
    assert ["forgotten", ".50", "-.10", "·", ".20"] in lines(matrix_table(R, mode="min"))
    summary = lines(summary_table(R, mode="min"))
    assert ["average", ".400", "over", "3", "tasks"] in summary
    assert ["forgetting", ".200", "over", "2", "tasks"] in summary


def test_sparsity_before_and_after():
    now = {"layers.0": {"activation_sparsity": 0.95, "dead_units": 0.0}, "head": {"weight_sparsity": 0.5}}
    rows = lines(sparsity_table(now))
    assert ["layers.0", ".95", ".00"] in rows and ["head", ".50"] in rows
    was = {"layers.0": {"activation_sparsity": 0.9, "dead_units": NAN}}
    assert ["layers.0", ".90", "→", ".95", "·", "→", ".00"] in lines(sparsity_table(now, before=was))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.874, ".87"),
        (-0.02, "-.02"),
        (-0.001, ".00"),
        (0.999, "1.00"),
        (12.5, "12.50"),
        (-1.2, "-1.20"),
        (NAN, "·"),
    ],
)
def test_decimal(x, expected):
    assert decimal(x) == expected


def test_results_are_ordered_by_tasks_and_accuracy_beside_what_was_published():
    one = dict(benchmark="permuted-mnist", context_at_test="inferred", seed=0, command="c", wall_time_s=1.0)
    records = [
        ResultRecord.from_run([0.9] * 100, method="active dendrites", parameters=1, **one),
        ResultRecord.from_run([0.8] * 10, method="MLP", parameters=1, **one),
        ResultRecord.from_run([0.95] * 10, method="active dendrites", parameters=1, **one),
    ]
    rows = lines(results_table(records))
    assert [row for row in rows if row[-1:] and row[-1].startswith("0.")] == [
        ["active", "dendrites", "10", "inferred", "0.9500", "0", "0.9455"],
        ["MLP", "10", "inferred", "0.8000", "0", "0.8203"],
        ["active", "dendrites", "100", "inferred", "0.9000", "0", "0.8142"],
    ]
    models = [{"width": 9, "num_segments": n} for n in range(2)]
    swept = [replace(records[n], method="ours", model=model) for n, model in enumerate(models)]
    shown = text(results_table(swept + records), 120)
    assert "ours, num_segments 0 " not in shown and "width" not in shown  # those are of other numbers of tasks
    swept = [replace(record, num_tasks=10) for record in swept]
    assert "ours, num_segments 0 " in text(results_table(swept), 120)
    other = [replace(record, benchmark="permuted-digits") for record in records]
    assert "0.9455" not in text(results_table(other))


def test_one_task_of_many_is_the_last():
    shown = lines(matrix_table(stream(30), max_tasks=1))
    assert [row[:2] for row in shown if row and row[0] == "after"] == [["after", "29"]]
