"""Room for other tasks: what a state holds once a task, where contexts are one-hot."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.names import nearest
from dendrite_zoo.layers.sparse import uniform_
from dendrite_zoo.models.growth import widen
from dendrite_zoo.models.overlap import set_apart

logger = logging.getLogger(__name__)


def make_columns(
    config: Mapping[str, Any],
    state: dict[str, Tensor],
    known: int,
    places: Sequence[int | None],
    *,
    overlap: float | None = None,
) -> dict[str, Any]:
    """Give the segments ``(U, S, C)`` of a state, and their masks, a column for each of other tasks.

    New columns are drawn as the old ones were; with an ``overlap`` they choose among the units that are left, and where
    too few are left, hidden layers become wider (`widen`).

    Args:
        config: the arguments of the model.
        state: of the model, in which the tensors are replaced.
        known: how many columns there are, ``C``.
        places: for each column to be, the old one that it is a copy of; None to draw it.
        overlap: of new tasks; None for that of the arguments.

    Returns:
        The arguments, of as many units as the layers now have.
    """
    overlap, new = config["overlap"] if overlap is None else overlap, [t for t, old in enumerate(places) if old is None]
    if overlap is not None and config["segment_density"] != 1:
        got = f"{config['segment_density']}. Leave `init_from` out."
        raise ValueError(
            f"Expected segment_density=1 with `init_from` where winners are chosen by the context, but got {got}"
        )
    if overlap is not None and new:
        config = widen(config, state, [place for place in places if place is not None], len(new), overlap)
    density = config["segment_density"]
    fan_in = density * (config["context_density"] or 1.0) * known
    for name in [name for name in state if name.endswith(".segments")]:
        segments, mask = state[name], name.removesuffix("segments") + "segment_mask"
        drawn = segments.new_empty(*segments.shape[:-1], len(new))
        uniform_(drawn, fan_in)
        if mask in state:
            seen = torch.rand(drawn.shape) < density
            drawn.masked_fill_(~seen, 0.0)
            state[mask] = put_columns(state[mask], seen, known, places)
        state[name] = put_columns(segments, drawn, known, places)
        if overlap is not None:
            state[name] = set_apart(state[name].cpu(), overlap, config["activation_density"], config["gate"], new)
    return dict(config)


def make_inputs(config: Mapping[str, Any], state: dict[str, Tensor], known: int, places: Sequence[int | None]) -> None:
    """Give the first layers the inputs of other tasks' one-hot ids, which stand behind the observation."""
    for name in [name for name in state if name.endswith("hidden.0.weight")]:
        weight, mask = state[name], name.removesuffix("weight") + "mask"
        drawn = weight.new_empty(len(weight), sum(place is None for place in places))
        uniform_(drawn, config["weight_density"] * weight.shape[1])
        if mask in state:  # each unit sees as many inputs as any other: all of the new ones
            state[mask] = put_columns(state[mask], torch.ones(drawn.shape, dtype=torch.bool), known, places)
        state[name] = put_columns(weight, drawn, known, places)


def put_columns(old: Tensor, drawn: Tensor, known: int, places: Sequence[int | None]) -> Tensor:
    """The last ``known`` columns of a tensor, and drawn ones, in a new order; what stands before them stays.

    Example:
        >>> put_columns(torch.tensor([9, 1, 2]), torch.tensor([5]), known=2, places=[1, None, 0])
        tensor([9, 2, 5, 1])
    """
    first = old.shape[-1] - known
    new = iter(range(old.shape[-1], old.shape[-1] + drawn.shape[-1]))
    index = [*range(first), *(next(new) if place is None else first + place for place in places)]
    return torch.cat([old, drawn], dim=-1)[..., index].contiguous()


def starts_of(init_from: Any, known: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """By task, the known task that it starts from.

    Args:
        init_from: one for all new tasks, or by task; or None.
        known: the tasks of a model.
        tasks: those that it is to have.

    Raises:
        ValueError: a task to start from is not known, or starts from another itself; or no new task would start.

    Example:
        >>> starts_of("push", known=["push", "reach"], tasks=["reach", "lift"])
        {'lift': 'push'}
        >>> starts_of({"reach": "push"}, known=["push", "reach"], tasks=["reach"])
        {'reach': 'push'}
    """
    starts = dict(init_from) if isinstance(init_from, Mapping) else {t: init_from for t in tasks if t not in known}
    if init_from is None:
        return {}
    for start in starts.values() if isinstance(init_from, Mapping) else [init_from]:
        if start not in known or start in starts:
            usable = [task for task in known if task not in starts]
            expected = f"one of the tasks of the model, {', '.join(usable)}"
            remedy = nearest(str(start), usable).strip()
            if start == "nearest":
                remedy = "Data choose it: BehaviorCloning(policy, learn='new', init_from='nearest'), or MultiTaskSAC."
            raise wrong_argument("init_from", expected, start, remedy)
    if not starts:
        remedy = "Name new tasks in tasks=[...], or leave `init_from` out."
        raise wrong_argument("init_from", "given with new tasks, which start from it", init_from, remedy)
    if strange := [task for task in starts if task not in tasks]:
        remedy = "Name it in tasks=[...], too."
        raise wrong_argument("init_from", f"for tasks that the model is to have, {', '.join(tasks)}", strange, remedy)
    return starts


def say_what_is_left_out(tasks: Sequence[str], known: Sequence[str]) -> None:
    """A misspelt name would be a new task, and the task that is meant would be left out, without a word."""
    left_out = [task for task in known if task not in tasks]
    for task in (task for task in tasks if task not in known):
        if meant := nearest(task, left_out, cutoff=0.8):
            logger.warning("%r is new to the model, and tasks that it knows are left out.%s", task, meant)
