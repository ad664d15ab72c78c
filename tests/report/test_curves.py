"""Accuracy by tasks, segments and density, beside the published numbers."""

from dataclasses import replace

import pytest
from PIL import Image

from dendrite_zoo.records import ResultRecord, merge_seeds
from dendrite_zoo.report import PUBLISHED, accuracy_by, accuracy_by_tasks, plot_accuracy, published_accuracy


def record(
    method, tasks, accuracy, *, matrix=None, benchmark="permuted-mnist", val_fraction=None, lr=0.1, seed=0, **model
):
    return ResultRecord.from_run(
        [accuracy] * tasks,
        benchmark=benchmark,
        method=method,
        context_at_test="inferred",
        seed=seed,
        command="c",
        wall_time_s=1,
        parameters=5,
        matrix=matrix,
        model=model,
        config={"module": {"lr": lr}},
        val_fraction=val_fraction,
    )


def curves(figure):
    lines = figure.axes[0].get_lines()
    return {line.get_label(): [tuple(point) for point in line.get_xydata().round(6).tolist()] for line in lines}


def test_a_long_run_gives_a_point_wherever_all_tasks_were_measured():
    matrix = [[0.9, None, None, None], [0.7, 0.9, 0.1, 0.1], [None, None, 0.9, None], [0.5, 0.7, 0.7, 0.9]]
    assert accuracy_by_tasks(record("r", 4, 0.7, matrix=matrix)) == pytest.approx({1: 0.9, 2: 0.8, 4: 0.7})
    assert accuracy_by_tasks(record("r", 4, 0.7)) == {4: 0.7}


def test_curves_by_tasks_stand_beside_what_was_published(tmp_path):
    records = [record("active dendrites", 10, 0.94), record("active dendrites", 2, 0.97), record("ours", 10, 0.97)]
    figure = plot_accuracy(records, path=tmp_path / "tasks.png")
    drawn = curves(figure)
    assert drawn["active dendrites"] == [(2, 0.97), (10, 0.94)] and drawn["ours"] == [(10, 0.97)]
    published = drawn["active dendrites, published"]
    assert (10, 0.9455) in published and (100, 0.8142) in published and "ours, published" not in drawn
    assert drawn["XdG + SI, published"][-1] == (100, 0.955)
    assert {text.get_text() for text in figure.axes[0].texts} == set(drawn) and figure.axes[0].get_legend() is None
    with Image.open(tmp_path / "tasks.png") as image:
        assert image.size[0] > 800


def test_a_picture_shows_eight_curves_those_that_reach_furthest_and_the_best_published():
    short = [record(f"short {n}", 5, 0.5 + n / 100) for n in range(9)]
    far = [record(f"far {n}", 100 + n, 0.9) for n in range(4)]
    drawn = curves(plot_accuracy([*short, *far]))
    assert len(drawn) == 8 and {label for label in drawn if "published" not in label} == {f"far {n}" for n in range(4)}
    last = {r.method: r.average_accuracy for r in sorted(PUBLISHED, key=lambda r: r.num_tasks) if not r.model}
    best = sorted(last, key=lambda method: -last[method])[:4]
    assert {label for label in drawn if "published" in label} == {f"{row}, published" for row in best}
    elsewhere = [record(f"row {n}", 5, 0.5 + n / 100, benchmark="b") for n in range(9)]
    assert sorted(curves(plot_accuracy(elsewhere))) == [f"row {n}" for n in range(1, 9)]


def test_labels_do_not_cover_each_other_and_bars_show_seeds():
    records = [record(f"row {n}", 10, 0.9 + n / 1e4, benchmark="b") for n in range(8)]
    records[3] = replace(records[3], average_accuracy_std=0.004, seeds=[0, 1, 2])
    axes = plot_accuracy(records).axes[0]
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert min(high - low for low, high in zip(heights, heights[1:], strict=False)) > 0.03
    [bar] = [c for c in axes.containers if c.has_yerr]
    assert [y.tolist() for y in bar.lines[2][0].get_segments()[0][:, 1:]] == [
        [pytest.approx(0.8963)],
        [pytest.approx(0.9043)],
    ]
    assert "1 to 3 seeds a curve; bars: standard deviation" in axes.get_title(loc="left")
    colours = {line.get_label(): line.get_color() for line in axes.get_lines()}
    assert all(text.get_color() == colours[text.get_text()] for text in axes.texts), "of the line that ends there"


def test_a_run_of_an_unknown_seed_is_a_measured_curve():
    axes = plot_accuracy([record("ours", 10, 0.9, seed=None)]).axes[0]
    assert "1 seed a curve" in axes.get_title(loc="left") and axes.get_lines()[0].get_linestyle() == "-"


