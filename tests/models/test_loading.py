"""A model from its name, its folder, its config, or itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dendrite_zoo.hub import full_config
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.loading import as_model, load, saved_config


@pytest.fixture
def model():
    return ActiveDendriteClassifier(8, [8], 3, max_tasks=2, num_segments=2).eval()


def test_itself(model):
    assert as_model(model, nn.Module) is model and model.training, "what was loaded is in eval mode"
    own = nn.Linear(2, 2).eval()
    assert as_model(own, nn.Module) is own and not own.training, "a network of anyone's is left as it is"


def test_a_folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    for place in (tmp_path / "model", str(tmp_path / "model")):
        again = as_model(place, ActiveDendriteClassifier)
        x = torch.randn(4, 8)
        assert again.training and torch.equal(again.eval()(x), model(x))


def test_a_config_gives_a_new_model_of_the_same_form(model):
    again = as_model(full_config(model), nn.Module)
    assert type(again) is ActiveDendriteClassifier and again.config == model.config
    assert saved_config(model) == full_config(model) and saved_config(nn.Linear(2, 2)) is None


def test_numbers_of_numpy_are_numbers(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert load(tmp_path, max_tasks=np.int64(7), num_classes=np.int32(4)).max_tasks == 7
    with pytest.raises(ValueError, match="Expected `max_tasks` to be an integer"):
        load(tmp_path, max_tasks=object())


@pytest.mark.parametrize("kind", [nn.Module, ActiveDendriteClassifier])
def test_a_recipe_says_what_to_load_and_how_it_differs(model, kind, tmp_path):
    model.save_pretrained(tmp_path)
    written = {"from_pretrained": str(tmp_path), "max_tasks": 7}
    for x in (written, {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": written}):  # as it is saved
        again = as_model(x, kind)
        assert again.max_tasks == 7 and again.training and written["from_pretrained"] == str(tmp_path)
    with pytest.raises(TypeError, match=r"no argument `max_task`. Did you mean 'max_tasks'"):
        as_model({"from_pretrained": str(tmp_path), "max_task": 7}, kind)


@pytest.mark.parametrize(
    "x, kind, name, message",
    [
        (5, nn.Module, "model", "`model` to be of type Module, a name or folder .* but got int.*own, use load_"),
        (nn.Linear(2, 2), TwinCritic, "critic", "`critic` to be of type TwinCritic, .* but got Linear.$"),
        (None, ActiveDendritePolicy, "model", "`model` to be of type ActiveDendritePolicy, .* but got NoneType.$"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(x, kind, name, message):
    with pytest.raises(TypeError, match=message):
        as_model(x, kind, name=name)


CLASS = "dendrite_zoo.models.ActiveDendriteClassifier"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"winers": "context"}, "class_path and init_args, but got 'winers', which no class takes"),
        ({"winners": "contxt"}, "`winners` to be one of .*, but got 'contxt'. Did you mean 'context'"),
        ({"max_tasks": 0, "num_classes": 3}, "`max_tasks` to be an integer of at least 1, but got 0"),
        ({"class_path": "antigravity.Fly"}, "There is no class antigravity.Fly"),
        ({"class_path": "torch.nn.Linear", "init_args": {"in_feature": 2}}, "Linear has no argument `in_feature`. Did"),
        ({"class_path": CLASS, "init_args": {"num_segment": 2}}, "`num_segment`. Did you mean 'num_segments'"),
        ({"class_path": CLASS, "init_args": {"max_tasks": "ten"}}, "missing a required argument: 'in_features'"),
    ],
)  # fmt: skip
def test_a_dictionary_that_the_command_line_could_not_read(given, message):
    with pytest.raises(ValueError, match=message):
        as_model(given, nn.Module)
