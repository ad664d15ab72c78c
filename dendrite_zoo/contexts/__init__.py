"""Where a context comes from: a task id, the mean input of a task, or clusters of batches that nobody announced."""

from dendrite_zoo.contexts.base import TaskContext
from dendrite_zoo.contexts.clustering import ClusterContext, FoundContext
from dendrite_zoo.contexts.hotelling import HotellingContext
from dendrite_zoo.contexts.one_hot import OneHotContext
from dendrite_zoo.contexts.prototype import PrototypeContext, nearest_prototype

__all__ = [
    "ClusterContext",
    "FoundContext",
    "HotellingContext",
    "OneHotContext",
    "PrototypeContext",
    "TaskContext",
    "nearest_prototype",
]