def test_what_was_published_stands_beside_its_own_benchmark_alone():
    digits = record("active dendrites", 10, 0.94, benchmark="permuted-digits")
    assert list(curves(plot_accuracy([digits]))) == ["active dendrites"]
    with pytest.raises(ValueError, match="Expected records of one benchmark, but got permuted-digits, permuted-mnist"):
        plot_accuracy([digits, record("active dendrites", 10, 0.94)])


@pytest.mark.parametrize("accuracies", [(0.1, 0.5), (0.97, 0.985), (0.0, 1.0), (0.9999, 0.99999)])
def test_all_points_lie_within_the_axis(accuracies):
    drawn = [record(f"row {a}", 10, a, benchmark="b") for a in accuracies]
    axes = plot_accuracy(drawn).axes[0]
    low, high = axes.get_ylim()
    assert low <= min(accuracies) and max(accuracies) <= high


def test_curves_by_segments_and_density():
    by_segments = [record("active dendrites", 10, 0.9 + s / 1000, num_segments=s) for s in (10, 2, 5)]
    found = accuracy_by(by_segments, "num_segments")
    assert found == {("active dendrites", 10): pytest.approx({2: 0.902, 5: 0.905, 10: 0.91})}
    drawn = curves(plot_accuracy(by_segments, "num_segments"))
    assert drawn["active dendrites, 10 tasks"] == [(2, 0.902), (5, 0.905), (10, 0.91)]
    assert drawn["active dendrites, 10 tasks, published"][0] == (2, 0.9358) and len(drawn) == 2
    ours = [record("ours", 10, 0.98 + d / 100, activation_density=d) for d in (0.05, 0.1)]
    drawn = curves(plot_accuracy(ours, "activation_density"))
    assert (0.99, 0.5712) in drawn["active dendrites, 10 tasks, published"] and len(drawn) == 2
    with pytest.raises(ValueError, match="differ in activation_density at least, but got none"):
        plot_accuracy(by_segments, "activation_density")


def test_a_curve_is_of_models_that_are_otherwise_equal():
    sizes = [(s, 0.05) for s in (2, 5, 10)] + [(10, 0.1), (10, 0.2)]
    both = [record("r", 10, s / 100 + d, num_segments=s, activation_density=d) for s, d in sizes]
    assert accuracy_by(both, "num_segments") == {("r", 10): pytest.approx({2: 0.07, 5: 0.1, 10: 0.15})}
    assert accuracy_by(both, "activation_density") == {("r", 10): pytest.approx({0.05: 0.15, 0.1: 0.2, 0.2: 0.3})}
    first = {"num_segments": 2, "activation_density": 0.05}
    assert len(merge_seeds(both)) == 5 and len(merge_seeds([both[0], record("r", 10, 0.1, seed=1, **first)])) == 1
    assert len(merge_seeds([both[0], record("r", 10, 0.1, seed=1, val_fraction=0.1, **first)])) == 2


def test_a_curve_holds_no_other_recipe_and_no_held_out_rows():
    swept = [record("r", 10, s / 100, num_segments=s, max_tasks=10) for s in (2, 5)]
    base = record("r", 10, 0.1, num_segments=None, max_tasks=10)  # None: a segment a task
    model = {"num_segments": 2, "max_tasks": 10}
    others = [record("r", 10, 0.5, val_fraction=0.1, **model), record("r", 10, 0.6, lr=1.0, **model)]
    others.append(replace(swept[0], average_accuracy=0.7, config=None, config_hash=None))
    several = replace(record("another method", 10, 0.9, num_segments=3, max_tasks=10), seeds=[0, 1, 2])
    assert "1 seed a curve" in plot_accuracy([*swept, several], "num_segments").axes[0].get_title(loc="left")
    for records in ([*swept, base, *others], [*others, base, *swept]):
        assert accuracy_by(records, "num_segments") == {("r", 10): pytest.approx({2: 0.02, 5: 0.05, 10: 0.1})}


def test_published_numbers_are_those_of_the_paper():
    assert published_accuracy("active dendrites + SI")[100] == 0.9159 and published_accuracy("XdG + SI")[10] == 0.9795
    assert {r.context_at_test for r in PUBLISHED if r.method == "XdG + SI"} == {"given"}
    assert accuracy_by(PUBLISHED, "num_segments")["active dendrites", 50][100] == 0.8355
    assert accuracy_by(PUBLISHED, "activation_density")["active dendrites", 10][0.99] == 0.5712
