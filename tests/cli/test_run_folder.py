"""A run folder: a resumed run appends, and nothing earlier is lost."""

from __future__ import annotations

import csv
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dendrite_zoo.cli.run_folder import LastCheckpoint, folder_of, resumable, run_callbacks, start_run
from dendrite_zoo.cli.run_logger import RunLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.records import success_curve
from dendrite_zoo.streams import PermutedTasks


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file, restval=""))


def test_a_second_logger_appends_also_with_new_columns(tmp_path):
    folder = tmp_path / "run"
    first = RunLogger(folder)
    first.log_metrics({"a": 1.0}, step=0)
    first.log_metrics({"a": 2.0}, step=1)
    second = RunLogger(folder)
    assert [row["a"] for row in rows(folder)] == ["1.0", "2.0"]  # opening it takes nothing away
    second.log_metrics({"a": 3.0}, step=2)
    second.log_metrics({"b": 4.0}, step=3)
    assert [row["a"] for row in rows(folder)] == ["1.0", "2.0", "3.0", ""]
    assert [row["b"] for row in rows(folder)] == ["", "", "", "4.0"]
    assert first.log_dir == second.log_dir and (folder / "metrics.csv").parent.samefile(first.log_dir)


def test_columns_of_a_new_task_leave_earlier_rows_as_they_are_until_the_end(tmp_path):
    logger = RunLogger(tmp_path)
    for task in range(3):
        logger.log_metrics({"train/loss": 1.0}, step=2 * task)
        logger.log_metrics({f"val/task_{task}/acc": 0.5}, step=2 * task + 1)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,train/loss,val/task_0/acc,val/task_1/acc,val/task_2/acc"
    assert lines[1:] == ["0,1.0", "1,,0.5", "2,1.0", "3,,,0.5", "4,1.0", "5,,,,0.5"]
    again = RunLogger(tmp_path)
    again.log_metrics({"train/loss": 2.0}, step=6)
    for _ in range(2):  # as after a fit and a validation
        again.finalize("success")
        assert (tmp_path / "metrics.csv").read_text().splitlines() == [
            lines[0], "0,1.0,,,", "1,,0.5,,", "2,1.0,,,", "3,,,0.5,", "4,1.0,,,", "5,,,,0.5", "6,2.0,,,",
        ]  # fmt: skip


@pytest.mark.parametrize(("seconds_to_write", "written_at"), [(0.5, [1, 11, 21, 41, 81, 141]), (6, [1, 121])])
def test_checkpoints_take_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch, seconds_to_write, written_at):
    now, written = [0.0], []

    class Slow:
        fast_dev_run, received_sigterm, is_global_zero, is_last_batch = False, False, True, False
        accumulate_grad_batches = 1
        strategy = SimpleNamespace(broadcast=bool)

        def save_checkpoint(self, path, weights_only):
            written.append(round(now[0] - seconds_to_write * len(written)))
            now[0] += seconds_to_write
            path.touch()

    monkeypatch.setattr("dendrite_zoo.cli.run_folder.time", SimpleNamespace(monotonic=lambda: now[0]))
    last = LastCheckpoint(tmp_path)
    for _ in range(200):
        now[0] += 1
        last.on_train_batch_end(Slow(), None, None, None, 0)
    assert written == written_at


def test_a_resumed_run_logs_each_row_once(tmp_path):
    """Step 2 was the checkpoint's: its validation may come again, what is after it does."""
    killed = RunLogger(tmp_path)
    for step in range(5):
        killed.log_metrics({"train/loss": float(step)}, step=step)
        killed.log_metrics({"val/acc": step / 10}, step=step)
    resumed = RunLogger(tmp_path)
    resumed.resume(2)
    assert [(row["step"], row["train/loss"], row["val/acc"]) for row in rows(tmp_path)] == [
        ("0", "0.0", ""), ("0", "", "0.0"), ("1", "1.0", ""), ("1", "", "0.1"), ("2", "2.0", ""), ("2", "", "0.2"),
    ]  # fmt: skip
    resumed.log_metrics({"val/acc": 0.25}, step=2)
    resumed.log_metrics({"val/other": 0.5}, step=2)
    resumed.log_metrics({"train/loss": 3.5}, step=3)
    assert [(row["step"], row["train/loss"], row["val/acc"], row["val/other"]) for row in rows(tmp_path)[4:]] == [
        ("2", "2.0", "", ""), ("2", "", "0.25", ""), ("2", "", "", "0.5"), ("3", "3.5", "", ""),
    ]  # fmt: skip


