"""AccuracyRecord without a Trainer."""

import math
from pathlib import Path

import pytest
import torch

from dendrite_zoo.callbacks.accuracy_matrix import AccuracyRecord

NAN = math.nan


def test_it_grows_and_keeps_what_it_has():
    record = AccuracyRecord("val/acc")
    assert not record.update_called and record.matrix.shape == (0, 0)
    record.put({0: 0.1}, after=None)
    record.put({0: 0.9, 2: 0.2}, after=0, samples={0: 5})
    record.put({0: 0.8, 1: 0.9}, after=1)
    expected = torch.tensor([[0.9, NAN, 0.2], [0.8, 0.9, NAN], [NAN, NAN, NAN]])
    torch.testing.assert_close(record.matrix, expected, equal_nan=True)
    torch.testing.assert_close(record.baseline, torch.tensor([0.1, NAN, NAN]), equal_nan=True)
    record.put({0: 0.5, 2: 0.5}, after=1, overwrite=False)
    torch.testing.assert_close(record.matrix[1], torch.tensor([0.8, 0.9, 0.5]))


def test_an_average_over_other_tasks_than_before_is_none():
    record = AccuracyRecord("val/acc")
    record.put({0: 0.9, 1: 0.1}, after=0)
    assert record.values(after=0)["average_accuracy"] == pytest.approx(0.9)
    record.put({1: 0.8}, after=1)
    assert math.isnan(record.values(after=1)["average_accuracy"]), "task 0 is missing"
    record.put({0: 0.6}, after=1)
    assert record.values(after=1)["average_accuracy"] == pytest.approx(0.7)
    late = AccuracyRecord("val/acc")  # what was never measured is missing nowhere
    late.put({1: 0.8}, after=1)
    assert late.values(after=1)["average_accuracy"] == pytest.approx(0.8)


def test_the_untrained_model_alone_replaces_no_rows(tmp_path):
    earlier, fresh = AccuracyRecord("val/acc"), AccuracyRecord("val/acc")
    earlier.put({0: 0.9}, after=0)
    fresh.put({0: 0.1}, after=None)
    assert fresh.write_json(tmp_path) and fresh.write_json(tmp_path), "one without rows may be replaced"
    assert earlier.write_json(tmp_path)
    held = (tmp_path / "matrix.json").read_text()
    with pytest.warns(UserWarning, match=r"matrix.json contains values after task 0 of an earlier run, .* `folder=`"):
        assert not fresh.write_json(tmp_path)
    assert (tmp_path / "matrix.json").read_text() == held


def test_filled_in_inference_mode_it_can_be_written_to_outside():
    record = AccuracyRecord("val/acc")
    with torch.inference_mode():
        record.put({0: 0.9}, after=0)
    record.put({0: 0.8}, after=0)
    assert record.matrix.item() == pytest.approx(0.8)


def test_state_comes_back():
    record, copy = AccuracyRecord("val/acc"), AccuracyRecord("val/acc")
    record.put({0: 0.9, 1: 0.1}, after=0, samples={0: 5, 1: 6})
    copy.from_state(record.to_state())
    copy.put({0: 0.0}, after=1)
    assert record.matrix[1].isnan().all() and copy.samples == [None, 6]


def test_it_says_once_where_it_writes(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = AccuracyRecord("val/acc")
    record.put({0: 0.5}, after=0)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        for _ in range(2):
            record.write(Path(), picture=False)
    assert caplog.text.count(f"ForgettingLogger writes its matrix to {tmp_path / 'matrix.json'}") == 1
