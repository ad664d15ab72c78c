"""A recipe over environments of one's own, named by import paths, from `fit` to a record."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import dendrite_zoo
from dendrite_zoo.records import read_metrics
from dendrite_zoo.rl import Demonstrations
from tests.cli.conftest import run

pytest.importorskip("gymnasium")

MODULE = """
import gymnasium

def moon():
    return gymnasium.make("Pendulum-v1", g=1.6, max_episode_steps=5)

def earth():
    return gymnasium.make("Pendulum-v1", g=9.8, max_episode_steps=5)

def upright(observation, reward, terminated, truncated, info):
    return observation[0] > 0
"""
RECIPE = """
test_goals: 3
trainer:
  accelerator: cpu
  enable_progress_bar: false
model:
  class_path: MultiTaskSAC
  init_args:
    model:
      class_path: dendrite_zoo.models.ActiveDendritePolicy
      init_args: {tasks: [earth, mars, moon], observation_size: 3, action_size: 1, hidden_features: [8, 8]}
    batch_size_per_task: 8
    learn: new
    init_from: moon
data:
  class_path: OnlineTasks
  init_args:
    tasks:
      - {class_path: dendrite_zoo.rl.TaskSpec, init_args: {name: moon, make_env: mine.moon, success: mine.upright}}
      - {class_path: dendrite_zoo.rl.TaskSpec, init_args: {name: earth, make_env: mine.earth, success: mine.upright}}
    order: sequential
    env_steps: 40
    epochs: 2
    steps_per_round: 10
    updates_per_round: 1
    warmup_steps: 10
    environments: {num_processes: 0}
