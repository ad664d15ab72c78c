"""Names of tasks, and what is said where they, or Meta-World, are missing."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from dendrite_zoo.rl import (
    ACTION_SIZE,
    CW10,
    MAX_STEPS,
    MT10,
    MT50,
    OBSERVATION_SIZE,
    TaskEnvironments,
    task_names,
    task_specs,
)
from dendrite_zoo.rl.task_list import benchmark_of


def test_the_benchmarks_are_metaworlds() -> None:
    env_dict = pytest.importorskip("metaworld.env_dict")
    assert tuple(env_dict.MT10_V3) == MT10  # what MT10().train_classes is, without its ten seconds
    assert tuple(env_dict.MT50_V3) == MT50
    env = env_dict.MT50_V3["reach-v3"]
    assert env.max_path_length == MAX_STEPS
    assert (OBSERVATION_SIZE, ACTION_SIZE) == (39, 4)


def test_benchmarks_and_names() -> None:
    assert task_names("mt10") == task_names("MT10") == MT10
    assert task_names("mt50") == MT50
    assert task_names("cw10") == CW10 and len(CW10) == 10
    assert benchmark_of(CW10, sequential=True) == benchmark_of(CW10) == "metaworld-cw10"
    assert benchmark_of(MT10, sequential=True) == "metaworld-continual-10" and benchmark_of(MT10) == "metaworld-mt10"
    assert task_names("reach-v3") == ("reach-v3",)
    assert task_names(["push-v3", "reach-v3"]) == ("push-v3", "reach-v3")


@pytest.mark.parametrize("name", ["reach", "reach-v2", "Reach-v3"])
def test_an_unknown_name_brings_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match=rf"names of MT50's tasks, but got '{name}'. Did you mean 'reach-v3'"):
        task_names(["push-v3", name])


def test_nothing_is_near_nonsense() -> None:
    with pytest.raises(
        ValueError,
        match="'mt50', 'cw10' or names of MT50's tasks, but got 'xyz'. For an environment of your own, give TaskSpec",
    ):
        task_names("xyz")


@pytest.mark.parametrize("tasks", [[], ["push-v3", "push-v3"]])
def test_a_task_is_named_once(tasks: list[str]) -> None:
    with pytest.raises(ValueError, match="one or more different names"):
        task_names(tasks)


def test_without_metaworld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(ImportError, match=r"\[metaworld\] extra: pip install 'dendrite-zoo\[metaworld\]'$"):
        TaskEnvironments("mt10")


def test_a_task_by_name_is_a_spec_whose_environment_is_metaworlds() -> None:
    pytest.importorskip("metaworld")
    [spec] = task_specs(["reach-v3"])
    with warnings.catch_warnings():  # gymnasium's, of its own ways
        warnings.simplefilter("ignore")
        env = spec.make()
        observation, _ = env.reset(seed=0)
        result = env.step(spec.played(np.zeros(4)))
    assert observation.shape == (spec.observation_size,) == (39,) and spec.succeeded(*result) is False
    assert (spec.max_steps, spec.num_goals, spec.action_size) == (env.spec.max_episode_steps, 50, 4)


def test_a_way_to_draw_that_there_is_not_is_said():
    pytest.importorskip("metaworld")
    code = "from dendrite_zoo.rl.metaworld.tasks import metaworld; metaworld()"
    said = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MUJOCO_GL": "pencil"}, capture_output=True, text=True
    ).stderr.splitlines()[-1]
    assert said.startswith("ImportError: MuJoCo cannot be imported with MUJOCO_GL=pencil: RuntimeError: ")
    assert "Unset it, for pictures alone need it" in said
