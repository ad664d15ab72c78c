"""Save and load: the same to the bit, whole or not at all."""

import copy
import functools
import json
import logging
import os
import re
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import dendrite_zoo
from dendrite_zoo.hub import HubModel, build, register_model
from dendrite_zoo.hub import config as configs
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    TwinCritic,
    XdGClassifier,
)
from dendrite_zoo.records import ResultRecord, read_records
from tests import processes
from tests.hub.toy import Toy

RESULTS = [{"benchmark": "toy", "method": "ours", "average_accuracy": 0.5}]


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Toy(4, 2, hidden=(8, 8), note="a")
    model.prototypes.normal_()
    model.count += 2
    return model


def test_save_and_load_are_identical(model, tmp_path):
    model.save_pretrained(tmp_path / "a")
    again = Toy.from_pretrained(tmp_path / "a")
    assert not again.training
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert sorted(os.listdir(tmp_path / "a")) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert list(config)[:4] == ["library_name", "library_version", "format_version", "model_type"]
    assert config["library_version"] == dendrite_zoo.__version__
    assert {key: config[key] for key in model.config} == model.config


def test_numbers_of_numpy_and_whole_negative_bounds_are_saved(tmp_path):
    sizes = {"hidden_features": [np.int64(8), np.int32(8)], "activation_density": np.float32(0.5)}
    policy = ActiveDendritePolicy(["reach-v3"], log_std_range=(-5, 2), **sizes)
    policy.save_pretrained(tmp_path)
    config = dendrite_zoo.load(tmp_path).config
    assert config["hidden_features"] == [8, 8] and config["log_std_range"] == [-5.0, 2.0]


