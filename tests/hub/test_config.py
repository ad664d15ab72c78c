"""A config from a stranger: what is refused, and that nothing is allocated or imported on the way."""

import json
import sys
import tracemalloc

import pytest

from dendrite_zoo.hub import build, full_config, migrations
from dendrite_zoo.hub import config as configs
from dendrite_zoo.models import ActiveDendriteClassifier
from tests.hub.toy import Toy

GOOD = {
    "library_name": "dendrite-zoo",
    "library_version": "0.1.0",
    "format_version": configs.FORMAT_VERSION,
    "model_type": "toy",
    "in_features": 4,
    "num_classes": 2,
    "max_tasks": 3,
    "hidden": [],
    "scale": 1.0,
    "note": None,
}


def test_a_good_config_builds_the_model():
    model = build(GOOD)
    assert type(model) is Toy
    assert model.config["in_features"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"library_name": "transformers"}, "library_name 'transformers'.*not an artifact of this library"),
        ({"library_name": None}, "library_name None"),
        ({"library_version": None}, "library_version None; expected one such as '0.1.0'"),
        ({"library_version": "1" * 100}, "library_version '1+...1+'"),
        ({"format_version": configs.FORMAT_VERSION + 1}, "Upgrade: pip install -U dendrite-zoo"),
        ({"format_version": True}, "format_version True"),
        ({"format_version": "1"}, "format_version '1'"),
        ({"format_version": 0}, "format_version 0"),
        ({"model_type": "toyy"}, "Did you mean 'toy'"),
        ({"model_type": "os.system"}, "never a path to import"),
        ({"model_type": "tests.hub.trap.Trap"}, "never a path to import"),
        ({"model_type": ["toy"]}, "model_type"),
        ({"in_featuress": 4}, "'in_featuress'.*Did you mean 'in_features'"),
        ({"self": 4}, "'self'"),
        ({"in_features": True}, "`in_features` to be int, but got True"),
        ({"in_features": -1}, "got -1"),
        ({"in_features": 4.5}, "`in_features` to be int, but got 4.5"),
        ({"in_features": "4"}, "`in_features` to be int, but got '4'"),
        ({"in_features": 2**40}, str(2**40)),
        ({"in_features": 2**31 - 1, "hidden": [2**31 - 1] * 3}, "no machine holds"),
        ({"in_features": 2**31 - 1}, "numbers of Toy; expected at most"),
        ({"hidden": [2**20] * 10}, "numbers of Toy; expected at most"),
        ({"max_tasks": 10_001}, "at most 10000"),
        ({"hidden": [1] * 5000}, "at most 1024 items, but got 5000"),
        ({"hidden": [4, True]}, "`hidden` to be"),
        ({"hidden": 4}, "`hidden` to be .* but got 4"),
        ({"scale": True}, "`scale` to be float, but got True"),
        ({"scale": float("nan")}, "finite"),
        ({"scale": float("inf")}, "finite"),
        ({"note": 4}, "`note` to be .* but got 4"),
        ({"note": ["x" * 1000] * 1000}, "`note` to be .* but got .{,250}$"),
        ({"x" * 10_000: 4}, "config.json has '.{,100}; expected arguments of Toy"),
    ],
)
def test_a_bad_value_is_refused(change, message):
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=message):
        build({**GOOD, **change})
    assert set(sys.modules) == modules


@pytest.mark.parametrize("missing", ["num_classes", "scale"])
def test_a_missing_argument_is_named_even_where_it_has_a_default(missing):
    with pytest.raises(ValueError, match=rf"lacks \['{missing}'\]; expected every argument of Toy"):
        build({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize("key", GOOD)
def test_no_key_of_a_config_may_be_missing(key):
    with pytest.raises(ValueError, match=rf"config.json (has {key} None|lacks \['{key}'\])"):
        build({name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize("density", ["weight_density", "activation_density", "input_density", "segment_density"])
@pytest.mark.parametrize("value", [1e-300, 5e-324, 0, -0.5, 1.5])
def test_a_density_is_one_that_a_network_can_have(density, value):
    """Of 1e-300 the bounds of the first weights were infinite, of 5e-324 there was a division by zero."""
    small = ActiveDendriteClassifier(4, [20], 2, max_tasks=2)
    with pytest.raises(ValueError, match=f"config.json: .*{density}"):
        build({**full_config(small), density: value})


def test_huge_sizes_allocate_nothing():
    tracemalloc.start()
    with pytest.raises(ValueError):
        build({**GOOD, "in_features": 2**31 - 1, "hidden": [2**31 - 1] * 100})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid JSON"),
        ('{"a": 1', "no valid JSON"),
        ("[1]", "expected one JSON object"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e999}', "finite"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": {"b": [1, -2]}}', "a: b: 1: expected .* but got -2"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "no valid JSON"),
        (b'{"a": "\xff"}', "no valid JSON"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "at most 1,048,576 bytes"),
    ],
)
def test_json_is_strict(text, message):
    with pytest.raises(ValueError, match=message):
        configs.parse(text)


def test_an_older_format_is_migrated_step_by_step(monkeypatch):
    def rename(config, state, defaults):
        config["in_features"] = config.pop("width")
        return config, {name.replace("old", "new"): tensor for name, tensor in state.items()}

    for module in (configs, migrations):
        monkeypatch.setattr(module, "FORMAT_VERSION", 3)
    monkeypatch.setitem(migrations.MIGRATIONS, 1, rename)
    monkeypatch.setitem(migrations.MIGRATIONS, 2, lambda config, state, _: ({**config, "scale": 2.0}, state))
    old = {key: value for key, value in GOOD.items() if key != "in_features"} | {"width": 4, "format_version": 1}
    config, state = migrations.migrate(json.loads(json.dumps(old)), {"old.weight": 1}, {})
    assert config == {**GOOD, "format_version": 3, "scale": 2.0}
    assert state == {"new.weight": 1}
    assert build(old).config["scale"] == 2.0


def test_format_1_left_out_what_had_its_default():
    old = {key: GOOD[key] for key in list(GOOD)[:6]} | {"format_version": 1}
    assert build(old).config == build(GOOD).config, "a stranger's class has the defaults it has today"
