"""What a torchmetrics object was updated with in a while, told apart from what it held before.

Corners of torchmetrics that have private names only; without them the states of a metric count as inseparable.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_sum


class States(NamedTuple):
    """What a metric held at some time.

    Attributes:
        updates: how often it was updated since its last reset.
        values: state -> copy of its tensor, or of its list; empty where there was no update.
    """

    updates: int
    values: Mapping[str, Any]


FRESH = States(0, {})


def submetrics(module: nn.Module) -> list[Metric]:
    """A metric and those within it, or all metrics of a module."""
    return [metric for metric in module.modules() if isinstance(metric, Metric)]


def states_of(metric: Metric) -> States:
    """What a metric holds; a list is copied without the tensors in it, which no update changes."""
    if not metric.update_count:
        return FRESH
    values = metric.metric_state.items()
    copies = {name: x.detach().clone() if isinstance(x, Tensor) else list(x) for name, x in values}
    return States(metric.update_count, copies)


def holds(metric: Metric, states: States) -> bool:
    """Whether a metric holds the values that it held at some time.

    Example:
        >>> from torchmetrics import SumMetric
        >>> metric = SumMetric()
        >>> metric.update(2.0)
        >>> before = states_of(metric)
        >>> metric.update(0.0)
        >>> holds(metric, before), metric.update_count == before.updates
        (True, False)
    """
    return all(_same(value, metric.metric_state[name]) for name, value in states.values.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    return len(one) == len(other) and all(x is y or _same(x, y) for x, y in zip(one, other, strict=True))


def was_computed(metric: Metric) -> bool:
    """Whether a metric was computed since its last update; not known, and so False, of one that caches no value."""
    return getattr(metric, "_computed", None) is not None


def only_between(metric: Metric, before: Mapping[int, States], after: Mapping[int, States]) -> Metric | None:
    """A copy of a metric that was updated with nothing but what stands between two of its states.

    States that are sums, as counts are, are subtracted; of those that are lists, such as scores, the later part is
    taken. Others, as a maximum, cannot be told apart.

    Args:
        metric: which may contain others.
        before: the states of it and of those within it at first, by ``id``; what is missing was fresh.
        after: the same at last.

    Returns:
        The copy, or None where the states cannot be told apart.

    Example:
        >>> from torchmetrics import MeanMetric
        >>> metric = MeanMetric()
        >>> metric.update(1.0)
        >>> before = {id(metric): states_of(metric)}
        >>> metric.update(3.0)
        >>> only_between(metric, before, {id(metric): states_of(metric)}).compute(), metric.compute()
        (tensor(3.), tensor(2.))
    """
    own = copy.deepcopy(metric)
    for part, original in zip(submetrics(own), submetrics(metric), strict=True):
        first, last = before.get(id(original), FRESH), after.get(id(original), FRESH)
        part.reset()
        for name, value in last.values.items():
            default = getattr(part, name)
            separated = _between(part, name, first.values.get(name, default), value)
            if separated is None:
                return None
            setattr(part, name, separated)
        part._update_count = last.updates - first.updates  # without which `compute` warns that there was no update
    return own


def _between(metric: Metric, name: str, before: Any, after: Any) -> Any:
    default = getattr(metric, name)
    if isinstance(after, list):
        return after[len(before) :] if len(before) <= len(after) else None
    if getattr(metric, "_reductions", {}).get(name) is dim_zero_sum:
        return after - before + default
    return after if _same(before, default) else None
