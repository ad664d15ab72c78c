"""A policy at work, as pictures: which steps are drawn, and what becomes of them in a file."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dendrite_zoo.cli.main import main
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.report import save_gif
from dendrite_zoo.rl import TaskEnvironments, TaskSpec, record_policy
from tests.rl.worlds import Ledge, ledges

gymnasium = pytest.importorskip("gymnasium")
Image = pytest.importorskip("PIL.Image")


def still(observation, task):
    return np.zeros((len(observation), 2))


def test_every_so_many_steps_are_drawn_until_the_end():
    """The world draws where the cart is; the naive loop plays the same start."""
    pictures = record_policy(still, ledges(), steps=15, every=4, num_processes=0)
    env = Ledge()
    env.reset(seed=int(np.random.SeedSequence([0, 1, 0]).generate_state(1)[0] >> 1))
    expected, ended = [], False
    for step in range(15):
        if step % 4 == 0:
            expected.append(env.render() if not ended else expected[-1])
        if not ended:
            _, _, fell, late, _ = env.step(np.float32([-1, 5]))
            ended = fell or late
    np.testing.assert_array_equal(pictures["calm"], expected)
    assert [*pictures] == ["calm", "windy"] and len(pictures["windy"]) == 4


@pytest.mark.parametrize(
    ("draw", "got"),
    [
        (lambda: None, "NoneType"),
        (lambda: gymnasium.Env.render(None), "NoneType"),  # which raises NotImplementedError
        (lambda: [np.zeros((20, 30, 3), np.uint8)], "list"),
        (lambda: np.ones((20, 30, 3)), r"float64 of shape \(20, 30, 3\)"),  # it would be black
        (lambda: np.zeros((3, 20, 30), np.uint8), r"uint8 of shape \(3, 20, 30\)"),
        (lambda: np.zeros((20, 30), np.uint8), r"uint8 of shape \(20, 30\)"),
    ],
)
def test_an_environment_that_draws_nothing_says_how_it_would(draw, got):
    def blind():
        env = Ledge()
        env.render = draw
        return env

    words = rf"blind to render an array of pixels, \(H, W, 3\) .*, but got {got}. .*render_mode='rgb_array'"
    with pytest.raises(ValueError, match=words):
        record_policy(still, [TaskSpec("blind", blind)], num_processes=0)


def test_a_gif_has_the_tasks_side_by_side(tmp_path):
    red, blue = (np.zeros((20, 30, 3), np.uint8) for _ in range(2))
    red[..., 0] = blue[..., 2] = 200
    save_gif(
        {"a": [red, blue, red], "b": [blue, red, red], "c": [np.repeat(red, 2, 0)] * 3}, tmp_path / "x.gif", columns=2
    )
    with Image.open(tmp_path / "x.gif") as image:
        assert (image.n_frames, image.size) == (3, (60, 40))
        for frame, (left, right) in enumerate([(red, blue), (blue, red), (red, red)]):
            image.seek(frame)
            pixels = np.asarray(image.convert("RGB"))
            assert (
                pixels[18, 28].tolist() == left[18, 28].tolist() and pixels[18, 58].tolist() == right[18, 28].tolist()
            )
            assert pixels[38, 28].tolist() == red[0, 0].tolist() and not pixels[38, 58].any()
    with pytest.raises(ValueError, match="as many pictures of each task, one or more, but got {'a': 1, 'b': 0}"):
        save_gif({"a": [red], "b": []}, tmp_path / "y.gif")


@pytest.fixture
def robot():
    pytest.importorskip("metaworld")
    with TaskEnvironments("reach-v3", num_processes=0) as envs:
        envs.reset()
        try:
            envs.render(height=8, width=8)
        except ImportError as error:
            pytest.skip(f"no OpenGL: {error}")
        yield envs


def test_a_robot_is_drawn_the_right_way_up(robot):
    """The camera's own up points down in the world, so that its picture is turned."""
    [picture] = robot.render(height=60, width=80)
    assert picture.shape == (60, 80, 3) and picture.std() > 20
    [episodes] = robot._pool.shard._episodes.values()
    assert episodes.env.data.camera("corner2").xmat.reshape(3, 3)[2, 1] < 0
    raw = episodes._picture._renderer.render()
    np.testing.assert_array_equal(picture, raw[::-1, ::-1])
    robot.step(np.ones((1, 4)))
    assert not np.array_equal(robot.render(height=60, width=80)[0], picture)


def test_without_opengl_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    pytest.importorskip("mujoco")
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    monkeypatch.setattr("sys.platform", "linux")
    ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8]).save_pretrained(tmp_path)
    arguments = ["evaluate", str(tmp_path), "--gif", str(tmp_path / "x.gif")]
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    said = str(exit_.value)
    assert "neither a display nor the library OSMesa" in said and "apt-get install libosmesa6" in said
    assert "\n" not in said and not (tmp_path / "x.gif").exists()
