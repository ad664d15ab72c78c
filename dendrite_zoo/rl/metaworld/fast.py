"""The slow paths of Meta-World's Python, faster: the same observations, rewards and successes to 1e-9.

A third of a step is Python that can be faster: a rotation through scipy, a loop over contacts, rewards that treat
single numbers as arrays, lookups by name. Other code in the process is not affected: `faster` makes a subclass, in
which the environment's own functions find faster ones under the names that they use.
"""

import functools
import math
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo.rl.metaworld.tasks import metaworld


def quaternion(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quaternion ``(x, y, z, w)`` of a rotation, with the sign of scipy's ``Rotation``.

    Shape:
        ``(3, 3)`` to ``(4,)``.

    Example:
        >>> quaternion(np.eye(3)).tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    trace = a + e + i
    largest = max(a, e, i, trace)  # divide by the largest: none of the others is sure not to be 0
    if a == largest:
        q = (1 - trace + 2 * a, d + b, g + c, h - f)
    elif e == largest:
        q = (b + d, 1 - trace + 2 * e, h + f, c - g)
    elif i == largest:
        q = (c + g, f + h, 1 - trace + 2 * i, d - b)
    else:
        q = (h - f, c - g, d - b, 1 + trace)
    length = math.sqrt(sum(number * number for number in q))
    return np.array([number / length for number in q])


def tolerance(
    x: Any, bounds: Any = (0.0, 0.0), margin: float = 0.0, sigmoid: Any = "gaussian", value_at_margin: float = 0.1
) -> Any:
    """Return 1 within the bounds, and less further outside: ``metaworld.utils.reward_utils.tolerance``.

    For single numbers and the two sigmoids that rewards use; for others it calls Meta-World's own.

    Example:
        >>> tolerance(0.5, bounds=(0, 1)), tolerance(2.0, bounds=(0, 1), margin=1.0, sigmoid="long_tail")
        (1.0, 0.1)
    """
    lower, upper = bounds
    ours = np.isscalar(x) and sigmoid in ("gaussian", "long_tail") and 0 < value_at_margin < 1
    if not ours or lower > upper or margin < 0:
        from metaworld.utils import reward_utils

        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)
    x = float(x)
    if lower <= x <= upper:
        return 1.0
    if margin == 0:
        return 0.0
    distance = (lower - x if x < lower else x - upper) / float(margin)
    if sigmoid == "gaussian":
        return math.exp(distance * distance * math.log(value_at_margin))
    return 1 / (distance * distance * (1 / value_at_margin - 1) + 1)


def norm(x: Any, *arguments: Any, **options: Any) -> Any:
    """Return the length of a vector; for other arguments call NumPy's own function.

    Example:
        >>> float(norm(np.array([3.0, 4.0])))
        5.0
    """
    if arguments or options or not isinstance(x, np.ndarray) or x.ndim != 1 or x.dtype.kind != "f":
        return np.linalg.norm(x, *arguments, **options)
    return np.sqrt(x.dot(x))


def touching(data: Any, geom: int, pads: tuple[int, int]) -> bool:
    """Whether both pads of the gripper press on a geom.

    Args:
        data: MuJoCo's.
        geom: the object's number.
        pads: the pads' numbers.
    """
    forces = dict.fromkeys(pads, 0.0)
    contact = data.contact
    for (one, other), address in zip(contact.geom.tolist(), contact.efc_address.tolist(), strict=True):
        pad = other if one == geom else one if other == geom else None
        if pad in forces:
            forces[pad] += data.efc_force[address]
    return all(force > 0 for force in forces.values())


