"""Every option of MLPConfig is an argument of every model, reaches its networks, and stands in its config."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import typing
from dataclasses import fields

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

import dendrite_zoo
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    MLPConfig,
    TwinCritic,
    XdGClassifier,
)

MODELS = {
    ActiveDendriteMLP: {
        "in_features": 6,
        "hidden_features": [20, 24],
        "out_features": 3,
        "context_dim": 4,
        "num_segments": 2,
    },
    ActiveDendriteClassifier: {"in_features": 6, "hidden_features": [20, 24], "num_classes": 3, "max_tasks": 4}
    | {"context": "one-hot"},
    ActiveDendritePolicy: {"tasks": ["reach-v3", "push-v3"], "hidden_features": [20, 24]},
    TwinCritic: {"tasks": ["reach-v3", "push-v3"], "hidden_features": [20, 24]},
}
BY_CONTEXT = {"winners": "context"}
CHANGES = {
    "num_segments": {"num_segments": 3},
    "gate": {"gate": "bias"},
    "activation": {"activation": "relu"},
    "activation_density": {"activation_density": 0.3},
    "winners": BY_CONTEXT,
    "weight_density": {"weight_density": 0.7},
    "segment_density": {"segment_density": 0.6},
    "context_density": {"context_density": 0.4},
    "input_density": {"input_density": 0.35},
    "dendrite_layers": {"dendrite_layers": [0]},
    "segment_seed": {"segment_seed": 7, **BY_CONTEXT},
    "layer_norm": {"layer_norm": True},
    "overlap": {"overlap": 0.0, "activation_density": 0.2, "segment_seed": 3, **BY_CONTEXT},
    "output_scale": {"output_scale": 0.1},
    "output_bias": {"output_bias": False},
    "additive_segments": {"additive_segments": True},
}
"""Of each option, arguments that set it to another value than any model's default."""


def make(model_class, **arguments):
    torch.manual_seed(0)
    return model_class(**{**MODELS[model_class], **arguments})


def networks(model):
    return [module for module in model.modules() if isinstance(module, ActiveDendriteMLP)]


def looks(network):
    """All that an option can change of a network: modules, how weights were drawn, what is trained, the output."""
    output = network(torch.linspace(-1, 1, network.config["in_features"]).unsqueeze(0), 0).tolist()
    return repr(network), output, [(p.requires_grad, type(p), p.tolist()) for p in network.parameters()]


def test_every_option_is_tested_here():
    assert list(CHANGES) == [field.name for field in fields(MLPConfig)]


@pytest.mark.parametrize("option", CHANGES)
@pytest.mark.parametrize("model_class", MODELS)
def test_every_model_has_every_option_and_holds_it_in_its_file(model_class, option, tmp_path):
    parameter = inspect.signature(model_class).parameters[option]
    assert parameter.kind is parameter.KEYWORD_ONLY and not isinstance(parameter.annotation, str)
    assert parameter.annotation == typing.get_type_hints(model_class.__init__)[option]
    others = {name: value for name, value in CHANGES[option].items() if name != option}
    before, model = make(model_class, **others), make(model_class, **CHANGES[option])
    value = CHANGES[option][option]
    assert model.config[option] == value and networks(model)
    for number, (network, default) in enumerate(zip(networks(model), networks(before), strict=True)):
        assert network.config[option] == (value + number if option == "segment_seed" else value)
        assert looks(network) != looks(default)
    model.save_pretrained(tmp_path)
    again = dendrite_zoo.load(tmp_path)
    assert again.config == model.config and list(again.config) == list(inspect.signature(model_class).parameters)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


@pytest.mark.parametrize("model_class", MODELS)
def test_copies_and_pickles_are_whole(model_class):
    model = make(model_class, winners="context")
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.config == model.config and all(map(torch.equal, model.parameters(), again.parameters()))


@pytest.mark.parametrize("model_class", [*MODELS, XdGClassifier])
def test_a_command_line_lists_every_argument_with_its_type_and_help(model_class, capsys):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=nn.Module)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--model.help={model_class.__module__}.{model_class.__qualname__}"])
    blocks = [" ".join(block.split()) for block in re.split(r"\n  --model\.", capsys.readouterr().out)[1:]]
    listed = {re.match(r"\w+", block)[0]: block for block in blocks}
    parameters = inspect.signature(model_class).parameters
    assert list(listed) == list(parameters)
    for name, block in listed.items():
        help_text = re.search(r"[A-Z\]}] ([^()]{10,}.*)\(.*type: ", block)
        assert help_text and ("required" in block) == (parameters[name].default is inspect.Parameter.empty), block
    if model_class is not XdGClassifier:
        given = [f"--model={model_class.__name__}", "--model.gate=bias", "--model.dendrite_layers=[0]"]
        sizes = [f"--model.{name}={value}" for name, value in MODELS[model_class].items()]
        parsed = parser.parse_args([*given, *sizes]).model
        model = model_class(**vars(parsed.init_args))
        assert parsed.class_path.endswith(f".{model_class.__name__}")
        assert model.config["gate"] == "bias" and model.config["dendrite_layers"] == [0]


@pytest.mark.parametrize("model_class", MODELS)
def test_the_one_argument_that_is_wrong_is_named(model_class):
    for arguments, message in [
        ({"weight_density": 0.5, "segment_density": 1.5, "gate": "bias"}, "segment_density"),
        ({"context_density": 0.0}, "context_density"),
        ({"num_segments": -1}, "Expected `num_segments` to be an integer of at least 0, but got -1"),
        ({"num_segments": 2.0}, "Expected `num_segments` to be an integer of at least 0, but got 2.0"),
        ({"winners": "context", "segment_seed": -1}, "Expected `segment_seed` to be an integer of at least 0"),
        ({"winners": "context", "segment_seed": 2**31}, "`segment_seed` to be an integer from 0 to 2147483647"),
        ({"weight_density": "0.5"}, "Expected `weight_density` to be of type float, but got '0.5'"),
        ({"layer_norm": None}, "Expected `layer_norm` to be of type bool, but got None"),
        ({"hidden_features": 32}, r"Expected `hidden_features` to be of type Sequence\[int\]( \| None)?, but got 32"),
        (
            {"hidden_features": [20, 24.0]},
            r"`hidden_features` to be of type Sequence\[int\]( \| None)?, but got \[20, 24.0\]",
        ),
        ({"dendrite_layers": 0}, r"`dendrite_layers` to be of type Sequence\[int\] | None, but got 0"),
        ({"gate": nn.ReLU()}, "Expected `gate` to be one of .* but got ReLU"),
        ({"hidden_features": torch.tensor([20, 24])}, "Expected `hidden_features` to be of type"),
        ({"segment_seed": 3}, "Expected `segment_seed` to be None unless winners='context', but got 3"),
        ({"gate": "abs-max"}, "Expected `gate` to be one of .* but got 'abs-max'. Did you mean 'abs_max'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(model_class, **arguments)
    with pytest.raises(TypeError, match="^`modulated` is now `dendrite_layers`.$"):
        make(model_class, modulated=[0])
    with pytest.raises(TypeError, match=f"^{model_class.__name__} has no argument `winer`. Did you mean 'winners'\\?$"):
        make(model_class, winer="context")
    with pytest.raises(TypeError, match=f"^{model_class.__name__}: missing a required argument: "):
        model_class()


def test_xdg_says_its_new_name():
    with pytest.raises(TypeError, match="^`gated` is now `gate_fraction`.$"):
        XdGClassifier(8, [8], 2, max_tasks=1, gated=0.5)
