"""What a recipe names runs only as far as the argument at that place asks for it."""

from __future__ import annotations

import os
import sys

import jsonargparse
import pytest
import torch
from torch import nn

from dendrite_zoo._core.jsonargparse import write_texts_as_they_are
from dendrite_zoo.cli.import_paths import check_import_paths, refuse_dangerous_imports
from dendrite_zoo.cli.main import main
from dendrite_zoo.rl import TaskSpec
from tests.cli.conftest import RECIPE

CALLBACKS = "trainer.callbacks+={{class_path: dendrite_zoo.callbacks.{name}, init_args: {{{arguments}}}}}"
PLACES = {
    "optimizer": "model.init_args.optimizer={call}",
    "loss": "model.init_args.loss={call}",
    "metrics": "model.init_args.metrics={call}",
    "model": "model.init_args.model={call}",
    "context": "model.init_args.context={call}",
    "source": "data.init_args.source={call}",
    "data": "data={call}",
    "callback": "trainer.callbacks+={call}",
    "logger": "trainer.logger={call}",
    "lr_scheduler": "lr_scheduler={call}",
    "task": CALLBACKS.format(name="ForgettingLogger", arguments="task: {call}"),
    "samples": CALLBACKS.format(name="ElasticWeightConsolidation", arguments="ewc_lambda: 1, data: {call}"),
}


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what LightningCLI itself calls
    common = sys.modules["jsonargparse._common"]
    monkeypatch.setattr(common, "parsing_settings", dict(common.parsing_settings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "downloaded.py").write_text("def touch(path):\n    open(path, 'w').close()\n")
    (tmp_path / "tiny.yaml").write_text(RECIPE + "seed_everything: false")
    yield
    sys.modules.pop("downloaded", None)


def make_network(width: int) -> nn.Module:
    return nn.Linear(width, width)


@pytest.mark.parametrize("call", ["os.mkdir", "downloaded.touch"])
@pytest.mark.parametrize("place", PLACES)
def test_no_function_is_called(place, call, tmp_path, capsys):
    named = f"{{class_path: {call}, init_args: {{path: executed}}}}"
    changed = PLACES[place].replace("{call}", named)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "tiny.yaml", f"--{changed}"])
    said = str(end.value.code) if end.value.code != 2 else capsys.readouterr().err.strip()
    assert call.rpartition(".")[2] in said and len(said.splitlines()) == 1 and len(said) < 400
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(not hasattr(jsonargparse, "set_parsing_settings"), reason="this jsonargparse has no such settings")
def test_nothing_is_made_where_any_value_may_stand():
    refuse_dangerous_imports()
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--value", type=object)
    parsed = parser.parse_object({"value": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1}}})
    assert not isinstance(parser.instantiate_classes(parsed).value, nn.Module)


def test_a_key_of_info_is_written_as_it_was_read():
    """Beside a function, which is written by its path: what is written is read as the same again."""
    write_texts_as_they_are()
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(TaskSpec, "task")
    for success in ("is_success", "tests.rl.worlds.windy"):
        given = {"task": {"name": "moon", "make_env": "tests.rl.worlds.calm", "success": success}}
        written = parser.dump(parsed := parser.parse_object(given))
        assert f"success: {success}\n" in written
        assert parser.parse_string(written).task.success == parsed.task.success


def test_classes_and_what_makes_a_network_are_left_alone():
    for path in ("torch.nn.MSELoss", f"{__name__}.make_network", "unknown.name", "PermutedTasks"):
        check_import_paths({"model": [{"loss": {"class_path": path}}]})
    check_import_paths({"optimizer": {"class_path": "torch.optim.SGD"}, "callbacks": [{"class_path": "torch.nn.ReLU"}]})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model": {"init_args": {"optimizer": {"class_path": "torch.nn.ReLU"}}}}, "`model.init_args.optimizer`"),
        ({"optimizer": {"class_path": f"{__name__}.make_network"}}, "torch.optim.Optimizer"),
        ({"callbacks": [{}, {"init_args": {"task": {"class_path": "os.getpid"}}}]}, "`callbacks.1.init_args.task`"),
        ({"loss": {"class_path": "torch.manual_seed"}}, "but got torch.manual_seed, which is none"),
    ],
)
def test_what_is_refused_is_named(config, said):
    assert os.getpid and torch.manual_seed  # both modules are imported
    with pytest.raises(ValueError, match="Name a class, or remove it") as error:
        check_import_paths(config)
    assert said in str(error.value)


def test_one_callback_needs_no_list(tmp_path):
    only = "{class_path: dendrite_zoo.callbacks.SubnetworkLogger}"
    main(["fit", "--config", "tiny.yaml", f"--trainer.callbacks={only}", "--trainer.fast_dev_run=true"])