def test_a_folder_below_the_users_own_is_the_same_for_saving_and_loading(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model.save_pretrained("~/mine")
    assert (tmp_path / "mine/config.json").is_file()
    assert Toy.from_pretrained("~/mine").config == model.config


def test_equal_models_are_equal_files(model, tmp_path):
    for name in "ab":
        model.save_pretrained(tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_the_class_comes_from_the_config(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert type(HubModel.from_pretrained(str(tmp_path))) is Toy
    assert type(build(json.loads((tmp_path / "config.json").read_text()))) is Toy

    @register_model("toy-stranger")
    class Stranger(HubModel, nn.Module):
        pass

    with pytest.raises(ValueError, match="to hold the class Stranger, but got Toy. Load it with Toy.from_pretrained"):
        Stranger.from_pretrained(tmp_path)


def test_a_run_folder_leads_to_its_model(model, tmp_path):
    model.save_pretrained(tmp_path / "run/model")
    (tmp_path / "run/metrics.csv").touch()
    assert Toy.from_pretrained(tmp_path / "run").config == model.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_each_tensor_keeps_its_precision(model, tmp_path, dtype):
    model.to(dtype).save_pretrained(tmp_path)
    again = Toy.from_pretrained(tmp_path)
    assert again.head.weight.dtype == dtype
    assert again.prototypes.dtype == torch.float32
    assert torch.equal(again.head.weight, model.head.weight)
    assert torch.equal(again.prototypes, model.prototypes)
    assert again.head.weight.requires_grad


def test_loading_draws_no_random_numbers(model, tmp_path):
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Toy.from_pretrained(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_saving_into_a_failed_place_says_so(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot save to .*Choose a folder"):
        model.save_pretrained(tmp_path / "file" / "model")


def test_a_name_that_no_file_can_have_says_so(model, tmp_path):
    with pytest.raises(OSError, match="cannot save to .*File name too long.*Choose a folder"):
        model.save_pretrained(tmp_path / ("x" * 300))


def test_a_model_without_its_arguments_cannot_be_saved(model, tmp_path):
    del model.config["num_classes"]
    with pytest.raises(ValueError, match="lacks"):
        model.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()


# Results stay with the weights they speak of.


def test_results_come_back_and_are_written_again(model, tmp_path):
    model.save_pretrained(tmp_path / "a", results=RESULTS)
    again = Toy.from_pretrained(tmp_path / "a")
    assert again.results == RESULTS
    copy.deepcopy(again).save_pretrained(tmp_path / "b")
    assert Toy.from_pretrained(tmp_path / "b").results == RESULTS


def test_results_of_other_weights_are_dropped(model, tmp_path):
    model.save_pretrained(tmp_path / "a", results=RESULTS)
    again = Toy.from_pretrained(tmp_path / "a")
    with torch.no_grad():
        again.head.bias += 1
    again.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a/results.json").exists()
    again.results = [{"method": "new"}]
    again.save_pretrained(tmp_path / "a")
    assert Toy.from_pretrained(tmp_path / "a").results == [{"method": "new"}]


def test_nan_in_results_is_written_as_null(model, tmp_path):
    model.save_pretrained(tmp_path, results={"matrix": [[0.5, float("nan")], [0.5, np.float32(0.25)]]})
    assert Toy.from_pretrained(tmp_path).results == [{"matrix": [[0.5, None], [0.5, 0.25]]}]


@pytest.mark.parametrize(
    ("results", "named"),
    [
        ([{"average_accuracy": "high"}], "`average_accuracy`"),
        ([{"matrix": [[0.5, 0.5]]}], "`matrix`"),
        ([{"seeds": {"a": 1}}], "`seeds`"),
        ([{"sparsity": {"layer": [1]}}], "`sparsity`"),
        ([{"subnetworks": {"layers": {"a": {}}}}], "`subnetworks`"),
        ([{"benchmark": "x" * 100_000}], "`benchmark`.* at most 65536 characters"),
        ([{"matrix": np.zeros((2001, 1))}], "`num_tasks`.* from 1 to 2000, but got 2001"),
        ([{}] * 1001, "at most 1000 result records, but got 1001"),
        ([{"mine": object()}], "got one of type object"),
        ([{"mine": {(1, 2): 3}}], "keys must be str"),
        ("excellent", "holds 'excellent'"),
        ([{"mine": functools.reduce(lambda inner, _: [inner], range(400), [])}], "at most 16 deep"),
    ],
)
def test_what_is_no_record_never_keeps_weights_from_being_saved(model, tmp_path, caplog, results, named):
    model.save_pretrained(tmp_path / "a", results=RESULTS)
    model.save_pretrained(tmp_path / "a", results=results)
    assert re.search(f"The model goes without its results. .*{named}", caplog.text), caplog.text
    assert sorted(os.listdir(tmp_path / "a")) == ["config.json", "model.safetensors"]
    assert torch.equal(Toy.from_pretrained(tmp_path / "a").head.weight, model.head.weight)


def test_records_are_saved_as_they_are_made(model, tmp_path):
    record = ResultRecord.from_run([0.5, 0.25], benchmark="b", method="m", context_at_test="none")
    model.save_pretrained(tmp_path, results=record)
    assert Toy.from_pretrained(tmp_path).results == [record.to_json()] and read_records(tmp_path) == [record]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"[" + b"[]," * 5_000_000 + b"[]]", "at most 4,194,304 values"),
        (b"[" * 100_000, "no valid JSON"),
        (b'[{"num_tasks": 2, "num_tasks": 3}]', "the key 'num_tasks' stands twice"),
        (b'[{"num_tasks": ' + b"9" * 5000 + b"}]", "no valid JSON"),
        (b'[{"seeds": 1}]', "`seeds`"),
        (b'[{"interval": [0.5]}]', "`interval`"),
        (b"\xff\xfe", "no valid JSON"),
    ],
)
def test_results_of_a_stranger_never_keep_weights_from_being_loaded(model, tmp_path, caplog, text, named):
    model.save_pretrained(tmp_path, results=RESULTS)
    (tmp_path / "results.json").write_bytes(text)
    again = Toy.from_pretrained(tmp_path)
    assert again.results is None and torch.equal(again.head.weight, model.head.weight)
    assert "results.json" in caplog.text and named in caplog.text and "goes without its results" in caplog.text


def test_half_a_surrogate_pair_is_saved_and_published(model, tmp_path):
    model.save_pretrained(tmp_path, results=[{"benchmark": "half \ud800 of a pair"}])
    assert Toy.from_pretrained(tmp_path).results == [{"benchmark": "half \ud800 of a pair"}]


# Explicit changes.


def test_another_head_by_an_explicit_argument(model, tmp_path, caplog):
    model.save_pretrained(tmp_path, results=RESULTS)
    with caplog.at_level(logging.INFO, "dendrite_zoo"):
        again = Toy.from_pretrained(tmp_path, num_classes=5)
    assert "weights that start anew: head.weight, head.bias" in caplog.text
    assert again.head.weight.shape == (5, 8)
    assert torch.equal(again.body[0].weight, model.body[0].weight)
    assert again.config["num_classes"] == 5
    assert again.results is None


def test_a_larger_capacity_keeps_what_was_learned(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = Toy.from_pretrained(tmp_path, max_tasks=7)
    assert torch.equal(again.prototypes[:3], model.prototypes)
    assert again.prototypes.shape == (7, 4)


def test_a_change_that_no_one_knows_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(
        TypeError, match="Toy.from_pretrained has no argument `wings`. It takes num_classes, max_tasks, backbone, revi"
    ):
        Toy.from_pretrained(tmp_path, wings=2)
    with pytest.raises(TypeError, match="Toy.from_pretrained has no argument `max_task`. Did you mean 'max_tasks'?"):
        Toy.from_pretrained(tmp_path, num_classes=5, max_task=2)
    with pytest.raises(TypeError, match="Did you mean 'revision'?"):
        Toy.from_pretrained(tmp_path, revison="main")


# Faults: each one clear error, and what stood there before stays.


def corrupt(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(model, tmp_path, keep):
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="truncated or altered"):
        Toy.from_pretrained(tmp_path)


def test_every_altered_byte_is_noticed(model, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for offset in range(0, len(whole), 11):
        corrupt(path, offset)
        # Bytes of the header that carry no meaning may change; what is loaded may not.
        try:
            again = Toy.from_pretrained(tmp_path)
        except ValueError:
            pass
        else:
            assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
        path.write_bytes(whole)
    assert torch.equal(Toy.from_pretrained(tmp_path).head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), r"lack \['head.bias'\]"),
        (lambda state: state.update(extra=torch.zeros(1)), r"have \['extra'\] besides"),
        (lambda state: state.update({"head.bias": torch.zeros(3)}), r"head.bias is \[3\].*num_classes="),
        (lambda state: state.update({"head.bias": torch.zeros(2, dtype=torch.long)}), "torch.int64"),
        (lambda state: state.update(count=torch.zeros(())), "count is"),
    ],
)
def test_weights_and_config_must_belong_together(model, tmp_path, change, message):
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        Toy.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"scale": 2.0}, {"scale": 1}, {"note": None}, {"note": "b"}, {"format_version": 1}])
def test_a_config_that_was_edited_after_saving_is_refused(model, tmp_path, change):
    """Shapes and types still agree: the fingerprint alone tells. `1` is not `1.0`, which could round in another way."""
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match="the config and weights that were saved together, but .* altered"):
        Toy.from_pretrained(tmp_path)
    path.write_text(json.dumps(dict(reversed(config.items()))))  # the order of keys and the white space mean nothing
    assert Toy.from_pretrained(tmp_path).config == model.config
    del config[next(iter(change))]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=next(iter(change))):
        Toy.from_pretrained(tmp_path)


