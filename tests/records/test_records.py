"""Records are merged where they are seeds of one recipe, and refused where they are no records."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from dendrite_zoo._core.files import MAX_BYTES
from dendrite_zoo.records import ResultRecord, merge_records, merge_seeds, read_records, write_records
from dendrite_zoo.report import results_table

CONFIG = {"module": {"class": "ContinualClassifier", "lr": 0.1}, "data": {"epochs_per_task": 3}}


def rounded(text):
    return round(float(text), 9)


def record(seed=0, config=CONFIG, **more):
    known = {"method": "tiny", "command": "dendrite-zoo fit", "wall_time_s": 1.0, "parameters": 5, **more}
    return ResultRecord.from_run(
        [0.9, 0.7],
        benchmark="b",
        context_at_test="inferred",
        matrix=[[0.9, None], [0.9, 0.7]],
        seed=seed,
        config=config,
        **known,
    )


def with_lr(lr):
    return {**CONFIG, "module": {**CONFIG["module"], "lr": lr}}


def test_seeds_of_one_recipe_are_one_method():
    one = record(stream_seeds=[0])
    two = record(stream_seeds=[7], command="dendrite-zoo fit --name b")
    (merged,) = merge_seeds([one, replace(two, seeds=[1])])
    assert (merged.seeds, merged.stream_seeds) == ([0, 1], [0, 7])
    (merged,) = merge_seeds([one, two])
    assert merged.seeds == [0, 0], "other permutations are another run"
    for again in (one, replace(one, stream_seeds=None)):
        with pytest.raises(ValueError, match="Expected each seed once"):
            merge_seeds([one, again])


def test_runs_without_a_seed_are_never_merged():
    """Nobody can tell whether they are one run, given twice."""
    unseeded = record(None)
    assert merge_seeds([unseeded, unseeded, record(1)]) == [unseeded, unseeded, record(1)]
    of_three = replace(record(), seeds=[1, 2, 3])  # whose single values are not known, nor what each counts
    assert merge_seeds([record(), of_three]) == [record(), of_three]
    for other, got in ((unseeded, "0 of 1"), (of_three, "3 of 1")):
        with pytest.raises(ValueError, match=f"the seed and the average accuracy of each run, but got {got}"):
            merge_records([record(), other])
    with pytest.raises(ValueError, match="but got none"):
        merge_records([])


def test_seeds_of_streams_that_are_too_few_hide_no_seed():
    merged = merge_records([record(0, stream_seeds=[5]), record(1, stream_seeds=[6])])
    with pytest.raises(ValueError, match="Expected each seed once"):
        merge_records([replace(merged, stream_seeds=[5]), record(1, stream_seeds=[6])])


def test_a_seed_may_be_added_to_a_record_of_several():
    seeds = []
    for seed, (value, other) in enumerate(zip((0.9, 0.9, 0.6), (0.1, 0.2, 0.6), strict=True)):
        seeds.append(
            replace(
                record(seed),
                average_accuracy=value,
                task_accuracies=[other, 1.0],
                matrix=[[other, None], [other, 1.0]],
                accuracy_by_context={"a": other} if seed < 2 else {"b": 0.5},
                more={
                    "first_success": [[1], [0]],
                    "success_at_last_step": other,
                    "steps_to_success": [other, None],
                },
            )
        )
    at_once = merge_records(seeds)
    in_turn = merge_records([merge_records(seeds[:2]), seeds[2]])
    first, second = (json.loads(json.dumps(one.to_json()), parse_float=rounded) for one in (in_turn, at_once))
    assert first == second
    assert at_once.average_accuracy == pytest.approx(0.8) and at_once.average_accuracy_per_seed == [0.9, 0.9, 0.6]
    assert at_once.average_accuracy_std == pytest.approx(0.1732, abs=1e-4)
    assert len(at_once.more["first_success"]) == 3 and at_once.matrix[1] == [pytest.approx(0.3), 1.0]
    assert at_once.accuracy_by_context == {}


@pytest.mark.parametrize("other", [{"tasks": ["b", "a"]}, {"num_goals": 50}])
def test_goals_of_other_tasks_are_no_seeds_of_one_recipe(other):
    """Goals are known by their places: those of one task would be counted for another."""
    played = {"tasks": ["a", "b"], "num_goals": 1, "first_success": [[1], [0]]}
    played |= {"success_at_last_step": 0.5, "steps_to_success": [1.0, None]}
    one, two = record(**played), record(1, **{**played, **other})
    assert merge_seeds([one, two]) == [one, two]
    with pytest.raises(ValueError, match=f"Expected seeds of one recipe, but got `{next(iter(other))}` "):
        merge_records([one, two])


def test_numbers_of_ones_own_are_means_where_each_seed_has_them():
    seeds = [
        record(0, right=0.5, tasks_right=[0.5, 1], steps=10, size=7, by_gates=[True], note="a", lost=1.0, curve=[1, 2]),
        record(1, right=0.7, tasks_right=[0.7, 0], steps=20, size=7, by_gates=[False], note="b", curve=[1]),
        record(2, right=0.9, tasks_right=[0.9, 2], steps=60, size=7, by_gates=[False], note="c", lost=2.0, curve=[1]),
    ]
    for merged in (merge_records(seeds), merge_records([merge_records(seeds[:2]), seeds[2]])):
        assert merged.more == {
            **{"right": pytest.approx(0.7), "right_per_seed": [0.5, 0.7, 0.9], "steps": 30, "size": 7},
            **{"tasks_right": [pytest.approx(0.7), 1], "tasks_right_per_seed": [[0.5, 1], [0.7, 0], [0.9, 2]]},
            **{"steps_per_seed": [10, 20, 60], "by_gates": [True], "note": "a", "lost": 1.0, "curve": [1, 2]},
        }
    earlier = replace(record(5, right=0.1), seeds=[5, 6], average_accuracy_per_seed=[0.8, 0.8])
    merged = merge_records([earlier, seeds[0]])
    assert merged.more["right"] == 0.1 and "right_per_seed" not in merged.more, "of the first seed, as it was merged"


def test_seeds_that_took_other_numbers_of_steps_can_be_merged_and_written(tmp_path):
    merged = merge_records([record(0, env_steps=100), record(1, env_steps=100), record(2, env_steps=101)])
    (read,) = read_records(write_records([merged], tmp_path / "results.json"))
    assert read.more["env_steps"] == 100 and read.more["env_steps_per_seed"] == [100, 100, 101]


def test_what_one_of_the_seeds_lacks_has_no_mean():
    whole = record(accuracy_by_context={"inferred": 0.8})
    merged = merge_records([whole, replace(record(1), matrix=None, task_accuracies=None)])
    assert merged.matrix is merged.task_accuracies is merged.accuracy_by_context is None


def test_the_hash_is_that_of_what_decides_the_result():
    """Argued by hand: nulls, the order of keys, seeds and what was typed do not matter; each value does."""
    one = record(model={"a": 1})
    drawn = {"a": 1, "b": None, "segment_seed": 3}
    same = record(3, command="python train.py", model=drawn, config=dict(reversed(CONFIG.items())))
    assert one.config_hash == same.config_hash and len(one.config_hash) == 16
    others = [
        record(model={"a": 2}),
        record(model={"a": 1}, config=with_lr(0.2)),
        record(model={"a": 1}, val_fraction=0.1),
        record(model={"a": 1}, config={**CONFIG, "data": {}}),
    ]
    assert len({one.config_hash, *(other.config_hash for other in others)}) == 5
    assert one.recipe(but_for="a") == others[0].recipe(but_for="a") != others[1].recipe(but_for="a")


def test_runs_of_an_unknown_recipe_are_never_merged():
    unknown = [record(seed, config=None) for seed in (0, 1, 1)]
    assert all(one.config_hash is None for one in unknown)
    assert merge_seeds(unknown) == unknown
    with pytest.raises(ValueError, match="`config_hash` is None"):
        merge_records(unknown[:2])
    with pytest.raises(ValueError, match="Expected seeds of one recipe, but got `parameters` 5 and 6"):
        merge_records([record(), record(1, parameters=6)])


def test_runs_with_other_settings_stay_apart_and_the_table_tells_them(capsys):
    sweep = [record(config=with_lr(rate)) for rate in (0.1, 0.2)]
    other = record(1, config={**CONFIG, "data": {"epochs_per_task": 5}})
    assert len(merge_seeds([*sweep, other])) == 3
    Console(width=200).print(results_table([*sweep, other]))
    shown = capsys.readouterr().out
    for label in ("tiny, module.lr 0.1, ", "module.lr 0.2, ", "data.epochs_per_task 5 "):
        assert label in shown
    assert "ContinualClassifier" not in shown, "which they have in common"


def test_a_run_without_a_seed_says_so():
    assert record(None).seeds == []


@pytest.mark.parametrize(
    ("accuracies", "known", "error", "said"),
    [
        ([], {}, ValueError, "`num_tasks` .* from 1 to 2000, but got 0"),
        ([0.9, float("nan")], {}, ValueError, "`.*` of this run to be from 0 to 1"),
        ([95.0], {}, ValueError, "from 0 to 1"),
        ([0.9], {"matrix": [[2.0]]}, ValueError, "`matrix` .* from 0 to 1"),
        ([0.9], {"matrix": [[0.9, 0.9]]}, ValueError, "`matrix` .* of 1 tasks"),
        (
            [0.9],
            {"context_at_test": "wrong"},
            ValueError,
            "`context_at_test` .* one of inferred, given, none, constant",
        ),
        ([0.9], {"hardwaer": "mine"}, TypeError, "no field `hardwaer`. Did you mean 'hardware'?"),
        ([0.9], {"row": "tiny"}, TypeError, "`row` is now `method`"),
    ],
)
def test_what_is_no_result_of_a_run_is_refused(accuracies, known, error, said):
    good = {"benchmark": "b", "method": "m", "context_at_test": "none"}
    with pytest.raises(error, match=said):
        ResultRecord.from_run(accuracies, **{**good, **known})
    with pytest.raises(TypeError, match="Expected method, context_at_test of a run, but got none"):
        ResultRecord.from_run([0.9], benchmark="b")


def test_accuracies_may_be_numbers_of_numpy_and_torch(tmp_path):
    for accuracies in (np.array([0.5, 0.25], dtype=np.float32), torch.tensor([0.5, 0.25])):
        one = ResultRecord.from_run(accuracies, benchmark="b", method="m", context_at_test="none", own={"key": 1})
        write_records([one], tmp_path / "results.json")
        assert read_records(tmp_path) == [one] and one.average_accuracy == 0.375 and one.more == {"own": {"key": 1}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("3", "holds 3"),
        ("[]", "holds no result records"),
        ("{", "no valid JSON"),
        ({"num_tasks": ...}, "lacks num_tasks"),
        ({"parameters": ..., "matrix": ...}, "lacks matrix, parameters"),
        ({"average_accuracy": None}, "`average_accuracy`.* but got None"),
        ({"average_accuracy": float("nan")}, "NaN is not JSON"),
        ({"average_accuracy": 95.0}, "`average_accuracy`.* from 0 to 1, but got 95.0"),
        ({"average_accuracy_std": -0.1}, "`average_accuracy_std`.* from 0 to 1, but got -0.1"),
        ({"matrix": [[0.9, 0.1], [0.8, 2.0]]}, "`matrix`.* from 0 to 1"),
        ({"task_accuracies": [0.9, 7]}, "`task_accuracies`.* from 0 to 1"),
        ({"accuracy_by_context": {"given": 1.5}}, "`accuracy_by_context`.* from 0 to 1"),
        (
            {"context_at_test": "guessed"},
            "`context_at_test`.* one of inferred, given, none, constant",
        ),
        ({"average_accuracy": True}, "`average_accuracy`.* but got True"),
        ({"seeds": 0}, "`seeds`.* `list.int.`, but got 0"),
        ({"seeds": ["0"]}, "`seeds`.* but got"),
        ({"versions": {"torch": 2}}, "`versions`.* but got"),
        ({"num_tasks": 100_000}, "`num_tasks`.* from 1 to 2000, but got 100000"),
        ({"task_accuracies": [0.9]}, r"`task_accuracies`.* of 2 tasks, but got \[0.9\]"),
        ({"matrix": [[0.9]]}, r"`matrix`.* of 2 tasks, but got \[\[0.9\]\]"),
        ({"matrix": [[0.9, "x"], [0.9, 0.7]]}, "`matrix`.*list.list.float . None.."),
        ({"ours": True, "row": "tiny"}, "`row` is now `method`"),
        ({"source": "published"}, "lacks reference"),
    ],
)
def test_what_is_no_record_is_refused(content, expected, tmp_path):
    if isinstance(content, dict):
        changed = {**record().to_json(), **content}
        content = json.dumps({key: value for key, value in changed.items() if value is not ...})
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=expected) as refused:
        read_records(file)
    assert str(file) in str(refused.value)


def test_what_is_too_large_or_too_deep_is_not_read(tmp_path):
    file = tmp_path / "results.json"
    with file.open("wb") as huge:
        huge.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="at most 67,108,864 bytes"):
        read_records(file)
    for depth in (17, 100_000):
        file.write_text("[" * depth + "]" * depth)
        with pytest.raises(ValueError, match="at most 16 deep|no valid JSON"):
            read_records(file)


def test_a_record_reads_back(tmp_path):
    one = record(stream_seeds=[3], model={"width": [8, 8]}, mine={"of": "a stranger"})
    write_records([one], tmp_path / "results.json")
    assert read_records(tmp_path) == [one] and one.more == {"mine": {"of": "a stranger"}}
    (written,) = json.loads((tmp_path / "results.json").read_text())
    assert written["mine"] == {"of": "a stranger"} and "more" not in written and written["average_accuracy_std"] is None
    with pytest.raises(FileNotFoundError, match="holds no result records"):
        read_records(tmp_path / "elsewhere")
    seeds = [replace(record(seed), task_accuracies=None) for seed in (0, 1)]
    assert len(merge_seeds(seeds)) == 1


def test_a_published_number_needs_its_reference_alone():
    number = {"benchmark": "b", "method": "m", "context_at_test": "none", "num_tasks": 10, "average_accuracy": 0.9}
    read = ResultRecord.from_json({**number, "source": "published", "reference": "Somebody 2020"})
    assert read.reference == "Somebody 2020" and read.config_hash is None and read.seeds == []
