"""Records are merged where they are seeds of one recipe, and refused where they are no records."""

import json

import pytest
from rich.console import Console

from dendrite_zoo.records import merge_records, merge_rows, read_records, result_record
from dendrite_zoo.report import results_table

OPTIONS = "dendrite-zoo fit --config configs/tiny.yaml"


def rounded(text):
    return round(float(text), 9)


def record(command=OPTIONS, **more):
    made = result_record(
        benchmark="b",
        row="tiny",
        ours=True,
        context_at_test="inferred",
        task_accuracies=[0.9, 0.7],
        matrix=[[0.9, None], [0.9, 0.7]],
        seed=0,
        command=command,
        wall_time_s=1.0,
        parameters=5,
    )
    return {**made, **more}


def test_seeds_of_one_recipe_are_one_row():
    one = record(f"{OPTIONS} --name a --seed_everything 0 --data.init_args.seed 0", stream_seeds=[0])
    two = record(f"{OPTIONS} --name=b --data.init_args.seed=7 --trainer.enable_progress_bar false", stream_seeds=[7])
    (merged,) = merge_rows([one, two | {"seeds": [1]}])
    assert (merged["seeds"], merged["stream_seeds"]) == ([0, 1], [0, 7])
    (merged,) = merge_rows([one, two])
    assert merged["seeds"] == [0, 0], "other permutations are another run"
    for again in (one, {key: value for key, value in one.items() if key != "stream_seeds"}):
        with pytest.raises(ValueError, match="expected each once"):
            merge_rows([one, dict(again)])


def test_runs_without_a_seed_are_told_from_the_others():
    none = [record(seeds=[], stream_seeds=[stream], average_accuracy=stream / 10) for stream in (5, 1)]
    other = record(stream_seeds=[1], average_accuracy=0.9)
    (merged,) = merge_rows([*none, other, record(stream_seeds=[5], average_accuracy=0.5)])
    assert merged["seeds"] == [0, 0] and merged["stream_seeds"] == [5, 1, 1, 5]
    at_once, in_turn = merge_records([*none, other]), merge_records([merge_records(none), other])
    assert at_once["average_accuracy"] == in_turn["average_accuracy"] == pytest.approx(0.5)
    assert in_turn["task_accuracies"] == pytest.approx(at_once["task_accuracies"])


def test_a_seed_may_be_added_to_a_record_of_several():
    seeds = [record(seeds=[seed], average_accuracy=value) for seed, value in enumerate((0.9, 0.9, 0.6))]
    for one, other in zip(seeds, (0.1, 0.2, 0.6), strict=True):
        one |= {
            "task_accuracies": [other, 1.0],
            "matrix": [[other, None], [other, 1.0]],
            "accuracy_by_context": {"a": other},
        }
        one |= {"first_success": [[1], [0]], "success_at_last_step": other, "steps_to_success": [other, None]}
    del seeds[2]["accuracy_by_context"]["a"]
    seeds[2]["accuracy_by_context"]["b"] = 0.5
    at_once = merge_records(seeds)
    in_turn = merge_records([merge_records(seeds[:2]), seeds[2]])
    assert json.loads(json.dumps(in_turn), parse_float=rounded) == json.loads(json.dumps(at_once), parse_float=rounded)
    assert at_once["average_accuracy"] == pytest.approx(0.8) and at_once["average_accuracy_per_seed"] == [0.9, 0.9, 0.6]
    assert at_once["average_accuracy_std"] == pytest.approx(0.1732, abs=1e-4) and len(at_once["first_success"]) == 3
    assert at_once["accuracy_by_context"] == {}


def test_runs_with_other_options_stay_apart_and_the_table_tells_them(capsys):
    sweep = [record(f"{OPTIONS} --name {rate} --model.init_args.lr {rate}") for rate in (0.1, 0.2)]
    other = record("dendrite-zoo fit --config other.yaml", seeds=[1])
    assert len(merge_rows([*sweep, other])) == 3
    Console(width=200).print(results_table([*sweep, other]))
    shown = capsys.readouterr().out
    for label in ("tiny.yaml, --model.init_args.lr 0.1 ", "--model.init_args.lr 0.2 ", "tiny, --config other.yaml "):
        assert label in shown
    nested = f"{OPTIONS} --model.init_args.model.init_args.width 8"
    assert len(merge_rows([record(), record(nested, seeds=[1])])) == 2, "nothing else tells the model"
    assert len(merge_rows([record(model={"a": 1}), record(nested, seeds=[1], model={"a": 1, "b": None})])) == 1
    assert len(merge_rows([record(), record(f"{OPTIONS} --trainer.accelerator cpu", seeds=[1])])) == 1
    assert len(merge_rows([record("it's ours"), record("dendrite-zoo's", seeds=[1])])) == 1
    assert len(merge_rows([record("python train.py --seed 0"), record("python train.py --seed 1", seeds=[1])])) == 1


def test_a_run_without_a_seed_says_so():
    none = result_record(
        benchmark="b",
        row="r",
        ours=True,
        context_at_test="none",
        task_accuracies=[1.0],
        seed=None,
        command="c",
        wall_time_s=1,
        parameters=1,
    )
    assert none["seeds"] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("3", "holds 3; expected result records"),
        ("[]", "holds no result records"),
        ({"num_tasks": ...}, "lacks num_tasks"),
        ({"parameters": ..., "matrix": ...}, "lacks matrix, parameters"),
        ({"average_accuracy": None}, "average_accuracy None"),
        ({"average_accuracy": float("nan")}, "average_accuracy nan"),
        ({"seeds": 0}, "seeds 0"),
        ({"task_accuracies": [0.9]}, r"task_accuracies \[0.9\] of 2 tasks"),
        ({"matrix": [[0.9]]}, r"matrix \[\[0.9\]\] of 2 tasks"),
    ],
)
def test_what_is_no_record_is_refused(content, expected, tmp_path):
    if isinstance(content, dict):
        content = json.dumps({key: value for key, value in {**record(), **content}.items() if value is not ...})
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"results.json .*{expected}"):
        read_records(file)


def test_a_record_reads_back(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(record()))
    assert read_records(tmp_path) == [record()]
    assert (
        len(merge_rows([{k: v for k, v in record(seeds=[s]).items() if k != "task_accuracies"} for s in (0, 1)])) == 1
    )
