"""What a state dict of a backbone with dendrites holds: what was learned, and no backbone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo.functional.ridge import UNSEEN


def add_hooks(model: Any) -> None:
    """Have a model leave its backbone out of state dicts, and load those without one."""
    model.register_state_dict_pre_hook(_merge)
    model.register_state_dict_post_hook(_leave_out)
    model.register_load_state_dict_pre_hook(_fill_in)
    model.register_load_state_dict_post_hook(_read_status)


def _merge(model: Any, prefix: str, keep_vars: bool) -> None:
    model.merge()


def _leave_out(model: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """What is trained stands among the columns; a backbone stays in where somebody trains it."""
    del state[f"{prefix}column"]
    if model.extractor is not None and not any(p.requires_grad for p in model.extractor.parameters()):
        for name in [name for name in state if name.startswith(f"{prefix}extractor.")]:
            del state[name]


def _fill_in(model: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The backbone stays as it is where the state has none; the column that learns is one of those that are loaded.

    A checkpoint of an earlier version has one mean of a task.
    """
    _check_backbone(model, state.get(f"{prefix}backbone_id"))
    head = f"{prefix}context.inner.head"
    if f"{head}.counts" in state:
        clusters = len(model.context.inner.head.counts) // model.max_tasks
        state.update(with_clusters(state, head, model.max_tasks, clusters))
    status, columns = state.get(f"{prefix}status"), state.get(f"{prefix}columns")
    if status is not None and columns is not None:
        learning = (status & LEARNS).nonzero().flatten().tolist()
        state[f"{prefix}column"] = columns[learning[0]] if learning else torch.zeros_like(columns[0])
    if model.extractor is not None:
        for name, tensor in model.extractor.state_dict(prefix=f"{prefix}extractor.").items():
            state.setdefault(name, tensor)


LEARNS, WITHOUT_GATES = 1, 2
"""Bits of the status of a task: whether it learns; whether its ridge head sees features without gates."""


def _check_backbone(model: Any, found: Tensor | None) -> None:
    if (
        isinstance(found, Tensor)
        and not model.backbone_id.is_meta
        and not torch.equal(found.cpu(), model.backbone_id.cpu())
    ):
        raise ValueError(
            "Expected a state of dendrites that were learned on the same backbone, but got one of another, whose "
            f"weights differ (sha256 {_hex(found)[:12]}..., not {_hex(model.backbone_id)[:12]}...). Load that one."
        )


def _hex(identity: Tensor) -> str:
    return bytes(identity.cpu().tolist()).hex()


def _read_status(model: Any, incompatible: Any) -> None:
    model.learning = next(iter((model.status & LEARNS).nonzero().flatten().tolist()), None)


def check_room(learned: int, wanted: int) -> None:
    """Refuse room for fewer tasks than were learned.

    Raises:
        ValueError: it is less.
    """
    check_integers(1, max_tasks=wanted)
    if wanted < learned:
        raise wrong_argument("max_tasks", f"at least {learned}, the tasks learned", wanted, "No task is ever dropped.")


def with_room(state: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with room for another number of tasks; those that were learned stay as they are.

    Args:
        state: of a model.
        new: of a new model that has the room.
    """
    grown = {}
    for name, tensor in state.items():
        kept = tuple(slice(min(sizes)) for sizes in zip(tensor.shape, new[name].shape, strict=True))
        grown[name] = new[name].to(tensor, copy=True)
        grown[name][kept] = tensor[kept]
    return grown


def with_clusters(
    state: Mapping[str, Tensor], head: str, tasks: int, clusters: int, known: int = 1
) -> dict[str, Tensor]:
    """A state in which a ridge context has so many means of each task, of one that had another number.

    Args:
        state: of a model.
        head: the name of its `RidgeHead`.
        tasks: how many there is room for.
        clusters: means of a task.
        known: how many there are.
    """
    grown = dict(state)
    for name, empty in (("weight", 0.0), ("sums", 0.0), ("counts", 0.0), ("bias", UNSEEN)):
        tensor = state.get(f"{head}.{name}")
        if clusters != known and tensor is not None and len(tensor) == tasks * known:
            own = tensor.new_full((tasks, clusters, *tensor.shape[1:]), empty)
            most = min(known, clusters)
            own[:, :most] = tensor.view(tasks, known, *tensor.shape[1:])[:, :most]
            grown[f"{head}.{name}"] = own.flatten(0, 1)
    return grown
