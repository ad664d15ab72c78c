"""Room for other tasks: what a state holds once a task, where contexts are one-hot."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_flags, wrong_argument
from dendrite_zoo._core.metaworld import METAWORLD
from dendrite_zoo._core.names import nearest
from dendrite_zoo.hub import HubModel
from dendrite_zoo.layers.sparse import uniform_
from dendrite_zoo.models.growth import widen, with_subnetworks
from dendrite_zoo.models.overlap import set_apart
from dendrite_zoo.models.unused import cleared, is_clear

logger = logging.getLogger(__name__)

OF_LAYERS = re.compile(r"(.*?)(?:output\.(weight|bias)|hidden\.([0-9]{1,4})\.bias)")
"""What additive segments add to."""


def move_columns(
    config: Mapping[str, Any], state: dict[str, Tensor], tasks: Sequence[str], starts: Mapping[str, str]
) -> dict[str, Any]:
    """Give a state the columns of other tasks: those that it has, copies of them, and new ones.

    Args:
        config: the arguments of the model, with its own ``tasks``.
        state: of the model, in which the tensors are replaced.
        tasks: those that it is to have.
        starts: by task, the one of the model that it starts from.

    Returns:
        The arguments, with the new tasks.
    """
    known, origins = len(config["tasks"]), _origins(config, tasks, starts)
    make_columns(config, state, known, origins)
    make_inputs(config, state, known, origins)
    begun = bool(starts) or None in origins
    return {**config, "tasks": list(tasks), "additive_segments": make_additive(config, state, known, origins, begun)}


def _origins(config: Mapping[str, Any], tasks: Sequence[str], starts: Mapping[str, str]) -> list[int | None]:
    """Of each task the number that it has in a model, or that of the task that it starts from; None for neither."""
    numbers = {task: number for number, task in enumerate(config["tasks"])}
    return [numbers.get(starts.get(task, task)) for task in tasks]


def move_subnetworks(
    cls: type[HubModel],
    config: Mapping[str, Any],
    state: dict[str, Tensor],
    tasks: Sequence[str],
    starts: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give a state the subnetworks of other tasks, as `move_columns` does: a copy has units of its own.

    Raises:
        ValueError: segments are masked, and with them the units that could take a copy.
    """
    if starts and config["segment_density"] != 1:
        got = f"{config['segment_density']}. Leave `init_from` out."
        expected = "Expected segment_density=1 with `init_from` where winners are chosen by the context"
        raise ValueError(f"{expected}, but got {got}")
    if missing := sorted({start for start in starts.values() if start not in tasks}):  # to be copied, and left out then
        config, state = move_subnetworks(cls, config, state, [*tasks, *missing], starts)
        return move_subnetworks(cls, config, state, tasks, {})
    was_clear, known, origins = is_clear(config, state), len(config["tasks"]), _origins(config, tasks, starts)
    places = [None if task in starts else origin for task, origin in zip(tasks, origins, strict=True)]
    wider = make_columns(config, state, known, places, overlap=0.0 if starts else None)
    make_inputs(config, state, known, origins)
    new = {number: starts.get(tasks[number]) for number, place in enumerate(places) if place is None}
    begin = {number: None if start is None else tasks.index(start) for number, start in new.items()}
    config = {**wider, "tasks": list(tasks)}
    if begin:
        state = with_subnetworks(cls, config, state, begin)
    return config, cleared(config, state) if was_clear else state


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
    """Give the first layers the inputs of other tasks' one-hot ids, where these stand behind the observation."""
    for name in [name for name in state if name.endswith("hidden.0.weight") and config["append_task"]]:
        weight, mask = state[name], name.removesuffix("weight") + "mask"
        drawn = weight.new_empty(len(weight), sum(place is None for place in places))
        uniform_(drawn, config["weight_density"] * weight.shape[1])
        if mask in state:  # each unit sees as many inputs as any other: all of the new ones
            state[mask] = put_columns(state[mask], torch.ones(drawn.shape, dtype=torch.bool), known, places)
        state[name] = put_columns(weight, drawn, known, places)


