"""The dendrite-zoo command, as a user types it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
import yaml

import dendrite_zoo
from dendrite_zoo.cli.evaluate import _measured_again, _order
from dendrite_zoo.cli.main import main
from dendrite_zoo.cli.recipes import recipes
from dendrite_zoo.hub import registry
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy, RidgeClassifier
from dendrite_zoo.records import ResultRecord, read_records
from dendrite_zoo.rl import SuccessReport
from dendrite_zoo.streams import PermutedTasks, SplitTasks, TaskSequence
from tests import processes
from tests.cli.conftest import RECIPE, run


@pytest.fixture(autouse=True)
def lightnings_own(monkeypatch):
    """Lightning 2.6 calls what jsonargparse 4.53 deprecates."""
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for name in ("demo", "list", "evaluate", "fit", "validate", "test", "publish", "report"):
        assert f"    {name} " in shown


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert dendrite_zoo.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["80", None], ids=["80 columns", "no terminal"])
def test_list_shows_whole_names_and_commands(columns, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"COLUMNS": columns} if columns else {}
    shown = processes.run(["dendrite-zoo", "list"], cwd=tmp_path, env=environment).stdout
    assert "…" not in shown
    lines = {line.strip() for line in shown.splitlines()}
    table = [line for line in lines if line.startswith("│")]
    for entry in registry.entries().values():
        if entry.bundled or entry.revision:
            assert any(f"│ {entry.name} " in line for line in table)
        else:
            assert entry.build in lines and not any(entry.name in line for line in table)


def test_whoever_has_the_wheel_can_load_what_list_shows(monkeypatch, capsys):
    """A model that is neither bundled nor published is listed apart, with a command that needs no checkout."""
    loadable = registry.Entry("there", repo="org/there", revision="0" * 40)
    absent = registry.Entry("absent", build="dendrite-zoo fit --config permuted-digits", headline="0.9")
    monkeypatch.setattr(registry, "entries", lambda: {"there": loadable, "absent": absent})
    main(["list"])
    table, apart = capsys.readouterr().out.split("└")
    assert "org/there" in table and "absent" not in table
    assert "Train it" in apart and "\n  dendrite-zoo fit --config permuted-digits\n" in apart


def test_entries_that_must_be_built_are_built_without_a_checkout():
    for entry in registry.entries().values():
        if entry.bundled:
            continue
        assert entry.build.startswith("dendrite-zoo fit --config "), entry.name
        assert entry.build.split()[3] in recipes()


def test_errors_are_one_line(tmp_path):
    (tmp_path / "spoiled.json").write_text("{")
    shown = run("evaluate", "permuted-digit", cwd=tmp_path, code=1)
    assert "permuted-digits" in shown and "Traceback" not in shown and len(shown.strip().splitlines()) == 1
    assert "spoiled.json: no valid JSON" in run("report", "spoiled.json", cwd=tmp_path, code=1)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    shown = run("fit", "--config", "tiny.yaml", "--data.init_args.num_tasks", 99, cwd=tmp_path, code=1)
    assert "at most 3 tasks, for which the model has room, but got 99" in shown and "Traceback" not in shown
    assert "holds no result records" in run("report", tmp_path, cwd=tmp_path, code=1)


def test_fit_leaves_a_run_folder_and_a_model_that_loads(finished_run):
    folder = finished_run / "runs" / "tiny"
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"metrics.csv", "matrix.json", "matrix.png", "config.yaml", "checkpoints/last.ckpt"} <= left
    assert {"model/config.json", "model/model.safetensors", "model/results.json"} <= left
    matrix = json.loads((folder / "matrix.json").read_text())["matrix"]
    (record,) = json.loads((folder / "model" / "results.json").read_text())
    assert record["benchmark"] == "permuted-digits" and record["method"] == "tiny" and record["seeds"] == [0]
    assert record["task_accuracies"] == matrix[-1] and record["context_at_test"] == "inferred"
    assert record["config_hash"]  # else report could not merge its seeds
    assert record["average_accuracy"] == pytest.approx(sum(matrix[-1]) / 2)
    assert record["accuracy_by_context"]["inferred"] == pytest.approx(record["average_accuracy"])
    model = dendrite_zoo.load(folder / "model")
    assert isinstance(model, ActiveDendriteClassifier) and model.num_tasks == 2 and model.results == [record]
    stream = PermutedTasks("digits", num_tasks=2)
    with torch.no_grad():
        right = torch.cat([model(x).argmax(1) == y for x, y in stream.task_loader(1, "test")])
    assert right.float().mean().item() == pytest.approx(matrix[1][1], abs=1e-6)


def test_a_resumed_fit_appends_and_a_fresh_one_refuses(finished_run, tmp_path):
    finished_run = shutil.copytree(finished_run, tmp_path / "copy")
    metrics = finished_run / "runs" / "tiny" / "metrics.csv"
    before = metrics.read_text().splitlines()
    assert "holds an earlier run" in run("fit", "--config", "tiny.yaml", cwd=finished_run, code=1)
    assert metrics.read_text().splitlines() == before
    on = ("fit", "--config", "tiny.yaml", "--ckpt_path", "last")
    said = run(*on, "--data.init_args.epochs_per_task", 3, "--model.init_args.lr", 0.01, cwd=finished_run, code=1)
    assert (
        "was begun by another recipe (model.init_args.lr: 0.001, now 0.01; data.init_args.epochs_per_task: 2, now 3)"
        in said
    )
    assert "or where the tasks of `OnlineTasks` are played at once, with more" in said, "in a sequence each has a share"
    limits = ("--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 1)
    said = run(*on, "--optimizer", "SGD", "--optimizer.lr", 5, *limits, cwd=finished_run, code=1)
    assert "optimizer: None, now " in said and "trainer.limit_train_batches: None, now 1" in said
    assert "trainer.limit_val_batches: None, now 1" in said
    assert "data.init_args.num_tasks: 2, now 1" in run(*on, "--data.init_args.num_tasks", 1, cwd=finished_run, code=1)
    config = finished_run / "runs" / "tiny" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("dendrite_zoo.models.ActiveDendriteClassifier", "strangers.Net"))
    (finished_run / "strangers.py").write_text("raise SystemExit('imported')")
    said = run(*on, cwd=finished_run, code=1)
    assert "class_path: strangers.Net, now dendrite_zoo.models.ActiveDendriteClassifier" in said
    config.write_text(text)
    elsewhere = ("--name", "new", "--ckpt_path", "runs/tiny/checkpoints/last.ckpt", "--model.init_args.lr", 0.01)
    said = run("fit", "--config", "tiny.yaml", *elsewhere, cwd=finished_run, code=1)
    assert "to start it from these weights, give --model.init_args.model runs/tiny/model, and no --ckpt_path" in said
    wrong = ("fit", "--resume", "runs/tiny", "--model.init_args.lr", 0.01)
    assert "lr: 0.001, now 0.01" in run(*wrong, cwd=finished_run, code=1)
    run("fit", "--resume", "runs/tiny", "--data.init_args.num_tasks", 3, cwd=finished_run)
    (record,) = json.loads((finished_run / "runs" / "tiny" / "model" / "results.json").read_text())
    assert record["command"] == "dendrite-zoo fit --config tiny.yaml --data.init_args.num_tasks 3"
    run(*on, "--data.init_args.num_tasks", 3, cwd=finished_run)
    again = ("--config", "runs/tiny/config.yaml", "--name", "again", "--trainer.max_steps", 1)
    run("fit", *again, cwd=finished_run)  # which is a recipe still
    after = list(csv.DictReader(metrics.read_text().splitlines()))
    assert len(after) > len(before) - 1 and {row["epoch"] for row in after} >= {"0", "3", "5"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_leaves_a_checkpoint_and_its_own_exit_status(number, tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    errors = tmp_path / "errors"
    fit = ["dendrite-zoo", "fit", "--config", "tiny.yaml", "--data.init_args.epochs_per_task", 1000]
    process = processes.start(fit, cwd=tmp_path, said=(os.devnull, errors))
    metrics, until = tmp_path / "runs" / "tiny" / "metrics.csv", time.monotonic() + 600
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 20) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(600)
    said = errors.read_text()
    assert process.exitcode == 128 + number, said
    assert f"stopped by {number.name}. Resume it with: dendrite-zoo fit --resume runs/tiny" in said
    last = tmp_path / "runs" / "tiny" / "checkpoints" / "last.ckpt"
    steps = torch.load(last, weights_only=True)["global_step"]
    assert steps > 0 and "Traceback" not in said
    run("fit", "--resume", "runs/tiny", "--trainer.max_steps", steps + 2, cwd=tmp_path)
    assert torch.load(last, weights_only=True)["global_step"] == steps + 2


def test_a_run_that_was_killed_before_a_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "metrics.csv").write_text("epoch,step\n0,1\n")
    said = run("fit", "--config", "tiny.yaml", cwd=tmp_path, code=1)
    assert "Give --name, or remove the folder" in said and "--resume" not in said
    said = run("fit", "--config", "tiny.yaml", "--ckpt_path", "last", cwd=tmp_path, code=1)
    assert "If the run ended before it wrote one, remove the folder, and start again" in said


def test_validate_a_checkpoint(finished_run):
    (finished_run / "config.yaml").write_text("mine")
    matrix = json.loads((finished_run / "runs" / "tiny" / "matrix.json").read_text())["matrix"]
    for checkpoint in ("runs/tiny/checkpoints/last.ckpt", "last"):
        shown = run("validate", "--config", "tiny.yaml", "--ckpt_path", checkpoint, cwd=finished_run)
        assert f"{matrix[1][1]:.6f}"[:6] in shown and "callbacks used to create the checkpoint" not in shown
    assert (finished_run / "config.yaml").read_text() == "mine"
    (finished_run / "config.yaml").unlink()
    assert "no runs/none/" in run(
        "validate", "--config", "tiny.yaml", "--ckpt_path", "last", "--name", "none", cwd=finished_run, code=1
    )
    assert "Expected `--ckpt_path FILE`" in run("test", "--config", "tiny.yaml", cwd=finished_run, code=1)


class Foreign:
    """What no checkpoint of this library holds; unpickling it leaves a trace."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_nothing_in_a_checkpoint_is_executed(command, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    last = tmp_path / "runs" / "tiny" / "checkpoints" / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | {"foreign": Foreign()}, last)
    resume = (command, "--config", "tiny.yaml", "--ckpt_path", "last", "--data.init_args.num_tasks", 3)
    shown = run(*resume, cwd=tmp_path, code=1)
    assert "more than tensors and plain values (" in shown and ".mkdir), so it was not read" in shown
    assert "Traceback" not in shown and not (tmp_path / "executed").exists()
    run(*resume, "--weights_only", "false", cwd=tmp_path)
    assert (tmp_path / "executed").exists()


