"""Files that appear whole, and JSON that every reader takes."""

import json
import os
import time

import pytest

from dendrite_zoo._core.files import parse_json, to_json, write_together


def test_keys_that_are_no_strings_are_written_as_strings():
    value = {0: {1.5: [1, 2]}, None: "x"}
    assert json.loads(to_json(value)) == {"0": {"1.5": [1, 2]}, "None": "x"}


def test_what_is_about_the_files_before_goes_before_the_new_ones_appear(tmp_path, monkeypatch):
    """A process that is killed between two files leaves no results beside weights that they are not of."""
    write_together(tmp_path, {"weights": "old", "results": "of the old"})

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path, {"weights": "new", "results": "of the new"}, stale=["results", "picture"])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"weights": "old"}


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path):
    for name, age in (("left", 7200), ("at-work", 60)):
        (tmp_path / f".writing-{name}").mkdir()
        os.utime(tmp_path / f".writing-{name}", (0, time.time() - age))
    write_together(tmp_path, {"weights": "new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-at-work", "weights"]


def test_what_another_process_has_removed_meanwhile_is_no_error(tmp_path):
    """A link to nothing is listed, but cannot be looked at: as a folder that goes between the two."""
    (tmp_path / ".writing-gone").symlink_to(tmp_path / "nothing")
    write_together(tmp_path, {"weights": "new"})
    assert (tmp_path / "weights").read_text() == "new"


def test_a_file_that_cannot_be_written_leaves_all_as_they_were(tmp_path):
    write_together(tmp_path, {"weights": "old", "results": "of the old"})
    with pytest.raises(ZeroDivisionError):
        write_together(tmp_path, {"weights": "new", "results": lambda part: 1 / 0}, stale=["results"])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"weights": "old", "results": "of the old"}


@pytest.mark.parametrize(("text", "expected"), [("[" * 17 + "]" * 17, "16 deep"), ("[" + " " * 99 + "]", "100 bytes")])
def test_a_document_of_a_stranger_has_bounds(text, expected):
    with pytest.raises(
        ValueError, match=f"Expected there to .* at most {expected}|Expected there to be at most 16 deep"
    ):
        parse_json(text, "there", max_bytes=100)