class _FastMethods:
    """Methods that replace those of `SawyerXYZEnv`."""

    @functools.cached_property
    def _ids(self: Any) -> SimpleNamespace:
        """Numbers of bodies, sites and pads, by name."""
        body = {name: self.model.body(name).id for name in ("hand", "rightclaw", "leftclaw")}
        site = {name: self.model.site(name).id for name in ("rightEndEffector", "leftEndEffector")}
        pads = tuple(self.model.geom(name).id for name in ("leftpad_geom", "rightpad_geom"))
        return SimpleNamespace(**body, **site, pads=pads)

    @property
    def tcp_center(self: Any) -> NDArray[np.float64]:
        ids, at = self._ids, self.data.site_xpos
        return (at[ids.rightEndEffector] + at[ids.leftEndEffector]) / 2.0

    def touching_object(self: Any, object_geom_id: int) -> bool:
        return touching(self.data, object_geom_id, self._ids.pads)

    def set_xyz_action(self: Any, action: NDArray[np.float64]) -> None:
        moved = self.data.mocap_pos[0] + np.minimum(np.maximum(action, -1), 1) * self.action_scale
        self.data.mocap_pos = np.minimum(np.maximum(moved, self.mocap_low), self.mocap_high)
        self.data.mocap_quat = (1, 0, 1, 0)

    def _get_curr_obs_combined_no_goal(self: Any) -> NDArray[np.float64]:
        ids, at = self._ids, self.data.xpos
        now = np.zeros(4 + self._obs_obj_max_len)
        now[:3] = at[ids.hand]
        now[3] = min(norm(at[ids.rightclaw] - at[ids.leftclaw]) / 0.1, 1.0)
        position, rotation = self._get_pos_objects(), self._get_quat_objects()
        for thing in range(len(position) // 3):
            now[4 + 7 * thing : 7 + 7 * thing] = position[3 * thing : 3 * thing + 3]
            now[7 + 7 * thing : 11 + 7 * thing] = rotation[4 * thing : 4 * thing + 4]
        return now

    def _get_obs(self: Any) -> NDArray[np.float64]:
        now, before = self._get_curr_obs_combined_no_goal(), self._prev_obs
        self._prev_obs = now
        goal = np.zeros(3) if self._partially_observable else self._get_pos_goal()
        return np.concatenate((now, before, goal))

    def do_simulation(self: Any, ctrl: Any, n_frames: int) -> None:
        import mujoco

        self.data.ctrl[:] = ctrl
        mujoco.mj_step(self.model, self.data, nstep=n_frames)

    def step(self: Any, action: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        import mujoco

        self.set_xyz_action(action[:3])
        self.do_simulation([action[-1], -action[-1]], n_frames=self.frame_skip)
        self.curr_path_length += 1
        mujoco.mj_forward(self.model, self.data)
        space = self.sawyer_observation_space
        seen = np.minimum(np.maximum(self._get_obs(), space.low), space.high)
        self._last_stable_obs = seen
        reward, info = self.evaluate_state(seen, action)
        return seen.copy(), reward, False, self.curr_path_length == self.max_path_length, info


def _replaced(function: Any, names: dict[str, Any]) -> Any:
    """Copy a function so that it, and those it was decorated around, find other things under some names."""
    cells = [
        CellType(_replaced(cell.cell_contents, names)) if isinstance(cell.cell_contents, FunctionType) else cell
        for cell in function.__closure__ or ()
    ]
    known = {**function.__globals__, **names}
    copy = FunctionType(function.__code__, known, function.__name__, function.__defaults__, tuple(cells))
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


@functools.cache
def faster(environment: type) -> type:
    """Return a subclass of one of Meta-World's environments that does the same, faster.

    Args:
        environment: a class of ``metaworld.env_dict.ALL_V3_ENVIRONMENTS``.

    Raises:
        ImportError: the ``[metaworld]`` extra is missing.
    """
    metaworld()
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
    from metaworld.utils import reward_utils

    names = {
        "Rotation": SimpleNamespace(from_matrix=lambda matrix: SimpleNamespace(as_quat=lambda: quaternion(matrix))),
        "reward_utils": SimpleNamespace(**{**vars(reward_utils), "tolerance": tolerance}),
        "np": SimpleNamespace(**{**vars(np), "linalg": SimpleNamespace(**{**vars(np.linalg), "norm": norm})}),
    }
    paths = {"_gripper_caging_reward": _replaced(SawyerXYZEnv._gripper_caging_reward, names)}
    for owner in reversed(environment.__mro__[: environment.__mro__.index(SawyerXYZEnv)]):
        for name, value in vars(owner).items():
            if isinstance(value, FunctionType) and name != "__init__":
                paths[name] = _replaced(value, names)
    return type(environment.__name__, (_FastMethods, environment), paths)