SIZES = {"in_features": 16, "hidden_features": [20, 24], "num_segments": 2, "input_density": 0.5}
CONTROL = {"tasks": ["reach-v3", "push-v3"], "hidden_features": [20, 24], "num_segments": 2, "activation_density": 0.5}
EVERY_TYPE = [
    (ActiveDendriteClassifier, {**SIZES, "num_classes": 3, "max_tasks": 2, "context_density": 0.5}),
    (ActiveDendriteClassifier, {**SIZES, "num_classes": 3, "max_tasks": 2, "winners": "context", "segment_seed": 3}),
    (ActiveDendriteMLP, {**SIZES, "out_features": 3, "context_dim": 16, "dendrite_layers": [1]}),
    (ActiveDendritePolicy, {**CONTROL, "append_task": True}),
    (TwinCritic, {**CONTROL, "dendrite_layers": [0]}),
    (XdGClassifier, {"in_features": 16, "hidden_features": [20], "num_classes": 3, "max_tasks": 2}),
]


def others(value):
    """Values of about the same kind as an argument's, such as somebody would write in its place."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, float(value)]
    if isinstance(value, float):
        return [value / 2, value + 0.25, 1]
    if isinstance(value, str):
        literals = ["abs_max", "max", "bias", "k-winners", "relu", "activation", "context", "prototype", "one-hot"]
        return [name for name in literals if name != value]
    if isinstance(value, list):
        return [value[:-1], value[::-1], [*value, value[0]], None] + [[*value[:-1], x] for x in others(value[-1])]
    return [1, 0.5, [0], "prototype"]


@pytest.mark.parametrize(("model_class", "arguments"), EVERY_TYPE)
def test_no_argument_can_be_changed_in_the_file(model_class, arguments, tmp_path):
    """Whatever else is written for an argument, and where it is left out, the model does not load with it."""
    model_class(**arguments).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    assert dendrite_zoo.load(tmp_path).config == configs.arguments_of(whole)
    edited = [(key, {k: v for k, v in whole.items() if k != key}) for key in whole if key != "library_version"]
    for key, value in configs.arguments_of(whole).items():
        edited += [(key, {**whole, key: other}) for other in others(value) if json.dumps(other) != json.dumps(value)]
    assert len(edited) > 20
    for key, config in edited:
        path.write_text(json.dumps(config))
        with pytest.raises(ValueError, match="config.json") as refused:
            dendrite_zoo.load(tmp_path)
        said = str(refused.value)
        assert str(tmp_path) in said and "\n" not in said, key
        assert re.search("saved together|do not belong together|" + "|".join(whole), said), (key, said)


def test_tied_weights_are_saved_and_loaded(tmp_path):
    @register_model("toy-tied")
    class Tied(HubModel, nn.Module):
        def __init__(self, size: int):
            super().__init__()
            self.config = {"size": size}
            self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
            self.second.weight = self.first.weight
            self.register_buffer("row", self.first.bias.detach()[1:])

    model = Tied(3)
    model.save_pretrained(tmp_path)
    again = Tied.from_pretrained(tmp_path)
    assert again.second.weight is again.first.weight
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


W = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ({"w": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}, "model.safetensors: expected a whole"),
        (
            {"w": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 16]}},
            "model.safetensors: expected a whole",
        ),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, "model.safetensors: expected a whole"),
        ({"w": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}, "model.safetensors: expected a whole"),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "the weights lack"),
        ({**W, "__metadata__": {"dendrite-zoo": "[" * 1000}}, "model.safetensors: the header: no valid JSON"),
        ({**W, "__metadata__": {"dendrite-zoo": "[]"}}, "model.safetensors: the header: expected one JSON object"),
    ],
)
def test_a_header_of_a_stranger(model, tmp_path, header, named):
    model.save_pretrained(tmp_path)
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(ValueError, match=named) as refused:
        Toy.from_pretrained(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [2**63, 2**40, 10**8])
def test_a_header_of_an_absurd_length(model, tmp_path, length):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="model.safetensors: expected a whole safetensors file"):
        Toy.from_pretrained(tmp_path)


def test_a_file_that_is_larger_than_its_config_says_is_not_read(model, tmp_path):
    model.save_pretrained(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)  # a hole, which takes no disk
    with pytest.raises(ValueError, match="Expected .*model.safetensors to have at most .*, but got 1,099,511,627"):
        Toy.from_pretrained(tmp_path)


def test_weights_of_a_later_format_have_a_fingerprint(model, tmp_path):
    model.save_pretrained(tmp_path)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="saved together"):
        Toy.from_pretrained(tmp_path)


@register_model("toy-seeded")
class Seeded(HubModel, nn.Module):
    """Its weights never change: the file holds the seed they were drawn by."""

    def __init__(self, size: int):
        super().__init__()
        self.config = {"size": size}
        self.register_buffer("seed", torch.tensor(7))
        self.register_buffer("weight", self.drawn(size, 7))

    @staticmethod
    def drawn(size, seed):
        return torch.from_numpy(np.random.RandomState(int(seed)).standard_normal(size))

    @classmethod
    def to_file(cls, config, state):
        return {"seed": state["seed"]}

    @classmethod
    def from_file(cls, config, state):
        return {**state, "weight": cls.drawn(config["size"], state["seed"])}


def test_what_can_be_drawn_again_is_not_in_the_file(tmp_path, monkeypatch):
    model = Seeded(1000)
    model.save_pretrained(tmp_path / "a", results=RESULTS)
    assert (tmp_path / "a/model.safetensors").stat().st_size < 500
    again = HubModel.from_pretrained(tmp_path / "a")
    assert torch.equal(again.weight, model.weight)
    again.save_pretrained(tmp_path / "b")
    assert Seeded.from_pretrained(tmp_path / "b").results == RESULTS, "the same model, and so its results"
    monkeypatch.setattr("dendrite_zoo.hub.skeleton.MAX_NUMBERS", 999)
    with pytest.raises(ValueError, match="expected at most"):  # a small file does not take all memory
        HubModel.from_pretrained(tmp_path / "a")


def test_missing_weights_are_not_replaced_by_a_pickle(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        Toy.from_pretrained(tmp_path)


def test_a_hostile_config_beside_small_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "in_features": 2**28, "hidden": [2**28]}))
    with pytest.raises(ValueError, match="do not belong together"):
        Toy.from_pretrained(tmp_path)


FULL_DISK = """
import resource, sys
import torch
from tests.hub.toy import Toy
torch.manual_seed(0)
model = Toy(64, 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    model.save_pretrained(sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_keeps_the_earlier_artifact(model, tmp_path, earlier):
    assert resource.RLIMIT_FSIZE >= 0
    folder = tmp_path / "a"
    if earlier:
        model.save_pretrained(folder, results=RESULTS)
    before = {path.name: path.read_bytes() for path in folder.glob("*")}
    (tmp_path / "script.py").write_text(FULL_DISK)
    done = processes.run([tmp_path / "script.py", folder], cwd=tmp_path)
    assert "cannot save to" in done.stdout and "untouched" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
    assert folder.exists() is earlier


# Names.


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("permuted-digit", ValueError, "no model 'permuted-digit' in the zoo.*dendrite-zoo list"),
        ("./nowhere", FileNotFoundError, "no folder here"),
        ("a/b/c", FileNotFoundError, "no folder here"),
        ("a/b@c@d", FileNotFoundError, "no folder here"),
        ("../x/config.json", FileNotFoundError, "no folder here"),
        ("~nobody-of-that-name/x", FileNotFoundError, "no folder here"),
        ("a/" + "b" * 5000, FileNotFoundError, "no folder here"),
        ("b" * 5000, ValueError, "no model 'b+' in the zoo"),
        ("a/\0", FileNotFoundError, "no folder here"),
        ("", ValueError, "no model '' in the zoo"),
        (None, TypeError, "Expected a folder, a zoo name .* but got None"),
        (__file__, FileNotFoundError, "is a file. .* Give the folder that it is in"),
    ],
)
def test_an_unknown_name_says_what_is_expected(name, error, message):
    with pytest.raises(error, match=message) as refused:
        Toy.from_pretrained(name)
    assert len(str(refused.value)) < 600 and "\n" not in str(refused.value)