"""


@pytest.mark.slow
def test_a_run_of_tasks_that_are_played_may_be_made_longer(tmp_path):
    """One that had ended goes on as if it had been longer from the start; other epochs are another recipe."""
    (tmp_path / "mine.py").write_text(MODULE)
    mixed = RECIPE.replace("order: sequential", "order: mixed").replace("test_goals: 3", "test_goals: 0")
    (tmp_path / "own.yaml").write_text(
        mixed.replace("[earth, mars, moon]", "[earth, moon]").replace("learn: new", "").replace("init_from: moon", "")
    )
    longer = ("--data.init_args.env_steps", 120, "--data.init_args.epochs", 6)
    run("fit", "--config", "own.yaml", "--name", "long", *longer, cwd=tmp_path)
    run("fit", "--config", "own.yaml", cwd=tmp_path)
    said = run("fit", "--resume", "runs/own", "--data.init_args.epochs", 6, cwd=tmp_path, code=1)
    assert "another recipe (data.init_args.epochs: 2, now 6)" in said and "`env_steps` in proportion" in said
    run("fit", "--resume", "runs/own", *longer, cwd=tmp_path)
    whole, resumed = (dendrite_zoo.load(tmp_path / "runs" / name / "model") for name in ("long", "own"))
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert one.equal(other), name
    assert "env_steps: 120" in (tmp_path / "runs/own/config.yaml").read_text()
    rows = read_metrics(tmp_path / "runs/own/metrics.csv", lambda name: name == "minutes")
    minutes = [row["minutes"] for row in rows if row]
    assert len(minutes) == 6 and 0 < minutes[0] and sorted({*minutes}) == minutes  # the resumed run counts on
    assert "another recipe" in run("fit", "--config", "own.yaml", "--ckpt_path", "last", cwd=tmp_path, code=1)


@pytest.mark.slow
def test_a_run_without_success_says_why_it_leaves_no_record(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    mixed = RECIPE.replace(", success: mine.upright", "").replace("order: sequential", "order: mixed")
    (tmp_path / "own.yaml").write_text(mixed)
    said = run("fit", "--config", "own.yaml", cwd=tmp_path)
    assert re.search(r"3 starts a task, never trained on *\n.*\n.* mean return", said) and re.search(
        "│ moon +│ -", said
    )
    assert "The tasks do not say what success is, TaskSpec(success=...), and the run leaves no record." in said
    said = run("report", "runs/own", cwd=tmp_path, code=1)
    assert "tasks do not say what success is" in said and "by dendrite-zoo report runs/own --html" in said
    assert "report.html" in run("report", "runs/own", "--html", cwd=tmp_path)
    given = "trainer:\n  callbacks: {class_path: ForgettingLogger, init_args: {metric: val/success}}"
    (tmp_path / "own.yaml").write_text(RECIPE.replace("trainer:", given))
    said = run("fit", "--config", "own.yaml", "--name", "twice", cwd=tmp_path, code=1)
    assert "got ForgettingLogger[val/success], which every run has. Leave it out." in said


@pytest.mark.slow
def test_a_recipe_names_environments_by_import_paths(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "own.yaml").write_text(RECIPE)
    said = run("fit", "--config", "own.yaml", cwd=tmp_path)
    assert "val/success on each task" in said
    assert "3 test goals a task" in said and re.search(r"│ earth +│ [01]\.\d\d ", said)
    assert "Played goals of 2 of the policy's 3 tasks, those of the data. To play all: dendrite_zoo.rl.evaluate" in said
    [record] = json.loads((tmp_path / "runs/own/results.json").read_text())
    assert (record["benchmark"], record["num_tasks"]) == ("own-continual-2", 2)
    assert record["tasks"] == ["moon", "earth"] and np.shape(record["matrix"]) == (2, 2)
    assert len(record["task_accuracies"]) == 2 and "gymnasium" in record["versions"]
    assert all(0 < point["minutes"] < record["wall_time_s"] / 60 + 0.01 for point in record["curve"])
    assert record["num_goals"] == 3 and record["goals_of_matrix"] == 20  # of the SuccessLogger that nobody gave
    segments = [x for name, x in dendrite_zoo.load(tmp_path / "runs/own").named_parameters() if "segments" in name]
    assert record["parameters_by_skill"] == [sum(x.numel() // 3 for x in segments)]  # a column; the first had all
    assert record["started_from"] == {"earth": "moon"}
    assert record["parameters_per_skill"] == record["parameters_by_skill"][0]
    said = run("evaluate", "runs/own", cwd=tmp_path, code=1)
    assert "Expected a policy of Meta-World's tasks, but runs/own has earth, mars, moon" in said
    played = said.partition("Play those of its data: dendrite-zoo ")[2].partition(";")[0].split()
    said = run(*played, "--test_goals", 3, cwd=tmp_path)
    [mean] = re.findall(r"test/success/mean\s+│\s+([\d.]+)", said)
    assert float(mean) == pytest.approx(record["average_accuracy"])


@pytest.mark.slow
def test_a_recipe_names_an_expert_by_its_import_path(tmp_path):
    """A plain function, without annotations."""
    spring = "import numpy\n\ndef spring(observations, tasks):\n    return numpy.clip(-observations[:, 1:2], -1, 1)\n"
    (tmp_path / "mine.py").write_text(MODULE + spring)
    tasks = RECIPE.partition("    tasks:\n")[2].partition("    order:")[0].replace(", success: mine.upright", "")
    model = RECIPE.partition("    batch_size_per_task")[0].replace("MultiTaskSAC", "BehaviorCloning")
    data = f"data:\n  class_path: DemonstrationSequence\n  init_args:\n    tasks:\n{tasks}    expert: mine.spring\n"
    few = ["episodes_per_task: 2", "updates_per_epoch: 2", "val_episodes: 1", "num_processes: 0"]
    recipe = "\n    ".join([f"{model}    warmup: 1\n{data.rstrip()}", *few])
    (tmp_path / "own.yaml").write_text(recipe)
    run("fit", "--config", "own.yaml", cwd=tmp_path)
    assert "expert: mine.spring" in (tmp_path / "runs/own/config.yaml").read_text()
    file = tmp_path / "runs/own/demonstrations/experts.safetensors"
    assert Demonstrations.load(file).config["expert"] == "spring"
    (tmp_path / "given.yaml").write_text(recipe.replace("expert: mine.spring", f"demonstrations: {file}"))
    run("fit", "--config", "given.yaml", cwd=tmp_path)
    (tmp_path / "wrong.yaml").write_text(recipe.replace("mine.spring", "mine.sprung"))
    said = run("fit", "--config", "wrong.yaml", cwd=tmp_path, code=2)
    assert "`mine` has no function `sprung`. Did you mean 'spring'?" in said