def test_a_damaged_checkpoint_is_not_trained_on(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    last = tmp_path / "runs" / "tiny" / "checkpoints" / "last.ckpt"
    whole, flipped = last.read_bytes(), bytearray(last.read_bytes())
    flipped[len(flipped) // 3] ^= 8
    for content in (b"", whole[: len(whole) // 2], b"# A text\n", bytes(flipped)):
        last.write_bytes(content)
        said = run("validate", "--config", "tiny.yaml", "--ckpt_path", "last", cwd=tmp_path)
        assert "previous.ckpt, the one before it, is read instead" in said and "Traceback" not in said
    said = run("fit", "--resume", "tiny", cwd=tmp_path)
    assert "last.ckpt is damaged (Bad CRC-32 for file" in said
    last.write_bytes(flipped)
    last.with_name("previous.ckpt").unlink()
    for command in (["fit", "--resume", "tiny"], ["validate", "--config", "tiny.yaml", "--ckpt_path", last]):
        said = run(*command, cwd=tmp_path, code=1)
        assert "last.ckpt is damaged, or no checkpoint" in said and "Traceback" not in said
    said = run("publish", last, "--repo", "me/tiny", "--dry-run", cwd=tmp_path, code=1)
    assert "but got a damaged file (Bad CRC-32 for file" in said and "Traceback" not in said


@pytest.mark.slow
def test_each_row_of_metrics_stands_once_after_kills(tmp_path):
    """Killed for real, wherever the process is when some number of rows has been written."""
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("epochs_per_task: 2", "epochs_per_task: 12"))
    run("fit", "--config", "tiny.yaml", "--name", "whole", cwd=tmp_path)
    metrics = tmp_path / "runs" / "killed" / "metrics.csv"
    for rows, arguments in ((20, ["--config", "tiny.yaml", "--name", "killed"]), (70, ["--resume", "killed"])):
        process = processes.start(["dendrite-zoo", "fit", *arguments], cwd=tmp_path)
        while process.is_alive() and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > rows):
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    run("fit", "--resume", "killed", cwd=tmp_path)

    def read(path):
        table = csv.DictReader(path.read_text().splitlines())
        return sorted(tuple(sorted((name, x) for name, x in row.items() if x)) for row in table)

    whole = read(tmp_path / "runs" / "whole" / "metrics.csv")
    assert read(metrics) == whole and len(whole) > 160 and len(set(whole)) == len(whole)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_accelerator_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    said = run("fit", "--config", "tiny.yaml", "--trainer.accelerator", "cuda", cwd=tmp_path, code=1)
    assert "dendrite-zoo fit: " in said and "Traceback" not in said


@pytest.mark.parametrize("early", [("--trainer.max_steps", 1), ("--trainer.fast_dev_run", "true")])
def test_a_run_that_ends_early_keeps_its_model_without_a_record(early, tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    run("fit", "--config", "tiny.yaml", *early, cwd=tmp_path)
    model = tmp_path / "runs" / "tiny" / "model"
    assert model.is_dir() == ("max_steps" in early[0]) and not (model / "results.json").exists()


def test_a_module_of_ones_own_keeps_its_model(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from lightning.pytorch import LightningModule\n"
        "from dendrite_zoo.models import ActiveDendriteClassifier\n\n"
        "class Mine(LightningModule):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = ActiveDendriteClassifier(64, [16], 10, max_tasks=2, context='one-hot')\n\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        task = self.trainer.datamodule.current_task\n"
        "        return torch.nn.functional.cross_entropy(self.model(batch[0], task=task), batch[1])\n\n"
        "    def validation_step(self, batch, batch_idx, dataloader_idx=0):\n"
        "        right = self.model(batch[0], task=dataloader_idx).argmax(1) == batch[1]\n"
        "        self.log(f'val/task_{dataloader_idx}/acc', right.float().mean(), add_dataloader_idx=False)\n\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.Adam(self.parameters())\n"
    )
    model = RECIPE[RECIPE.index("model:") : RECIPE.index("data:")]
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace(model, "model: {class_path: mine.Mine}\n"))
    run("fit", "--config", "tiny.yaml", cwd=tmp_path)
    assert dendrite_zoo.load(tmp_path / "runs" / "tiny" / "model").num_classes == 10


def test_a_run_from_the_weights_of_another_without_a_logger(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    new = ["fit", "--config", "tiny.yaml", "--name", "new", "--model.init_args.model", "runs/tiny/model"]
    new += ["--data.init_args.epochs_per_task", 1, "--trainer.logger", "false", "--trainer.precision", "bf16-true"]
    run(*new, cwd=tmp_path)
    left = {str(path.relative_to(tmp_path / "runs" / "new")) for path in (tmp_path / "runs" / "new").rglob("*")}
    assert {"config.yaml", "matrix.json", "checkpoints/last.ckpt", "model/results.json"} <= left
    assert not (tmp_path / "config.yaml").exists() and not (tmp_path / "matrix.json").exists()
    assert "holds an earlier run" in run(*new, cwd=tmp_path, code=1)


def test_the_stream_settles_the_trainers_epochs(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    said = run("fit", "--config", "tiny.yaml", "--trainer.max_epochs", 7, cwd=tmp_path, code=2)
    refused = "Expected no `trainer.max_epochs`, because `data` sets it. Change the epochs of `data`."
    assert refused in said
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("trainer: {", "trainer: {max_epochs: 7, "))
    assert refused in run("fit", "--config", "tiny.yaml", cwd=tmp_path, code=2) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("num_segment: 2", "ActiveDendriteClassifier has no argument `num_segment`. Did you mean 'num_segments'?"),
        ("modulated: [1]", "`modulated` is now `dendrite_layers`."),
        ("winners: contxt", "Expected `winners` to be one of 'activation', 'context', but got 'contxt'."),
        ("weight_density: a", "Expected `weight_density` to be"),
    ],
)
def test_a_wrong_argument_of_the_model_is_named(wrong, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(RECIPE.replace("num_segments: 2", wrong) + "seed_everything: false")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "wrong.yaml"])
    assert said in str(end.value.code) and "\n" not in str(end.value.code)
    key = "--model.init_args.model.init_args.winers"
    with pytest.raises(SystemExit, match="but got 'winers', which no class takes. Did you mean 'winners'?"):
        main(["fit", "--config", "permuted-digits", "--seed_everything", "false", key, "context"])
    key = "--model.init_args.model.init_args.tasks"
    with pytest.raises(SystemExit, match=r"Expected `tasks` to be a list of names, but got 'cw10'. Write \['cw10'\]"):
        main(["fit", "--config", "metaworld-mt10-sequence", "--seed_everything", "false", key, "cw10"])