def make_additive(
    config: Mapping[str, Any], state: dict[str, Tensor], known: int, places: Sequence[int | None], is_new: bool
) -> bool:
    """Give a state the additive segments of other tasks, of which new ones are 0.

    Args:
        config: the arguments of the model.
        state: of the model, in which the tensors are replaced.
        known: how many tasks it has.
        places: for each task to be, the one whose additive segments it has; None for none.
        is_new: whether any of them is to be trained: then a model without additive segments gets them.

    Returns:
        Whether the model now has them.
    """
    if not config["additive_segments"] and is_new and any(name.endswith(".segments") for name in state):
        _begin(state, known)
    names = [name for name in state if ".additive." in f".{name}"]
    for name in names:
        drawn = state[name].new_zeros(*state[name].shape[:-1], sum(place is None for place in places))
        state[name] = put_columns(state[name], drawn, known, places)
    return bool(names)


def begin_additive(
    config: Mapping[str, Any], state: dict[str, Tensor], context_dim: int, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Give a model that has no additive segments some, 0 in all contexts, where it is to have them.

    Args:
        config: the arguments of the model.
        state: of the model, to which they are added.
        context_dim: the size of its contexts.
        changes: how the model is to differ, of which ``additive_segments`` is looked at.

    Returns:
        The arguments, of which ``additive_segments`` says whether it has them now.

    Raises:
        ValueError: a model that has them is to have none.
    """
    asked, has = changes.get("additive_segments", config["additive_segments"]), config["additive_segments"]
    check_flags(additive_segments=asked)
    if has and not asked:
        raise wrong_argument("additive_segments", "True for a model that has learned with them", asked, "Leave it out.")
    if asked and not has:
        _begin(state, context_dim)
    return {**config, "additive_segments": asked}


def _begin(state: dict[str, Tensor], context_dim: int) -> None:
    for name, tensor in list(state.items()):
        if match := OF_LAYERS.fullmatch(name):
            place = match[2] if match[3] is None else f"units.{match[3]}"
            state[f"{match[1]}additive.{place}"] = tensor.new_zeros(*tensor.shape, context_dim)


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
    if init_from is None:
        return {}
    by_task = isinstance(init_from, Mapping)
    starts = dict(init_from) if by_task else {task: init_from for task in tasks if task not in known}
    usable = [task for task in known if task not in starts]
    for start in starts.values() if by_task else [init_from]:
        if start not in usable:
            remedy = nearest(str(start), usable).strip()
            if start == "nearest":
                remedy = "Data choose it: BehaviorCloning(policy, learn='new', init_from='nearest'), or MultiTaskSAC."
            raise wrong_argument("init_from", f"one of the tasks of the model, {', '.join(usable)}", start, remedy)
    if not starts:
        remedy = "Name new tasks in tasks=[...], or leave `init_from` out."
        raise wrong_argument("init_from", "given with new tasks, which start from it", init_from, remedy)
    if strange := sorted(set(starts) - set(tasks)):
        remedy = "Name it in tasks=[...], too."
        raise wrong_argument("init_from", f"for tasks that the model is to have, {', '.join(tasks)}", strange, remedy)
    return starts


def say_what_is_new(tasks: Sequence[str], known: Sequence[str], starts: Mapping[str, str]) -> None:
    """A misspelt name would be a new task, and the task that is meant would be left out, without a word."""
    left_out, unknown = [task for task in known if task not in tasks], [task for task in tasks if task not in known]
    if unknown:
        _say_what_may_be_meant(unknown, left_out, known)
    new = [task for task in tasks if task in starts or task not in known]
    how = {task: f"a copy of {starts[task]}" if task in starts else "drawn" for task in new}
    if new:
        said = (f"{task} ({how[task]}{', in place of what it was' * (task in known)})" for task in new)
        logger.warning("New to the model, and to be trained: %s.", ", ".join(said))


def _say_what_may_be_meant(unknown: Sequence[str], left_out: Sequence[str], known: Sequence[str]) -> None:
    """Beside new tasks others may not be meant to be left out, and a robot's may be meant to be one of Meta-World's."""
    theirs = METAWORLD if set(known) <= set(METAWORLD) else ()
    for task in [task for task in unknown if task not in theirs]:
        if meant := nearest(task, left_out, cutoff=0.8):
            logger.warning("%r is new to the model, and tasks that it knows are left out.%s", task, meant)
        elif meant := nearest(task, theirs, cutoff=0.8):
            logger.warning("%r is none of Meta-World's tasks, as those of the model are.%s", task, meant)
    if left_out:
        names = ", ".join(left_out)
        logger.warning("Left out, and no longer in the model: %s. Name them in tasks=[...] to keep them.", names)
