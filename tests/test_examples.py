"""The ways of the README, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dendrite_zoo
from tests import processes

ROOT = Path(__file__).parents[1]


def run(command, cwd):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if command[0] == sys.executable:
        done = processes.run(command[1:], cwd=cwd, env=env)
    else:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_fine_tune(tmp_path):
    shown = run([sys.executable, ROOT / "examples" / "fine_tune.py"], tmp_path)
    accuracy = float(shown.rpartition("tasks: ")[2])
    claimed = float(re.search(r"over the 12 tasks: ([.\d]+)", (ROOT / "README.md").read_text())[1])
    assert accuracy == pytest.approx(claimed, abs=0.02)  # another processor rounds in another way
    assert dendrite_zoo.load(tmp_path / "fine-tuned").num_tasks == 12


@pytest.mark.slow
def test_train_and_publish(tmp_path):
    recipe = ROOT / "dendrite_zoo" / "configs" / "permuted-digits.yaml"
    small = ["--data.init_args.num_tasks", "2", "--data.init_args.epochs_per_task", "1"]
    shown = run(["bash", ROOT / "examples" / "train_and_publish.sh", recipe, "you/permuted-digits", *small], tmp_path)
    assert "you/permuted-digits" in shown and (tmp_path / "runs" / "my-run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_your_own_pipeline(tmp_path):
    shown = run([sys.executable, ROOT / "examples" / "your_own_pipeline.py"], tmp_path)
    assert float(shown.rpartition("task 0: ")[2]) > 0.1  # a plain network forgets
    assert (tmp_path / "your-run" / "matrix.png").is_file()


@pytest.mark.slow
def test_own_data(tmp_path):
    shown = run([sys.executable, ROOT / "examples" / "own_data.py"], tmp_path)
    own, before = map(float, re.search(r"your data: ([.\d]+); the ten tasks before: ([.\d]+)", shown).groups())
    assert own > 0.7 and before > 0.9  # an untrained task is below .5, and those before were .955


@pytest.mark.slow
def test_images(tmp_path):
    shown = run([sys.executable, ROOT / "examples" / "images.py"], tmp_path)
    scores = {line.split()[0]: [*map(float, line.split()[1:])] for line in shown.splitlines()}
    assert min(scores["inferred"]) > 0.6 and min(scores["context"]) > 0.95
    assert sum(scores["constant"]) < sum(scores["inferred"]) - 0.5, "the dendrites choose the channels"


@pytest.mark.slow
def test_backbone(tmp_path):
    shown = run([sys.executable, ROOT / "examples" / "backbone.py"], tmp_path)
    scores = {
        way: [float(x) for x in re.search(rf"^{way} +(.*)$", shown, re.M)[1].split()] for way in ("given", "inferred")
    }
    assert min(scores["given"]) > 0.9 and min(scores["inferred"]) > 0.9 and "after loading: True" in shown


@pytest.mark.slow
def test_ten_skills(tmp_path):
    pytest.importorskip("metaworld")
    shown = run([sys.executable, ROOT / "examples" / "ten_skills.py"], tmp_path).splitlines()
    assert len(shown) == 10 and sum("reached" in line for line in shown) >= 9


@pytest.mark.slow
def test_one_more_skill(tmp_path):
    pytest.importorskip("metaworld")
    shown = run([sys.executable, ROOT / "examples" / "one_more_skill.py"], tmp_path)
    assert int(re.search(r"button-press-v3: (\d+)% of goals", shown)[1]) >= 80
    assert "largest change of an action in the ten tasks before: 0.0\n" in shown
    assert dendrite_zoo.load(tmp_path / "eleven-skills").tasks[-1] == "button-press-v3"


def test_pendulum(tmp_path):
    """With few steps nothing is learned; the figures of a whole run stand in results/own-environments."""
    pytest.importorskip("gymnasium")
    shown = run([sys.executable, ROOT / "examples" / "pendulum.py", "2200", "5"], tmp_path)
    returns = [float(value) for value in re.findall(r"mean return +(-[.\d]+)", shown)]
    assert len(returns) == 2 and max(returns) < -200 and "upright at the last step" in shown
