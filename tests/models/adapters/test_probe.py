"""Which layers are meant, and what the features of a network are."""

from collections import namedtuple
from dataclasses import dataclass, make_dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dendrite_zoo import add_dendrites
from dendrite_zoo.models.adapters.features import as_features
from dendrite_zoo.models.adapters.probe import find_layers, probe
from tests.models.adapters.networks import Attention, Convolutions, Recurrent, UNet, made, mlp


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (nn.Conv2d, ["stem.0", "body.0"]),
        (nn.BatchNorm2d, ["stem.1", "body.1"]),
        ("body", ["body.0"]),  # what is in it; norms where there is nothing else
        ("*.1", ["stem.1", "body.1"]),
        (["stem.1", nn.Conv2d], ["stem.0", "stem.1", "body.0"]),
        ("*", ["stem.0", "body.0"]),
    ],
)
def test_layers_by_type_name_and_glob(layers, expected):
    assert list(find_layers(made(Convolutions), layers)) == expected


def test_an_attention_stands_for_the_layer_that_it_never_calls():
    assert "encoder.layers.0.self_attn" in find_layers(made(Attention), "*")
    assert list(find_layers(made(Attention), nn.Linear)) == [
        f"encoder.layers.{i}.linear{j}" for i in range(3) for j in (1, 2)
    ]


@pytest.mark.parametrize("layers", ["stem.7", nn.Linear, "layer*"])
def test_no_such_layer_lists_those_there_are(layers):
    with pytest.raises(ValueError, match=r"Conv2d stem\.0, body\.0; BatchNorm2d stem\.1, body\.1"):
        find_layers(made(Convolutions), layers)


def test_layers_of_another_kind():
    with pytest.raises(TypeError, match="module types, names or globs, but got 3"):
        find_layers(made(Convolutions), 3)


def test_stages_of_images_are_the_last_outputs_of_each_resolution():
    assert probe(made(Convolutions).eval()).stages == {"stem": (8, 1, 1), "drop": (16, 1, 1)}


def test_stages_of_sequences_are_blocks_and_the_output():
    assert probe(made(Attention).eval()).stages == {
        "encoder.layers.0": (16, 2, 0),
        "encoder.layers.1": (16, 2, 0),
        "": (16, 2, 0),
    }


def test_of_an_mlp_it_is_the_output():
    assert probe(mlp().eval()).stages == {"": (32, 1, 0)} and probe(mlp().eval()).input_features == 12


def test_a_map_of_features_is_a_stage_once():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.ReLU()))
    assert list(probe(network.eval()).stages) == ["1", "2"]


def test_a_decoder_is_run_on_small_maps_and_a_pattern_means_its_layers():
    assert list(find_layers(made(UNet), "*")) == ["down", "up", "last"]
    decoder = nn.Sequential(nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    seen = probe(decoder.eval())
    assert seen.input_features == [16, 8, 8] and seen.stages == {"1": (8, 1, 1), "2": (3, 1, 1)}


class Projected(nn.Module):
    """Rows that are projected, then `rest`."""

    def __init__(self, rest):
        super().__init__()
        self.project, self.rest = nn.Linear(6, 16), rest

    def forward(self, x):
        return self.rest(self.project(x))


class Largest(nn.Module):
    def forward(self, x):
        return x.amax(-2)


@pytest.mark.parametrize("kind", ["attention", "recurrent", "points"])
def test_a_sequence_is_made_up_for_a_network_that_takes_rows_for_one_without_a_batch(kind):
    rest = {
        "attention": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2),
        "recurrent": lambda: nn.GRU(16, 16, batch_first=True),
        "points": Largest,
    }[kind]()
    model = add_dendrites(Projected(rest), layers=nn.Linear, num_classes=2, max_tasks=2)
    x = torch.randn(20, 7, 6)
    model.start_task(0, [x])
    assert model(x, task=0).shape == (20, 2) and (model.config["input_features"] == 0)


def test_rows_that_are_series_once_they_are_unflattened():
    """As the error of a network of series that is given the flat rows of a stream says."""
    series = Projected(nn.GRU(16, 16, batch_first=True))
    model = add_dendrites(nn.Sequential(nn.Unflatten(1, (7, 6)), series), layers="*", num_classes=2, max_tasks=2)
    x = torch.randn(20, 42)
    model.start_task(0, [x])
    assert model(x, task=0).shape == (20, 2)


def test_a_network_that_runs_on_no_made_up_input():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 8)

        def forward(self, pair):
            return self.layer(pair["a"] + pair["b"]) if isinstance(pair, dict) else pair.missing

    with pytest.raises(ValueError, match="made up by the kind of its first layer, but got AttributeError.*example=x"):
        add_dendrites(Two(), layers="layer", num_classes=2, max_tasks=2)


