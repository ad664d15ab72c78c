"""Who acts, and what it is shown of a task: observations as they were when it learned, whatever the task does now."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import places_of
from dendrite_zoo._core.torch import in_eval_mode
from dendrite_zoo.rl.environments import checked_actions
from dendrite_zoo.rl.form import takes
from dendrite_zoo.rl.spec import TaskSpec
from dendrite_zoo.rl.task_list import Tasks, check_policy, task_specs

Act: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.int64]], ArrayLike]
"""From observations ``(N, O)`` and task indices ``(N,)`` to actions ``(N, A)``, from -1 to 1."""


PREDICT = (
    "Of one with `predict`, such as of Stable-Baselines3, give lambda observations, tasks: "
    "2 * (model.predict(observations)[0] - low) / (high - low) - 1, by the bounds of actions."
)
"""What to do with a policy of another library, which acts in the units of its environment."""
GIVE = "Give lambda observations, tasks: ..., with actions from -1 to 1."


class Policy(Protocol):
    """A policy with names of its tasks, such as `dendrite_zoo.models.ActiveDendritePolicy`."""

    tasks: Sequence[str]
    act_batch: Act


def act_and_owner(policy: Any, name: str = "policy") -> tuple[Any, Any]:
    """What acts, and whose ``act_batch`` it is, which may be given itself; None of any other function."""
    act = getattr(policy, "act_batch", policy)
    if act is not policy:
        return act, policy
    if isinstance(act, nn.Module) and (takes(act, 1) or takes(act, 2)):
        return _act_of_network(act), None
    if callable(act) and not takes(act, 2):
        remedy = "Give one such as lambda observations, tasks: controller(observations)."
        expected = "one with act_batch, or a function of observations and task indices"
        raise wrong_argument(name, expected, act, remedy)
    owner: Any = getattr(act, "__self__", None)
    called = getattr(act, "__name__", None)
    if called == "act" and hasattr(owner, "act_batch"):  # which takes one observation
        return owner.act_batch, owner
    return act, owner if called == "act_batch" else None


def _act_of_network(network: nn.Module) -> Act:
    """How a network of somebody's own acts, on tensors as its weights are: of observations, and of tasks if it asks.

    What it need not be given is only taken for tasks if it is called so.
    """
    second = [*inspect.signature(network.forward).parameters][1:2]
    with_tasks = not takes(network, 1) or any("task" in name for name in second)

    def act(observations: NDArray[Any], index: NDArray[np.int64]) -> ArrayLike:
        like = next(network.parameters(), torch.zeros(()))
        given = [torch.as_tensor(np.asarray(observations)).to(like)]
        if with_tasks:
            given.append(torch.as_tensor(np.asarray(index), device=like.device))
        with in_eval_mode(network), torch.no_grad():  # dropout and norms act as they do at play
            return network(*given)

    act.__name__ = act.__qualname__ = type(network).__name__
    return act


def name_of(act: Any) -> str:
    """What somebody's function or policy is called."""
    act = inspect.unwrap(act)
    return str(getattr(act, "__qualname__", type(act).__qualname__))


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


def acting(
    policy: Act | Policy | Mapping[str, Any], tasks: Tasks | None, name: str = "policy"
) -> tuple[Act, tuple[TaskSpec, ...]]:
    """A function of the index in ``tasks``, in whatever order the policy has them.

    So it is of a policy's bound ``act_batch``, too, if the policy knows these tasks; of any other function the index is
    the position in ``tasks``. Messages call it by the ``name`` of the argument.
    """
    if isinstance(policy, Mapping):
        specs = task_specs(tasks or tuple(policy))
        return _acting_each(policy, specs, name), specs
    act, owner = act_and_owner(policy, name)
    known: Any = getattr(owner, "tasks", None)
    if (known is None and tasks is None) or not callable(act):
        raise ValueError(_what_to_give(policy, tasks, name))
    specs = task_specs(known if tasks is None else tasks)
    names = [spec.name for spec in specs]
    unknown = [] if known is None else [name for name in names if name not in known]
    if known is None or (unknown and act is policy):
        return act, specs
    check_policy(owner, specs)
    if unknown:
        got = f"{', '.join(unknown)}. Load it with tasks=[...] for more, and train these."
        raise ValueError(f"Expected `tasks` to be some of the policy's, {', '.join(known)}, but got {got}")
    own = np.array(places_of(names, known))
    of_specs = functools.wraps(act, updated=())(lambda observation, index: act(observation, own[index]))
    return as_learned(of_specs, owner, specs), specs


def _what_to_give(policy: Any, tasks: Tasks | None, name: str) -> str:
    remedy = PREDICT if hasattr(policy, "predict") else GIVE
    got = f"a {type(policy).__name__}{' and no tasks' * (tasks is None)}. {remedy}"
    return f"Expected `{name}` to be a policy with `tasks`, or a function with tasks=..., but got {got}"


def _acting_each(policies: Mapping[str, Any], specs: Sequence[TaskSpec], name: str) -> Act:
    """A function of all tasks of policies that each have one, by its name."""
    if missing := [spec.name for spec in specs if spec.name not in policies]:
        raise wrong_argument(name, f"a policy of {', '.join(missing)}", list(policies), "Give one for each task.")
    each = [acting(policies[spec.name], [spec], name)[0] for spec in specs]

    def act_each(observations: NDArray[Any], index: NDArray[np.int64]) -> ArrayLike:
        seen, places = np.asarray(observations), np.asarray(index)
        actions = np.zeros((len(seen), specs[0].action_size))
        for place in np.unique(places).tolist():
            rows = np.flatnonzero(places == place)
            chosen = each[place](seen[rows], np.zeros(len(rows), np.int64))
            actions[rows] = checked_actions(chosen, (len(rows), actions.shape[1]))
        return actions

    act_each.__qualname__ = ", ".join(f"{spec.name}: {name_of(act)}" for spec, act in zip(specs, each, strict=True))
    return act_each