@pytest.mark.parametrize("none", ["null", "None"])
def test_an_argument_of_a_model_within_a_module_can_be_none(none, capsys):
    key = "--model.init_args.model.init_args.overlap"
    with pytest.raises(SystemExit):
        main(["fit", "--config", "metaworld-mt10-sequence", key, none, "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["model"]
    assert model["init_args"]["overlap"] is None and model["init_args"]["num_segments"] == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("batch_size", "batchsize", "`PermutedTasks` has no argument `batchsize`. Did you mean 'batch_size'?"),
        ("batch_size", "holdout", "`PermutedTasks` has no argument `holdout`. `holdout` is now `val_fraction`."),
        ("lr:", "anneal:", "`ContinualClassifier` has no argument `anneal`. `anneal` is now `lr_schedule`."),
        (
            "class_path: PermutedTasks",
            "class_path: PermutedTask",
            "but got PermutedTask. Did you mean 'PermutedTasks'?",
        ),
        (
            "log_every_n_steps",
            "log_every_steps",
            "no option `trainer.log_every_steps`. Did you mean 'trainer.log_every_n_steps'?",
        ),
        ("trainer:", "trainr:", "There is no option `trainr.accelerator`. Did you mean 'trainer.accelerator'?"),
    ],
)
def test_a_misspelt_option_of_a_recipe_is_one_line(old, new, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace(old, new))
    check_one_line(["fit", "--config", str(tmp_path / "tiny.yaml")], said, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit --config permuted-digits --naem x", "There is no option `--naem`. Did you mean '--name'?"),
        ("fit --confg permuted-digits", "There is no option `--confg`. Did you mean '--config'?"),
        ("fit --config permuted-digits --row x", "`--row` is now `--method`."),
        ("fit --resum runs/x", "There is no option `--resum`. Did you mean '--resume'?"),
        ("fit permuted-digits", "Did you mean --config permuted-digits?"),
        ("fit", "Give fit --config NAME, or fit --resume runs/NAME. See: dendrite-zoo fit --help"),
        ("fit --config permuted-digits --lr 0.1", "There is no option `--lr`. Did you mean '--model.lr'?"),
        ("fit --config permuted-digits --max_steps 1", "Did you mean '--trainer.max_steps'?"),
        ("fit --config permuted-digits --data.init_args.holdout 0.1", "`holdout` is now `val_fraction`"),
        ("fit --config permuted-digits --optimizer Adm --optimizer.lr 1", "but got Adm. Did you mean 'Adam'?"),
        ("fit --config permuted-digits --optimizer math.floor", "Expected `optimizer` to be Optimizer or null"),
        ("fit --config permuted-digits --trainer.callbacks EarlyStoping", "Did you mean 'EarlyStopping'?"),
        ("fit --config permuted-digits --trainer.callbacks EarlyStopping", "Expected monitor of `EarlyStopping`"),
        ("fit --config permuted-digits --model mine.Net", "mine.Net: No module named 'mine'. A module of this folder"),
        ("evaluate permuted-digits --num_task 3", "There is no option `--num_task`. Did you mean '--num-tasks'?"),
        ("evaluat permuted-digits", "There is no command `evaluat`. Did you mean 'evaluate'?"),
        ("publish runs/x", "dendrite-zoo publish: Expected `--repo`, but got none. See: dendrite-zoo publish --help"),
        ("evaluate", "dendrite-zoo evaluate: Expected MODEL, but got none."),
        ("list --foo", "There is no option `--foo`. Expected one of help, hub. See: dendrite-zoo list --help"),
        ("list permuted", "dendrite-zoo list: Expected an option, but got `permuted`. Leave it out."),
    ],
)
def test_a_misspelt_word_of_the_command_is_one_line(words, said, capsys):
    check_one_line(words.split(), said, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate permuted-digit", "no model 'permuted-digit' in the zoo. Did you mean 'permuted-digits'? See all: "),
        ("evaluate xyz", "no model 'xyz' in the zoo. Expected one of metaworld-continual-50, metaworld-mt10, "),
        ("publish my-run --repo a/b", "my-run holds no model; .* Did you mean 'runs/my-runs'?"),
        ("publish runs/my-rus --repo a/b", "Did you mean 'runs/my-runs'?"),
        ("report my-runs", "my-runs holds no result records. .* Did you mean 'runs/my-runs'?"),
        ("report permuted-digit", "names of the zoo. Did you mean 'permuted-digits'?"),
        ("report runs/my-rnus", "runs/my-rnus holds no result records. .* Did you mean 'runs/my-runs'?"),
    ],
)
def test_a_name_that_is_not_there_is_one_line_with_the_near_one(words, said, tmp_path, monkeypatch):
    (tmp_path / "runs" / "my-runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said.replace("?", r"\?")) as end:
        main(words.split())
    assert "\n" not in str(end.value.code) and "[" not in str(end.value.code)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data.num_tasks ten", "Expected `data.num_tasks` to be int, but got ten. See: dendrite-zoo fit --help"),
        ("--data.init_args.num_tasks ten", "Expected `data.num_tasks` to be int, but got ten."),
        ("--trainer.max_steps x", "Expected `trainer.max_steps` to be int, but got x."),
        ("--trainer.precision 16-ture", "'bf16' or null, but got 16-ture. Did you mean '16-true'?"),
        ("--model.init_args.lr x", "Expected `model.lr` to be float or null, but got x."),
        ("--seed_everything x", "Expected `seed_everything` to be bool or int, but got x."),
    ],
)
def test_a_wrong_value_is_one_line_with_what_was_expected(words, said, capsys):
    check_one_line(["fit", "--config", "permuted-digits", *words.split()], said, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data.first_task -1", "dendrite-zoo fit: Expected `first_task` to be an integer of at least 0, but got -1."),
        ("--ckpt_path best", "Expected a checkpoint, but there is no file best."),
        ("--trainer.accelerator cpu --trainer.devices two", "`devices` selected with `CPUAccelerator` should be"),
    ],
)
def test_a_value_that_a_class_refuses_is_one_line(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "permuted-digits", "--seed_everything", "false", *words.split()])
    assert said in str(end.value.code) and "\n" not in str(end.value.code)


