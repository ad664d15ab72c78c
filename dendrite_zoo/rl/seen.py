"""Who acts, and what it is shown of a task: observations as they were when it learned, whatever the task does now."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.rl.form import takes
from dendrite_zoo.rl.spec import TaskSpec

Act: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.int64]], ArrayLike]
"""From observations ``(N, O)`` and task indices ``(N,)`` to actions ``(N, A)``, from -1 to 1."""


def act_and_owner(policy: Any) -> tuple[Any, Any]:
    """What acts, and whose ``act_batch`` it is, which may be given itself; None of any other function."""
    act = getattr(policy, "act_batch", policy)
    if act is not policy:
        return act, policy
    if callable(act) and not takes(act, 2):
        remedy = "Give one such as lambda observations, tasks: network(observations)."
        expected = "one with act_batch, or a function of observations and task indices"
        raise wrong_argument("policy", expected, act, remedy)
    owner: Any = getattr(act, "__self__", None)
    name = getattr(act, "__name__", None)
    if name == "act" and hasattr(owner, "act_batch"):  # which takes one observation
        return owner.act_batch, owner
    return act, owner if name == "act_batch" else None


def as_learned(act: Act, policy: Any, specs: Sequence[TaskSpec]) -> Act:
    """Show a policy each task as it saw it in training: `TaskSpec.normalized` there, and the plain task here, or less.

    Args:
        act: from observations ``(N, O)`` and positions in ``specs``, ``(N,)``, to actions.
        policy: whose actions they are, or a module that trains it; its ``task_normalizers`` say what it learned by.
        specs: the tasks that are played.

    Returns:
        The same, of observations as these tasks have them.
    """
    model = policy if hasattr(policy, "task_normalizers") else getattr(policy, "model", None)
    learned: Mapping[str, Any] = getattr(model, "task_normalizers", {})
    others = {
        place: (spec.normalizer, learned[spec.name])
        for place, spec in enumerate(specs)
        if spec.name in learned and learned[spec.name] != spec.normalizer
    }
    if not others:
        return act

    def act_as_learned(observations: NDArray[Any], index: NDArray[np.int64]) -> ArrayLike:
        seen = np.array(observations, dtype=np.float64)
        for place, (given, own) in others.items():
            rows = np.asarray(index) == place
            if given is not None:
                seen[rows] = seen[rows] * given[1] + given[0]
            if own is not None:
                seen[rows] = (seen[rows] - own[0]) / own[1]
        return act(seen, index)

    return functools.wraps(act, updated=())(act_as_learned)
