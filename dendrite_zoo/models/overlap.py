"""How much the subnetworks of one-hot contexts overlap: columns of segments, put where units are free."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dendrite_zoo.functional import Gate
from dendrite_zoo.row_sparse.subnetworks import active_units, num_active

__all__ = ["set_apart", "units_needed"]


def units_needed(active: int, tasks: int, overlap: float) -> int:
    """How many units a layer needs for subnetworks of so many tasks.

    Example:
        >>> units_needed(96, tasks=10, overlap=0.0), units_needed(96, tasks=10, overlap=0.5)
        (960, 528)
    """
    return active + (tasks - 1) * (active - round(overlap * active))


@torch.no_grad()
def set_apart(
    segments: Tensor, overlap: float, density: float, gate: Gate = "abs_max", tasks: Iterable[int] | None = None
) -> Tensor:
    """Let the subnetwork of each one-hot context share no more than a part of its units with those before it.

    A task's subnetwork is the units that respond most to its context. Here its column of segments is permuted over the
    units, so that its largest responses are those of the wanted number of units that are in use already, and of units
    that are free: of both, those that responded most. The numbers stay what they are; nothing else is changed, and
    whoever computes the winners need not know of it.

    Args:
        segments: as they were drawn.
        overlap: the share of a task's units that tasks before it use, too; of the first tasks less, where fewer are in
            use.
        density: share of the units that are active.
        gate: the rule by which a segment wins.
        tasks: whose columns are permuted, one after another; all others come before. By default all.

    Shape:
        segments and result ``(U, S, C)``.

    Raises:
        ValueError: there are too few free units.

    Example:
        >>> drawn = torch.tensor([[[4.0, 8.0]], [[3.0, 7.0]], [[2.0, 6.0]], [[1.0, 5.0]]])
        >>> [active_units(drawn, torch.tensor(task), 0.5).units.tolist() for task in (0, 1)]
        [[0, 1], [0, 1]]
        >>> apart = set_apart(drawn, overlap=0.0, density=0.5)
        >>> [active_units(apart, torch.tensor(task), 0.5).units.tolist() for task in (0, 1)]
        [[0, 1], [2, 3]]
    """
    segments, count = segments.clone(), num_active(density, len(segments))
    columns = range(segments.shape[-1]) if tasks is None else list(tasks)
    used = torch.zeros(len(segments), dtype=torch.bool)
    for task in set(range(segments.shape[-1])) - set(columns):
        used[active_units(segments, torch.tensor(task), density, gate).units] = True
    for task in columns:
        response = active_units(segments, torch.tensor(task), 1.0, gate).strength
        assert response is not None
        ranked = response.argsort(descending=True, stable=True)
        shared = min(round(overlap * count), int(used.sum()))
        wanted = torch.cat([ranked[used[ranked]][:shared], ranked[~used[ranked]][: count - shared]])
        if len(wanted) < count:
            raise ValueError(
                f"Expected {count - shared} units of a layer to be free for a new task, but got {len(wanted) - shared} "
                f"of {len(segments)}. Raise `overlap`, or give overlap=None."
            )
        winners = ranked[:count]
        given_up, taken = winners[~torch.isin(winners, wanted)], wanted[~torch.isin(wanted, winners)]
        column = segments[..., task].clone()
        segments[given_up, :, task], segments[taken, :, task] = column[taken], column[given_up]
        used[wanted] = True
    return segments