def test_a_command_that_is_stopped_before_it_began_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt  # while it is imported")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "permuted-digits", "--model", "slow.Net"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "dendrite-zoo fit: stopped by SIGINT before it began. Start it again.\n"


@pytest.mark.parametrize("words", [[], ["help"], ["help", "publish"]])
def test_help_without_dashes(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    assert ("--repo" if "publish" in words else "Train by a recipe") in capsys.readouterr().out


def test_help_says_types_and_defaults_as_one_does(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "null" not in shown and "<class" not in shown
    assert "Write the scores there, too. (type: path) " in shown and "Seed of the stream (default: the one" in shown


def test_help_of_fit_lists_resume(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert "\n  --resume RESUME " in shown


def test_help_of_fit_begins_with_what_one_types(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert "dendrite-zoo fit --config permuted-digits --data.init_args.num_tasks" in "\n".join(shown.splitlines()[:5])
    places = [shown.index(f"\n  --{name} ") for name in ("resume", "name", "test_goals", "model", "data", "trainer")]
    assert places == sorted(places) and shown[: places[2]].count("\n") < 40


def check_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr().err
    assert end.value.code == 2 and said in shown and len(shown.splitlines()) == 1


def test_evaluate_gives_all_three_ways(finished_run):
    run("evaluate", "runs/tiny", "--json", "scores.json", cwd=finished_run)
    scores = json.loads((finished_run / "scores.json").read_text())
    assert scores["benchmark"] == "permuted-digits"
    assert all(len(scores[way]) == 2 for way in ("inferred", "given", "constant", "context"))
    said = run("evaluate", "runs/tiny", "--num-tasks", 0, cwd=finished_run, code=1)
    assert "Expected `num_tasks` to be an integer of at least 1, but got 0" in said
    said = run("evaluate", "runs/tiny", "--benchmark", "permuted-custom", cwd=finished_run, code=1)
    assert "Expected `--data`, because runs/tiny does not say it" in said


def test_evaluate_of_a_model_that_knows_no_tasks_takes_those_of_its_record(tmp_path):
    """As the zoo's `RidgeClassifier`, which knows classes alone."""
    model, stream = RidgeClassifier((8, 8), num_classes=10, random_features=64), SplitTasks("digits", num_tasks=5)
    for task in range(5):
        model.learn(stream.task_loader(task))
    model.save_pretrained(
        tmp_path / "model", results=[{"benchmark": "split-digits", "num_tasks": 5, "method": "ridge"}]
    )
    main(["evaluate", str(tmp_path / "model"), "--json", str(tmp_path / "scores.json")])
    scores = json.loads((tmp_path / "scores.json").read_text())["none"]
    for task in range(5):
        x, y = next(iter(stream.task_loader(task, "test")))
        assert scores[task] == pytest.approx(float((model(x).argmax(1) == y).double().mean()), abs=1e-6)


def test_evaluate_takes_the_permutations_that_were_learned(finished_run):
    other = ("--name", "other", "--seed_everything", "false", "--data.init_args.seed", 5)
    run("fit", "--config", "tiny.yaml", *other, "--model.init_args.lr", 0.02, cwd=finished_run)
    (record,) = json.loads((finished_run / "runs" / "other" / "model" / "results.json").read_text())
    assert record["seeds"] == [] and record["stream_seeds"] == [5]
    run("evaluate", "runs/other", "--json", "scores.json", cwd=finished_run)
    scores = json.loads((finished_run / "scores.json").read_text())
    assert scores["seed"] == 5 and scores["inferred"] == pytest.approx(record["task_accuracies"], abs=1e-6)
    run("evaluate", "runs/other", "--seed", 0, "--json", "scores.json", cwd=finished_run)
    assert json.loads((finished_run / "scores.json").read_text())["inferred"][1] < scores["inferred"][1] - 0.1


NETWORK = """import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

number = 3
"""


def test_evaluate_puts_a_backbone_in(tmp_path, monkeypatch):
    """Against the accuracy counted by hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_networks.py").write_text(NETWORK)
    made = {}
    exec(NETWORK, made)
    options = {"layers": "0", "num_classes": 10, "max_tasks": 2, "head": "ridge", "context": "prototype"}
    model = dendrite_zoo.add_dendrites(made["small"](), name="my/network", example=torch.rand(2, 1, 8, 8), **options)
    stream = TaskSequence(["digits", "digits"], flatten=False)
    for task in range(2):
        model.start_task(task, (x for x, _ in stream.task_loader(task)))
        model.fit_head(task, stream.task_loader(task))
    model.eval().save_pretrained(tmp_path / "model")
    typed = ["evaluate", "./model", "--benchmark", "digits+digits", "--json", "scores.json"]
    with pytest.raises(
        SystemExit, match="Expected `--backbone`, a function that builds it, but got none, and ./model was"
    ):
        main(typed)
    for name, said in {"my_networks.other": "has no attribute 'other'", "my_networks.number": "gives int"}.items():
        with pytest.raises(SystemExit, match=f"Expected `--backbone` to name a function.*{said}"):
            main([*typed, "--backbone", name])
    main([*typed, "--backbone", "my_networks.small"])
    scores = json.loads((tmp_path / "scores.json").read_text())
    pairs = [(model(x, task=0).argmax(1), y) for x, y in stream.task_loader(0, "test")]
    right = float(torch.cat([(found == y).float() for found, y in pairs]).mean())
    assert scores["benchmark"] == "digits+digits" and right > 0.8
    assert scores["given"][0] == pytest.approx(right, abs=1e-3)


def test_evaluate_plays_the_goals_of_a_policy(tmp_path):
    pytest.importorskip("metaworld")
    ActiveDendritePolicy(["reach-v3"], hidden_features=[16, 16]).save_pretrained(tmp_path / "policy")
    shown = run("evaluate", "./policy", "--goals", "2", "--json", "success.json", cwd=tmp_path)
    assert "2 test goals a task" in shown and "reach-v3" in shown and "at the last step" in shown
    record = json.loads((tmp_path / "success.json").read_text())
    assert record["tasks"] == ["reach-v3"] and record["num_goals"] == 2 and record["goals"] == "test"
    assert record["success_at_last_step"] is not None
    said = run("evaluate", "./policy", "--num-tasks", 3, "--data", ".", cwd=tmp_path, code=1)
    assert "Expected options for a policy, but got --num-tasks, --data" in said
    said = run("evaluate", "permuted-digits", "--goals", 3, cwd=tmp_path, code=1)
    assert "Expected options for a classifier, but got --goals" in said


def test_a_policys_record_has_what_was_measured_again(tmp_path, monkeypatch):
    pytest.importorskip("metaworld")
    run = {
        "benchmark": "metaworld-continual-1",
        "method": "m",
        "context_at_test": "given",
        "seed": 0,
        "matrix": [[1.0]],
    }
    record = ResultRecord.from_run([1.0], command="dendrite-zoo fit --config mine", goals_of_matrix=5, **run)
    policy, run_folder = ActiveDendritePolicy(["reach-v3"], hidden_features=[16, 16]), tmp_path / "runs" / "mine"
    policy.save_pretrained(tmp_path / "policy", results=[record.to_json()])
    typed = ["evaluate", str(tmp_path / "policy"), "--goals=1", "--processes=0", "--stop-at-success"]
    typed.append(f"--record={tmp_path / 'again.json'}")
    for _ in range(2):  # the second command stands in the place of the first
        monkeypatch.setattr(sys, "argv", ["dendrite-zoo", *typed])
        main()
        (again,) = read_records(tmp_path / "again.json")
        policy.save_pretrained(tmp_path / "policy", results=[again.to_json()])
    assert again.average_accuracy < 1.0 and again.matrix == [[1.0]] and again.seeds == [0]
    assert again.more["num_goals"] == 1 and again.more["success_at_last_step"] is None
    assert again.more["goals_of_matrix"] == 5 and again.benchmark == "metaworld-continual-1"
    assert again.command.startswith("dendrite-zoo fit --config mine && dendrite-zoo evaluate /")
    assert again.command.count("evaluate") == 1
    policy.save_pretrained(run_folder / "model", results=[record.to_json()])
    main(["evaluate", str(run_folder), *typed[2:-1], f"--record={run_folder / 'results.json'}"])
    assert ActiveDendritePolicy.from_pretrained(run_folder).results[0]["average_accuracy"] == again.average_accuracy, (
        "what is published of a run"
    )
    policy.save_pretrained(tmp_path / "blank")
    with pytest.raises(
        SystemExit, match="Expected a model with the record of its run for --record, but .*blank has none"
    ):
        main(["evaluate", str(tmp_path / "blank"), "--record=x.json"])


def test_a_record_of_a_sequence_keeps_its_matrix_where_it_is_of_all_tasks_of_the_policy():
    """The matrix has the tasks in the order in which they were learned, the policy in its own."""
    policy = ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[4, 4])
    known = {"benchmark": "b", "method": "m", "context_at_test": "given", "matrix": [[1.0, 0.0], [0.0, 1.0]]}
    learned = ResultRecord.from_run([0.0, 1.0], tasks=["push-v3", "reach-v3"], **known)
    assert _order(learned, policy) == ["push-v3", "reach-v3"] and _order(None, policy) == ["reach-v3", "push-v3"]

    def report(*tasks):
        first = np.array([[3, 0], [5, 7]])[: len(tasks)]
        return SuccessReport(tasks, first, None, "test", returns=np.zeros(first.shape))

    again = _measured_again(learned, report("push-v3", "reach-v3"))
    assert again.matrix == known["matrix"] and again.task_accuracies == [0.5, 1.0]
    assert again.benchmark == "metaworld-continual-2" and again.average_accuracy == 0.75
    part = ResultRecord.from_run([1.0], tasks=["push-v3"], **{**known, "matrix": [[1.0]]})
    assert _order(part, policy) == ["reach-v3", "push-v3"]
    again = _measured_again(part, report("reach-v3", "push-v3"))
    assert (again.matrix, again.num_tasks, again.benchmark) == (None, 2, "metaworld-2-tasks")
    assert ResultRecord.from_json(again.to_json()).more["tasks"] == ["reach-v3", "push-v3"]


def test_publish_shows_the_card_of_a_dry_run(finished_run):
    shown = run("publish", "runs/tiny", "--repo", "me/tiny", "--dry-run", cwd=finished_run)
    assert shown.startswith("---\n") and "library_name: dendrite-zoo" in shown and "# me/tiny" in shown
    assert "model.safetensors" in shown and "me/tiny would be published to" in shown


def test_report_merges_seeds(finished_run):
    (record,) = json.loads((finished_run / "runs" / "tiny" / "model" / "results.json").read_text())
    (finished_run / "other.json").write_text(json.dumps([{**record, "seeds": [1], "average_accuracy": 0.5}]))
    shown = run("report", "runs/tiny", "other.json", "--json", "all.json", cwd=finished_run)
    assert "0, 1" in shown
    (merged,) = json.loads((finished_run / "all.json").read_text())
    assert merged["average_accuracy"] == pytest.approx((record["average_accuracy"] + 0.5) / 2)
    assert "Expected each seed once" in run("report", "runs/tiny", "runs/tiny", cwd=finished_run, code=1)


@pytest.mark.slow
def test_demo(tmp_path):
    shown = run("demo", "--epochs", 1, cwd=tmp_path)
    assert "equal outputs" in shown and "forgetting" in shown
    folder = tmp_path / "runs" / "demo"
    assert (folder / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert dendrite_zoo.load(folder / "model").num_tasks == dendrite_zoo.load("permuted-digits").num_tasks + 2