def test_a_new_run_removes_what_a_kill_left_of_files_that_were_being_written(tmp_path):
    for name in ("metrics.csv.new", "checkpoints/last.part", ".writing-x/matrix.json", "model/.writing-y/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "model" / "config.json").touch()
    start_run(tmp_path, resumed=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"checkpoints", "model", "config.json"}


def test_a_line_that_a_kill_cut_is_dropped(tmp_path):
    folder = tmp_path / "run"
    logger = RunLogger(folder)
    for step in range(2):
        logger.log_metrics({"a": float(step)}, step=step)
    with open(folder / "metrics.csv", "rb+") as file:
        content = file.read()
        assert content.endswith(b"\n1.0,1\r\n")
        file.truncate(len(content) - 4)  # "1.0" is left, which the next row would go on with
    again = RunLogger(folder)
    again.log_metrics({"a": 7.0}, step=1)
    again.log_metrics({"b": 8.0}, step=2)
    assert [(row["a"], row["b"]) for row in rows(folder)] == [("0.0", ""), ("7.0", ""), ("", "8.0")]


def test_a_run_lies_in_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of("sweep/a") == Path("runs/sweep/a")
    for name in ("../x", "..", ".", str(tmp_path), "a/../../x"):
        with pytest.raises(ValueError, match=r"Expected `--name` to be the name of a folder in runs/, but got"):
            folder_of(name)


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path):
    folder = start_run(tmp_path / "run")
    RunLogger(folder).log_metrics({"a": 1.0}, step=0)
    with pytest.raises(FileExistsError, match=r"holds an earlier run \(metrics.csv\). Give --name"):
        start_run(folder)
    assert rows(start_run(folder, resumed=True))
    start_run(folder, replace=True)
    assert not (folder / "metrics.csv").exists()


def test_the_curve_of_success_over_the_steps_played(tmp_path):
    logger = RunLogger(tmp_path)
    for epoch, success in enumerate([0.0, 0.25, 0.5]):
        for half in (1, 2):
            played = {"env_steps": 100.0 * epoch + 50 * half, "updates": 10.0 * epoch + 5 * half, "epoch": epoch}
            logger.log_metrics(played, step=2 * epoch + half - 1)
        logger.log_metrics({"success/a": success, "success/mean": success, "epoch": epoch}, step=2 * epoch + 1)
    again = RunLogger(tmp_path)  # resumed in the last epoch
    again.log_metrics({"env_steps": 300.0, "updates": 30.0, "epoch": 2}, step=5)
    again.log_metrics({"success/a": 0.75, "success/mean": 0.75, "epoch": 2}, step=5)
    assert success_curve(tmp_path) == [
        {"env_steps": 100 * n, "updates": 10 * n, "success/a": value, "success/mean": value}
        for n, value in ((1, 0.0), (2, 0.25), (3, 0.75))
    ]


def test_a_run_can_go_on_from_where_it_was_killed(tmp_path):
    class Killed(Checkpoint):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 3:
                raise KeyError

    class Stopped(Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    def fit(stream, *more, seconds, **kwargs):
        torch.manual_seed(0)
        callbacks = run_callbacks(tmp_path)
        next(one for one in callbacks if isinstance(one, LastCheckpoint)).seconds = seconds
        module = ContinualClassifier(ActiveDendriteClassifier(64, [8], 10, max_tasks=2))
        trainer = Trainer(
            **stream.trainer_kwargs(),
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks, *more],
        )
        trainer.fit(module, stream, **kwargs)
        return trainer

    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=1, batch_size=512)
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(KeyError):
        fit(stream, Killed(), seconds=60)
    assert torch.load(last, weights_only=True)["global_step"] == 1  # SIGTERM within a validation finds one, too
    with pytest.raises(SIGTERMException):
        fit(stream, Stopped(), seconds=60)
    assert torch.load(last, weights_only=True)["global_step"] == 2
    with pytest.raises(KeyError):
        fit(stream, Killed(), seconds=0)
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert fit(stream, seconds=60, ckpt_path=last).global_step == 6
    assert torch.load(last, weights_only=True)["global_step"] == 6


def test_a_fit_that_is_stopped_says_how_to_go_on(tmp_path, capsys):
    for go_on in ("It has no checkpoint yet. Start it again.", f"Resume it with: dendrite-zoo fit --resume {tmp_path}"):
        with pytest.raises(SystemExit) as end, resumable(tmp_path):
            raise KeyboardInterrupt  # as where Lightning does not listen yet
        assert end.value.code == 130
        assert capsys.readouterr().err == f"dendrite-zoo fit: stopped by SIGINT. {go_on}\n"
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(SystemExit) as end, resumable(tmp_path):
        sys.exit(3)
    assert end.value.code == 3 and not capsys.readouterr().err, "which is somebody else's"


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    class Full:
        fast_dev_run = False

        def save_checkpoint(self, path, weights_only):
            path.write_text("half")
            raise OSError("no space left on device")

    (tmp_path / "last.ckpt").write_text("whole")
    with pytest.raises(OSError):
        LastCheckpoint(tmp_path).on_train_end(Full(), None)
    assert (tmp_path / "last.ckpt").read_text() == "whole"


def test_two_checkpoints_are_kept(tmp_path):
    class Slow:
        fast_dev_run, is_global_zero = False, True

        def save_checkpoint(self, path, weights_only):
            path.write_text(f"{len(list(tmp_path.iterdir()))} files before")

    last = LastCheckpoint(tmp_path)
    for _ in range(3):
        last.on_train_end(Slow(), None)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "last.ckpt": "2 files before",
        "previous.ckpt": "1 files before",
    }