def test_a_checkpoint_is_loaded_by_its_module(tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"is a file\. .*ContinualClassifier\.load_from_checkpoint\(path\)"):
        Toy.from_pretrained(tmp_path / "last.ckpt")


def test_an_empty_folder_is_no_artifact(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        Toy.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a revision"):
        Toy.from_pretrained(tmp_path, revision="main")


def test_a_model_type_belongs_to_one_class():
    with pytest.raises(ValueError, match="belongs to Toy"):

        @register_model("toy")
        class Other(HubModel, nn.Module):
            pass

    with pytest.raises(ValueError, match="lower case"):
        register_model("os.system")


def test_a_bare_name_of_a_folder_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no model 'mine' in the zoo. For the folder of that name write './mine'"):
        HubModel.from_pretrained("mine")


def test_a_folder_of_a_model_goes_by_its_bare_name_where_the_zoo_has_none(model, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("mine")
    assert Toy.from_pretrained("mine").config == model.config and not caplog.text
    with pytest.raises(ValueError, match="mine is a folder; a revision"):
        Toy.from_pretrained("mine", revision="main")
    model.save_pretrained("permuted-digits")
    assert isinstance(HubModel.from_pretrained("permuted-digits"), ActiveDendriteClassifier)
    assert "of the zoo, and also a folder here: for the folder write './permuted-digits'" in caplog.text
    caplog.clear()
    assert Toy.from_pretrained("./permuted-digits").config == model.config and not caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_not_saved(model, tmp_path, value):
    model.head.weight.data[1, 2] = value
    with pytest.raises(ValueError, match="Expected finite weights to save, but `head.weight` has NaN or infinity"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_an_error_quotes_of_a_file_is_short(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"a" * 100_000: -1}))
    with pytest.raises(ValueError, match="a whole number from 0 to .*, but got -1") as error:
        Toy.from_pretrained(tmp_path)
    assert len(str(error.value)) < 500
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = json.dumps({"weight": {"dtype": "a" * 100_000, "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="expected a whole safetensors file") as error:
        Toy.from_pretrained(tmp_path)
    assert len(str(error.value)) < 500
