"""The faster paths one by one, against what they replace; on all tasks together: tests/rl/test_goals.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_zoo.rl.metaworld.episodes import EpisodeConfig, Episodes
from dendrite_zoo.rl.metaworld.fast import faster, norm, quaternion, tolerance, touching

pytest.importorskip("metaworld")

SOME = st.floats(-3, 3)


@given(st.lists(SOME, min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_a_quaternion_is_scipys(numbers: list[float]) -> None:
    from scipy.spatial.transform import Rotation

    matrix = Rotation.from_quat(numbers).as_matrix()
    np.testing.assert_allclose(quaternion(matrix), Rotation.from_matrix(matrix).as_quat(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("diagonal", [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])
def test_half_turns(diagonal: list[int]) -> None:
    """Where three of the four divisors are 0."""
    from scipy.spatial.transform import Rotation

    matrix = np.diag(np.array(diagonal, dtype=float))
    np.testing.assert_array_equal(quaternion(matrix), Rotation.from_matrix(matrix).as_quat())


MARGIN = st.just(0.0) | st.floats(1e-6, 3)  # metres: by less, Meta-World divides into an overflow


@given(SOME, st.tuples(SOME, SOME).map(sorted), MARGIN, st.sampled_from(["gaussian", "long_tail", "linear"]))
def test_tolerance_is_metaworlds(x: float, bounds: list[float], margin: float, sigmoid: str) -> None:
    from metaworld.utils import reward_utils

    with np.errstate(all="ignore"):  # theirs, of what np.where throws away
        expected = reward_utils.tolerance(np.float64(x), tuple(bounds), margin, sigmoid)
    result = tolerance(np.float64(x), tuple(bounds), margin, sigmoid)
    assert result == pytest.approx(expected, rel=0, abs=1e-12)
    assert type(result) is type(expected)


def test_what_is_not_its_own_goes_to_metaworld() -> None:
    np.testing.assert_allclose(tolerance(np.array([0.5, 2.0]), (0, 1), 1.0, "long_tail"), [1.0, 0.1])
    with pytest.raises(ValueError, match="Lower bound"):
        tolerance(0.0, (1, 0))
    assert norm(np.eye(2), axis=0).tolist() == [1, 1]
    assert norm([3, 4]) == norm(np.array([3, 4])) == norm(np.array([3.0, 4.0])) == 5
    assert isinstance(norm(np.array([3.0, 4.0])), np.float64)  # 1 / 0 of a Python float would raise


def test_touching_is_metaworlds() -> None:
    """Along a grasp: before, while and after both pads press on the puck."""
    episodes = Episodes(EpisodeConfig("pick-place-v3"))
    episodes.begin()
    env, seen = episodes.env, []
    puck = env._get_id_main_object()
    pads = tuple(env.model.geom(name).id for name in ("leftpad_geom", "rightpad_geom"))
    for _ in range(60):
        episodes.step(episodes.expert_action())
        seen.append(env.touching_object(puck))
        assert touching(env.data, puck, pads) == seen[-1]
    assert True in seen and False in seen


@pytest.mark.parametrize("task", ["reach-v3", "push-v3"])
def test_the_other_reward_too(task: str) -> None:
    stock, fast = (Episodes(EpisodeConfig(task, reward_version="v1", fast=fast)) for fast in (False, True))
    stock.begin(), fast.begin()
    for _ in range(20):
        action = stock.expert_action()
        assert fast.step(action).reward == pytest.approx(stock.step(action).reward, rel=1e-9)


def test_nothing_changes_for_others() -> None:
    import sys

    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    environment = ALL_V3_ENVIRONMENTS["push-v3"]
    module = sys.modules[environment.__module__]
    before = {**vars(environment)}, {**vars(module)}, {**vars(environment.__mro__[1])}
    assert issubclass(faster(environment), environment) and faster(environment) is faster(environment)
    assert ({**vars(environment)}, {**vars(module)}, {**vars(environment.__mro__[1])}) == before
