"""Demonstrations: the expert's word on every state that was met, whoever led there."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from dendrite_zoo.rl import demonstrations
from dendrite_zoo.rl.collection import Disturbance, _BehaviorPolicy, collect_demonstrations, collection_config
from dendrite_zoo.rl.demonstrations import Demonstrations
from dendrite_zoo.rl.metaworld.experts import DragExpert

TASKS = ("reach-v3", "drawer-close-v3")


def few(**arguments):
    pytest.importorskip("metaworld")
    return collect_demonstrations(TASKS, **{"episodes_per_task": 2, "num_processes": 0, "max_steps": 60, **arguments})


@pytest.fixture(scope="module")
def clean():
    return few()


def test_experts_solve_their_goals_and_every_step_is_there(clean):
    assert clean.tasks == TASKS and clean.observation.dtype == clean.action.dtype == torch.float32
    assert clean.action.abs().max() <= 1 and set(clean.task.tolist()) == {0, 1}
    reach = clean.of(0)
    assert reach.solved.all() and len(reach) < 2 * 60  # ended with success
    pull = 5 * (reach.observation[:, 36:] - reach.observation[:, :3])  # reach's expert, from its source
    torch.testing.assert_close(reach.action[:, :3], pull.clamp(-1, 1), atol=1e-5, rtol=0)


def test_equal_seeds_give_equal_demonstrations_others_do_not(clean):
    again, other = few(), few(seed=1)
    assert torch.equal(clean.observation, again.observation) and torch.equal(clean.action, again.action)
    assert not torch.equal(clean.observation[:5], other.observation[:5])


def test_with_a_policy_it_is_the_policy_that_plays_and_the_expert_that_speaks(clean):
    def still(observations, task_index):
        return np.zeros((len(observations), 4))

    data = few(policy=still, max_steps=10)
    assert len(data) == 2 * 2 * 10 and not data.solved.any()
    reach = data.of(0)
    assert (reach.observation[2:, :3] - reach.observation[:-2, :3]).abs()[2:8].max() < 0.02  # it hardly moves
    pull = 5 * (reach.observation[:, 36:] - reach.observation[:, :3])
    torch.testing.assert_close(reach.action[:, :3], pull.clamp(-1, 1), atol=1e-5, rtol=0)
    shared = few(policy=still, expert_share=1.0)  # as if there was no policy
    assert torch.equal(shared.observation, clean.observation)


def test_disturbance_changes_every_second_episode_and_no_label(clean):
    data = few(disturbance=Disturbance())
    first = [part.of(0).observation for part in (clean, data)]
    assert torch.equal(first[0][:1], first[1][:1])  # the goals are the same
    pull = 5 * (first[1][:, 36:] - first[1][:, :3])
    torch.testing.assert_close(data.of(0).action[:, :3], pull.clamp(-1, 1), atol=1e-5, rtol=0)
    assert not torch.equal(data.observation[:100], clean.observation[:100])


def test_noise_disturbs_only_the_environments_that_are_named():
    behavior = _BehaviorPolicy(3, np.random.RandomState(0), Disturbance(noise=0.5, bursts=0.3), 0.0)
    played, expert = np.full((3, 4), 0.2), np.zeros((3, 4))
    steps = np.stack([behavior(played, expert, disturbed=np.array([False, True, True])) for _ in range(200)])
    assert (steps[:, 0] == 0.2).all() and (np.abs(steps) <= 1).all()
    repeated = (steps[1:, 1] == steps[:-1, 1]).all(axis=1).mean()
    assert 0.3 < repeated < 0.9  # pushes hold for some steps


def test_an_expert_that_would_leave_holds_still_and_others_go_on():
    pytest.importorskip("metaworld")
    after = {"episodes_per_task": 1, "num_processes": 0, "steps_after_success": 10}
    data = collect_demonstrations(["push-v3", "drawer-close-v3"], **after)
    push, drawer = data.of(0), data.of(1)
    assert push.solved.all() and drawer.solved.all()
    assert (push.action[-7:, :3] == 0).all() and (push.action[-7:, 3] == push.action[-11, 3]).all()
    assert (push.action[-11:-7, :3] != 0).any(1).all() and (drawer.action[-10:, :3] != 0).any(1).all()
    short = collect_demonstrations(["push-v3", "drawer-close-v3"], **{**after, "steps_after_success": 0})
    for long, part in ((push, short.of(0)), (drawer, short.of(1))):
        assert len(long) == len(part) + 10 and torch.equal(long.action[:-10], part.action)


def test_saved_and_read_again(clean, tmp_path):
    clean.save(tmp_path / "some" / "demonstrations.safetensors")
    again = Demonstrations.load(tmp_path / "some" / "demonstrations.safetensors")
    assert again.tasks == clean.tasks and torch.equal(again.observation, clean.observation)
    assert torch.equal(again.task, clean.task) and torch.equal(again.solved, clean.solved)
    assert len(again + clean) == 2 * len(clean)


def test_two_runs_may_save_to_one_file_at_a_time(clean, tmp_path, monkeypatch):
    path = tmp_path / "demonstrations.safetensors"

    def save_file(*arguments):
        monkeypatch.undo()
        safetensors.torch.save_file(*arguments)
        clean.save(path)  # the other run is as far, and sooner done

    monkeypatch.setattr(demonstrations, "save_file", save_file)
    clean.save(path)
    assert torch.equal(Demonstrations.load(path).observation, clean.observation)
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_says_how_it_was_collected(clean, tmp_path):
    path = tmp_path / "demonstrations.safetensors"
    clean.save(path)
    expected = collection_config(episodes_per_task=2, max_steps=60)
    assert (
        Demonstrations.load(path).config == clean.config == expected
        and collection_config(seed=np.int64(0)) == collection_config()
    )
    replace(clean, config=None).save(path)  # as files of earlier versions
    assert Demonstrations.load(path).config is None
    for name, value in {
        "episodes_per_task": 3,
        "policy": lambda *_: None,
        "expert_share": 0.25,
        "disturbance": Disturbance(bursts=0.1),
        "split": "val",
        "seed": 1,
        "max_steps": 61,
        "steps_after_success": 5,
        "expert": DragExpert().get_action,
        "tasks": ["soccer-v3"],  # which an expert of the library's shows
    }.items():
        assert collection_config(**{"episodes_per_task": 2, "max_steps": 60, name: value}) != expected
    assert collection_config(num_processes=0, fast=True, progress=True, tasks=["reach-v3"]) == collection_config()


def test_a_file_says_whose_actions_are_shown():
    def shown_by(**arguments):
        return collection_config(**arguments).get("expert")

    assert shown_by(tasks="mt10") is None  # Meta-World's own experts
    of_ours = shown_by(tasks="mt50")
    assert set(of_ours) == {"handle-press-side-v3", "handle-press-v3", "push-back-v3", "soccer-v3"}
    assert of_ours["push-back-v3"] == "DragExpert(low=0.03, above=0.13, gripped=0.7)"  # each number that decides
    method = DragExpert().get_action
    assert shown_by(tasks="mt50", expert=method) == "DragExpert.get_action"
    assert shown_by(expert=functools.wraps(method)(lambda *_: None)) == "DragExpert.get_action"
    assert shown_by(expert=functools.partial(method)) == "partial"
    assert shown_by(expert=lambda *_: None).endswith("says_whose_actions_are_shown.<locals>.<lambda>")


def test_arrays_are_taken_as_tensors(clean, tmp_path):
    parts = {name: getattr(clean, name).numpy() for name in ("observation", "action", "task", "solved")}
    parts["observation"] = parts["observation"].astype(np.float64)
    own = Demonstrations(clean.tasks, **parts)
    own.save(tmp_path / "own.safetensors")
    for one in (own, Demonstrations.load(tmp_path / "own.safetensors")):
        assert all(torch.equal(getattr(one, name), getattr(clean, name)) for name in parts)


@pytest.mark.parametrize(
    ("part", "given", "words"),
    [
        (
            "task",
            np.array(["a", "b"]),
            r"`task` to be an array of numbers, .*\[tasks.index\(name\) for name in names\]",
        ),
        ("task", ["a", "b"], "`task` to be an array of numbers, but got \\['a', 'b'\\]"),
        ("task", [0.0, 0.5], "`task` to be whole numbers, positions in `tasks`, but got \\[0.0, 0.5\\]"),
        ("solved", [0.0, 3.5], "`solved` to be True or False in each row, but got \\[0.0, 3.5\\]"),
        ("action", None, "`action` to be an array of numbers, but got None"),
        ("observation", np.array([None, {}]), "`observation` to be an array of numbers"),
    ],
)
def test_what_is_no_array_of_its_kind_is_refused(part, given, words):
    rows = {"observation": np.zeros((2, 3)), "action": np.zeros((2, 1)), "task": [0, 1], "solved": [1.0, 0.0]}
    assert Demonstrations(["a", "b"], **rows).among(["b"]).tasks == ("b",)
    with pytest.raises(ValueError, match=words):
        Demonstrations(("a", "b"), **{**rows, part: given})


def test_errors_say_what_is_wrong(clean, tmp_path):
    with pytest.raises(FileNotFoundError, match="collect_demonstrations"):
        Demonstrations.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="bad.safetensors to be a file of Demonstrations.save"):
        Demonstrations.load(tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="Expected demonstrations of push-v3, but got those of reach-v3, drawer-clos"):
        clean.among(["reach-v3", "push-v3"])
    with pytest.raises(ValueError, match="Expected demonstrations of the same tasks"):
        clean + Demonstrations(("push-v3",), *(torch.zeros(0, n) for n in (39, 4)), torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match=r"`observation` to have the shape \(3, 39\), but got \(3, 38\)"):
        Demonstrations(TASKS, torch.zeros(3, 38), torch.zeros(3, 4), torch.zeros(3), torch.zeros(3))
    for index in (-1, 2):
        with pytest.raises(ValueError, match=f"`task` to hold positions.* from 0 to 1, but got {index} to {index}"):
            Demonstrations(TASKS, torch.zeros(1, 39), torch.zeros(1, 4), torch.tensor([index]), torch.ones(1).bool())
    for share in (-0.1, 7, float("nan")):
        with pytest.raises(ValueError, match=f"Expected `expert_share` to be a number from 0 to 1, but got {share}"):
            collect_demonstrations(TASKS, expert_share=share)
    for name, value in (("noise", -1.0), ("noise", float("nan")), ("bursts", -0.1), ("bursts", 4)):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be a number .*0.*, but got {value}"):
            Disturbance(**{name: value})
