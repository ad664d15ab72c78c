"""The record that the command leaves: whole after a resume, and the same as that of a run in Python."""

import json
import shutil

import pytest
from lightning.pytorch import seed_everything

from dendrite_zoo.callbacks import ForgettingLogger, RunRecorder
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.records import merge_seeds, read_records
from dendrite_zoo.streams import PermutedTasks
from tests.callbacks.strangers import trainer
from tests.cli.conftest import run


def test_the_run_folder_and_the_model_hold_one_record(finished_run):
    (record,) = read_records(finished_run / "runs" / "tiny")
    (of_model,) = read_records(finished_run / "runs" / "tiny" / "model" / "results.json")
    assert record == of_model and record.accuracy_by_context is not None and record.config_hash is not None


def test_a_finished_run_that_is_resumed_keeps_its_record(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "copy") / "runs" / "tiny"
    before = json.loads((folder / "results.json").read_text())[0]
    run("fit", "--config", "tiny.yaml", "--ckpt_path", "last", cwd=tmp_path / "copy")
    after = json.loads((folder / "results.json").read_text())[0]
    assert before["sparsity"]["mlp.activations.0"]["activation_sparsity"] > 0.5
    assert {**before, "wall_time_s": 0} == {**after, "wall_time_s": 0}
    assert after["wall_time_s"] == pytest.approx(before["wall_time_s"], abs=0.11), "nothing was trained"


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_run_in_python_is_another_seed_of_the_commands_recipe(finished_run, tmp_path):
    (record,) = read_records(finished_run / "runs" / "tiny")
    seed_everything(5, verbose=False)
    recorder = RunRecorder("tiny", folder=tmp_path)
    log = ForgettingLogger(verbose=False, folder=tmp_path, pictures=False)
    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=2, batch_size=256)
    model = ActiveDendriteClassifier(64, [32], 10, max_tasks=3, num_segments=2)
    trainer(tmp_path, [recorder, log], epochs=4).fit(ContinualClassifier(model, lr=1e-3), stream)
    assert recorder.record.config == record.config
    (merged,) = merge_seeds([record, recorder.record])
    assert merged.seeds == [0, 5]
