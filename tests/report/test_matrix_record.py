"""matrix.json holds every number that the matrix holds, and appears whole or not at all."""

import json
import math
import os

import pytest
import torch

from dendrite_zoo._core.files import write_atomically
from dendrite_zoo.report import matrix_record, write_record

NAN = math.nan


def test_record():
    R = torch.full((3, 3), NAN)
    R[:2] = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.9, NAN]])
    record = matrix_record(R, metric="val/acc", samples=[10, 10, None])
    assert record == {
        "metric": "val/acc",
        "mode": "max",
        "num_tasks": 3,
        "first_task": 0,
        "matrix": [[0.9, 0.1, 0.2], [0.8, 0.9, None], [None, None, None]],
        "baseline": [None, None, None],
        "samples": [10, 10, None],
        "metrics": {
            "average_accuracy": {"value": 0.85, "tasks": 2, "reason": None},
            "forgetting": {"value": 0.1, "tasks": 1, "reason": None},
            "backward_transfer": {"value": -0.1, "tasks": 1, "reason": None},
            "forward_transfer": {"value": None, "tasks": 0, "reason": "the untrained model was not measured"},
            "learning_accuracy": {"value": 0.9, "tasks": 2, "reason": None},
        },
        "forgetting_per_task": [0.1, None, None],
    }


def test_written_json_reads_back(tmp_path):
    torch.manual_seed(0)
    R = torch.rand(7, 7).masked_fill(torch.rand(7, 7) < 0.3, NAN)
    record = matrix_record(R, torch.rand(7), first_task=2)
    path = write_record(record, tmp_path / "run" / "matrix.json")
    read = json.loads(path.read_text())
    assert read == record
    back = torch.tensor([[NAN if x is None else x for x in row] for row in read["matrix"]])
    torch.testing.assert_close(back, R, rtol=0, atol=0, equal_nan=True)  # to the last bit
    assert list(read) == list(record)  # in the order given, the matrix a row a line
    assert sum(line.startswith("    [") for line in path.read_text().splitlines()) == 7


def test_nan_never_reaches_the_file(tmp_path):
    with pytest.raises(ValueError):
        write_record({"matrix": [[NAN]]}, tmp_path / "matrix.json")
    assert not (tmp_path / "matrix.json").exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "matrix.json"
    path.write_text("old")

    def fail(part):
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["matrix.json"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    path = write_atomically(tmp_path / "ours", lambda part: part.write_text(""))
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
