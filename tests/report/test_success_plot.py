"""Success over the steps of the simulation, as a picture."""

import numpy as np
import pytest

from dendrite_zoo.cli.main import main
from dendrite_zoo.records import ResultRecord, write_records
from dendrite_zoo.report import plot_success

CURVE = [
    {"env_steps": 100.0, "success/push-v3": 0.0, "success/reach-v3": 0.5, "success/mean": 0.25},
    {"env_steps": 300.0, "success/push-v3": 0.25, "success/mean": 0.25},
    {"env_steps": 350.0, "success/push-v3": 1.0, "success/reach-v3": 1.0, "success/mean": 1.0},
]


def cells(figure):
    (mesh,) = figure.axes[0].collections
    return mesh.get_array(), mesh.get_coordinates()[0, :, 0].tolist()


def test_a_row_a_task_and_a_cell_from_one_measurement_to_the_next():
    figure = plot_success(CURVE)
    values, edges = cells(figure)
    assert edges == [0, 100, 300, 350]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["push-v3", "reach-v3"]
    assert values.filled(-1).tolist() == [[0, 0.25, 1], [0.5, -1, 1]]  # reaching was not measured the second time


def test_minutes_stand_above_where_each_measurement_has_them():
    timed = [{**point, "minutes": minutes} for point, minutes in zip(CURVE, (2.0, 3.0, 7.0), strict=True)]
    figure = plot_success(timed)
    figure.draw_without_rendering()
    (above,) = figure.axes[0].child_axes
    assert above.get_xlabel() == "minutes" and above.get_xlim() == (0, 7)
    below = figure.axes[0]
    places = below.transData.inverted().transform([above.transData.transform((minute, 0)) for minute in (2, 3, 7)])
    assert places[:, 0] == pytest.approx([100, 300, 350])
    assert not plot_success([*timed[:2], CURVE[2]]).axes[0].child_axes  # not known of all


def test_of_measurements_between_which_all_tasks_rested_the_last_is_shown():
    values, edges = cells(plot_success([*CURVE, {"env_steps": 350.0, "success/reach-v3": 0.75}]))
    assert edges == [0, 100, 300, 350] and values.filled(-1).tolist() == [[0, 0.25, 1], [0.5, -1, 0.75]]


def test_tasks_in_an_order_of_choice():
    values, _ = cells(plot_success(CURVE, tasks=["reach-v3", "push-v3", "never-measured"]))
    assert values.filled(-1).tolist() == [[0.5, -1, 1], [0, 0.25, 1]]


@pytest.mark.parametrize("curve", [[], [{"env_steps": 3.0}], [{"success/reach-v3": 1.0}], [CURVE[1], CURVE[0]]])
def test_what_is_no_curve_is_refused(curve, tmp_path):
    with pytest.raises(ValueError, match=r"Expected measurements with growing `env_steps`.*Log them"):
        plot_success(curve, tmp_path / "success.png")
    assert not list(tmp_path.iterdir())


def test_report_draws_it_of_each_record_that_has_a_curve(tmp_path, capsys):
    known = {"benchmark": "two", "context_at_test": "given", "num_tasks": 2, "average_accuracy": 1.0, "seeds": [0]}
    records = [
        ResultRecord(method="learned", more={"curve": CURVE, "tasks": ["reach-v3", "push-v3"]}, **known),
        ResultRecord(method="imitated", **known),
    ]
    write_records(records, tmp_path / "runs.json")
    main(["report", str(tmp_path / "runs.json"), "--figures", str(tmp_path / "drawn")])
    assert "success-by-steps-two.png" in capsys.readouterr().out
    assert (tmp_path / "drawn/success-by-steps-two.png").stat().st_size > 10_000


def test_minutes_that_were_not_reached_or_are_too_near_are_left_out():
    steps = [100, 190, 280, 290, 300]  # the last two measurements took as long as the first three
    timed = [
        {"env_steps": float(n), "minutes": m, "success/push-v3": 0.0}
        for n, m in zip(steps, (5.0, 10.0, 14.0, 17.0, 18.3), strict=True)
    ]
    (above,) = plot_success(timed).axes[0].child_axes
    ticks = above.get_xticks().tolist()
    assert ticks[0] == 0 and max(ticks) <= 18.3
    places = np.interp(ticks, [0, 5, 10, 14, 17, 18.3], [0, *steps]) / 300
    assert (np.diff(places) >= 0.06).all() and len(ticks) >= 4
