"""A small run, made as a user makes it, with the command."""

from __future__ import annotations

import os

import pytest

from tests import processes

RECIPE = """
method: tiny
model:
  class_path: ContinualClassifier
  init_args:
    lr: 1.0e-3
    model:
      class_path: dendrite_zoo.models.ActiveDendriteClassifier
      init_args: {in_features: 64, hidden_features: [32], num_classes: 10, max_tasks: 3, num_segments: 2}
data:
  class_path: PermutedTasks
  init_args: {source: digits, num_tasks: 2, epochs_per_task: 2, batch_size: 256}
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 1}
"""


def run(*args, cwd, code=0):
    done = processes.run(["dendrite-zoo", *args], cwd=cwd, env={**os.environ, "COLUMNS": "160"}, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A folder with the run `tiny`, made as a user makes it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(RECIPE)
    run("fit", "--config", "tiny.yaml", cwd=folder)
    return folder