def test_a_layer_that_is_never_called():
    network = mlp()
    network.spare = nn.Linear(32, 3)
    network.forward = lambda x: network[3](network[2](network[1](network[0](x))))
    for layers in ["spare", ["0", "spare"], "spar*"]:
        with pytest.raises(ValueError, match="but got spare, which it does not"):
            add_dendrites(network, layers=layers, num_classes=2, max_tasks=2)
    with pytest.warns(UserWarning, match="does not call spare when it runs"):  # as auxiliary heads in eval mode
        model = add_dendrites(network, layers=nn.Linear, num_classes=2, max_tasks=2)
    assert list(model.config["layers"]) == ["0", "2"]


def test_a_network_without_sizes_yet_is_refused():
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"layers have their sizes, but got a lazy one in '0.weight'.*backbone\(x\)"):
        add_dendrites(network, layers="*", num_classes=2, max_tasks=2)
    network(torch.rand(2, 3, 8, 8))
    add_dendrites(network, layers="*", num_classes=2, max_tasks=2)


class AlwaysTrains(nn.Module):
    """Its norms are in train mode, whatever is asked for."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return self.norm(self.layer(x)).mean((2, 3))


def test_norms_by_the_rows_of_a_batch_are_said():
    """The inferred task of a row depended on the others, in silence."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    for network, name in [(plain, "1"), (AlwaysTrains(), "norm")]:
        with pytest.warns(UserWarning, match=f"^{name} of .* normalises by the rows of a batch in eval mode, too"):
            add_dendrites(network, layers=nn.Conv2d, num_classes=2, max_tasks=2)


def test_an_output_that_is_no_features():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 8)

        def forward(self, x):
            return self.layer(x).sum()

    with pytest.raises(ValueError, match=r"features of shape \(2, ...\), but got an output without one"):
        add_dendrites(Summed(), layers="layer", num_classes=2, max_tasks=2)


@pytest.mark.parametrize("names", [("last_hidden_state", "logits"), ("last_hidden_state",), ("logits",)])
def test_features_by_their_name_in_an_output_of_any_class(names):
    x = torch.rand(2, 3)
    values = [x, *[torch.zeros(2, 3)] * (len(names) - 1)]
    assert as_features(SimpleNamespace(**dict(zip(names, values, strict=True)))) is x
    assert as_features(namedtuple("Output", names)(*values)) is x


@dataclass
class Encoded:
    """What a network of one's own returns."""

    loss: torch.Tensor | None
    hidden: torch.Tensor


@pytest.mark.parametrize("loss", [None, torch.zeros(())])
@pytest.mark.parametrize("kind", [Encoded, lambda *parts: parts, lambda *parts: dict(zip("ab", parts, strict=True))])
def test_what_is_no_row_of_features_is_passed_over_in_an_output(kind, loss):
    x = torch.rand(2, 3)
    assert as_features(kind(loss, x)) is x


def test_features_are_found_by_name_in_a_data_class():
    made = make_dataclass("Output", ["weights", "features"])
    x = torch.rand(2, 3)
    assert as_features(made(torch.zeros(2, 5), x)) is x


def test_several_inputs_are_asked_for_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 8)

        def forward(self, a, b):
            return self.layer(a + b)

    x = torch.rand(2, 4)
    with pytest.raises(ValueError, match="a tensor or a dictionary of keyword arguments"):
        add_dendrites(Two(), layers="layer", num_classes=2, max_tasks=2, example=(x, x))
    model = add_dendrites(Two(), layers="layer", num_classes=2, max_tasks=2, example={"a": x, "b": x})
    assert model({"a": x, "b": x}, task=0).shape == (2, 2)


def test_numbers_for_the_example_are_drawn_apart_from_those_of_the_user():
    network, state = mlp().eval(), torch.get_rng_state()
    probe(network)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_of_whole_numbers_are_refused_where_the_backbone_takes_none():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = add_dendrites(network, layers=nn.Conv2d, num_classes=2, max_tasks=2, example=torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="inputs that Sequential takes, but got torch.uint8 of .*normalised floats"):
        model(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), task=0)
    with pytest.raises(ValueError, match=r"takes gray ones as x.expand\(-1, 3, -1, -1\)"):
        model.start_task(0, [torch.rand(2, 1, 8, 8)])


def test_series_given_as_images_are_refused_with_what_to_do():
    series = torch.randn(4, 1, 12, 5)  # as a stream with flatten=False has them
    model = add_dendrites(Recurrent(5, 4), layers="head", num_classes=2, max_tasks=2, example=series[:, 0])
    with pytest.raises(ValueError, match=r"^Expected inputs that Recurrent takes.*4, 1, 12, 5.*series.*squeeze"):
        model.start_task(0, [series])
    assert model.num_tasks == 0
    model.start_task(0, [series[:, 0]])
    assert model.num_tasks == 1
