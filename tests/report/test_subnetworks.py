"""The record and the picture of sub-networks."""

from __future__ import annotations

import json

import pytest
import torch

from dendrite_zoo.report import plot_subnetworks, subnetwork_record, write_record

NAN = torch.nan


def rates():
    return {"hidden.0": torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [NAN] * 3]), "hidden.1": torch.eye(3, 90)}


def test_the_record_is_json_and_says_what_is_missing(tmp_path):
    segments = {"hidden.0": torch.tensor([[0, 1, 2], [2, 1, 0], [-1, -1, -1]])}
    record = subnetwork_record(rates(), segments, num_units=10)
    assert json.loads(write_record(record, tmp_path / "record.json").read_text()) == record
    layer = record["layers"]["hidden.0"]
    assert layer["win_rates"] == [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [None] * 3]
    assert layer["overlap"] == [[0.8333, 0.1667, None], [0.1667, 0.8333, None], [None] * 3]
    assert layer["segments"] == [[0, 1, 2], [2, 1, 0], [None] * 3] and layer["active_share"] == 0.5
    other = record["layers"]["hidden.1"]
    assert other["shown_units"][0] == 0 and other["shown_units"][-1] == 89 and len(other["shown_units"]) == 10
    assert "segments" not in other and other["units"] == 90


def test_the_picture_has_a_row_a_layer(tmp_path):
    figure = plot_subnetworks(subnetwork_record(rates()), tmp_path / "a.png", title="two tasks")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center")]
    assert "layer 1 (hidden.0): 3 of its 3 units" in titles and "overlap 0.17, by chance 0.50" in titles
    assert figure.axes[0].images[0].get_array().shape == (3, 3)


def test_of_many_layers_some_are_drawn():
    record = subnetwork_record({f"net.{n}": torch.eye(2, 4) for n in range(17)})
    figure = plot_subnetworks(record, max_layers=3)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    assert [title.partition(":")[0] for title in titles] == [f"layer {n + 1} of 17 (net.{n})" for n in (0, 8, 16)]
    assert len([axes for axes in plot_subnetworks(record).axes if axes.get_title("left")]) == 8


def test_a_layer_that_was_not_measured_is_drawn_empty():
    (_, right, *_) = plot_subnetworks(subnetwork_record({"hidden": torch.full((3, 4), NAN)})).axes
    assert right.get_title() == "overlap nan, by chance nan"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="holds no layer; expected one at least"):
        plot_subnetworks({"layers": {}})
